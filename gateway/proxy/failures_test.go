package proxy_test

import (
	"net/http"
	"testing"
)

func TestTheReasonOfAnErrorIsTheGatewaysToSay(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Gateway-Error-Reason", "Forged")
		if q.URL.Path == "/500" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	tokens := 0
	endpoint := r.target(func(w http.ResponseWriter, _ *http.Request) {
		if tokens++; tokens > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte(`{"access_token":"t"}`))
	})
	refusing := r.target(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.application("app", nil, entry("svc", target.URL), entryWith("renewal", refusing.URL, "OAuth", "s", endpoint.URL))
	for i, c := range []struct {
		path, reason string
		status       int
		logged       any
	}{
		{"/app/svc", "", 200, nil},
		{"/app/svc/500", "TargetFailed", 502, "TargetFailed"},
		{"/app/renewal", "TokenUnavailable", 502, "TokenUnavailable"}, // for the second attempt
		{"/app/absent", "NotFound", 404, "NotFound"},
	} {
		a := r.get(c.path)
		if a.Status != c.status || a.Header.Get("Gateway-Error-Reason") != c.reason {
			t.Errorf("%s: %+v, want %d %q", c.path, a, c.status, c.reason)
		}
		if line := r.access(i + 1); line["reason"] != c.logged {
			t.Errorf("%s: %v", c.path, line)
		}
	}
}
