package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tokenServer hands out tok-1, tok-2, …, each valid for an hour.
func (r *rig) tokenServer() (*httptest.Server, *atomic.Int64) {
	var n atomic.Int64
	return r.target(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"access_token":"tok-%d","expires_in":3600}`, n.Add(1))
	}), &n
}

// calls remembers what a target saw, one string for each request.
type calls struct {
	mu   sync.Mutex
	list []string
}

func (c *calls) add(s string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, s)
	return len(c.list)
}

func (c *calls) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.list...)
}

func TestARefusedTokenIsRenewedAndTheCallRepeatedOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		status []int // the target's answers, in order
		body   io.Reader
		want   answer
		calls  int
		tokens int64
	}{
		{"401 then 200", []int{401, 200}, strings.NewReader("payload"), answer{Status: 200, Body: "2 payload"}, 2, 2},
		{"403 then 200", []int{403, 200}, nil, answer{Status: 200, Body: "2 "}, 2, 2},
		{"403 twice", []int{403, 403}, nil, answer{Status: 403, Body: "2 "}, 2, 2},
		{"401 then 500", []int{401, 500}, nil, answer{Status: 502, Body: "2 "}, 2, 2},
		{"500", []int{500}, nil, answer{Status: 502, Body: "1 "}, 1, 1},
		{"unknown length", []int{401, 200}, io.MultiReader(strings.NewReader("payload")), answer{Status: 200, Body: "2 payload"}, 2, 2},
		{"too large to repeat", []int{401}, bytes.NewReader(make([]byte, 1<<20)), answer{Status: 401, Body: "1 " + strings.Repeat("\x00", 1<<20)}, 1, 2},
		{"too large, unknown length", []int{401}, io.MultiReader(bytes.NewReader(make([]byte, 1<<20))), answer{Status: 401, Body: "1 " + strings.Repeat("\x00", 1<<20)}, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			tokens, n := r.tokenServer()
			var seen calls
			target := r.target(func(w http.ResponseWriter, q *http.Request) {
				body, _ := io.ReadAll(q.Body)
				i := seen.add(q.Header.Get("Authorization"))
				w.WriteHeader(c.status[min(i, len(c.status))-1])
				fmt.Fprintf(w, "%d %s", i, body)
			})
			r.secret("s", "clientId", "c", "clientSecret", "s")
			r.application("app", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
			a := r.do(http.MethodPost, "/app/svc", c.body)
			if a.Status != c.want.Status || a.Body != c.want.Body {
				t.Errorf("%d %.40q, want %d %.40q", a.Status, a.Body, c.want.Status, c.want.Body)
			}
			want := []string{"Bearer tok-1", "Bearer tok-2"}[:c.calls]
			if diff := cmp.Diff(want, seen.seen()); diff != "" || n.Load() != c.tokens {
				t.Errorf("%d tokens fetched, calls: %s", n.Load(), diff)
			}
		})
	}
}

func TestARefusedCallIsNotRepeatedWithTheSameCredential(t *testing.T) {
	pair := newPair(t)
	for _, kind := range []string{"None", "Basic", "CertificateGen", "OAuth with the same token"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			var seen calls
			target := r.target(func(w http.ResponseWriter, _ *http.Request) { seen.add("x"); w.WriteHeader(401) })
			same := r.target(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, `{"access_token":"same","expires_in":60}`)
			})
			r.secret("s", "username", "u", "password", "p", "crt", pair.crt, "key", pair.key, "clientId", "c", "clientSecret", "s")
			name, _, _ := strings.Cut(kind, " ")
			r.application("app", nil, entryWith("svc", target.URL, name, "s", same.URL))
			if a := r.do(http.MethodPost, "/app/svc", strings.NewReader("x")); a.Status != 401 || len(seen.seen()) != 1 {
				t.Errorf("%d after %d calls", a.Status, len(seen.seen()))
			}
		})
	}
}

func aCallWithAnExternalTokenIsNeverRepeatedNorGivenTheStoredCredential(t *testing.T) {
	r := newRig(t)
	tokens, fetched := r.tokenServer()
	var seen calls
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		seen.add(fmt.Sprint(q.Header["Authorization"], q.Header["Access-Token"]))
		w.WriteHeader(401)
	})
	r.secret("basic", "username", "u", "password", "p")
	r.secret("oauth", "clientId", "c", "clientSecret", "s")
	r.application("app", nil, entryWith("basic", target.URL, "Basic", "basic", ""), entryWith("oauth", target.URL, "OAuth", "oauth", tokens.URL))
	for _, service := range []string{"basic", "oauth"} {
		if a := r.get("/app/"+service, "Access-Token", "Bearer users"); a.Status != 401 {
			t.Errorf("%s: %d", service, a.Status)
		}
	}
	if diff := cmp.Diff([]string{"[Bearer users] []", "[Bearer users] []"}, seen.seen()); diff != "" || fetched.Load() != 0 {
		t.Errorf("%d tokens fetched, %s", fetched.Load(), diff)
	}
}

func TestARotatedPasswordIsTakenUpByTheRefusedCall(t *testing.T) {
	r := newRig(t)
	var seen calls
	arrived, refuse := make(chan struct{}, 1), make(chan struct{})
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		_, password, _ := q.BasicAuth()
		seen.add(password)
		if password != "new" {
			arrived <- struct{}{}
			<-refuse
			w.WriteHeader(401)
		}
	})
	r.secret("s", "username", "u", "password", "old")
	r.application("app", nil, entryWith("svc", target.URL, "Basic", "s", ""))
	done := make(chan answer)
	go func() { done <- r.get("/app/svc") }()
	<-arrived
	r.secret("s", "username", "u", "password", "new")
	close(refuse)
	a := <-done
	if diff := cmp.Diff([]string{"old", "new"}, seen.seen()); diff != "" || a.Status != 200 {
		t.Errorf("%d %s", a.Status, diff)
	}
}

func TestAFailedRenewalIsA502WithoutABody(t *testing.T) {
	r := newRig(t)
	var n atomic.Int64
	tokens := r.target(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) > 1 {
			w.WriteHeader(500)
			return
		}
		io.WriteString(w, `{"access_token":"tok","expires_in":60}`)
	})
	target := r.target(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.application("app", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	if a := r.get("/app/svc"); a.Status != 502 || a.Body != "" || a.Header.Get("Content-Type") != "" {
		t.Errorf("%+v", a)
	}
	if line := r.access(1); line["source"] != "credentials" {
		t.Errorf("%v", line)
	}
}

func TestARefusedSessionIsReplacedWithItsCookies(t *testing.T) {
	r := newRig(t)
	var n atomic.Int64
	sessions := r.target(func(w http.ResponseWriter, q *http.Request) {
		i := n.Add(1)
		w.Header().Set("X-Csrf-Token", fmt.Sprint("csrf-", i))
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint(i)})
	})
	var seen calls
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		seen.add(fmt.Sprint(q.Header["X-Csrf-Token"], q.Header["Cookie"]))
		if q.Header.Get("X-Csrf-Token") == "csrf-1" {
			w.Header().Set("X-Csrf-Token", "Required")
			w.WriteHeader(403)
		}
	})
	r.secret("s", "username", "u", "password", "p")
	r.application("app", nil, entryCSRF(entryWith("svc", target.URL, "Basic", "s", ""), sessions.URL))
	for range 2 {
		if a := r.do(http.MethodPost, "/app/svc", strings.NewReader("x"), "Cookie", "mine=1"); a.Status != 200 {
			t.Errorf("%+v", a)
		}
	}
	want := []string{"[csrf-1] [sid=1; mine=1]", "[csrf-2] [sid=2; mine=1]", "[csrf-2] [sid=2; mine=1]"}
	if diff := cmp.Diff(want, seen.seen()); diff != "" || n.Load() != 2 {
		t.Errorf("%d sessions, %s", n.Load(), diff)
	}
	// The first one ended as soon as it began: others are not trusted for long.
	for deadline := time.Now().Add(generous); n.Load() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second session is used for as long as if the first one had lasted")
		}
		if a := r.do(http.MethodPost, "/app/svc", nil); a.Status != 200 {
			t.Fatalf("%+v", a)
		}
	}
}

func aRepeatedCallsAnswerIsComplete(t *testing.T) {
	r := newRig(t)
	tokens, _ := r.tokenServer()
	body := strings.Repeat("x", 1<<20)
	var n atomic.Int64
	target := r.target(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 1 {
			w.WriteHeader(401)
			return
		}
		io.WriteString(w, body)
	})
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.application("app", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	for i := range 100 {
		if a := r.get("/app/svc"); a.Status != 200 || a.Body != body {
			t.Fatalf("call %d: %d with %d bytes", i, a.Status, len(a.Body))
		}
	}
}
