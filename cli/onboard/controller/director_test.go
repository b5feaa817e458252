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

func TestADirectorThatFailsIsTriedAgainAndOneThatIsBusyIsLeftAloneByAll(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	requests := 0
	answers := func(status int, retryAfter string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		requests = 0
		w.directorAnswers = func(to http.ResponseWriter, _ *http.Request) {
			w.mu.Lock()
			requests++
			w.mu.Unlock()
			if retryAfter != "" {
				to.Header().Set("Retry-After", retryAfter)
			}
			to.WriteHeader(status)
		}
	}
	for _, name := range []string{"a", "b"} {
		w.enlist(name, w.kubeconfig(name, home.BearerToken))
	}
	answers(http.StatusBadGateway, "")
	w.passes(w.mustStep(r, "a"))
	got := w.record("a")
	if got["reason"] != string(ReasonDirectorFailed) || !strings.Contains(got["message"], "HTTP 502") || got["cluster"] != "uid-of-a" {
		t.Errorf("a Director that is down: %v", got)
	}
	answers(http.StatusTooManyRequests, "60")
	again := w.mustStep(r, "a")
	w.mustStep(r, "b")
	if requests != 1 {
		t.Errorf("a busy Director got %d requests", requests)
	}
	if got := w.record("b"); got["message"] != "Director wants fewer requests, and is left alone until "+w.at(time.Minute) {
		t.Errorf("the other cluster: %v", got)
	}
	if at := w.record("b")["nextAttempt"]; at <= w.at(time.Minute) {
		t.Errorf("it is tried again at %s, which is before %s", at, w.at(time.Minute))
	}
	w.mu.Lock()
	w.directorAnswers = nil
	w.mu.Unlock()
	w.passes(max(again, 2*time.Minute))
	w.mustStep(r, "a")
	w.mustStep(r, "b")
	if len(w.runtimes()) != 2 || w.record("a")["state"] != string(Waiting) || w.record("b")["state"] != string(Waiting) {
		t.Errorf("runtimes %v, records %v and %v", w.runtimes(), w.record("a"), w.record("b"))
	}
}

func TestAnAccessTokenThatCanNotBeHadIsToldWithoutTheSecret(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	_, _ = w.files()
	path := w.dir + "/credentials.yaml"
	w.must(writeFile(path, fmt.Sprintf("client_id: other\nclient_secret: %s\ntokens_endpoint: %s/oauth/token\n", clientSecret, w.director.URL)))
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.passes(w.mustStep(r, "c"))
	if got := w.record("c"); got["reason"] != string(ReasonAccessFailed) || !strings.Contains(got["message"], "HTTP 401 invalid_client") {
		t.Errorf("record %v", got)
	}
	w.files() // mended: the file is read again
	w.mustStep(r, "c")
	if got := w.record("c"); got["state"] != string(Waiting) {
		t.Errorf("record %v", got)
	}
}

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
