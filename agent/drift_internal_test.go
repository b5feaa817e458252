package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/application-connector/application-connector/agent/status"
)

type repairs func(name string) (bool, error)

func (f repairs) Repair(_ context.Context, name string) (bool, error) { return f(name) }

func newDrift(clock *testingclock.FakeClock, f repairs) *drift {
	return &drift{repairer: f, metrics: status.NewMetrics(prometheus.NewRegistry()), clock: clock, log: slog.New(slog.DiscardHandler), fights: map[string]fight{}}
}

func TestAFightOverAnApplicationSlowsDownAndEnds(t *testing.T) {
	clock := testingclock.NewFakeClock(time.Unix(1700000000, 0))
	count := 0
	d := newDrift(clock, func(string) (bool, error) { count++; return true, nil })
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: "mp-shop"}}
	reconcileOnce := func() time.Duration {
		result, err := d.Reconcile(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return result.RequeueAfter
	}
	for range patientRepairs {
		if wait := reconcileOnce(); wait != 0 {
			t.Fatalf("waits %v", wait)
		}
	}
	var waits []time.Duration
	for range 8 {
		wait := reconcileOnce()
		if wait <= 0 {
			t.Fatal("repaired without waiting")
		}
		waits = append(waits, wait)
		clock.Step(wait)
		if wait := reconcileOnce(); wait != 0 {
			t.Fatalf("waits %v after its time", wait)
		}
	}
	if waits[0] != time.Second || waits[1] != 2*time.Second || waits[7] != longestTruce || count != patientRepairs+8 {
		t.Errorf("waits %v, %d repairs", waits, count)
	}
	request.Name = "mp-other"
	if wait := reconcileOnce(); wait != 0 {
		t.Errorf("another Application waits %v", wait)
	}
	request.Name = "mp-shop"
	clock.Step(calm)
	if wait := reconcileOnce(); wait != 0 || d.fights["mp-shop"].repairs != 1 {
		t.Errorf("waits %v after calm, fights %+v", wait, d.fights)
	}
}

func TestARefusedRepairIsTriedAgainUnlessTheAgentEnds(t *testing.T) {
	d := newDrift(testingclock.NewFakeClock(time.Unix(0, 0)), func(string) (bool, error) { return false, errors.New("refused") })
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := d.Reconcile(ctx, reconcile.Request{}); err == nil {
		t.Error("no error")
	}
	cancel()
	if _, err := d.Reconcile(ctx, reconcile.Request{}); err != nil {
		t.Error(err)
	}
}

func TestASecretNamesItsApplicationByOwnerAndByLabel(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Labels:          map[string]string{"app": "b"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Application", Name: "a"}, {Kind: "Application", Name: "b"}, {Kind: "Other", Name: "c"}},
	}}
	got := applicationsOf(t.Context(), secret)
	if len(got) != 2 || got[0].Name != "a" || got[1].Name != "b" {
		t.Errorf("got %v", got)
	}
}
