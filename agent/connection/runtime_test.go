package connection_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
)

const annotation = "compass.kyma-project.io/"

func (w *world) clientSecret() *corev1.Secret {
	w.t.Helper()
	s := &corev1.Secret{}
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: "ns", Name: "client"}, s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// identity gives what the client Secret says about whose it is.
func (w *world) identity() map[string]string {
	w.t.Helper()
	got := map[string]string{}
	for _, key := range []string{"runtime-id", "tenant", "token-connector-url", "applied-runtime"} {
		got[key] = w.clientSecret().Annotations[annotation+key]
	}
	return got
}

func (w *world) says(want map[string]string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.identity()); diff != "" {
		w.t.Errorf("the client Secret says: %s", diff)
	}
}

func (w *world) stalled(c *compassv1alpha1.CompassConnection, texts ...string) {
	w.t.Helper()
	condition := meta.FindStatusCondition(c.Status.Conditions, compassv1alpha1.ConditionStalled)
	if condition == nil || condition.Reason != "TokenNeeded" {
		w.t.Fatalf("condition Stalled: %+v", condition)
	}
	for _, text := range texts {
		if !strings.Contains(condition.Message, text) {
			w.t.Errorf("%q does not hold %q", condition.Message, text)
		}
	}
	if at := c.Status.NextAttempt; at != nil && at.Sub(w.clock.Now()) > 15*time.Second { // what is mended waits for the floor only
		w.t.Errorf("the next attempt is at %s", at)
	}
}

func TestACertificateIsNotUsedForAnotherRuntime(t *testing.T) {
	for name, test := range map[string]struct {
		runtime, tenant string
		says            []string
		back            []string // the calls when the configuration is as it was
	}{
		"another runtime": {"other", "tenant", []string{`RUNTIME_ID in Secret ns/configuration is "other"`, `issued for "runtime"`, "key TOKEN"}, []string{"viewer", "snapshot", "label"}},
		"another tenant":  {"runtime", "others", []string{`TENANT in Secret ns/configuration is "others"`, `issued for "tenant"`, "key TOKEN"}, []string{"snapshot", "label"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			w.step()
			own := map[string]string{"runtime-id": "runtime", "tenant": "tenant", "token-connector-url": "https://token", "applied-runtime": "tenant/runtime"}
			w.says(own)
			w.compass.called()
			w.register(test.runtime, test.tenant, "t1")
			w.stalled(w.step(), test.says...)
			w.restart()
			w.clock.Step(time.Hour)
			w.stalled(w.step(), test.says...)
			if err := w.client.Delete(t.Context(), w.connection()); err != nil {
				t.Fatal(err)
			}
			w.stalled(w.step(), test.says...)
			w.calls()
			w.says(own)

			// The certificate stays good for when the mistake is mended.
			c := w.connection()
			w.clock.SetTime(c.Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
			w.compass.fail("configuration", &graphql.Error{Kind: graphql.Server})
			w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, "")
			w.calls("configuration")
			w.compass.fail("configuration", nil)
			w.stalled(w.next(), test.says...)
			w.calls("configuration", "sign", "trial")
			w.says(own)
			w.configure("t1")
			w.calls() // mending the Secret does not pass the floor
			w.clock.Step(15 * time.Second)
			w.state(w.step(), compassv1alpha1.Synchronized, "")
			w.calls(test.back...)

			w.register(test.runtime, test.tenant, "t2")
			w.compass.good["t2"] = true
			w.state(w.step(), compassv1alpha1.Synchronized, "")
			w.calls("configuration", "sign", "trial", "snapshot", "label")
			w.says(map[string]string{"runtime-id": test.runtime, "tenant": test.tenant, "token-connector-url": "https://token", "applied-runtime": test.tenant + "/" + test.runtime})
			if last := w.compass.runtimes[len(w.compass.runtimes)-1]; last != test.runtime {
				t.Errorf("the snapshot is of %s", last)
			}
		})
	}
}

func TestATenantThatIsLeftOutIsNoOtherTenant(t *testing.T) {
	w := newMemoryWorld(t)
	w.register("runtime", "", "t1")
	w.step()
	w.says(map[string]string{"runtime-id": "runtime", "tenant": "", "token-connector-url": "https://token", "applied-runtime": "runtime"})
	w.configure("t1")
	w.syncer.missed = true
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.says(map[string]string{"runtime-id": "runtime", "tenant": "tenant", "token-connector-url": "https://token", "applied-runtime": "tenant/runtime"})
	if w.syncer.pruned != 1 {
		t.Error("the runtime is the same, and nothing was pruned")
	}
}

func TestTheOldCertificateStaysUntilTheOneOfTheOtherRuntimeWorks(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	before := w.clientSecret()
	w.compass.called()
	w.compass.fail("trial", &graphql.Error{Kind: graphql.Server})
	w.compass.good["t2"] = true
	w.register("other", "tenant", "t2")
	w.state(w.step(), compassv1alpha1.ConnectionFailed, "Failed to retrieve certificate: the new certificate does not work: ")
	w.calls("configuration", "sign", "trial")
	if diff := cmp.Diff(before.Data, w.clientSecret().Data); diff != "" {
		t.Error("the old certificate is gone")
	}
	w.compass.fail("trial", nil)
	w.restart()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("trial", "snapshot", "label")
}

