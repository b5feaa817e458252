package agent_test

import (
	"context"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/e2e/leaktest"
)

// The API server of these tests does not know cert-manager.
func TestWithoutCertManagerTheAgentThatNeedsItEndsAndSaysWhatToInstall(t *testing.T) {
	o, err := agent.FromEnvironment(func(name string) string {
		return map[string]string{
			"APP_CERT_MANAGER": "true", "APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "off",
		}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	watch := leaktest.Of(t)
	watch.Add("the cluster's token", agenttest.Cluster.BearerToken)
	o.Kubernetes, o.LogTo = rest.CopyConfig(&agenttest.Cluster), watch.Log("agent")
	ctx, cancel := context.WithTimeout(t.Context(), agenttest.Patience)
	defer cancel()
	err = agent.Run(ctx, o)
	const want = "environment variable APP_CERT_MANAGER: the cluster has no Certificate of cert-manager.io/v1: install cert-manager 1.21 or later, or leave the variable out"
	if ctx.Err() != nil || err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
