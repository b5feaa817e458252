package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/proxy"
)

// fixture is the header that tests of the older validator send: no certificate, one hop, the gateway's empty subject.
func fixture(subject string) http.Header {
	return http.Header{"Content-Type": {"application/json"}, "X-Forwarded-Client-Cert": {
		`Hash=hash1;Subject="` + subject + `";URI=,By=spiffe://cluster.local/ns/kyma-system/sa/default;Hash=hash2;Subject="";URI=` + ingress,
	}}
}

// TestCompatibleFixtures sends what the older validator's tests send, on all three routes.
func TestCompatibleFixtures(t *testing.T) {
	with := func(cn string) string { return "CN=" + cn + ",OU=group,O=tenant,L=Waldorf,ST=Waldorf,C=DE" }
	without := func(cn string) string { return "CN=" + cn + ",OU=OrgUnit,O=Organization,L=Waldorf,ST=Waldorf,C=DE" }
	absent := http.Header{"Content-Type": {"application/json"}}
	for what, tc := range map[string]struct {
		application string
		header      http.Header
		want        int
	}{
		"managed":                                         {"test-application-meta", fixture(without("test-application-id")), 200},
		"managed, with group and tenant":                  {"test-application-meta", fixture(with("test-application-id")), 200},
		"not managed":                                     {"test-application", fixture(without("test-application")), 200},
		"not managed, with group and tenant":              {"test-application", fixture(with("test-application")), 200},
		"managed, another name":                           {"test-application-meta", fixture(without("invalid-cn")), 403},
		"managed, another name with group and tenant":     {"test-application-meta", fixture(with("invalid-application")), 403},
		"managed, no header":                              {"test-application-meta", absent, 500},
		"not managed, another name":                       {"test-application", fixture(without("invalid-cn")), 403},
		"not managed, another name with group and tenant": {"test-application", fixture(with("invalid-application")), 403},
		"a certificate that is none, and another order": {"test-application", http.Header{"X-Forwarded-Client-Cert": {
			`Hash=hash1;Cert="cert";Subject="O=client organization,CN=test-application";URI=,By=spiffe://cluster.local/ns/default/sa/echoserver;Hash=hash;Subject="";URI=` + ingress,
		}}, 200},
		"managed, by the Application's name":      {"test-application-meta", fixture(with("test-application-meta")), 403},
		"managed, in another case":                {"test-application-meta", fixture(with("TEST-application-id")), 403},
		"not managed, a name that begins with it": {"test-application", fixture(with("test-application-2")), 403},
		"neither group nor tenant":                {"test-application", fixture("CN=test-application"), 200},
		"a certificate that is none, and no subject": {"test-application", http.Header{"X-Forwarded-Client-Cert": {
			`Hash=hash1;Cert="cert";URI=,By=spiffe://cluster.local/ns/default/sa/echoserver;Hash=hash;Subject="";URI=` + ingress,
		}}, 403},
		"the short form": {"test-application", http.Header{"X-Forwarded-Client-Cert": {`Subject="CN=test-application"`}}, 200},
	} {
		for path, upstream := range map[string]string{"/v1/events": "/" + tc.application + "/v1/events", "/v2/events": "/publish", "/events": "/publish"} {
			for _, method := range []string{http.MethodPost, http.MethodGet} {
				t.Run(what+", "+method+" "+path, func(t *testing.T) {
					r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, compatible)
					const body = `{"title":"order"}`
					got := r.send(method, "/"+tc.application+path, tc.header, body)
					if tc.want != http.StatusOK {
						got.refused(t, tc.want)
						if len(r.seen) != 0 {
							t.Errorf("the publisher saw %+v", r.seen)
						}
						return
					}
					if got.Status != tc.want || len(r.seen) != 1 {
						t.Fatalf("got %+v, the publisher saw %+v", got, r.seen)
					}
					s := r.seen[0]
					if s.Method != method || s.Target != upstream || s.Body != body || s.Header.Get("X-Forwarded-Client-Cert") != "" ||
						s.Host != strings.TrimPrefix(r.publisher.URL, "http://") || s.Header.Get("X-Verified-Application") != tc.application {
						t.Errorf("the publisher saw %+v", s)
					}
				})
			}
		}
	}
}

