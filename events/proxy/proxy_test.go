package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
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

	"github.com/google/go-cmp/cmp"
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

// TestWhatThePublisherSees is a golden wire test of each route.
func TestWhatThePublisherSees(t *testing.T) {
	for what, tc := range map[string]struct {
		method, target string
		header         http.Header
		body           string
		want           seen
	}{
		"a legacy event keeps its path and query": {
			"POST", "/test-application/v1/events?a=b&c=%2F;d", http.Header{"Content-Type": {"application/json"}, "X-Forwarded-Client-Cert": {xfcc("CN=test-application")}}, `{"event-id":"7","event-type":"x"}`,
			seen{Method: "POST", Target: "/test-application/v1/events?a=b&c=%2F;d", Header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"33"}}, Body: `{"event-id":"7","event-type":"x"}`},
		},
		"the list of subscribed types": {
			"GET", "/test-application/v1/events/subscribed", http.Header{"X-Forwarded-Client-Cert": {xfcc("CN=test-application")}}, "",
			seen{Method: "GET", Target: "/test-application/v1/events/subscribed", Header: http.Header{}},
		},
		"a CloudEvent on v2": {
			"POST", "/test-application/v2/events?a=b", event("CN=test-application"), `{"a":1}`,
			seen{Method: "POST", Target: "/publish?a=b", Header: http.Header{
				"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"test-application"}, "Ce-Type": {"order.created.v1"}, "Content-Type": {"application/json"}, "Content-Length": {"7"},
			}, Body: `{"a":1}`},
		},
		"a CloudEvent on events, whatever stands behind": {
			"POST", "/test-application/events/more/", event("CN=test-application"), `{"a":1}`,
			seen{Method: "POST", Target: "/publish", Header: http.Header{
				"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"test-application"}, "Ce-Type": {"order.created.v1"}, "Content-Type": {"application/json"}, "Content-Length": {"7"},
			}, Body: `{"a":1}`},
		},
		"a structured CloudEvent is sent as it came, without attributes beside": {
			"POST", "/test-application/events", http.Header{"Content-Type": {"application/cloudevents+json"}, "Ce-Source": {"victim"}, "X-Forwarded-Client-Cert": {xfcc("CN=test-application")}},
			`{"specversion":"1.0","id":"7","source":"test-application","type":"t", "data":1}`,
			seen{Method: "POST", Target: "/publish", Header: http.Header{"Content-Type": {"application/cloudevents+json"}, "Content-Length": {"79"}}, Body: `{"specversion":"1.0","id":"7","source":"test-application","type":"t", "data":1}`},
		},
		"tracing passes; identity, credentials and named header fields of the client do not": {
			"POST", "/test-application/events", event("CN=test-application",
				"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-B3-Traceid", "80f198ee56343ba864fe8b2a57d3eff7", "X-Request-Id", "r",
				"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "gateway.example.com", "Forwarded", "for=192.0.2.1",
				"Authorization", "Bearer x", "Cookie", "a=b", "Connection", "Ce-Source, Traceparent", "Client-Cert", ":x:", "Client-Cert-Chain", ":x:",
				"X-Verified-Application", "victim", "X-Verified-Certificate", "x", "X-Verified-Other", "x", "Expect", "100-continue", "X_verified_application", "victim", "X_forwarded_client_cert", "x",
				"Ce_source", "victim", "Ce-Source_", "victim", "Content_length", "9", "Keep-Alive", "timeout=5", "Te", "trailers", "Proxy-Authorization", "x", "Upgrade", "h2c",
				"User-Agent", "shop/1"), "1",
			seen{Method: "POST", Target: "/publish", Header: http.Header{
				"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"test-application"}, "Ce-Type": {"order.created.v1"}, "Content-Type": {"application/json"}, "Content-Length": {"1"},
				"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "X-B3-Traceid": {"80f198ee56343ba864fe8b2a57d3eff7"}, "X-Request-Id": {"r"},
				"X-Forwarded-For": {"192.0.2.1, 127.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"gateway.example.com"}, "Forwarded": {"for=192.0.2.1"},
				"User-Agent": {"shop/1"},
			}, Body: "1"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil, nil)
			if tc.header.Get("User-Agent") == "" {
				tc.header["User-Agent"] = nil
			}
			if got := r.send(tc.method, tc.target, tc.header, tc.body); got.Status != http.StatusNoContent {
				t.Fatalf("got %+v", got)
			}
			tc.want.Host = strings.TrimPrefix(r.publisher.URL, "http://")
			if tc.want.Header.Get("X-Forwarded-For") == "" {
				tc.want.Header.Set("X-Forwarded-For", "127.0.0.1")
			}
			tc.want.Header.Set("X-Verified-Application", "test-application")
			tc.want.Header.Set("X-Verified-Certificate", certHash)
			tc.want.Header.Set("Accept-Encoding", "gzip") // the test client's own
			if d := cmp.Diff([]seen{tc.want}, r.seen); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestStrictRefuses(t *testing.T) {
	good := event("CN=test-application")
	long := strings.Repeat("x", 1025)
	for what, tc := range map[string]struct {
		method, target string
		header         http.Header
		body           string
		config         func(*proxy.Config)
		status         int
		want           http.Header
		application    string
		reason         string
	}{
		"no application":                         {"POST", "/", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"no route":                               {"POST", "/test-application", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"an application without a route":         {"POST", "/test-application/", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"another version":                        {"POST", "/test-application/v3/events", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"metadata":                               {"POST", "/test-application/v1/metadata/services", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"a longer segment on v1":                 {"POST", "/test-application/v1/eventsource", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"a longer segment on v2":                 {"POST", "/test-application/v2/events2", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"a longer segment on events":             {"POST", "/test-application/eventsXYZ/zz", good, "", nil, 404, nil, "(unknown)", "no_route"},
		"routes look the same to the anonymous":  {"POST", "/test-application/v3/events", http.Header{}, "", nil, 404, nil, "(unknown)", "no_route"},
		"an empty segment":                       {"POST", "/test-application//events", good, "", nil, 400, nil, "(unknown)", "path"},
		"a dot segment":                          {"POST", "/other/../test-application/events", good, "", nil, 400, nil, "(unknown)", "path"},
		"an encoded dot segment":                 {"POST", "/test-application/v1/events/%2e%2e/%2E%2E/x", good, "", nil, 400, nil, "(unknown)", "path"},
		"an encoded separator":                   {"POST", "/test-application%2Fevents", good, "", nil, 400, nil, "(unknown)", "path"},
		"a separator that is encoded twice":      {"POST", "/test-application/v1/events/%252e%252e%252Fx", good, "", nil, 400, nil, "(unknown)", "path"},
		"a backslash":                            {"POST", "/test-application/v1/events/%5C..", good, "", nil, 400, nil, "(unknown)", "path"},
		"a control character":                    {"POST", "/test-application/v1/events/%00", good, "", nil, 400, nil, "(unknown)", "path"},
		"GET of events":                          {"GET", "/test-application/events", good, "", nil, 405, http.Header{"Allow": {"POST"}}, "(unknown)", "method"},
		"DELETE of v2":                           {"DELETE", "/test-application/v2/events", good, "", nil, 405, http.Header{"Allow": {"POST"}}, "(unknown)", "method"},
		"GET of legacy events":                   {"GET", "/test-application/v1/events", good, "", nil, 405, http.Header{"Allow": {"POST"}}, "(unknown)", "method"},
		"POST of subscribed":                     {"POST", "/test-application/v1/events/subscribed", good, "", nil, 405, http.Header{"Allow": {"GET"}}, "(unknown)", "method"},
		"GET of something like subscribed":       {"GET", "/test-application/v1/events/subscribed/x", good, "", nil, 405, http.Header{"Allow": {"POST"}}, "(unknown)", "method"},
		"Applications that are not loaded":       {"POST", "/test-application/events", good, "", func(c *proxy.Config) { c.Applications = store{loading: true} }, 503, http.Header{"Retry-After": {"5"}}, "(unknown)", "not_synced"},
		"no identity":                            {"POST", "/test-application/events", http.Header{}, "", nil, 401, nil, "test-application", "no_header"},
		"no identity for an unknown Application": {"POST", "/unknown/events", http.Header{}, "", nil, 401, nil, "(unknown)", "no_header"},
		"two header lines":                       {"POST", "/test-application/events", http.Header{"X-Forwarded-Client-Cert": {xfcc("CN=test-application"), xfcc("CN=test-application")}}, "", nil, 401, nil, "test-application", "several_headers"},
		"the client's element alone":             {"POST", "/test-application/events", event("", "X-Forwarded-Client-Cert", `Subject="CN=test-application"`), "", nil, 401, nil, "test-application", "wrong_hops"},
		"a forged element in front":              {"POST", "/test-application/events", event("", "X-Forwarded-Client-Cert", `Subject="CN=test-application",`+xfcc("CN=other")), "", nil, 401, nil, "test-application", "wrong_hops"},
		"another gateway":                        {"POST", "/test-application/events", event("", "X-Forwarded-Client-Cert", `Subject="CN=test-application",URI=spiffe://other`), "", nil, 401, nil, "test-application", "untrusted_hop"},
		"an ordinary name with a comma":          {"POST", "/test-application/events", event("O=Foo, Inc.,CN=test-application"), "", nil, 401, nil, "test-application", "malformed_name"},
		"a certificate that is none":             {"POST", "/test-application/events", event("", "X-Forwarded-Client-Cert", `Cert="cert";`+xfcc("CN=test-application")), "", nil, 401, nil, "test-application", "bad_certificate"},
		"an unknown Application":                 {"POST", "/unknown/events", event("CN=unknown"), "", nil, 403, nil, "(unknown)", "unknown_application"},
		"another Application's certificate":      {"POST", "/test-application/events", event("CN=typed"), "", nil, 403, nil, "test-application", "wrong_certificate"},
		"a managed Application by its name":      {"POST", "/test-application-meta/events", event("CN=test-application-meta"), "", nil, 403, nil, "test-application-meta", "wrong_certificate"},
		"a managed Application without ids":      {"POST", "/nobody/events", event("CN=nobody"), "", nil, 403, nil, "nobody", "no_client_ids"},
		"an Application that is being deleted":   {"POST", "/leaving/events", event("CN=leaving"), "", nil, 403, nil, "leaving", "being_deleted"},
		"a body that is too large":               {"POST", "/test-application/events", good, long, nil, 413, nil, "test-application", "too_large"},
		"a legacy body that is too large":        {"POST", "/test-application/v1/events", good, long, nil, 413, nil, "test-application", "too_large"},
		"no CloudEvent":                          {"POST", "/test-application/v2/events", http.Header{"Content-Type": {"application/json"}, "X-Forwarded-Client-Cert": {xfcc("CN=test-application")}}, "{}", nil, 415, nil, "test-application", "not_a_cloudevent"},
		"a batch in another format":              {"POST", "/test-application/events", event("CN=test-application", "Content-Type", "application/cloudevents-batch+protobuf"), "[]", nil, 415, nil, "test-application", "not_a_cloudevent"},
		"a broken CloudEvent":                    {"POST", "/test-application/events", event("CN=test-application", "Ce-Time", "noon"), "", nil, 400, nil, "test-application", "not_a_cloudevent"},
		"another source, enforced":               {"POST", "/test-application/events", event("CN=test-application", "Ce-Source", "typed"), "", func(c *proxy.Config) { c.SourcePolicy = proxy.SourceEnforce }, 403, nil, "test-application", "source"},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil, tc.config)
			got := r.send(tc.method, tc.target, tc.header, tc.body)
			got.refused(t, tc.status)
			for name, values := range tc.want {
				if d := cmp.Diff(values, got.Header.Values(name)); d != "" {
					t.Errorf("%s: %s", name, d)
				}
			}
			if len(r.seen) != 0 {
				t.Errorf("the publisher saw %+v", r.seen)
			}
			documented(t, tc.reason, "strict", tc.status)
			audit := r.audit()
			if len(audit) != 1 || audit[0]["decision"] != "refused" || audit[0]["reason"] != tc.reason || audit[0]["level"] != "WARN" {
				t.Errorf("audit: %v, want reason %s", audit, tc.reason)
			}
			if d := cmp.Diff(map[string]float64{tc.application + " " + tc.reason: 1}, r.requests()); d != "" {
				t.Errorf("metrics (-want +got)\n%s", d)
			}
		})
	}
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

func TestAnUnknownApplicationAndAWrongCertificateLookAlike(t *testing.T) {
	r := newRig(t, nil, nil)
	var answers []answer
	for _, path := range []string{"/unknown/events", "/test-application/events", "/nobody/events", "/leaving/events"} {
		answers = append(answers, r.send("POST", path, event("CN=stranger"), ""))
	}
	for _, a := range answers[1:] {
		if d := cmp.Diff(answers[0], a); d != "" {
			t.Error(d)
		}
	}
}

func TestSource(t *testing.T) {
	structured := http.Header{"Content-Type": {"application/cloudevents+json"}, "X-Forwarded-Client-Cert": {xfcc("CN=typed")}}
	body := func(source string) string {
		return `{"specversion":"1.0","id":"7","source":"` + source + `","type":"t"}`
	}
	for what, tc := range map[string]struct {
		policy     proxy.SourcePolicy
		source     string
		status     int
		want       string
		violations float64
	}{
		"the Application's name under enforce": {proxy.SourceEnforce, "typed", 204, "typed", 0},
		"the Application's type under enforce": {proxy.SourceEnforce, "commerce", 204, "commerce", 0},
		"the name in other case under enforce": {proxy.SourceEnforce, "Typed", 403, "", 1},
		"another source under enforce":         {proxy.SourceEnforce, "victim", 403, "", 1},
		"another source under rewrite":         {proxy.SourceRewrite, "victim", 204, "typed", 1},
		"the Application's type under rewrite": {proxy.SourceRewrite, "commerce", 204, "commerce", 0},
		"another source under warn":            {proxy.SourceWarn, "victim", 204, "victim", 1},
		"another source under off":             {proxy.SourceOff, "victim", 204, "victim", 0},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil, func(c *proxy.Config) { c.SourcePolicy = tc.policy })
			for mode, got := range map[string]answer{
				"binary":     r.send("POST", "/typed/events", event("CN=typed", "Ce-Source", tc.source), ""),
				"structured": r.send("POST", "/typed/events", structured, body(tc.source)),
			} {
				if got.Status != tc.status {
					t.Errorf("%s: got %+v, want %d", mode, got, tc.status)
				}
			}
			for _, s := range r.seen {
				source := s.Header.Get("Ce-Source")
				if s.Body != "" {
					var e struct{ Source string }
					if err := json.Unmarshal([]byte(s.Body), &e); err != nil {
						t.Fatal(err)
					}
					source = e.Source
				}
				if source != tc.want {
					t.Errorf("the publisher saw source %q, want %q", source, tc.want)
				}
			}
			if (tc.status == 204) != (len(r.seen) == 2) {
				t.Errorf("the publisher saw %d events", len(r.seen))
			}
			if got := r.sum("validator_source_violations_total"); got != 2*tc.violations {
				t.Errorf("%v violations, want %v", got, 2*tc.violations)
			}
			for _, line := range r.audit() {
				if (line["source"] == tc.source) != (tc.violations > 0) || (line["level"] == "WARN") != (tc.violations > 0) {
					t.Errorf("audit: %v", line)
				}
			}
		})
	}
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

func TestAuditOfAnAcceptedEvent(t *testing.T) {
	r := newRig(t, nil, nil)
	if got := r.send("POST", "/test-application-meta/events", event("CN=test-application-id,OU=eu", "Ce-Source", "test-application-meta"), "x"); got.Status != 204 {
		t.Fatalf("got %+v", got)
	}
	want := []map[string]any{{
		"level": "INFO", "msg": "event request", "decision": "accepted", "reason": "delivered", "application": "test-application-meta", "route": "events",
		"method": "POST", "status": 204.0, "certificateHash": certHash, "certificateSerial": "", "subject": "CN=test-application-id,OU=eu",
	}}
	if d := cmp.Diff(want, r.audit()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := r.sum("validator_publisher_duration_seconds"); got != 1 {
		t.Errorf("%v observations of the publisher", got)
	}
	if got := r.sum("validator_requests_in_flight"); got != 0 {
		t.Errorf("%v in flight", got)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, nil)
	h := event("CN=test-application", "Authorization", "Bearer canary-a", "Cookie", "canary-b=1", "Ce-Subject", "canary-c", "X-Api-Key", "canary-d")
	r.send("POST", "/test-application/events?token=canary-e", h, "canary-f")
	h.Set("Ce-Time", "canary-g")
	r.send("POST", "/test-application/events", h, "canary-f")
	r.send("POST", "/test-application/events", http.Header{"Content-Type": {"application/cloudevents+json"}, "X-Forwarded-Client-Cert": h["X-Forwarded-Client-Cert"]}, `{"canary-h`)
	r.send("POST", "/test-application/v1/events", h, strings.Repeat("canary-i", 1000))
	if n := len(r.audit()); n != 4 {
		t.Errorf("%d audit lines", n)
	}
	if strings.Contains(r.log.String(), "canary") {
		t.Errorf("the log holds a canary: %s", r.log)
	}
}

func TestThePublishersAnswer(t *testing.T) {
	for what, tc := range map[string]struct {
		publisher  int
		strict     int
		compatible int
		decision   string
		reason     string
	}{
		"success":                    {200, 200, 200, "accepted", "delivered"},
		"a redirect is not followed": {302, 302, 302, "failed", "publisher_refused"},
		"a broken event":             {400, 400, 400, "failed", "publisher_refused"},
		"too many":                   {429, 429, 429, "failed", "publisher_refused"},
		"an error":                   {500, 500, 502, "failed", "publisher_failed"},
		"a bad gateway":              {502, 503, 502, "failed", "publisher_failed"},
		"unavailable":                {503, 503, 502, "failed", "publisher_failed"},
		"a gateway's time-out":       {504, 503, 502, "failed", "publisher_failed"},
		"the last status":            {599, 599, 502, "failed", "publisher_failed"},
	} {
		for _, mode := range []string{"strict", "compatible"} {
			t.Run(what+", "+mode, func(t *testing.T) {
				want := answer{tc.strict, http.Header{"Content-Type": {"text/x"}, "Retry-After": {"9"}, "Location": {"/elsewhere"}}, "the publisher's own words"}
				config := func(*proxy.Config) {}
				if mode == "compatible" {
					want.Status, config = tc.compatible, compatible
				}
				if tc.publisher >= 500 {
					want.Header.Set("Target-System-Status", strconv.Itoa(tc.publisher))
				}
				r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/x")
					w.Header().Set("Retry-After", "9")
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(tc.publisher)
					_, _ = io.WriteString(w, "the publisher's own words")
				}, config)
				got := r.send("POST", "/test-application/v2/events", event("CN=test-application"), "{}")
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
				if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != tc.decision || audit[0]["reason"] != tc.reason || audit[0]["status"] != float64(want.Status) {
					t.Errorf("audit: %v", audit)
				}
			})
		}
	}
}

func TestWhatThePublisherSaysToTheConnectionIsNotForTheClient(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{"Connection": "X-Hop, keep-alive", "Keep-Alive": "timeout=5", "X-Hop": "1", "Proxy-Authenticate": "Basic", "X-Kept": "1"} {
			w.Header().Set(name, value)
		}
		w.WriteHeader(http.StatusOK)
	}, nil)
	got := r.send("POST", "/test-application/events", event("CN=test-application"), "x")
	if d := cmp.Diff(answer{200, http.Header{"X-Kept": {"1"}}, ""}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestAPublisherThatBreaksOff(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}, nil)
	request, err := http.NewRequest(http.MethodPost, r.server.URL+"/test-application/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = event("CN=test-application")
	got, err := r.server.Client().Do(request)
	if err == nil {
		_, err = io.ReadAll(got.Body)
		got.Body.Close()
	}
	if err == nil {
		t.Error("half an answer passed for a whole one")
	}
	if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "publisher_answer_broken" || audit[0]["detail"] != "unexpected EOF" {
		t.Errorf("audit: %v", audit)
	}
}

func TestABodyThatDoesNotArriveIsA408(t *testing.T) {
	r := newRig(t, nil, nil, func(s *http.Server) { s.ReadTimeout = 200 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nContent-Length: 100\r\n\r\nhalf")
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %d", got.StatusCode)
	}
	if audit := r.audit(); len(audit) != 1 || audit[0]["reason"] != "body_timeout" {
		t.Errorf("audit: %v", audit)
	}
}

func TestAClientThatLeaves(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release }, nil)
	t.Cleanup(func() { close(release) })
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.server.URL+"/test-application/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = event("CN=test-application")
	go func() { <-arrived; leave() }()
	if got, err := r.server.Client().Do(request); err == nil {
		got.Body.Close()
		t.Error("an answer")
	}
	if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "client_gone" {
		t.Errorf("audit: %v", audit)
	}
}

func TestAClientThatLeavesWithinTheAnswer(t *testing.T) {
	left, begun := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 8<<10))
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-left
		for b := make([]byte, 64<<10); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nContent-Length: 2\r\n\r\n{}")
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	conn.Close()
	close(left)
	if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "client_gone" {
		t.Errorf("audit: %v", audit)
	}
}

