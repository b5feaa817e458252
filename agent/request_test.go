package agent_test

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

// annotate gives the CompassConnection an annotation.
func (s *stage) annotate(key, value string) {
	s.t.Helper()
	c := s.connection(s.t.Context())
	asked := c.DeepCopy()
	asked.Annotations = map[string]string{key: value}
	if err := s.client.Patch(s.t.Context(), asked, client.MergeFrom(c)); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnAnnotationAsksForASyncThatComesAtOnceAndOnce(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.env["APP_MINIMAL_COMPASS_SYNC_TIME"] = "1h" // an attempt by itself would come after the test
	running := s.start()
	s.inState(compassv1alpha1.Synchronized)
	s.compass.Admin().ResetCounters()
	if _, err := s.compass.Admin().PutApplication(tenant, compass.Application{Name: "Billing", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Truncate(time.Second)
	s.annotate(compassv1alpha1.ResyncAnnotation, "first")
	answered := func(value string, handled bool) func(*compassv1alpha1.CompassConnection) bool {
		return func(c *compassv1alpha1.CompassConnection) bool {
			answer := c.Status.ResyncRequest
			return answer != nil && answer.Requested == value && (answer.HandledAt != nil) == handled
		}
	}
	c := s.until("the answer", answered("first", true))
	if at := c.Status.ResyncRequest.HandledAt.Time; at.Before(began) || at.After(time.Now()) {
		t.Errorf("handled at %s, asked for at %s", at, began)
	}
	if got := s.applications(); len(got) != 2 {
		t.Errorf("Applications %v", got)
	}

	// One that fails is tried once, too, and is not answered before a sync ends well.
	clear := s.fault(compass.Fault{Kind: compass.FaultStatus, Status: 503, Operation: "applicationsForRuntime"})
	s.annotate(compassv1alpha1.ResyncAnnotation, "second")
	c = s.until("the answer that it was tried", answered("second", false))
	if c.Status.State != compassv1alpha1.SynchronizationFailed {
		t.Errorf("state %s", c.Status.State)
	}
	// Neither another look at the connection nor a restart repeats what was done for it.
	s.configure()
	running.stop()
	s.start()
	if err := s.client.Delete(t.Context(), s.secret(s.authorities)); err != nil {
		t.Fatal(err)
	}
	s.eventually("the CA Secret to be back", func() bool { return s.secret(s.authorities) != nil })
	if got := s.calls("applicationsForRuntime"); got != 2 {
		t.Errorf("%d queries for two requests", got)
	}
	if wait := time.Until(c.Status.NextAttempt.Time); wait < 30*time.Minute {
		t.Errorf("the next attempt is due in %s, sooner than the floor", wait)
	}
	clear()
	s.annotate(compassv1alpha1.ResyncAnnotation, "third")
	s.until("the answer", answered("third", true))
}
