// Command appconn is the command-line tool of Application Connector; as kubectl-appconn it is a plugin of kubectl.
package main

import (
	"os"

	"github.com/application-connector/application-connector/cli"
)

func main() {
	os.Exit(cli.Run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
