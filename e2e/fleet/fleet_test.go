// Package fleet_test holds the agent against inventories of hundreds and thousands of systems: that each of them arrives,
// that no fault of Compass costs one of them, and what a sync costs. Agent, Compass and API server are whole; nothing of
// the agent is replaced.
package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/compass"
)

var cluster rest.Config

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // each agent has its own log
	if seed := os.Getenv(seedVariable); seed != "" {
		os.Exit(playCompass(seed))
	}
	kubetest.Run(m, &cluster)
}

const (
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
	// patience is for one sync of hundreds of Applications on a machine that does something else at the same time.
	patience = 3 * time.Minute
)

func seedOf(applications ...compass.Application) compass.Seed {
	return compass.Seed{Tenants: []compass.Tenant{{
		ID:           tenant,
		Runtimes:     []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
		Applications: applications,
	}}}
}

// fleet is a cluster with namespaces of its own and agents that the test starts and stops.
type fleet struct {
	tb      testing.TB
	client  client.Client
	env     map[string]string
	log     *lockedBuffer
	traffic *traffic
	// namespace of the Secrets.
	namespace string
	// compassTimeout of one request; 0 is the agent's own.
	compassTimeout time.Duration
}

func newFleet(tb testing.TB, serverCA []byte) *fleet {
	tb.Helper()
	watch := leaktest.Of(tb)
	watch.Cluster(tb, &cluster)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme} {
		must(tb, add(scheme))
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	must(tb, err)
	system, ingress := kubetest.Namespace(tb, &cluster), kubetest.Namespace(tb, &cluster)
	ca := filepath.Join(tb.TempDir(), "ca.pem")
	must(tb, os.WriteFile(ca, serverCA, 0o600))
	f := &fleet{tb: tb, client: c, log: &lockedBuffer{}, traffic: newTraffic(), namespace: system}
	f.env = map[string]string{
		"APP_AGENT_CONFIGURATION_SECRET": system + "/compass-agent-configuration", "APP_CLUSTER_CERTIFICATES_SECRET": system + "/cluster-client-certificates",
		"APP_CA_CERTIFICATES_SECRET": ingress + "/kyma-gateway-certs-cacert", "APP_INTEGRATION_NAMESPACE": system, "APP_COMPASS_CA_FILE": ca,
		// Nothing happens by itself: each sync is asked for.
		"APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "1h", "APP_CONTROLLER_SYNC_PERIOD": "24h",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "off", "APP_LEADER_ELECTION": "false",
	}
	if _, measured := tb.(*testing.B); !measured {
		f.env["APP_LOG_LEVEL"] = "debug" // no secret may be in it
	}
	tb.Cleanup(f.sweep)
	return f
}

// sweep removes what is cluster-wide, so that the next test begins with nothing. The Secrets go with their namespace.
func (f *fleet) sweep() {
	ctx := context.Background()
	for _, kind := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
		if err := f.client.DeleteAllOf(ctx, kind); err != nil {
			f.tb.Error(err)
		}
	}
	if err := f.client.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(f.namespace)); err != nil {
		f.tb.Error(err)
	}
	if f.tb.Failed() {
		f.tb.Logf("the agent's log:\n%s", f.log.tail(20_000))
	}
}

// configure writes the configuration Secret.
func (f *fleet) configure(token compass.Token) {
	f.tb.Helper()
	leaktest.Of(f.tb).Add("a one-time token", token.Token)
	must(f.tb, f.client.Create(f.tb.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "compass-agent-configuration"},
		StringData: map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token},
	}))
}

// start runs an agent until the test ends, or until the function that it returns is called.
func (f *fleet) start() (stop func()) {
	f.tb.Helper()
	o, err := agent.FromEnvironment(func(name string) string { return f.env[name] })
	must(f.tb, err)
	o.Kubernetes, o.LogTo, o.CompassTimeout = rest.CopyConfig(&cluster), leaktest.Of(f.tb).Tee("agent", f.log), f.compassTimeout
	o.Kubernetes.Wrap(f.traffic.count)
	open, metrics := make(chan struct{}), ""
	o.Listening = func(_, address net.Addr) {
		metrics = "http://" + address.String() + "/metrics"
		close(open)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				f.tb.Errorf("the agent ended with: %v", err)
			}
		case <-time.After(patience):
			f.tb.Error("the agent does not end")
		}
	})
	f.tb.Cleanup(stop)
	select {
	case <-open:
		leaktest.Of(f.tb).Scrape(f.tb, "metrics of the agent", metrics)
	case err := <-ended:
		f.tb.Fatalf("the agent did not start: %v", err)
	case <-time.After(patience):
		f.tb.Fatal("the agent does not start")
	}
	return stop
}

