package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/agent"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/simulator/compass"
)

func preview(s *agenttest.Stage) (string, error) {
	s.T.Helper()
	o, err := agent.FromEnvironment(func(name string) string { return s.Env[name] })
	if err != nil {
		s.T.Fatal(err)
	}
	o.Kubernetes = rest.CopyConfig(&agenttest.Cluster)
	plan, err := agent.Preview(s.T.Context(), o)
	return plan.String(), err
}

func TestAPreviewSaysWhatTheNextSyncDoesAndWritesNothing(t *testing.T) {
	s := agenttest.New(t)
	if _, err := preview(s); err == nil || !strings.Contains(err.Error(), s.Configuration.String()+" is missing") {
		t.Errorf("without a configuration: %v", err)
	}
	s.Configure()
	if _, err := preview(s); err == nil || !strings.Contains(err.Error(), s.Credential.String()+" is missing: the cluster is not paired") {
		t.Errorf("without a certificate: %v", err)
	}
	running := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	running.Stop()
	if text, err := preview(s); err != nil || text != "" {
		t.Errorf("in place: %q, %v", text, err)
	}

	if _, err := s.Compass.Admin().PutApplication(agenttest.Tenant, compass.Application{Name: "Billing", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	s.Compass.Admin().ResetCounters()
	text, err := preview(s)
	if err != nil || text != "create application mp-billing\n" {
		t.Errorf("one more system: %q, %v", text, err)
	}
	if names := s.Applications(); len(names) != 1 {
		t.Errorf("Applications %v", names)
	}
	if s.Calls("configuration") != 0 || s.Calls("setRuntimeLabel") != 0 {
		t.Error("more was asked than for the snapshot")
	}
	clear := s.Fault(compass.Fault{Kind: compass.FaultDirectorDown})
	defer clear()
	if _, err := preview(s); err == nil || !strings.Contains(err.Error(), "Director gave no snapshot") {
		t.Errorf("Director is down: %v", err)
	}
}

func TestAPreviewKnowsWhatTheAgentRemembers(t *testing.T) {
	s := agenttest.New(t)
	for name, value := range map[string]string{"COUNT": "1", "SHARE": "0.1", "CONFIRMATIONS": "4", "SPAN": "1ms"} {
		s.Env["APP_PRUNE_GUARD_"+name] = value
	}
	var systems []compass.Application
	for _, name := range []string{"One", "Two", "Three"} {
		systems = append(systems, compass.Application{Name: name, Formations: []string{"default"}})
	}
	ids, err := s.Compass.Admin().PutApplications(agenttest.Tenant, systems...)
	if err != nil {
		t.Fatal(err)
	}
	s.Configure()
	running := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	for _, id := range ids {
		if err := s.Compass.Admin().DeleteApplication(id); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(answers int32) {
		t.Helper()
		c := s.Resync()
		if got := c.Status.MissingApplications; len(got) != 1 || got[0].Answers != answers || !slices.Equal(got[0].Names, []string{"mp-one", "mp-three", "mp-two"}) {
			t.Fatalf("missing Applications %+v", got)
		}
		text, err := preview(s)
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
	running.Stop() // what the agent remembers outlives it
	s.Start()
	kept(3)
	since := s.Connection(t.Context()).Status.MissingApplications[0].Since
	s.Eventually("the span, from the next whole second on", func() bool { return time.Since(since.Time) > time.Millisecond })
	c := s.Resync()
	if got := s.Applications(); len(got) != 1 || c.Status.MissingApplications != nil || c.Status.Applications.PendingDeletion != 0 {
		t.Errorf("Applications %v, status %+v", got, c.Status)
	}
}

func TestAPreviewSaysThatTheAnswerWasNotWhole(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	running := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	running.Stop()
	clear := s.Fault(compass.Fault{Kind: compass.FaultWrongCount, Field: "applicationsForRuntime", By: 1})
	text, err := preview(s)
	if err != nil || !strings.HasPrefix(text, "incomplete: ") || !strings.Contains(text, "Director counts 2") {
		t.Errorf("plan %q, error %v", text, err)
	}
	clear()
	clear = s.Fault(compass.Fault{Kind: compass.FaultShortPage, Field: "applicationsForRuntime", By: 1})
	defer clear()
	if text, err = preview(s); err != nil || !strings.HasPrefix(text, "keep 1 applications: the answer of Compass was incomplete") {
		t.Errorf("plan %q, error %v", text, err)
	}
}
