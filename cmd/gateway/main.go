// Command gateway runs the outbound gateway; see package gateway.
package main

import (
	"os"

	"github.com/application-connector/application-connector/gateway"
)

func main() { os.Exit(gateway.Main(os.Args[1:], os.Stderr)) }
