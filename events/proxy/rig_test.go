package proxy_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ingress  = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
	certHash = "6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21"
	gateway  = `,By=spiffe://cluster.local/ns/kyma-system/sa/default;Hash=` + certHash + `;Subject="";URI=` + ingress
	jsonType = "application/json;charset=UTF-8"
)

func xfcc(subject string) string {
	return `Hash=` + certHash + `;Subject="` + subject + `";URI=` + gateway
}

// store is a fixed set of Applications.
type store struct {
	apps    map[string]*v1alpha1.Application
	loading bool
}

func (s store) Application(name string) *v1alpha1.Application { return s.apps[name] }
func (s store) Synced() bool                                  { return !s.loading }

func applications() store {
	managed := func(ids ...string) v1alpha1.ApplicationSpec {
		return v1alpha1.ApplicationSpec{CompassMetadata: &v1alpha1.CompassMetadata{Authentication: v1alpha1.Authentication{ClientIDs: ids}}}
	}
	apps := map[string]*v1alpha1.Application{}
	for _, app := range []*v1alpha1.Application{
		{ObjectMeta: metav1.ObjectMeta{Name: "test-application"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "typed", Labels: map[string]string{proxy.TypeLabel: "commerce"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "test-application-meta"}, Spec: managed("test-application-id")},
		{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}, Spec: managed()},
		{ObjectMeta: metav1.ObjectMeta{Name: "leaving", DeletionTimestamp: &metav1.Time{Time: time.Unix(1, 0)}}},
	} {
		apps[app.Name] = app
	}
	return store{apps: apps}
}

// seen is a request as the publisher saw it.
type seen struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

// rig is a validator's handler before a publisher.
type rig struct {
	t         *testing.T
	server    *httptest.Server
	publisher *httptest.Server
	registry  *prometheus.Registry
	log       *bytes.Buffer

	mu   sync.Mutex
	seen []seen
}

func newRig(t *testing.T, answer http.HandlerFunc, change func(*proxy.Config), server ...func(*http.Server)) *rig {
	t.Helper()
	r := &rig{t: t, registry: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	if answer == nil {
		answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	}
	r.publisher = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.seen = append(r.seen, seen{req.Method, req.RequestURI, req.Host, req.Header.Clone(), string(body)})
		r.mu.Unlock()
		answer(w, req)
	}))
	transport := proxy.NewTransport()
	c := proxy.Config{
		Applications: applications(), Verifier: identity.Verifier{TrustedHops: 1, IngressIdentity: ingress},
		Paths: proxy.DefaultPaths, PublisherHost: strings.TrimPrefix(r.publisher.URL, "http://"), DestinationPath: "/publish",
		SourcePolicy: proxy.SourceWarn, MaxBodyBytes: 1024, Timeout: 30 * time.Second, Attempts: 1,
		Metrics: proxy.NewMetrics(r.registry), Log: slog.New(slog.NewJSONHandler(r.log, nil)), Transport: transport,
	}
	if change != nil {
		change(&c)
	}
	c.Verifier.Compatible = c.Compatible
	r.server = httptest.NewUnstartedServer(proxy.New(c))
	for _, f := range server {
		f(r.server.Config)
	}
	r.server.Start()
	t.Cleanup(func() {
		r.server.Close()
		transport.CloseIdleConnections()
		r.publisher.Close()
	})
	return r
}

func compatible(c *proxy.Config) { c.Compatible = true }

// answer is what a client sees.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// send sends exactly the target, without cleaning it.
func (r *rig) send(method, target string, header http.Header, body string) answer {
	r.t.Helper()
	u, err := url.Parse(r.server.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	u.Opaque = target
	request := &http.Request{Method: method, URL: u, Host: "gateway.example.com", Header: header.Clone(), Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	got, err := r.server.Client().Transport.RoundTrip(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	got.Header.Del("Date")
	got.Header.Del("Content-Length")
	return answer{got.StatusCode, got.Header, string(text)}
}

// audit ends the server, so that every request has left its line, and returns the lines without time.
func (r *rig) audit() []map[string]any {
	r.t.Helper()
	r.server.Close()
	var lines []map[string]any
	for _, text := range strings.Split(strings.TrimSpace(r.log.String()), "\n") {
		if text == "" {
			continue
		}
		line := map[string]any{}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			r.t.Fatal(err)
		}
		delete(line, "time")
		delete(line, "peer")
		lines = append(lines, line)
	}
	return lines
}

// refused checks an error of our own: its status, and a body that says the same.
func (a answer) refused(t *testing.T, status int) string {
	t.Helper()
	var body struct {
		Code  int    `json:"code"`
		Error string `json:"error"`
	}
	decoder := json.NewDecoder(strings.NewReader(a.Body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		t.Fatalf("%d with body %q: %v", a.Status, a.Body, err)
	}
	if a.Status != status || body.Code != status || body.Error == "" || a.Header.Get("Content-Type") != jsonType || !strings.HasSuffix(a.Body, "}\n") {
		t.Errorf("got %+v, want %d", a, status)
	}
	return body.Error
}

func event(client string, more ...string) http.Header {
	h := http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"test-application"}, "Ce-Type": {"order.created.v1"},
		"Content-Type": {"application/json"}, "X-Forwarded-Client-Cert": {xfcc(client)},
	}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

// documented compares a status with the table of answers in the reference.
func documented(t *testing.T, reason, mode string, status int) {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference/validator.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, ok := strings.Cut(string(text), "\n| `"+reason+"` | ")
	if !ok {
		t.Fatalf("the reference has no reason %q", reason)
	}
	cells := strings.SplitN(row, " | ", 3)
	if cell := cells[map[string]int{"strict": 0, "compatible": 1}[mode]]; !slices.ContainsFunc(strings.Split(cell, ", "), func(s string) bool { return s == strconv.Itoa(status) || s == strconv.Itoa(status/100)+"xx" }) {
		t.Errorf("the reference says %q of %s in %s mode, not %d", cell, reason, mode, status)
	}
}

// requests is validator_requests_total by application and reason.
func (r *rig) requests() map[string]float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "validator_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			counts[labels["application"]+" "+labels["reason"]] += m.GetCounter().GetValue()
		}
	}
	return counts
}

// sum adds all series of a counter or the counts of a histogram.
func (r *rig) sum(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}
