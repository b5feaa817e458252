package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsForbiddenWhateverTheCallCarriesRenewsNothingForAWhile(t *testing.T) {
	r := newRig(t)
	tokens, fetched := r.tokenServer()
	var opened atomic.Int64
	sessions := r.target(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Csrf-Token", fmt.Sprint("csrf-", opened.Add(1)))
	})
	var called atomic.Int64
	var revoked atomic.Value
	revoked.Store("Bearer none")
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		called.Add(1)
		switch {
		case q.Header.Get("Authorization") == revoked.Load():
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(q.URL.Path, "/forbidden"):
			w.WriteHeader(http.StatusForbidden)
		}
	})
	r.secret("oauth", "clientId", "c", "clientSecret", "s")
	r.secret("basic", "username", "u", "password", "p")
	r.application("app", nil,
		entryWith("oauth", target.URL, "OAuth", "oauth", tokens.URL), entryWith("other", target.URL, "OAuth", "oauth", tokens.URL),
		entryCSRF(entryWith("csrf", target.URL, "Basic", "basic", ""), sessions.URL),
	)
	// counts are the calls of the target, tokens and sessions.
	type counts struct{ calls, tokens, sessions int64 }
	var before counts
	expect := func(step string, want counts) {
		t.Helper()
		now := counts{called.Load(), fetched.Load(), opened.Load()}
		got := counts{now.calls - before.calls, now.tokens - before.tokens, now.sessions - before.sessions}
		if before = now; got != want {
			t.Errorf("%s: %+v, want %+v", step, got, want)
		}
	}
	forbidden := func(service string, n int) {
		t.Helper()
		for range n {
			if a := r.do(http.MethodPost, "/app/"+service+"/forbidden", nil); a.Status != http.StatusForbidden {
				t.Fatalf("%+v", a)
			}
		}
	}
	forbidden("oauth", 50)
	expect("the first refusal alone gets a new token and a second attempt", counts{calls: 51, tokens: 2})
	forbidden("csrf", 50)
	expect("so it is with sessions", counts{calls: 51, sessions: 2})
	forbidden("other", 50)
	expect("another API has a first refusal of its own", counts{calls: 51, tokens: 1})
	revoked.Store("Bearer tok-3")
	if a := r.get("/app/oauth"); a.Status != 200 {
		t.Errorf("%+v", a)
	}
	expect("a token that has ended is renewed at once", counts{calls: 2, tokens: 1})
	for i, step := range []struct {
		pass time.Duration
		want counts
	}{
		{5*time.Second - 1, counts{calls: 3}}, {1, counts{calls: 4, tokens: 1}},
		{10*time.Second - 1, counts{calls: 3}}, {1, counts{calls: 4, tokens: 1}},
		{20*time.Second - 1, counts{calls: 3}}, {1, counts{calls: 4, tokens: 1}},
		{30*time.Second - 1, counts{calls: 3}}, {1, counts{calls: 4, tokens: 1}},
		{30*time.Second - 1, counts{calls: 3}}, {1, counts{calls: 4, tokens: 1}},
		{time.Hour, counts{calls: 4, tokens: 1}}, // and it begins anew
		{5*time.Second - 1, counts{calls: 3}}, {1, counts{calls: 4, tokens: 1}},
	} {
		r.pass(step.pass)
		forbidden("oauth", 3)
		expect(fmt.Sprintf("step %d, %s later", i, step.pass), step.want)
	}
}

func TestARotatedCredentialOfSomebodyElseDoesNotRepeatACall(t *testing.T) {
	first, second := newPair(t), newPair(t)
	for _, c := range []struct {
		name, kind string
		old, fresh []string // of the Secret
		seen       []string // by the target: credentials of the call under way, and of the next one
		status     int      // of the call under way
	}{
		{"another user", "Basic", []string{"username", "u", "password", "old"}, []string{"username", "v", "password", "new"}, []string{"u:old", "v:new"}, 401},
		{"another password", "Basic", []string{"username", "u", "password", "old"}, []string{"username", "u", "password", "new"}, []string{"u:old", "u:new", "u:new"}, 200},
		{"another client", "OAuth", []string{"clientId", "c", "clientSecret", "old"}, []string{"clientId", "d", "clientSecret", "new"}, []string{"c:old", "d:new"}, 401},
		{"another client secret", "OAuth", []string{"clientId", "c", "clientSecret", "old"}, []string{"clientId", "c", "clientSecret", "new"}, []string{"c:old", "c:new", "c:new"}, 200},
		{
			"another subject", "OAuthWithCert", []string{"clientId", "c", "crt", first.crt, "key", first.key}, []string{"clientId", "c", "crt", second.crt, "key", second.key},
			[]string{"c:", "c:"}, 401,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			tokens := r.target(func(w http.ResponseWriter, q *http.Request) {
				fmt.Fprintf(w, `{"access_token":"%s:%s","expires_in":3600}`, q.FormValue("client_id"), q.FormValue("client_secret"))
			})
			var seen calls
			arrived, refuse := make(chan struct{}, 1), make(chan struct{})
			target := r.target(func(w http.ResponseWriter, q *http.Request) {
				who := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
				if user, password, ok := q.BasicAuth(); ok {
					who = user + ":" + password
				}
				if seen.add(who) == 1 {
					arrived <- struct{}{}
					<-refuse
					w.WriteHeader(401)
				}
			})
			r.secret("s", c.old...)
			r.application("app", nil, entryWith("svc", target.URL, c.kind, "s", tokens.URL))
			done := make(chan answer)
			go func() { done <- r.get("/app/svc") }()
			<-arrived
			r.secret("s", c.fresh...)
			close(refuse)
			if a := <-done; a.Status != c.status {
				t.Errorf("the call under way: %+v", a)
			}
			if a := r.get("/app/svc"); a.Status != 200 {
				t.Errorf("the next call: %+v", a)
			}
			if diff := cmp.Diff(c.seen, seen.seen()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
