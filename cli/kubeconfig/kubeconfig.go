// Package kubeconfig finds the cluster that a command is for, as kubectl does, but for one thing: a kubeconfig that names no
// cluster is refused, where kubectl would try localhost. It knows nothing of what the cluster is asked.
package kubeconfig

import (
	"errors"
	"fmt"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
)

// Config gives the cluster that flags name. The error says what to do about it.
func Config(flags *genericclioptions.ConfigFlags) (*rest.Config, error) {
	err := named(flags)
	var config *rest.Config
	if err == nil {
		config, err = flags.ToRESTConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig cannot be used: %w; name a file by --kubeconfig or KUBECONFIG, and a context in it by --context", err)
	}
	return config, nil
}

// named makes sure that a cluster is named at all. Else localhost:8080 would be tried, and nobody would know why.
func named(flags *genericclioptions.ConfigFlags) error {
	kubeconfig, err := flags.ToRawKubeConfigLoader().RawConfig()
	if err != nil || len(kubeconfig.Clusters) > 0 || *flags.APIServer != "" {
		return err
	}
	if _, err := rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
		return errors.New("it names no cluster")
	}
	return nil
}
