package connection_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/secret"
)

var request = reconcile.Request{NamespacedName: types.NamespacedName{Name: compassv1alpha1.ConnectionName}}

// world is a reconciler with a fake cluster and a fake Compass, and a clock that the test moves.
type world struct {
	t       *testing.T
	clock   *testingclock.FakeClock
	compass *compass
	syncer  *syncer
	cleaner *cleaner
	client  client.Client
	// refuse, if it gives an error for a kind of request and the name of an object, makes the API server refuse it.
	refuse   func(verb, name string) error
	r        *connection.Reconciler
	log      bytes.Buffer
	events   *events.FakeRecorder
	registry *prometheus.Registry // of the worker's metrics
	skew     time.Duration        // by which the worker's clock is ahead of Compass's
	// manager, if set, is there and owns the client certificate.
	manager *certManager
}

// agentClock is the worker's.
type agentClock struct{ w *world }

func (c agentClock) Now() time.Time                  { return c.w.clock.Now().Add(c.w.skew) }
func (c agentClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// keys are those that worlds get, in turn: making one takes longer than anything else here.
var keys = sync.OnceValue(func() []*rsa.PrivateKey {
	var made []*rsa.PrivateKey
	for range 3 {
		key, err := certs.GenerateKey(2048)
		if err != nil {
			panic(err)
		}
		made = append(made, key)
	}
	return made
})

var keysGiven atomic.Int64

func nextKey(int) (*rsa.PrivateKey, error) {
	return keys()[keysGiven.Add(1)%3], nil
}

// leaked is what the API server repeats of what it was sent.
const leaked = "canary-41c7"

// silent looks for a text in the status, the events and the log.
func (w *world) silent(text string) {
	w.t.Helper()
	told := fmt.Sprintf("%+v", w.connection().Status) + w.log.String()
	for len(w.events.Events) > 0 {
		told += <-w.events.Events
	}
	if strings.Contains(told, text) {
		w.t.Errorf("%s is told: %s", text, told)
	}
}

// bareWorld has no cluster and no worker yet.
func bareWorld(t *testing.T) *world {
	w := &world{t: t, clock: testingclock.NewFakeClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), syncer: &syncer{}, cleaner: &cleaner{}, events: events.NewFakeRecorder(1000), refuse: func(string, string) error { return nil }}
	w.compass = newCompass(w.clock, "t1")
	w.compass.runtime = func() string { return string(w.secret("configuration").Data["RUNTIME_ID"]) }
	return w
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := bareWorld(t)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, compassv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&compassv1alpha1.CompassConnection{}).WithInterceptorFuncs(interceptor.Funcs{
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if err := ctx.Err(); err != nil { // the fake client takes what it is given
				return err
			}
			name := o.(interface{ GetName() *string }).GetName()
			if err := w.refuse("apply", *name); err != nil {
				return err
			}
			return c.Apply(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			if err := errors.Join(ctx.Err(), w.refuse(sub, o.GetName())); err != nil {
				return err
			}
			return c.SubResource(sub).Patch(ctx, o, patch, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := w.refuse("create", o.GetName()); err != nil {
				return err
			}
			return c.Create(ctx, o, opts...)
		},
	}).Build()
	w.configure("t1")
	w.restart()
	return w
}

func (w *world) configure(token string) {
	w.t.Helper()
	w.register("runtime", "tenant", token)
}

// register writes the configuration Secret.
func (w *world) register(runtimeID, tenant, token string) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "configuration"}, Data: map[string][]byte{
		"CONNECTOR_URL": []byte("https://token"), "RUNTIME_ID": []byte(runtimeID), "TENANT": []byte(tenant), "TOKEN": []byte(token),
	}}
	if err := w.client.Create(w.t.Context(), secret.DeepCopy()); err != nil {
		if err := w.client.Update(w.t.Context(), secret); err != nil {
			w.t.Fatal(err)
		}
	}
}

