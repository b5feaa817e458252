package proxy_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/application-connector/application-connector/events/proxy"
)

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
