package connection_test

import (
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	testingclock "k8s.io/utils/clock/testing"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
)

// farewell sets what becomes of the connection, and has the worker see it.
func (w *world) farewell(f compassv1alpha1.Farewell) {
	w.t.Helper()
	c := w.connection()
	c.Spec.Farewell = f
	c.Generation++ // the API server does that
	if err := w.client.Update(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
	w.step()
}

func (w *world) delete() {
	w.t.Helper()
	c := w.connection()
	c.Generation++ // the API server does that when it notes the deletion
	if err := errors.Join(w.client.Update(w.t.Context(), c), w.client.Delete(w.t.Context(), c)); err != nil {
		w.t.Fatal(err)
	}
}

// gone runs the worker, and looks that the CompassConnection is not there and is not made again.
func (w *world) gone() {
	w.t.Helper()
	for range 3 {
		if _, err := w.r.Reconcile(w.t.Context(), request); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.client.Get(w.t.Context(), request.NamespacedName, &compassv1alpha1.CompassConnection{}); !apierrors.IsNotFound(err) {
		w.t.Errorf("reading the CompassConnection: %v", err)
	}
}

func TestAFarewellRevokesAndDeletesWhatCameFromCompass(t *testing.T) {
	w := newWorld(t)
	w.step()
	foreign := w.secret("client")
	foreign.Data["mine"] = []byte("kept")
	if err := w.client.Update(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	revoked := certs.Fingerprint(w.compass.inUse.Leaf)
	w.farewell(compassv1alpha1.FarewellRevoke)
	if c := w.connection(); !slices.Contains(c.Finalizers, compassv1alpha1.FarewellFinalizer) {
		t.Errorf("finalizers %v", c.Finalizers)
	}
	w.compass.called()
	w.delete()
	w.gone()
	w.calls("revoke")
	if !w.compass.revoked[revoked] || w.compass.inUse != nil || w.cleaner.cleaned != 1 {
		t.Errorf("revoked: %t, in use: %v, cleaned %d times", w.compass.revoked[revoked], w.compass.inUse, w.cleaner.cleaned)
	}
	client := w.secret("client")
	if diff := cmp.Diff([]string{"mine"}, slices.Collect(maps.Keys(client.Data))); diff != "" {
		t.Errorf("keys of the client Secret: %s", diff)
	}
	if client.Annotations[annotation+"left"] == "" || client.Annotations[annotation+"token-fingerprint"] == "" || client.Annotations[annotation+"director-url"] != "" {
		t.Errorf("annotations %v", client.Annotations)
	}
	if ca := w.secret("ca"); len(ca.Data) != 0 {
		t.Errorf("the CA Secret holds %d keys", len(ca.Data))
	}

	// Nothing is tried, and no CompassConnection made, before there is another token.
	w.restart()
	w.clock.Step(100 * 24 * time.Hour)
	w.gone()
	w.calls()
	w.compass.good["t2"] = true
	w.configure("t2")
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "sign", "viewer", "snapshot", "label")
	if got := w.secret("client").Annotations[annotation+"left"]; got != "" {
		t.Errorf("the cluster still counts as having left at %s", got)
	}
}

func TestAFarewellThatFailsIsToldAndTriedAgainOrTakenBack(t *testing.T) {
	for name, test := range map[string]struct {
		fail  func(w *world)
		says  string
		mend  func(w *world)
		calls []string // of each attempt after that
		lasts time.Duration
	}{
		"Compass is away": {
			func(w *world) { w.compass.fail("revoke", &graphql.Error{Kind: graphql.Unreachable}) },
			"Failed to revoke the client certificate: ",
			func(w *world) { w.compass.fail("revoke", nil) }, []string{"revoke"}, 0,
		},
		"Applications cannot be deleted": {
			func(w *world) { w.cleaner.err = errors.New("deleting Application mp-shop: forbidden") },
			"Failed to delete what came from Compass: deleting Application mp-shop: forbidden",
			func(w *world) { w.cleaner.err = nil }, nil, 0,
		},
		"Applications cannot be deleted, and the agent is started anew": {
			func(w *world) { w.cleaner.err = errors.New("deleting Application mp-shop: forbidden") },
			"Failed to delete what came from Compass: deleting Application mp-shop: forbidden",
			func(w *world) {
				w.cleaner.err = nil
				w.restart()
			}, []string{"revoke", "viewer"}, 5 * time.Minute, // until Compass refuses the certificate beyond doubt
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.step()
			w.farewell(compassv1alpha1.FarewellRevoke)
			test.fail(w)
			w.delete()
			c := w.step()
			w.state(c, compassv1alpha1.ConnectionMaintenanceFailed, test.says)
			if wait := c.Status.NextAttempt.Sub(w.clock.Now()); wait < 15*time.Second {
				t.Errorf("tried again in %s", wait)
			}
			w.compass.called()
			w.step()
			w.calls()
			test.mend(w)
			w.r.Schedule.Random = func() float64 { return 1 }
			mended := c.Status.NextAttempt.Time
			for attempts := 0; w.client.Get(t.Context(), request.NamespacedName, c) == nil; attempts++ {
				if attempts > 20 {
					t.Fatal("the CompassConnection stays")
				}
				w.clock.SetTime(c.Status.NextAttempt.Time)
				if _, err := w.r.Reconcile(t.Context(), request); err != nil {
					t.Fatal(err)
				}
				w.calls(test.calls...)
			}
			w.gone()
			w.calls()
			if lasted := w.clock.Now().Sub(mended); lasted < test.lasts || lasted > test.lasts+5*time.Minute {
				t.Errorf("it took %s, want %s or a little more", lasted, test.lasts)
			}
		})
	}
	t.Run("taken back", func(t *testing.T) {
		w := newWorld(t)
		w.step()
		w.farewell(compassv1alpha1.FarewellRevoke)
		w.compass.fail("revoke", &graphql.Error{Kind: graphql.Unreachable})
		w.delete()
		w.step()
		c := w.connection()
		c.Spec.Farewell = compassv1alpha1.FarewellKeep
		if err := w.client.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.compass.called()
		w.state(w.step(), compassv1alpha1.Synchronized, "") // made again from what is kept
		w.calls("snapshot", "label")
		if len(w.secret("client").Data) == 0 || w.cleaner.cleaned != 0 {
			t.Error("something was deleted")
		}
	})
}

func TestOtherAuthoritiesOutliveAFarewell(t *testing.T) {
	w := newWorld(t)
	w.step()
	other := newCompass(testingclock.NewFakePassiveClock(w.clock.Now().Add(time.Hour))).ca
	data, err := certs.EncodeCA([]*x509.Certificate{w.compass.ca, other})
	if err != nil {
		t.Fatal(err)
	}
	ca := w.secret("ca")
	ca.Data = data
	if err := w.client.Update(t.Context(), ca); err != nil {
		t.Fatal(err)
	}
	w.farewell(compassv1alpha1.FarewellRevoke)
	w.delete()
	w.gone()
	want, err := certs.EncodeCA([]*x509.Certificate{other})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, w.secret("ca").Data); diff != "" {
		t.Error(diff)
	}
}