// restart forgets what a process remembers.
func (w *world) restart() {
	w.registry = prometheus.NewRegistry()
	metrics := status.NewMetrics(w.registry)
	name := func(s string) types.NamespacedName { return types.NamespacedName{Namespace: "ns", Name: s} }
	w.r = &connection.Reconciler{
		Options: connection.Options{
			Secrets:  connection.Names{Configuration: name("configuration"), Client: name("client"), CA: name("ca")},
			Schedule: connection.Schedule{Floor: 15 * time.Second, Period: 3 * time.Minute},
			Renewal:  certs.RenewalPolicy{Threshold: 0.3, Floor: 30 * time.Second}, KeySize: 2048, NewKey: nextKey,
			RuntimeLabels: map[string]string{"runtime_consoleUrl": "https://console"},
		},
		Client: w.client, Reader: w.client, Compass: w.compass, Syncer: w.syncer, Cleaner: w.cleaner,
		Writer:  &status.Writer{Client: w.client, Recorder: w.events, Metrics: metrics},
		Metrics: metrics, Clock: agentClock{w}, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	if w.manager != nil {
		w.manager.entrust()
	}
}

// step runs the worker until it has nothing to do at this time, and gives the connection as it then is.
func (w *world) step() *compassv1alpha1.CompassConnection {
	w.t.Helper()
	for range 20 {
		result, err := w.r.Reconcile(w.t.Context(), request)
		if err != nil {
			w.t.Fatal(err)
		}
		if w.manager != nil && w.manager.work() {
			continue // what it wrote wakes the worker
		}
		if result.RequeueAfter > time.Millisecond || result.RequeueAfter == 0 {
			return w.connection()
		}
	}
	w.t.Fatal("the worker does not come to rest")
	return nil
}

func (w *world) secret(name string) *corev1.Secret {
	w.t.Helper()
	s := &corev1.Secret{}
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: "ns", Name: name}, s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// next moves the clock to the next attempt, and runs the worker.
func (w *world) next() *compassv1alpha1.CompassConnection {
	w.t.Helper()
	w.step() // a new process says when
	at := w.connection().Status.NextAttempt
	if at == nil {
		w.t.Fatal("there is no next attempt")
	}
	w.clock.SetTime(at.Add(time.Second))
	return w.step()
}

func (w *world) connection() *compassv1alpha1.CompassConnection {
	w.t.Helper()
	c := &compassv1alpha1.CompassConnection{}
	if err := w.client.Get(w.t.Context(), request.NamespacedName, c); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) calls(want ...string) {
	w.t.Helper()
	if got := w.compass.called(); !slices.Equal(got, want) {
		w.t.Errorf("calls %v, want %v", got, want)
	}
}

func (w *world) state(c *compassv1alpha1.CompassConnection, state compassv1alpha1.ConnectionState, says string) {
	w.t.Helper()
	text := c.Status.ConnectionStatus.Error
	if s := c.Status.SynchronizationStatus; s != nil {
		text += s.Error
	}
	if c.Status.State != state || !strings.Contains(text, says) {
		w.t.Errorf("state %s with %q, want %s with %q", c.Status.State, text, state, says)
	}
}

func TestAQuietConnectionAsksOnceAPeriod(t *testing.T) {
	w := newMemoryWorld(t)
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "sign", "viewer", "snapshot", "label")
	for range 3 {
		before := w.clock.Now()
		w.state(w.next(), compassv1alpha1.Synchronized, "")
		w.calls("snapshot", "label")
		if waited := w.clock.Now().Sub(before); waited < 90*time.Second || waited > 271*time.Second {
			t.Errorf("waited %s", waited)
		}
	}
	// After a restart the Connector is asked for the URLs, not sooner than the attempt is due.
	w.restart()
	w.step()
	w.calls()
	w.next()
	w.calls("configuration", "viewer", "snapshot", "label")
}

func TestAConnectorThatCannotBeAskedItsDailyQuestionKeepsNoSyncFromDirector(t *testing.T) {
	w := newMemoryWorld(t)
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.compass.called()
	w.compass.fail("configuration", &graphql.Error{Kind: graphql.Unreachable})
	w.clock.SetTime(w.clock.Now().Add(25 * time.Hour))
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "snapshot", "label")
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("snapshot", "label") // it is asked again after another day
	// One that wants to be left alone is: Director belongs to the same Compass.
	w.compass.fail("configuration", &graphql.Error{Kind: graphql.Throttled})
	w.clock.SetTime(w.clock.Now().Add(25 * time.Hour))
	w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, "")
	w.calls("configuration")
}

func TestACertificateThatCannotBeStoredIsNotLost(t *testing.T) {
	for name, object := range map[string]string{"client Secret": "client", "CA Secret": "ca"} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			w.refuse = func(verb, name string) error {
				if verb == "apply" && name == object {
					return apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, name, field.ErrorList{field.Invalid(field.NewPath("data"), leaked, "no")})
				}
				return nil
			}
			w.state(w.step(), compassv1alpha1.ConnectionFailed, "Failed to preserve certificate: writing Secret ns/"+object+": the API server answers Invalid")
			w.calls("configuration", "sign")
			w.silent(leaked)
			w.restart()
			w.refuse = func(string, string) error { return nil }
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			w.calls("viewer", "snapshot", "label")
		})
	}
}

func TestNoTokenIsSpentBeforeTheKeyIsStored(t *testing.T) {
	w := newMemoryWorld(t)
	w.refuse = func(verb, name string) error {
		if name == "client-pending" {
			return errors.New("no")
		}
		return nil
	}
	if _, err := w.r.Reconcile(t.Context(), request); err == nil {
		t.Error("the API server's error is lost")
	}
	w.calls()
}

