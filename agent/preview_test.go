package agent_test

import (
	"fmt"
	"slices"
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

func TestAPreviewKnowsWhatTheAgentRemembers(t *testing.T) {
	s := newStage(t)
	for name, value := range map[string]string{"COUNT": "1", "SHARE": "0.1", "CONFIRMATIONS": "4", "SPAN": "1ms"} {
		s.env["APP_PRUNE_GUARD_"+name] = value
	}
	var systems []compass.Application
	for _, name := range []string{"One", "Two", "Three"} {
		systems = append(systems, compass.Application{Name: name, Formations: []string{"default"}})
	}
	ids, err := s.compass.Admin().PutApplications(tenant, systems...)
	if err != nil {
		t.Fatal(err)
	}
	s.configure()
	running := s.start()
	s.inState(compassv1alpha1.Synchronized)
	for _, id := range ids {
		if err := s.compass.Admin().DeleteApplication(id); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(answers int32) {
		t.Helper()
		c := s.resync()
		if got := c.Status.MissingApplications; len(got) != 1 || got[0].Answers != answers || !slices.Equal(got[0].Names, []string{"mp-one", "mp-three", "mp-two"}) {
			t.Fatalf("missing Applications %+v", got)
		}
		text, err := s.preview()
		switch {
		case err != nil:
			t.Fatal(err)
		case answers < 3:
			if want := fmt.Sprintf("(%d so far)", answers+1); !strings.HasPrefix(text, "keep 3 applications: ") || !strings.Contains(text, want) {
				t.Errorf("after %d answers: %q", answers, text)
			}
		default:
			if want := "delete application mp-one (Compass does not name it any more)\n"; !strings.HasPrefix(text, want) || strings.Contains(text, "keep") {
				t.Errorf("after %d answers: %q", answers, text)
			}
		}
	}
	kept(1)
	kept(2)
	running.stop() // what the agent remembers outlives it
	s.start()
	kept(3)
	c := s.resync()
	if got := s.applications(); len(got) != 1 || c.Status.MissingApplications != nil || c.Status.Applications.PendingDeletion != 0 {
		t.Errorf("Applications %v, status %+v", got, c.Status)
	}
}

func TestAPreviewSaysThatTheAnswerWasNotWhole(t *testing.T) {
	s := newStage(t)
	s.configure()
	running := s.start()
	s.inState(compassv1alpha1.Synchronized)
	running.stop()
	clear := s.fault(compass.Fault{Kind: compass.FaultWrongCount, Field: "applicationsForRuntime", By: 1})
	text, err := s.preview()
	if err != nil || !strings.HasPrefix(text, "incomplete: ") || !strings.Contains(text, "Director counts 2") {
		t.Errorf("plan %q, error %v", text, err)
	}
	clear()
	clear = s.fault(compass.Fault{Kind: compass.FaultShortPage, Field: "applicationsForRuntime", By: 1})
	defer clear()
	if text, err = s.preview(); err != nil || !strings.HasPrefix(text, "keep 1 applications: the answer of Compass was incomplete") {
		t.Errorf("plan %q, error %v", text, err)
	}
}
