package events_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/e2e/leaktest"
)

// TestTraceContextsPassByBothNames sends the context by W3C or by B3 and expects both at the publisher, and the trace in
// the audit line.
func TestTraceContextsPassByBothNames(t *testing.T) {
	noLeaks(t)
	const trace, span, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	names := []string{"Traceparent", "Tracestate", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Sampled"}
	arrived := make(chan []string, 1)
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got []string
		for _, name := range names {
			got = append(got, r.Header.Get(name))
		}
		select {
		case arrived <- got:
		default:
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(p.Close)
	create(t, kube(t), application("traced-shop", nil))
	for what, tc := range map[string]struct {
		header http.Header
		want   []string
		logged bool
	}{
		"W3C":                       {http.Header{"Traceparent": {parent}, "Tracestate": {"a=b"}}, []string{parent, "a=b", trace, span, "1"}, true},
		"B3":                        {http.Header{"X-B3-Traceid": {trace}, "X-B3-Spanid": {span}, "X-B3-Sampled": {"1"}}, []string{parent, "", trace, span, "1"}, true},
		"B3 in one header":          {http.Header{"B3": {trace + "-" + span + "-1"}}, []string{parent, "", trace, span, "1"}, true},
		"W3C goes before B3":        {http.Header{"Traceparent": {parent}, "X-B3-Traceid": {span}, "X-B3-Spanid": {span}, "X-B3-Sampled": {"1"}}, []string{parent, "", trace, span, "1"}, true},
		"something that is neither": {http.Header{"Traceparent": {"x"}}, []string{"x", "", "", "", ""}, false},
		"none":                      {http.Header{}, []string{"", "", "", "", ""}, false},
	} {
		t.Run(what, func(t *testing.T) {
			log := &leaktest.Log{}
			s := running(t, options(t, p.URL), log)
			eventually(t, "known", func() bool { return send(t, s, "traced-shop", "traced-shop") == 204 })
			<-arrived
			r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/traced-shop/events", s.ProxyAddr()), strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = tc.header.Clone()
			for name, value := range map[string]string{
				"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "traced-shop", "Ce-Type": "t", "X-Forwarded-Client-Cert": `Subject="CN=traced-shop"` + gateway,
			} {
				r.Header.Set(name, value)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if d := cmp.Diff(tc.want, <-arrived); d != "" {
				t.Errorf("%v (-want +got)\n%s", names, d)
			}
			// A refusal names the trace too.
			r, err = http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/traced-shop/events", s.ProxyAddr()), strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = tc.header.Clone()
			if answer, err = http.DefaultClient.Do(r); err != nil {
				t.Fatal(err)
			}
			var body struct{ TraceID string }
			err = json.NewDecoder(answer.Body).Decode(&body)
			answer.Body.Close()
			if want := map[bool]string{true: trace}[tc.logged]; err != nil || answer.StatusCode != http.StatusUnauthorized || body.TraceID != want {
				t.Errorf("refused with %d and the trace %q, want %q; %v", answer.StatusCode, body.TraceID, want, err)
			}
			eventually(t, "two audit lines", func() bool { return strings.Count(log.String(), `"event request"`) >= 2 })
			if got := strings.Contains(log.String(), `"traceId":"`+trace+`"`); got != tc.logged {
				t.Errorf("the trace is logged: %v", got)
			}
		})
	}
}