func TestWhatTheAPIServerDoesNotTakeCallsCompassNotSoonerThanTheFloor(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	w.compass.fail("snapshot", &graphql.Error{Kind: graphql.Server})
	begun := w.connection().Status.NextAttempt.Add(time.Second)
	w.clock.SetTime(begun)
	taken := 0
	w.refuse = func(verb, name string) error {
		if verb != "status" {
			return nil
		}
		if taken--; taken >= 0 {
			return nil
		}
		return errors.New("no")
	}
	fails := func() {
		t.Helper()
		if _, err := w.r.Reconcile(t.Context(), request); err == nil {
			t.Error("the API server's error is lost")
		}
	}
	for range 3 { // without a word ahead nobody is called
		fails()
		w.calls()
	}
	taken = 1 // the word ahead
	fails()
	w.calls("snapshot")
	waits := func(action string) {
		t.Helper()
		result, err := w.r.Reconcile(t.Context(), request)
		if err != nil || result.RequeueAfter <= 10*time.Second || result.RequeueAfter > 15*time.Second {
			t.Errorf("%s: %+v, %v", action, result, err)
		}
		w.calls()
	}
	taken = 100
	w.resync()
	waits("a request that was not noted passes once")
	w.clock.Step(time.Second)
	waits("nor a second later")
	w.clock.SetTime(begun.Add(15 * time.Second))
	w.state(w.step(), compassv1alpha1.SynchronizationFailed, "")
	w.calls("snapshot")

	// The next process knows too.
	taken = 1
	w.clock.SetTime(w.connection().Status.NextAttempt.Time)
	fails()
	w.calls("snapshot")
	w.restart()
	taken = 100
	waits("a new process")
}

// resync asks for a sync.
func (w *world) resync() {
	w.t.Helper()
	c := w.connection()
	c.Spec.ResyncNow = true
	c.Generation++ // the API server does that
	if err := w.client.Update(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

func TestAMomentOfTroubleAtTheAPIServerCostsNoToken(t *testing.T) {
	w := newMemoryWorld(t)
	troubles := 0
	w.refuse = func(verb, _ string) error {
		if troubles++; verb == "apply" && troubles%2 == 1 {
			return apierrors.NewServiceUnavailable("in a moment")
		}
		return nil
	}
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "sign", "viewer", "snapshot", "label")
}

func TestAPairingGoesOnWithWhatIsStillGood(t *testing.T) {
	for name, test := range map[string]struct {
		fail  string
		err   error
		calls []string // of the attempt after the failure is gone
		state compassv1alpha1.ConnectionState
	}{
		"the Connector cannot be reached with the first token":  {"configuration", &graphql.Error{Kind: graphql.Unreachable}, []string{"configuration", "sign", "viewer", "snapshot", "label"}, compassv1alpha1.Synchronized},
		"the Connector cannot be reached with the second token": {"sign", &graphql.Error{Kind: graphql.Unreachable}, []string{"sign", "viewer", "snapshot", "label"}, compassv1alpha1.Synchronized},
		"the second token is refused as in an outage":           {"sign", &graphql.Error{Kind: graphql.Ambiguous}, []string{"sign", "viewer", "snapshot", "label"}, compassv1alpha1.Synchronized},
		"the request is rejected":                               {"sign", &graphql.Error{Kind: graphql.Rejected}, []string{"configuration"}, compassv1alpha1.ConnectionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			w.compass.fail(test.fail, test.err)
			w.state(w.step(), compassv1alpha1.ConnectionFailed, "Failed to retrieve certificate: ")
			w.compass.called()
			w.compass.fail(test.fail, nil)
			w.restart()
			w.state(w.next(), test.state, "")
			w.calls(test.calls...)
		})
	}
}

func TestASecondTokenIsNotTriedForEver(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.fail("sign", &graphql.Error{Kind: graphql.Ambiguous})
	w.step()
	w.clock.Step(2 * time.Hour)
	w.compass.called()
	w.step()
	w.calls("configuration") // the first token once more, which is spent
}

