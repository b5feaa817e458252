package agent_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

func TestAnAgentThatEndsLeavesNothingBehind(t *testing.T) {
	s := newStage(t)
	s.configure()
	first := s.start() // what the process makes once and keeps
	s.inState(compassv1alpha1.Synchronized)
	first.stop()
	before := goleak.IgnoreCurrent()
	r := s.start()
	s.eventually("the agent to be ready", func() bool {
		code, _ := s.fetch(r.health + "/readyz")
		return code == 200
	})
	r.stop()
	// controller-runtime filters the watches of its caches by apimachinery's watch.Filter, which stays behind for ever if an
	// event comes while the watch stops. The process ends then.
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop"),
		// client-go keeps its connections to the API server for the whole process, and opens another one when it likes.
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"))
}

func TestMetricsTellWhatTheStatusTells(t *testing.T) {
	s := newStage(t)
	s.configure()
	r := s.start()
	s.inState(compassv1alpha1.Synchronized)
	var body string
	s.eventually("the metrics, which follow the status", func() bool {
		_, body = s.fetch(r.metrics + "/metrics")
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
	for _, secret := range s.secrets {
		if strings.Contains(body, secret) {
			t.Error("a secret is in the metrics")
		}
	}
}
