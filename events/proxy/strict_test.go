package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/proxy"
)

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