func TestWhatWasBegunForAnotherRuntimeIsNotGoneOnWith(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.fail("sign", &graphql.Error{Kind: graphql.Unreachable})
	w.step()
	w.compass.called()
	w.compass.fail("sign", nil)
	w.register("other", "tenant", "t1")
	w.state(w.next(), compassv1alpha1.ConnectionFailed, "one-time token")
	w.calls("configuration") // with the first token, which is spent
	w.compass.good["t2"] = true
	w.register("other", "tenant", "t2")
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	if got := w.identity()["runtime-id"]; got != "other" {
		t.Errorf("the certificate is that of %s", got)
	}
}

func TestANewRuntimePrunesOnlyWhenItsAnswersAreConfirmed(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.syncer.missed = true
	w.compass.good["t2"] = true
	w.register("other", "tenant", "t2")
	first := w.step()
	began := w.clock.Now()
	condition := meta.FindStatusCondition(first.Status.Conditions, compassv1alpha1.ConditionPruneBlocked)
	if condition == nil || !strings.Contains(condition.Message, "runtime tenant/other") || !strings.Contains(condition.Message, "(1 so far)") || first.Status.Applications.PendingDeletion != 1 {
		t.Fatalf("condition PruneBlocked: %+v, %+v", condition, first.Status.Applications)
	}
	if got := w.identity()["applied-runtime"]; got != "tenant/runtime" {
		t.Errorf("applied: %s", got)
	}
	w.compass.incomplete = true
	if c := w.next(); c.Status.Settling != nil { // counting begins anew
		t.Errorf("an incomplete answer counts: %+v", c.Status.Settling)
	}
	w.compass.incomplete = false
	w.restart()
	again := time.Time{}
	for syncs := 1; w.syncer.pruned == 0; syncs++ {
		if again.IsZero() {
			again = w.clock.Now()
		}
		if syncs > 100 {
			t.Fatal("never pruned")
		}
		w.next()
	}
	if w.clock.Now().Sub(began) < time.Hour || w.clock.Now().Sub(again) < time.Hour {
		t.Errorf("pruned after %s", w.clock.Now().Sub(began))
	}
	if got := w.identity()["applied-runtime"]; got != "tenant/other" || w.connection().Status.Settling != nil {
		t.Errorf("applied: %s, settling %+v", got, w.connection().Status.Settling)
	}
	w.syncer.missed = true
	w.next()
	if w.syncer.pruned != 2 {
		t.Error("the runtime is settled, and still nothing is pruned")
	}
}

func TestAProcessThatStartsGoesOnCountingTheAnswersForANewRuntime(t *testing.T) {
	w := newWorld(t)
	w.step()
	w.syncer.missed = true
	w.compass.good["t2"] = true
	w.register("other", "tenant", "t2")
	began := w.clock.Now()
	c := w.step()
	for answers := int32(1); answers <= 2; answers++ {
		want := &compassv1alpha1.Settling{Runtime: "tenant/other", Answers: answers, Since: metav1.NewTime(began)}
		if diff := cmp.Diff(want, c.Status.Settling); diff != "" {
			t.Error(diff)
		}
		w.restart()
		if answers < 2 {
			c = w.next()
		}
	}
	for _, test := range []struct {
		after   time.Duration
		settled bool
	}{{time.Hour - time.Second, false}, {time.Hour, true}} {
		a, err := connection.ReadAccess(t.Context(), w.client, names(), began.Add(test.after))
		if err != nil || (a.Unsettled == "") != test.settled {
			t.Errorf("after %s: unsettled %q, error %v", test.after, a.Unsettled, err)
		}
	}
	w.clock.SetTime(began.Add(time.Hour))
	w.next()
	if w.syncer.pruned != 1 {
		t.Errorf("the third answer in an hour is not believed: %+v", w.connection().Status.Settling)
	}
}

func TestDeletingTheCompassConnectionPairsByATokenThatWasNeverTried(t *testing.T) {
	for name, test := range map[string]struct {
		token string
		calls []string
		state compassv1alpha1.ConnectionState
	}{
		"a new token":           {"t2", []string{"configuration", "sign", "trial", "snapshot", "label"}, compassv1alpha1.Synchronized},
		"the token of before":   {"t1", []string{"configuration", "viewer", "snapshot", "label"}, compassv1alpha1.Synchronized},
		"no token":              {"", []string{"configuration", "viewer", "snapshot", "label"}, compassv1alpha1.Synchronized},
		"a token that is wrong": {"wrong", []string{"configuration"}, compassv1alpha1.ConnectionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			w.step()
			before := w.clientSecret()
			w.compass.called()
			w.compass.good["t2"] = true
			w.configure(test.token)
			if err := w.client.Delete(t.Context(), w.connection()); err != nil {
				t.Fatal(err)
			}
			w.restart()
			w.state(w.step(), test.state, "")
			w.calls(test.calls...)
			if changed := !cmp.Equal(before.Data, w.clientSecret().Data); changed != slices.Contains(test.calls, "sign") {
				t.Errorf("another certificate: %t", changed)
			}
			if test.state == compassv1alpha1.ConnectionFailed { // the old certificate still does
				w.state(w.next(), compassv1alpha1.Synchronized, "")
			}
		})
	}
}