// TestCompatibleFixturesOfAnEmptyCluster sends the fixtures that are accepted while there are no Applications.
func TestCompatibleFixturesOfAnEmptyCluster(t *testing.T) {
	for _, subject := range []string{
		"CN=test-application-id,OU=OrgUnit,O=Organization,L=Waldorf,ST=Waldorf,C=DE", "CN=test-application-id,OU=group,O=tenant,L=Waldorf,ST=Waldorf,C=DE",
		"CN=test-application,OU=OrgUnit,O=Organization,L=Waldorf,ST=Waldorf,C=DE", "CN=test-application,OU=group,O=tenant,L=Waldorf,ST=Waldorf,C=DE",
	} {
		for _, application := range []string{"test-application", "test-application-meta"} {
			for _, path := range []string{"/v1/events", "/v2/events", "/events"} {
				r := newRig(t, nil, func(c *proxy.Config) { compatible(c); c.Applications = store{} })
				r.send("POST", "/"+application+path, fixture(subject), "{}").refused(t, 404)
				if len(r.seen) != 0 {
					t.Errorf("%s, %s: the publisher saw %+v", subject, path, r.seen)
				}
				documented(t, "unknown_application", "compatible", 404)
			}
		}
	}
}

// TestCompatibleRoutes is the table of the older validator's routes: what the publisher gets for which path. Other than that
// one, none takes a longer segment for its own.
func TestCompatibleRoutes(t *testing.T) {
	for target, want := range map[string]string{ // "" means 404
		"/test-application/v1/events":                "/test-application/v1/events",
		"/test-application/v1/events?a=b&c":          "/test-application/v1/events?a=b&c",
		"/test-application/v1/events/":               "/test-application/v1/events/",
		"/test-application/v1/events/subscribed":     "/test-application/v1/events/subscribed",
		"/test-application/v1/events/x/y?a=%2F;b":    "/test-application/v1/events/x/y?a=%2F;b",
		"/test-application/v2/events":                "/anything/rewrite",
		"/test-application/v2/events?a=b&c":          "/anything/rewrite?a=b&c",
		"/test-application/v2/events/x/y?a=b":        "/anything/rewrite?a=b",
		"/test-application/events":                   "/anything/rewrite",
		"/test-application/events?a=b&c":             "/anything/rewrite?a=b&c",
		"/test-application/events/x/y?a=b":           "/anything/rewrite?a=b",
		"/test-application%2Fv1%2Fevents":            "/test-application/v1/events",
		"/test-application/v1/eventsXYZ":             "",
		"/test-application/eventsXYZ/zz":             "",
		"/test-application/v3/events":                "",
		"/test-application/":                         "",
		"/test-application/v1/metadata/services":     "",
		"/test-application/v1/bad/path":              "",
		"/test-application/x/test-application/event": "",
	} {
		for _, method := range []string{"POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			r := newRig(t, nil, func(c *proxy.Config) { compatible(c); c.DestinationPath = "/anything/rewrite" })
			got := r.send(method, target, fixture("CN=test-application"), `{"title":"order"}`)
			if want == "" {
				got.refused(t, 404)
			} else if got.Status != 204 || len(r.seen) != 1 || r.seen[0].Method != method || r.seen[0].Target != want || r.seen[0].Host != strings.TrimPrefix(r.publisher.URL, "http://") || r.seen[0].Body != `{"title":"order"}` {
				t.Errorf("%s %s: got %+v, the publisher saw %+v", method, target, got, r.seen)
			}
		}
	}
}

