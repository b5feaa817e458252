// Command kubectl is the kubectl of the Kubernetes version that localkube serves, built from its module, so that a
// machine with nothing but Go on it can use the cluster.
package main

import (
	"os"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways of logging in that a kubeconfig may ask for
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	// Plugins and the user's preferences are looked up while the command is made, before it parses its flags: -v has to
	// hold by then. A value that is no number is refused again, and loudly, by the flag itself.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	util.CheckErr(cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()))
}
