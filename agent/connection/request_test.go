package connection_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
)

// ask annotates the CompassConnection.
func (w *world) ask(annotation, value string) {
	w.t.Helper()
	c := w.connection()
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[annotation] = value
	if err := w.client.Update(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

func TestARenewalThatAnAnnotationAsksForIsDoneOnceAndAnswered(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	for _, value := range []string{"1", "2"} {
		w.ask(compassv1alpha1.RenewAnnotation, value)
		c := w.step()
		w.calls("configuration", "sign", "trial", "snapshot", "label")
		now := w.clock.Now()
		if got := c.Status.RenewalRequest; got == nil || got.Requested != value || got.HandledAt == nil || !got.HandledAt.Time.Equal(now) {
			t.Errorf("answer %+v, want %s handled at %s", got, value, now)
		}
		w.step()
		w.calls()
		w.clock.Step(time.Second)
	}
	w.restart()
	w.next()
	w.calls("configuration", "viewer", "snapshot", "label")
}

func TestARenewalThatAnAnnotationAsksForAndThatFailsIsNoLoop(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	w.compass.fail("configuration", &graphql.Error{Kind: graphql.Server})
	w.ask(compassv1alpha1.RenewAnnotation, strings.Repeat("x", 100<<10))
	c := w.step()
	w.calls("configuration", "snapshot", "label")
	if got := c.Status.RenewalRequest; got == nil || got.Requested != strings.Repeat("x", compassv1alpha1.MaxRequest) || got.HandledAt != nil {
		t.Errorf("answer %+v", got)
	}
	w.step()
	w.calls()
	w.restart()
	w.compass.fail("configuration", nil)
	c = w.next()
	w.calls("configuration", "sign", "trial", "snapshot", "label")
	if got := c.Status.RenewalRequest; got.HandledAt == nil {
		t.Errorf("answer %+v", got)
	}
}

func TestASyncThatAnAnnotationAsksForIsDoneOnceAndAnswered(t *testing.T) {
	w := newWorld(t)
	w.step()
	w.compass.called()
	for _, value := range []string{"1", "2"} { // both before the next attempt is due, and within the floor
		w.ask(compassv1alpha1.ResyncAnnotation, value)
		c := w.step()
		w.calls("snapshot", "label")
		now := metav1.NewTime(w.clock.Now())
		if diff := cmp.Diff(&compassv1alpha1.ResyncRequest{Requested: value, HandledAt: &now}, c.Status.ResyncRequest); diff != "" {
			t.Error(diff)
		}
		w.step()
		w.calls()
		w.clock.Step(time.Second)
	}
	w.restart()
	w.step()
	w.calls()
	w.next()
	w.calls("configuration", "viewer", "snapshot", "label")
}

func TestASyncThatAnAnnotationAsksForAndThatFailsIsNoLoop(t *testing.T) {
	w := newWorld(t)
	w.step()
	w.compass.called()
	w.compass.fail("snapshot", &graphql.Error{Kind: graphql.Server})
	w.ask(compassv1alpha1.ResyncAnnotation, strings.Repeat("x", 100<<10))
	c := w.step()
	w.calls("snapshot")
	want := &compassv1alpha1.ResyncRequest{Requested: strings.Repeat("x", compassv1alpha1.MaxRequest)}
	if diff := cmp.Diff(want, c.Status.ResyncRequest); diff != "" {
		t.Error(diff)
	}
	if wait := c.Status.NextAttempt.Sub(w.clock.Now()); wait < 15*time.Second {
		t.Errorf("the next attempt is in %s", wait)
	}
	w.step()
	w.calls()
	w.restart()
	w.compass.fail("snapshot", nil)
	c = w.next()
	w.calls("configuration", "viewer", "snapshot", "label")
	now := metav1.NewTime(w.clock.Now())
	want.HandledAt = &now
	if diff := cmp.Diff(want, c.Status.ResyncRequest); diff != "" {
		t.Error(diff)
	}
}

func TestASyncThatIsAskedForWhileTheClusterIsNotPairedComesWithTheFirst(t *testing.T) {
	w := newWorld(t)
	w.configure("")
	w.step()
	w.ask(compassv1alpha1.ResyncAnnotation, "1")
	if c := w.step(); c.Status.ResyncRequest != nil {
		t.Errorf("answer %+v", c.Status.ResyncRequest)
	}
	w.calls()
	w.configure("t1")
	c := w.step()
	w.calls("configuration", "sign", "viewer", "snapshot", "label")
	now := metav1.NewTime(w.clock.Now())
	if diff := cmp.Diff(&compassv1alpha1.ResyncRequest{Requested: "1", HandledAt: &now}, c.Status.ResyncRequest); diff != "" {
		t.Error(diff)
	}
}

func TestASyncThatIsAskedForWhileOneRunsIsNotTakenForThatOne(t *testing.T) {
	for name, ask := range map[string]func(*compassv1alpha1.CompassConnection){
		"by the annotation": func(c *compassv1alpha1.CompassConnection) {
			c.Annotations = map[string]string{compassv1alpha1.ResyncAnnotation: "1"}
		},
		"by the spec": func(c *compassv1alpha1.CompassConnection) {
			c.Spec.ResyncNow = true
			c.Generation++
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.step()
			c := w.connection()
			c.Spec.ManagementInfo.DirectorURL = "https://former" // so that the agent writes the spec, too
			if err := w.client.Update(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			w.restart()
			w.step() // says when
			w.clock.SetTime(w.connection().Status.NextAttempt.Add(time.Second))
			w.compass.called()
			w.compass.after = func(operation string) {
				if operation == "configuration" {
					c := w.connection()
					ask(c)
					if err := w.client.Update(t.Context(), c); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := w.r.Reconcile(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			w.calls("configuration", "viewer", "snapshot", "label")
			if c := w.connection(); c.Spec.ManagementInfo.DirectorURL != "https://director" {
				t.Errorf("spec %+v", c.Spec)
			}
			w.compass.after = nil
			c = w.step()
			w.calls("snapshot", "label")
			if c.Spec.ResyncNow || c.Status.ObservedGeneration != c.Generation {
				t.Errorf("spec %+v, generation %d, observed %d", c.Spec, c.Generation, c.Status.ObservedGeneration)
			}
			w.step()
			w.calls()
		})
	}
}

func TestATokenOfAnotherRuntimeIsFoundOutBeforeAnythingIsSynced(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.owner["t1"] = "other"
	w.stalled(w.step(), `RUNTIME_ID in Secret ns/configuration is "runtime"`, `issued for "other"`)
	w.calls("configuration", "sign", "viewer")
	w.restart()
	w.clock.Step(time.Hour)
	w.stalled(w.step(), `issued for "other"`)
	w.calls()
	w.register("other", "tenant", "t1")
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "viewer", "snapshot", "label")
}

func TestATokenOfAThirdRuntimeDoesNotCostTheCertificate(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	before := w.clientSecret()
	w.compass.called()
	w.compass.good["t2"], w.compass.owner["t2"] = true, "third"
	w.register("second", "tenant", "t2")
	c := w.step()
	w.state(c, compassv1alpha1.ConnectionFailed, `the one-time token was that of runtime "third", and RUNTIME_ID is "second": the current certificate stays`)
	w.calls("configuration", "sign", "trial")
	if diff := cmp.Diff(before.Data, w.clientSecret().Data); diff != "" {
		t.Error("the certificate is gone")
	}
	w.configure("t1")
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("snapshot", "label")
}

func TestWhoIsAskedWhoseTheCertificateIsMayFail(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.fail("viewer", &graphql.Error{Kind: graphql.Timeout})
	w.state(w.step(), compassv1alpha1.SynchronizationFailed, "Failed to fetch configuration: ")
	w.calls("configuration", "sign", "viewer")
	w.compass.fail("viewer", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "viewer", "snapshot", "label")
}

func TestTheConnectorIsAskedDaily(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	asked := 0
	for began := w.clock.Now(); w.clock.Now().Sub(began) < 73*time.Hour; {
		w.clock.Step(20 * time.Minute)
		w.step()
		for _, call := range w.compass.called() {
			if call == "configuration" {
				asked++
			}
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times in three days", asked)
	}
}

func TestAProcessThatStartsLateSyncsAtItsOwnMoment(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	w.restart()
	w.clock.Step(time.Hour)
	c := w.step()
	w.calls()
	schedule := connection.Schedule{Floor: 15 * time.Second, Period: 3 * time.Minute}
	at := schedule.AfterStart(w.clock.Now(), "runtime")
	if wait := at.Sub(w.clock.Now()); wait < 0 || wait > 3*time.Minute || c.Status.NextAttempt.Sub(at) > time.Second || c.Status.NextAttempt.Time.Before(at) {
		t.Errorf("the next attempt is at %s, want %s", c.Status.NextAttempt, at)
	}
	w.restart() // a process that crashes again and again does not put it off
	if again := w.step(); !again.Status.NextAttempt.Equal(c.Status.NextAttempt) {
		t.Errorf("the next attempt is at %s, was at %s", again.Status.NextAttempt, c.Status.NextAttempt)
	}
	w.next()
	w.calls("configuration", "viewer", "snapshot", "label")

	// What cannot wait does not.
	w.restart()
	w.clock.SetTime(w.connection().Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
	w.step()
	w.calls("configuration", "sign", "trial", "snapshot", "label")
}

func TestATimeThatAWrongClockNotedIsNotWaitedFor(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	now := w.clock.Now()
	w.clock.SetTime(now.AddDate(0, 0, 50))
	w.step()
	w.compass.called()
	w.clock.SetTime(now.Add(time.Minute))
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "snapshot", "label")
	if wait := w.connection().Status.NextAttempt.Sub(w.clock.Now()); wait > 5*time.Minute {
		t.Errorf("the next attempt is in %s", wait)
	}
}

func TestWhoeverAsksToBeLeftAloneIs(t *testing.T) {
	w := newMemoryWorld(t)
	c := w.step()
	w.compass.called()
	w.clock.SetTime(c.Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
	w.compass.fail("configuration", &graphql.Error{Kind: graphql.Throttled, RetryAfter: 20 * time.Minute})
	c = w.step()
	w.calls("configuration")
	if wait := c.Status.NextAttempt.Sub(w.clock.Now()); wait < 20*time.Minute {
		t.Errorf("the next attempt is in %s", wait)
	}
	w.compass.fail("configuration", &graphql.Error{Kind: graphql.Server})
	w.compass.fail("snapshot", &graphql.Error{Kind: graphql.Throttled, RetryAfter: 40 * time.Minute})
	c = w.next()
	w.calls("configuration", "snapshot")
	if wait := c.Status.NextAttempt.Sub(w.clock.Now()); wait < 40*time.Minute {
		t.Errorf("the next attempt is in %s", wait)
	}
}
