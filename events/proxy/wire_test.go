package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/proxy"
)

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