func TestASyncThatTheClusterDoesNotTakeIsToldAndTriedAgain(t *testing.T) {
	w := newMemoryWorld(t)
	w.syncer.err = errors.New("listing Applications: forbidden")
	c := w.step()
	w.state(c, compassv1alpha1.ResourceApplicationFailed, "Failed to apply configuration: listing Applications: forbidden")
	if c.Status.SynchronizationStatus.LastSuccessfulFetch.IsZero() || !c.Status.SynchronizationStatus.LastSuccessfulApplication.IsZero() {
		t.Errorf("%+v", c.Status.SynchronizationStatus)
	}
	w.syncer.err = nil
	w.syncer.result = connection.Result{Total: 2, Synced: 1, Failed: 1, PendingDeletion: 4, PruneBlocked: "too many", Failures: []compassv1alpha1.FailedApplication{{ID: "1", Name: "a", Reason: "Why", Message: "so"}}}
	c = w.next()
	w.state(c, compassv1alpha1.Synchronized, "")
	if *c.Status.Applications != (compassv1alpha1.ApplicationCounts{Total: 2, Synced: 1, Failed: 1, PendingDeletion: 4}) || len(c.Status.FailedApplications) != 1 {
		t.Errorf("%+v", c.Status)
	}
}

func TestTheConnectorBeingAwayDoesNotStopSyncs(t *testing.T) {
	w := newMemoryWorld(t)
	c := w.step()
	w.compass.called()
	w.compass.fail("configuration", &graphql.Error{Kind: graphql.Server, Status: 502})
	w.clock.SetTime(c.Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
	c = w.step()
	w.state(c, compassv1alpha1.ConnectionMaintenanceFailed, "Error while trying to maintain connection: Failed to connect to Compass Connector: ")
	w.calls("configuration", "snapshot", "label")
	if got := c.Status.SynchronizationStatus.LastSuccessfulApplication; !got.Time.Equal(w.clock.Now().Truncate(time.Second)) {
		t.Errorf("the last sync was at %s", got)
	}
	if c.Status.ConsecutiveFailures != 1 {
		t.Errorf("%d failures", c.Status.ConsecutiveFailures)
	}
	w.compass.fail("configuration", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "sign", "trial", "snapshot", "label")
}

func TestTheConnectorIsAskedAgainAfterDirectorCouldNotBeReached(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	w.compass.fail("snapshot", &graphql.Error{Kind: graphql.Unreachable})
	w.state(w.next(), compassv1alpha1.SynchronizationFailed, "")
	w.calls("snapshot")
	w.state(w.next(), compassv1alpha1.SynchronizationFailed, "")
	w.calls("configuration", "snapshot")
}

func TestACertificateIsGivenUpOnlyBeyondDoubt(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.configure("t2")
	w.compass.good["t2"] = true
	w.compass.called()
	refused := &graphql.Error{Kind: graphql.Ambiguous}
	w.compass.fail("snapshot", refused)
	for range 5 { // refused, but viewer is not
		w.state(w.next(), compassv1alpha1.SynchronizationFailed, "")
		w.calls("snapshot", "viewer")
	}
	refuse := func(d time.Duration) {
		t.Helper()
		w.compass.fail("viewer", refused)
		w.state(w.next(), compassv1alpha1.SynchronizationFailed, "")
		for began := w.clock.Now(); w.clock.Now().Before(began.Add(d)); {
			w.clock.Step(45 * time.Second)
			w.resync()
			w.state(w.step(), compassv1alpha1.SynchronizationFailed, "")
		}
		if calls := w.compass.called(); slices.Contains(calls, "sign") || len(calls) < 14 {
			t.Errorf("calls %v", calls)
		}
	}
	refuse(4*time.Minute + 30*time.Second) // seven times, but an outage can be as long
	w.compass.fail("snapshot", nil)
	w.compass.fail("viewer", nil)
	w.resync()
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("snapshot", "label")
	w.compass.fail("snapshot", refused)
	refuse(4*time.Minute + 30*time.Second) // counted anew
	w.restart()                            // which is no reason to count anew
	w.clock.Step(30 * time.Second)
	w.resync()
	w.step()
	if !slices.Equal(w.compass.sent, []secret.Value{"t1", "t1-second", "t2", "t2-second"}) {
		t.Errorf("%d tokens were sent", len(w.compass.sent))
	}
	w.compass.fail("snapshot", nil)
	w.compass.fail("viewer", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")
}

func TestRenewalsComeInTimeYearAfterYear(t *testing.T) {
	w := newMemoryWorld(t)
	c := w.step()
	for range 10 {
		w.compass.called()
		before := c.Status.ConnectionStatus.CertificateStatus
		w.clock.SetTime(before.RenewAt.Add(-time.Hour))
		w.step()
		w.calls("configuration", "snapshot", "label") // the Connector is asked daily
		w.clock.SetTime(before.RenewAt.Add(5 * time.Minute))
		c = w.step()
		w.calls("configuration", "sign", "trial", "snapshot", "label")
		if after := c.Status.ConnectionStatus.CertificateStatus; after.Fingerprint == before.Fingerprint || !after.NotAfter.After(before.NotAfter.Time) {
			t.Fatalf("before %+v, after %+v", before, after)
		}
	}
}
