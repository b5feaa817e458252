package connection_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
)

func reporting(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.r.Report = true
	w.syncer.result = connection.Result{
		Total: 4, Synced: 3, Ready: 2, Failed: 1, PendingDeletion: 1,
		Failures: []compassv1alpha1.FailedApplication{{ID: "a", Name: "A", Reason: "DuplicateName", Message: "another system has the name"}},
		NotReady: []compassv1alpha1.FailedApplication{{ID: "b", Name: "B", Reason: "PrivateKeyMissing", Message: "no key"}},
	}
	return w
}

func TestNothingIsReportedUnlessThatIsAskedFor(t *testing.T) {
	w := reporting(t)
	w.r.Report = false
	w.step()
	w.calls("configuration", "sign", "viewer", "snapshot", "label")
	if w.compass.reported != "" {
		t.Errorf("reported: %s", w.compass.reported)
	}
}

func TestAResultIsReportedOnlyWhenItIsAnother(t *testing.T) {
	w := reporting(t)
	w.step()
	w.calls("configuration", "sign", "viewer", "snapshot", "label", "report")
	if diff := cmp.Diff(`{"total":4,"synced":3,"ready":2,"failed":1,"pendingDeletion":1,"failures":{"a":"DuplicateName"},"notReady":{"b":"PrivateKeyMissing"}}`, w.compass.reported); diff != "" {
		t.Error(diff)
	}
	w.next()
	w.calls("snapshot", "label")

	w.compass.incomplete = true
	w.syncer.result = connection.Result{Total: 3, Synced: 3, Ready: 3}
	w.next()
	w.calls("snapshot", "label")
	w.compass.incomplete = false
	w.next()
	w.calls("snapshot", "label", "report")
	if diff := cmp.Diff(`{"total":3,"synced":3,"ready":3,"failed":0,"pendingDeletion":0}`, w.compass.reported); diff != "" {
		t.Error(diff)
	}

	w.compass.reported = `{"total":"somebody else wrote this"}`
	w.next()
	w.calls("snapshot", "label", "report")
}

func TestAReportThatIsRefusedKeepsNoSyncFromSucceeding(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		again []string // the calls of the next sync
		wait  time.Duration
	}{
		"as invalid":        {&graphql.Error{Kind: graphql.Rejected}, []string{"snapshot", "label"}, 0},
		"without scope":     {&graphql.Error{Kind: graphql.ScopeMissing}, []string{"snapshot", "label"}, 0},
		"for now":           {&graphql.Error{Kind: graphql.Server}, []string{"snapshot", "label", "report"}, 0},
		"as one too many":   {&graphql.Error{Kind: graphql.Throttled, RetryAfter: 20 * time.Minute}, []string{"snapshot", "label", "report"}, 20 * time.Minute},
		"without an answer": {&graphql.Error{Kind: graphql.Timeout}, []string{"snapshot", "label", "report"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := reporting(t)
			w.compass.fail("report", test.err)
			c := w.step()
			w.state(c, compassv1alpha1.Synchronized, "")
			w.calls("configuration", "sign", "viewer", "snapshot", "label", "report")
			if c.Status.ConsecutiveFailures != 0 || c.Status.SynchronizationStatus.Error != "" || c.Status.NextAttempt.Sub(w.clock.Now()) < test.wait {
				t.Errorf("status %+v", c.Status)
			}
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			w.calls(test.again...)
			w.compass.fail("report", nil)
			w.syncer.result.Failed++
			w.next()
			w.calls("snapshot", "label", "report") // what is new is tried
			w.next()
			w.calls("snapshot", "label")
		})
	}
}