// TestCompatibleHeadersToThePublisher is the table of the older validator's header fields, beside which there are ours.
func TestCompatibleHeadersToThePublisher(t *testing.T) {
	header := fixture("CN=test-application")
	for name, value := range map[string]string{
		"Authorization": "Bearer x", "Cookie": "a=b", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate": "a=b", "X-B3-Traceid": "80f198ee56343ba864fe8b2a57d3eff7", "X-B3-Spanid": "e457b5a2e4d86bd1",
		"X-Request-Id": "r", "Ce-Id": "7", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "User-Agent": "shop/1", "X-Other": "x", "Accept-Encoding": "identity",
		"Keep-Alive": "timeout=5", "Te": "trailers", "Upgrade": "h2c", "Proxy-Authorization": "x", "Connection": "Ce-Id",
	} {
		header.Set(name, value)
	}
	header.Add("X-Other", "y")
	want := http.Header{
		"X-Forwarded-For": {"192.0.2.1, 127.0.0.1"}, "X-Verified-Application": {"test-application"}, "Content-Length": {"2"}, "X-Other": {"x", "y"},
	}
	for _, name := range []string{"Content-Type", "Authorization", "Cookie", "Traceparent", "Tracestate", "X-B3-Traceid", "X-B3-Spanid", "X-Request-Id", "Ce-Id", "X-Forwarded-Proto", "User-Agent", "Accept-Encoding"} {
		want[name] = header[name]
	}
	for _, path := range []string{"/v1/events", "/v2/events", "/events"} {
		r := newRig(t, nil, func(c *proxy.Config) { compatible(c); c.SourcePolicy = proxy.SourceOff })
		if got := r.send("PUT", "/test-application"+path, header, "{}"); got.Status != 204 || len(r.seen) != 1 {
			t.Fatalf("%s: got %+v, the publisher saw %+v", path, got, r.seen)
		}
		if d := cmp.Diff(want, r.seen[0].Header); d != "" {
			t.Errorf("%s (-want +got)\n%s", path, d)
		}
	}
}

// TestCompatibleErrorOfThePublisher sends the fixture of the older validator's test of it.
func TestCompatibleErrorOfThePublisher(t *testing.T) {
	for _, path := range []string{"/v1/events", "/v2/events", "/events"} {
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "its own words")
		}, compatible)
		got := r.send("POST", "/test-application"+path, fixture("CN=test-application,OU=OrgUnit,O=Organization,L=Waldorf,ST=Waldorf,C=DE"), "{}")
		if d := cmp.Diff(answer{502, http.Header{"Content-Type": {"text/plain"}, "Target-System-Status": {"500"}}, "its own words"}, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", path, d)
		}
	}
}

