package agent_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
)

func TestAnAgentThatEndsLeavesNothingBehind(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	first := s.Start() // what the process makes once and keeps
	s.InState(compassv1alpha1.Synchronized)
	first.Stop()
	before := goleak.IgnoreCurrent()
	r := s.Start()
	s.Eventually("the agent to be ready", func() bool {
		code, _ := s.Fetch(r.Health + "/readyz")
		return code == 200
	})
	r.Stop()
	// controller-runtime filters the watches of its caches by apimachinery's watch.Filter, which stays behind for ever if an
	// event comes while the watch stops. The process ends then.
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop"),
		// client-go keeps its connections to the API server for the whole process, and opens another one when it likes.
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"))
}

func TestMetricsTellWhatTheStatusTells(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	r := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	var body string
	s.Eventually("the metrics, which follow the status", func() bool {
		_, body = s.Fetch(r.Metrics + "/metrics")
		return strings.Contains(body, "compass_runtime_agent_applications{state=\"pending_deletion\"} 0\n")
	})
	for _, line := range []string{
		"compass_runtime_agent_connection_up 1\n",
		"compass_runtime_agent_applications{state=\"synced\"} 1\n",
		"compass_runtime_agent_applications{state=\"failed\"} 0\n",
		"compass_runtime_agent_compass_requests_total{code=\"OK\",operation=\"configuration\"} 1\n",
		"compass_runtime_agent_compass_requests_total{code=\"OK\",operation=\"snapshot\"} 1\n",
		"compass_runtime_agent_renewals_total{reason=\"pairing\",result=\"success\"} 1\n",
		"compass_runtime_agent_sync_duration_seconds_count 1\n",
		"controller_runtime_reconcile_total{",
	} {
		if !strings.Contains(body, line) {
			t.Errorf("metrics lack %q", line)
		}
	}
	for _, name := range []string{"not_before", "not_after", "renewal"} {
		if strings.Contains(body, "compass_runtime_agent_certificate_"+name+"_timestamp_seconds 0\n") {
			t.Errorf("the metric of %s is 0", name)
		}
	}
}
