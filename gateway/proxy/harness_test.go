package proxy_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/gateway/callers"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/csrf"
	"github.com/application-connector/application-connector/gateway/proxy"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/tokens"
	"github.com/application-connector/application-connector/gateway/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// generous is how long anything may take before a test gives up.
const generous = 30 * time.Second

// rig is an engine in front of real sockets, with routes that the test sets.
type rig struct {
	t        testing.TB
	services *httptest.Server
	entries  *httptest.Server
	engine   *proxy.Engine
	client   *http.Client // follows no redirects
	log      *leaktest.Log
	snapshot atomic.Pointer[routes.Snapshot]
	tokens   atomic.Int64 // times that a call asked for a token
	pool     *transport.Pool
	clock    *clocktesting.FakePassiveClock // of pauses between renewals

	applications []v1alpha1.Application
	secrets      map[string]map[string][]byte
	// watch is there once the test has a secret.
	watch *leaktest.Watch
}

type timeouts struct{ target, request time.Duration }

func newRig(t testing.TB, limits ...timeouts) *rig { return newTracedRig(t, nil, limits...) }

func newTracedRig(t testing.TB, tracers trace.TracerProvider, limits ...timeouts) *rig {
	limit := timeouts{generous, generous}
	if len(limits) > 0 {
		limit = limits[0]
	}
	r := &rig{
		t: t, log: &leaktest.Log{}, pool: transport.New(transport.Options{}), secrets: map[string]map[string][]byte{},
		clock: clocktesting.NewFakePassiveClock(time.Now()),
	}
	through := func(host string, identity *credentials.Identity, trust credentials.Trust) http.RoundTripper {
		return r.pool.For(transport.Target{Host: host, Identity: identity, Trust: trust, Direct: true})
	}
	manager := tokens.New(tokens.Options{Transports: through, Timeout: limit.target, Clock: clock.RealClock{}, Looked: func(bool) { r.tokens.Add(1) }})
	sessions := csrf.New(csrf.Options{Transports: through, Timeout: limit.target, Clock: clock.RealClock{}})
	engine := proxy.New(proxy.Options{
		Snapshot: r.snapshot.Load, Resolver: &credentials.Resolver{Tokens: manager, Sessions: sessions}, Transports: r.pool,
		Mesh:    callers.Mesh{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Timeout: limit.target, RequestTimeout: limit.request, Tracers: tracers, Clock: r.clock,
		Log: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	r.engine = engine
	r.services, r.entries = serve(engine.Services()), serve(engine.Entries())
	r.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		r.services.Close()
		r.entries.Close()
		manager.Close()
		sessions.Close()
		r.pool.CloseIdleConnections()
	})
	return r
}

// pass lets time pass between renewals of credentials.
func (r *rig) pass(d time.Duration) { r.clock.SetTime(r.clock.Now().Add(d)) }

// serve starts a server that speaks HTTP/1.1 and HTTP/2 without TLS, as the gateway's ports do.
func serve(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.Start()
	return s
}

// target starts an external system.
func (r *rig) target(h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	r.t.Cleanup(s.Close)
	return s
}

// application adds an Application with one service for each entry, of the entry's name.
func (r *rig) application(name string, change func(*v1alpha1.ApplicationSpec), entries ...v1alpha1.Entry) {
	app := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, e := range entries {
		e.Type = v1alpha1.EntryTypeAPI
		app.Spec.Services = append(app.Spec.Services, v1alpha1.Service{ID: "id-" + e.Name, Name: e.Name + "-name", DisplayName: e.Name, Entries: []v1alpha1.Entry{e}})
	}
	if change != nil {
		change(&app.Spec)
	}
	r.applications = append(r.applications, app)
	r.apply()
}

func (r *rig) secret(name string, data ...string) {
	r.secrets[name] = map[string][]byte{}
	if r.watch == nil {
		r.watch = leaktest.Of(r.t)
		r.t.Cleanup(func() { r.watch.Told("log of the gateway", r.log.String()) })
	}
	for i := 0; i+1 < len(data); i += 2 {
		r.secrets[name][data[i]] = []byte(data[i+1])
	}
	r.watch.AddSecret(name, r.secrets[name])
	r.apply()
}

func (r *rig) apply() { r.snapshot.Store(routes.NewSnapshot(r.applications, r.secrets)) }

func entry(name, target string) v1alpha1.Entry { return v1alpha1.Entry{Name: name, TargetURL: target} }

func entryWith(name, target, kind, secretName, tokenURL string) v1alpha1.Entry {
	e := entry(name, target)
	e.Credentials = v1alpha1.Credentials{Type: kind, SecretName: secretName, AuthenticationURL: tokenURL}
	return e
}

func entryCSRF(e v1alpha1.Entry, url string) v1alpha1.Entry {
	e.Credentials.CSRFInfo = &v1alpha1.CSRFInfo{TokenEndpointURL: url}
	return e
}

// answer is what a caller got.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func (r *rig) get(path string, header ...string) answer {
	r.t.Helper()
	return r.do(http.MethodGet, path, nil, header...)
}

func (r *rig) do(method, path string, body io.Reader, header ...string) answer {
	r.t.Helper()
	a, err := r.try(method, r.services.URL+path, body, header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (r *rig) try(method, url string, body io.Reader, header ...string) (answer, error) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if r.watch != nil {
		if r.watch.AddHeader(request.Header); response.Header.Get("Content-Type") == errorType { // others are the target's
			r.watch.Answer("answer of the gateway", response.StatusCode, response.Header, string(text))
		}
	}
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// errorType is the content type of the gateway's own errors.
const errorType = "application/json;charset=UTF-8"

// problem is the text of an error in the gateway's own shape.
func (a answer) problem(t testing.TB) string {
	t.Helper()
	var body struct {
		Code  int
		Error string
	}
	if err := json.Unmarshal([]byte(a.Body), &body); err != nil {
		t.Fatalf("%d %q is not an error of the gateway: %v", a.Status, a.Body, err)
	}
	if body.Code != a.Status || a.Header.Get("Content-Type") != errorType || !strings.HasSuffix(a.Body, "}\n") {
		t.Errorf("status %d, content type %q, body %q: not the shape of an error", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	return body.Error
}

// reason is that of an error in the gateway's own shape; empty if header and body do not agree.
func (a answer) reason() string {
	var body struct{ Reason string }
	if err := json.Unmarshal([]byte(a.Body), &body); err != nil || body.Reason != a.Header.Get("Gateway-Error-Reason") {
		return ""
	}
	return body.Reason
}

// access waits for n access lines and returns the last.
func (r *rig) access(n int) map[string]any {
	r.t.Helper()
	deadline := time.Now().Add(generous)
	for {
		lines := strings.Split(strings.TrimSpace(r.log.String()), "\n")
		if len(lines) >= n && lines[0] != "" {
			var m map[string]any
			if err := json.Unmarshal([]byte(lines[n-1]), &m); err != nil {
				r.t.Fatal(err)
			}
			return m
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d access lines, want %d", len(lines), n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// within does something several times, and fails unless it took no longer, at half of the times, than ten times what it may.
// Not at all of them: this runs with the race detector, on a machine that does other things too, and there any one may wait.
// What it takes without that, make bench shows.
func within(t *testing.T, may time.Duration, once func() time.Duration) {
	t.Helper()
	const runs = 9
	var times []time.Duration
	for range runs {
		times = append(times, once())
	}
	if slices.Sort(times); times[runs/2] > 10*may {
		t.Errorf("it took %v, want half of them within %v", times, 10*may)
	}
}