// TestCompatibleAnswers is the table of the older validator's status codes.
func TestCompatibleAnswers(t *testing.T) {
	good := fixture("CN=test-application")
	for what, tc := range map[string]struct {
		method, target string
		header         http.Header
		status         int
		location       string
	}{
		"no path":                           {"POST", "/", good, 404, ""},
		"no segment behind the application": {"POST", "/test-application", good, 404, ""},
		"an empty segment":                  {"POST", "/test-application//events?a=b", good, 301, "/test-application/events?a=b"},
		"a dot segment":                     {"POST", "/x/../test-application/./events", good, 301, "/test-application/events"},
		"an encoded dot segment":            {"POST", "/x/%2e%2e/test-application/events/", good, 301, "/test-application/events/"},
		"a clean path that leads elsewhere stays here": {"POST", "/x/..//evil.example/events", good, 301, "/evil.example/events"},
		"an encoded separator":                         {"POST", "/test-application%2Fevents", good, 204, ""},
		"no header":                                    {"POST", "/test-application/events", http.Header{}, 500, ""},
		"an empty header":                              {"POST", "/test-application/events", http.Header{"X-Forwarded-Client-Cert": {""}}, 500, ""},
		"two header lines, of which the first is good": {"POST", "/test-application/events", http.Header{"X-Forwarded-Client-Cert": {good["X-Forwarded-Client-Cert"][0], "x"}}, 403, ""},
		"no header, no route":                          {"POST", "/test-application/v1/bad/path", http.Header{}, 500, ""},
		"no header, unknown Application":               {"POST", "/unknown/events", http.Header{}, 500, ""},
		"an unknown Application":                       {"POST", "/unknown/events", good, 404, ""},
		"an unknown Application, a broken header":      {"POST", "/unknown/events", http.Header{"X-Forwarded-Client-Cert": {"x"}}, 404, ""},
		"an Application that is being deleted":         {"POST", "/leaving/events", fixture("CN=leaving"), 404, ""},
		"no subject":                                   {"POST", "/test-application/events", fixture(""), 403, ""},
		"a broken header":                              {"POST", "/test-application/events", http.Header{"X-Forwarded-Client-Cert": {"x"}}, 403, ""},
		"a piece of a name without an equals sign":     {"POST", "/test-application/events", fixture("CN=test-application,Inc."), 403, ""},
		"a managed Application without ids":            {"POST", "/nobody/events", fixture("CN=nobody"), 403, ""},
		"a subject at another place":                   {"POST", "/test-application/events", http.Header{"X-Forwarded-Client-Cert": {`Subject="CN=test-application",` + fixture("CN=other")["X-Forwarded-Client-Cert"][0]}}, 403, ""},
		"no route":                                     {"POST", "/test-application/v1/bad/path", good, 404, ""},
		"no route of a managed Application":            {"POST", "/test-application-meta/v1/bad/path", fixture("CN=test-application-id"), 404, ""},
		"no route of an unknown Application":           {"POST", "/test-application-id/v1/bad/path", fixture("CN=test-application-id"), 404, ""},
		"no route, only the application":               {"POST", "/test-application/", good, 404, ""},
		"no route, wrong certificate":                  {"POST", "/test-application/v1/metadata/services", fixture("CN=other"), 403, ""},
		"DELETE":                                       {"DELETE", "/test-application/v2/events", good, 204, ""},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil, compatible)
			got := r.send(tc.method, tc.target, tc.header, "{}")
			switch {
			case tc.status >= 400:
				got.refused(t, tc.status)
			case got.Status != tc.status || got.Header.Get("Location") != tc.location || got.Body != "":
				t.Errorf("got %+v, want %d %q", got, tc.status, tc.location)
			}
			if reason, _ := r.audit()[0]["reason"].(string); tc.status != 204 {
				documented(t, reason, "compatible", tc.status)
			}
			if (tc.status == 204) != (len(r.seen) == 1) {
				t.Errorf("the publisher saw %+v", r.seen)
			}
		})
	}
}

func TestCompatibleAuditNamesAClientOfAnUnknownApplication(t *testing.T) {
	r := newRig(t, nil, compatible)
	r.send("POST", "/unknown/events", event("CN=somebody"), "x").refused(t, 404)
	want := []map[string]any{{
		"level": "WARN", "msg": "event request", "decision": "refused", "reason": "unknown_application", "application": "unknown", "route": "none",
		"method": "POST", "status": 404.0, "certificateHash": certHash, "certificateSerial": "", "subject": "CN=somebody",
	}}
	if d := cmp.Diff(want, r.audit()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestCompatibleKeepsCredentialsAndChecksEventsOnlyIfToldTo(t *testing.T) {
	h := fixture("CN=test-application")
	h.Set("Authorization", "Bearer x")
	h.Set("Cookie", "a=b")
	for policy, want := range map[proxy.SourcePolicy]int{proxy.SourceOff: 204, proxy.SourceWarn: 204, proxy.SourceRewrite: 415, proxy.SourceEnforce: 415} {
		r := newRig(t, nil, func(c *proxy.Config) { c.SourcePolicy = policy; compatible(c) })
		if got := r.send("POST", "/test-application/events", h, "{}"); got.Status != want {
			t.Errorf("%s: got %+v, want %d", policy, got, want)
		}
		for _, s := range r.seen {
			if d := cmp.Diff([]string{"Bearer x", "a=b"}, []string{s.Header.Get("Authorization"), s.Header.Get("Cookie")}); d != "" {
				t.Error(d)
			}
		}
		if got := r.sum("validator_source_violations_total"); (got == 1) != (policy == proxy.SourceWarn) {
			t.Errorf("%s: %v violations", policy, got)
		}
	}
}
