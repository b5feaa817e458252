package controller

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestATokenEndpointThatFailsIsAskedByOneClusterForAll(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		says   string
		pause  time.Duration
	}{
		"it refuses":                {http.StatusUnauthorized, "HTTP 401", tokenPause},
		"it wants to be left alone": {http.StatusTooManyRequests, "the token endpoint wants fewer requests: HTTP 429", pause},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var asked atomic.Int32
			endpoint := httptest.NewTLSServer(http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				_, password, _ := r.BasicAuth()
				to.Header().Set("Content-Type", "application/json")
				to.WriteHeader(test.status)
				fmt.Fprintf(to, `{"error":%q}`, password) // a code that is the secret
			}))
			defer endpoint.Close()
			r := w.controller()
			w.must(writeFile(w.dir+"/credentials.yaml", fmt.Sprintf("client_id: me\nclient_secret: %s\ntokens_endpoint: %s/oauth/token\n", clientSecret, endpoint.URL)))
			for _, name := range []string{"a", "b"} {
				w.enlist(name, w.kubeconfig(name, home.BearerToken))
				w.mustStep(r, name)
				got := w.record(name)
				if got["reason"] != string(ReasonAccessFailed) || !strings.Contains(got["message"], test.says) || strings.Contains(got["message"], clientSecret) {
					t.Errorf("record %v", got)
				}
			}
			if asked.Load() != 1 {
				t.Errorf("it was asked %d times", asked.Load())
			}
			w.enlist("c", w.kubeconfig("c", home.BearerToken))
			w.passes(test.pause)
			w.mustStep(r, "c")
			if asked.Load() != 2 {
				t.Errorf("after %s it was asked %d times", test.pause, asked.Load())
			}
		})
	}
}
