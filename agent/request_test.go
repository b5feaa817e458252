package agent_test

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/simulator/compass"
)

// annotate gives the CompassConnection an annotation.
func annotate(s *agenttest.Stage, key, value string) {
	s.T.Helper()
	c := s.Connection(s.T.Context())
	asked := c.DeepCopy()
	asked.Annotations = map[string]string{key: value}
	if err := s.Client.Patch(s.T.Context(), asked, client.MergeFrom(c)); err != nil {
		s.T.Fatal(err)
	}
}

func TestAnAnnotationAsksForASyncThatComesAtOnceAndOnce(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Env["APP_MINIMAL_COMPASS_SYNC_TIME"] = "1h" // an attempt by itself would come after the test
	running := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	s.Compass.Admin().ResetCounters()
	if _, err := s.Compass.Admin().PutApplication(agenttest.Tenant, compass.Application{Name: "Billing", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Truncate(time.Second)
	annotate(s, compassv1alpha1.ResyncAnnotation, "first")
	answered := func(value string, handled bool) func(*compassv1alpha1.CompassConnection) bool {
		return func(c *compassv1alpha1.CompassConnection) bool {
			answer := c.Status.ResyncRequest
			return answer != nil && answer.Requested == value && (answer.HandledAt != nil) == handled
		}
	}
	c := s.Until("the answer", answered("first", true))
	if at := c.Status.ResyncRequest.HandledAt.Time; at.Before(began) || at.After(time.Now()) {
		t.Errorf("handled at %s, asked for at %s", at, began)
	}
	if got := s.Applications(); len(got) != 2 {
		t.Errorf("Applications %v", got)
	}

	// One that fails is tried once, too, and is not answered before a sync ends well.
	clear := s.Fault(compass.Fault{Kind: compass.FaultStatus, Status: 503, Operation: "applicationsForRuntime"})
	annotate(s, compassv1alpha1.ResyncAnnotation, "second")
	c = s.Until("the answer that it was tried", answered("second", false))
	if c.Status.State != compassv1alpha1.SynchronizationFailed {
		t.Errorf("state %s", c.Status.State)
	}
	// Neither another look at the connection nor a restart repeats what was done for it.
	s.Configure()
	running.Stop()
	s.Start()
	if err := s.Client.Delete(t.Context(), s.Secret(s.Authorities)); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the CA Secret to be back", func() bool { return s.Secret(s.Authorities) != nil })
	if got := s.Calls("applicationsForRuntime"); got != 2 {
		t.Errorf("%d queries for two requests", got)
	}
	if wait := time.Until(c.Status.NextAttempt.Time); wait < 30*time.Minute {
		t.Errorf("the next attempt is due in %s, sooner than the floor", wait)
	}
	clear()
	annotate(s, compassv1alpha1.ResyncAnnotation, "third")
	s.Until("the answer", answered("third", true))
}
