// Command agent connects the cluster to Compass. It is configured by environment variables: docs/reference/agent.md.
package main

import (
	"flag"
	"fmt"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/application-connector/application-connector/agent"
)

func main() {
	flag.Parse() // --kubeconfig
	if err := agent.Main(ctrl.SetupSignalHandler(), os.Getenv, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}
