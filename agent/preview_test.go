package agent_test

import (
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/agent"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

func (s *stage) preview() (string, error) {
	s.t.Helper()
	o, err := agent.FromEnvironment(func(name string) string { return s.env[name] })
	if err != nil {
		s.t.Fatal(err)
	}
	o.Kubernetes = rest.CopyConfig(&cluster)
	plan, err := agent.Preview(s.t.Context(), o)
	return plan.String(), err
}

func TestAPreviewSaysWhatTheNextSyncDoesAndWritesNothing(t *testing.T) {
	s := newStage(t)
	if _, err := s.preview(); err == nil || !strings.Contains(err.Error(), s.configuration.String()+" is missing") {
		t.Errorf("without a configuration: %v", err)
	}
	s.configure()
	if _, err := s.preview(); err == nil || !strings.Contains(err.Error(), s.credential.String()+" is missing: the cluster is not paired") {
		t.Errorf("without a certificate: %v", err)
	}
	running := s.start()
	s.inState(compassv1alpha1.Synchronized)
	running.stop()
	if text, err := s.preview(); err != nil || text != "" {
		t.Errorf("in place: %q, %v", text, err)
	}

	if _, err := s.compass.Admin().PutApplication(tenant, compass.Application{Name: "Billing", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	s.compass.Admin().ResetCounters()
	text, err := s.preview()
	if err != nil || text != "create application mp-billing\n" {
		t.Errorf("one more system: %q, %v", text, err)
	}
	if names := s.applications(); len(names) != 1 {
		t.Errorf("Applications %v", names)
	}
	if s.calls("configuration") != 0 || s.calls("setRuntimeLabel") != 0 {
		t.Error("more was asked than for the snapshot")
	}
	clear := s.fault(compass.Fault{Kind: compass.FaultDirectorDown})
	defer clear()
	if _, err := s.preview(); err == nil || !strings.Contains(err.Error(), "Director gave no snapshot") {
		t.Errorf("Director is down: %v", err)
	}
}