func TestWhatAgentsBeforeDidNotRecordIsTakenFromTheConfiguration(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	secret := w.clientSecret()
	want := w.identity()
	for key := range secret.Annotations {
		delete(secret.Annotations, key)
	}
	if err := w.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.compass.called()
	w.next()
	w.says(want)
	w.calls("configuration", "viewer", "snapshot", "label")
	// The token is that of the certificate, too: deleting the CompassConnection does not try it.
	if err := w.client.Delete(t.Context(), w.connection()); err != nil {
		t.Fatal(err)
	}
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("snapshot", "label")
}

func TestAnnotationsThatSomebodyTookAwayAreNotGuessed(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	want := w.identity()
	secret := w.clientSecret()
	secret.Annotations = nil
	if err := w.client.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.register("other", "tenant", "t1")
	w.compass.called()
	w.stalled(w.step(), `issued for "runtime"`)
	w.calls()
	w.says(want)
}

// refusing makes writes to the pending Secret fail after a number of them.
func (w *world) refusing(after int) {
	writes := 0
	w.refuse = func(verb, name string) error {
		if verb != "apply" || name != "client-pending" {
			return nil
		}
		if writes++; writes <= after {
			return nil
		}
		return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New(leaked))
	}
}

func TestWhatCompassGivesOnceOutlivesThatItCannotBeStored(t *testing.T) {
	for name, test := range map[string]struct {
		writes int // to the pending Secret that are taken
		first  []string
		state  compassv1alpha1.ConnectionState
		then   []string
	}{
		"the second token": {1, []string{"configuration"}, compassv1alpha1.ConnectionFailed, []string{"sign", "viewer", "snapshot", "label"}},
		"the certificate":  {2, []string{"configuration", "sign", "viewer", "snapshot", "label"}, compassv1alpha1.Synchronized, []string{"snapshot", "label"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			w.refusing(test.writes)
			w.state(w.step(), test.state, "")
			w.calls(test.first...)
			if test.state != compassv1alpha1.Synchronized {
				w.state(w.next(), test.state, "Failed to retrieve certificate: writing Secret ns/client-pending: the API server answers Forbidden")
				w.calls()
			}
			w.silent(leaked)
			w.refuse = func(string, string) error { return nil }
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			w.calls(test.then...)
		})
	}
	t.Run("the certificate, and the client Secret neither", func(t *testing.T) {
		w := newMemoryWorld(t)
		w.refusing(2)
		pending := w.refuse
		w.refuse = func(verb, name string) error {
			if verb == "apply" && name == "client" {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New(leaked))
			}
			return pending(verb, name)
		}
		w.state(w.step(), compassv1alpha1.ConnectionFailed, "Failed to preserve certificate: writing Secret ns/client: the API server answers Forbidden")
		w.calls("configuration", "sign")
		w.state(w.next(), compassv1alpha1.ConnectionFailed, "Failed to preserve certificate: ")
		w.calls()
		w.silent(leaked)
		w.refuse = func(string, string) error { return nil }
		w.state(w.next(), compassv1alpha1.Synchronized, "")
		w.calls("viewer", "snapshot", "label")
	})
	t.Run("the certificate of a renewal", func(t *testing.T) {
		w := newMemoryWorld(t)
		c := w.step()
		w.compass.called()
		w.clock.SetTime(c.Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
		w.refusing(1)
		pending := w.refuse
		w.refuse = func(verb, name string) error {
			if verb == "apply" && name == "client" {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New(leaked))
			}
			return pending(verb, name)
		}
		w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, "Failed to preserve certificate: writing Secret ns/client: the API server answers Forbidden")
		w.calls("configuration", "sign", "trial", "snapshot", "label")
		w.silent(leaked)
		w.refuse = func(string, string) error { return nil }
		w.state(w.next(), compassv1alpha1.Synchronized, "")
		w.calls("trial", "snapshot", "label")
	})
}

func TestAnAgentThatIsToldToEndKeepsWhatCompassGaveIt(t *testing.T) {
	for name, test := range map[string]struct {
		operation string
		then      []string
	}{
		"the second token": {"configuration", []string{"sign", "viewer", "snapshot", "label"}},
		"the certificate":  {"sign", []string{"viewer", "snapshot", "label"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.compass.after = func(operation string) {
				if operation == test.operation {
					cancel()
				}
			}
			if _, err := w.r.Reconcile(ctx, request); err != nil {
				t.Fatal(err)
			}
			w.compass.called()
			w.compass.after = nil
			w.restart()
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			w.calls(test.then...)
		})
	}
}
