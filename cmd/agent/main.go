// Command agent connects the cluster to Compass. It is configured by environment variables: docs/reference/agent.md.
package main

import (
	"os"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/application-connector/application-connector/agent"
)

func main() { os.Exit(agent.Main(ctrl.SetupSignalHandler(), os.Args[1:], os.Getenv, os.Stderr)) }