func TestAFarewellWithoutACertificateNeedsNoCompass(t *testing.T) {
	w := newWorld(t)
	w.configure("wrong")
	w.state(w.step(), compassv1alpha1.ConnectionFailed, "")
	w.farewell(compassv1alpha1.FarewellRevoke)
	w.compass.called()
	w.delete()
	w.gone()
	w.calls()
}

func TestWithoutAFarewellEverythingIsKept(t *testing.T) {
	for _, farewell := range []compassv1alpha1.Farewell{"", compassv1alpha1.FarewellKeep} {
		w := newWorld(t)
		w.step()
		w.farewell(farewell)
		before := w.secret("client")
		w.delete()
		w.state(w.step(), compassv1alpha1.Synchronized, "")
		if diff := cmp.Diff(before.Data, w.secret("client").Data); diff != "" || w.cleaner.cleaned != 0 {
			t.Errorf("farewell %q: something is gone", farewell)
		}
	}
}

func TestTheFinalizerFollowsTheFarewell(t *testing.T) {
	w := newWorld(t)
	w.step()
	c := w.connection()
	c.Finalizers = []string{"example.com/mine"}
	if err := w.client.Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.farewell(compassv1alpha1.FarewellRevoke)
	if got, want := w.connection().Finalizers, []string{"example.com/mine", compassv1alpha1.FarewellFinalizer}; !slices.Equal(got, want) {
		t.Errorf("finalizers %v, want %v", got, want)
	}
	w.farewell(compassv1alpha1.FarewellKeep)
	if got, want := w.connection().Finalizers, []string{"example.com/mine"}; !slices.Equal(got, want) {
		t.Errorf("finalizers %v, want %v", got, want)
	}
}