// connection reads the CompassConnection; nil if there is none.
func (f *fleet) connection() *compassv1alpha1.CompassConnection {
	c := &compassv1alpha1.CompassConnection{}
	if err := f.client.Get(f.tb.Context(), types.NamespacedName{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		return nil
	}
	return c
}

// until waits until something is so of the CompassConnection, and gives it as it then is.
func (f *fleet) until(what string, within time.Duration, is func(*compassv1alpha1.CompassConnection) bool) *compassv1alpha1.CompassConnection {
	f.tb.Helper()
	var last *compassv1alpha1.CompassConnection
	err := wait.PollUntilContextTimeout(f.tb.Context(), 20*time.Millisecond, within, true, func(context.Context) (bool, error) {
		last = f.connection()
		return last != nil && is(last), nil
	})
	if err != nil {
		if last != nil {
			f.tb.Logf("last seen: %+v", last.Status)
		}
		f.tb.Fatalf("waiting for %s: %v", what, err)
	}
	return last
}

func (f *fleet) synchronised(within time.Duration) *compassv1alpha1.CompassConnection {
	f.tb.Helper()
	return f.until("a sync", within, func(c *compassv1alpha1.CompassConnection) bool { return c.Status.State == compassv1alpha1.Synchronized })
}

// ask has the agent do something once, and waits until it is done, however that ended.
func (f *fleet) ask(edit func(*compassv1alpha1.CompassConnectionSpec)) *compassv1alpha1.CompassConnection {
	f.tb.Helper()
	before := f.connection()
	if before == nil {
		f.tb.Fatal("there is no CompassConnection")
	}
	changed := before.DeepCopy()
	edit(&changed.Spec)
	must(f.tb, f.client.Patch(f.tb.Context(), changed, client.MergeFrom(before)))
	return f.until("the end of what was asked for", patience, func(c *compassv1alpha1.CompassConnection) bool {
		return c.Generation >= changed.Generation && c.Status.ObservedGeneration == c.Generation && (!c.Spec.ResyncNow || !changed.Spec.ResyncNow)
	})
}

func (f *fleet) resync() *compassv1alpha1.CompassConnection {
	f.tb.Helper()
	return f.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
}

// traffic counts the requests of an agent's Kubernetes clients.
type traffic struct {
	mu sync.Mutex
	// requests by method and resource, for example "PATCH applications/status".
	requests map[string]int
	// touched are the names of the objects that were written, by method and resource.
	touched map[string][]string
}

func newTraffic() *traffic {
	return &traffic{requests: map[string]int{}, touched: map[string][]string{}}
}

func (t *traffic) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resource, name := resourceOf(r.URL.Path)
		what := r.Method + " " + resource
		t.mu.Lock()
		t.requests[what]++
		if r.Method != http.MethodGet {
			t.touched[what] = append(t.touched[what], name)
		}
		t.mu.Unlock()
		return next.RoundTrip(r)
	})
}

// resourceOf reads the path of a request: /api/v1 or /apis/GROUP/VERSION, perhaps namespaces/NAMESPACE, then the
// resource, perhaps a name and a subresource.
func resourceOf(path string) (resource, name string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch skip := map[string]int{"api": 2, "apis": 3}[parts[0]]; {
	case skip == 0 || len(parts) <= skip:
		return "discovery", ""
	default:
		parts = parts[skip:]
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	resource = parts[0]
	if len(parts) > 1 {
		name = parts[1]
	}
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	return resource, name
}

// take gives what was counted, and begins anew.
func (t *traffic) take() (requests map[string]int, touched map[string][]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	requests, touched = t.requests, t.touched
	t.requests, t.touched = map[string]int{}, map[string][]string{}
	return requests, touched
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type lockedBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

// tail gives the last n bytes.
func (l *lockedBuffer) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b[max(0, len(l.b)-n):])
}

// line finds the last line of the log with this message.
func (l *lockedBuffer) line(message string) (map[string]any, error) {
	lines := strings.Split(l.tail(1<<30), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var fields map[string]any
		if json.Unmarshal([]byte(lines[i]), &fields) == nil && fields["msg"] == message {
			return fields, nil
		}
	}
	return nil, fmt.Errorf("the log has no line %q", message)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