func TestAnAnswerWithoutEndIsCut(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		for b := make([]byte, 64<<10); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}, nil)
	request, err := http.NewRequest(http.MethodPost, r.server.URL+"/test-application/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = event("CN=test-application")
	got, err := r.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if n, err := io.Copy(io.Discard, got.Body); err == nil || n > 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestABodyThatBreaksOffIsNotSent(t *testing.T) {
	r := newRig(t, nil, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nContent-Length: 100\r\n\r\nhalf")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(conn)
	conn.Close()
	if audit := r.audit(); len(audit) != 1 || audit[0]["reason"] != "body_unreadable" || len(r.seen) != 0 {
		t.Errorf("audit: %v, seen: %v", audit, r.seen)
	}
}

type panicking struct{}

func (panicking) Application(string) *v1alpha1.Application { panic("defect") }
func (panicking) Synced() bool                             { return true }

func TestADefectIsA500AndCounted(t *testing.T) {
	r := newRig(t, nil, func(c *proxy.Config) { c.Applications = panicking{} })
	r.send("POST", "/test-application/events", event("CN=test-application"), "x").refused(t, 500)
	r.server.Close()
	if d := cmp.Diff(map[string]float64{"(unknown) panic": 1}, r.requests()); d != "" {
		t.Error(d)
	}
}

func TestLiteralPathsWithoutAPlaceholder(t *testing.T) {
	r := newRig(t, nil, func(c *proxy.Config) {
		c.Paths = proxy.Paths{V1: "/test-application/one", V2: "/test-application/two", Events: "/test-application/three"}
	})
	for path, want := range map[string]int{"/test-application/two": 204, "/test-application/three/x": 204, "/test-application/v2/events": 404, "/typed/two": 404} {
		if got := r.send("POST", path, event("CN=test-application"), "x"); got.Status != want {
			t.Errorf("%s: %d, want %d", path, got.Status, want)
		}
	}
}
