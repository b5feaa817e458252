package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// echoAuthorization is a target that answers by its name and the Authorization it sees.
func (r *rig) echoAuthorization(name string) *httptest.Server {
	return r.target(func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, "%s saw %s", name, q.Header.Get("Authorization"))
	})
}

func applicationsWhoseNamesRunTogetherReachTheirOwnTargets(t *testing.T) {
	r := newRig(t)
	r.secret("a", "username", "a", "password", "a")
	r.secret("b", "username", "b", "password", "b")
	r.application("foo", nil, entryWith("barbaz", r.echoAuthorization("A").URL, "Basic", "a", ""))
	r.application("foobar", nil, entryWith("baz", r.echoAuthorization("B").URL, "Basic", "b", ""))
	for range 2 {
		for path, want := range map[string]string{"/foo/barbaz": "A saw Basic YTph", "/foobar/baz": "B saw Basic Yjpi"} {
			if a := r.get(path); a.Body != want {
				t.Errorf("%s: %q", path, a.Body)
			}
		}
	}
}

func tokensAreNotSharedBetweenCredentialsThatDiffer(t *testing.T) {
	r := newRig(t)
	tokens := r.target(func(w http.ResponseWriter, q *http.Request) {
		id, password, _ := q.BasicAuth()
		fmt.Fprintf(w, `{"access_token":"<%s,%s,%s>","expires_in":60}`, id, password, q.URL.Query().Get("scope"))
	})
	target := r.echoAuthorization("T")
	want := map[string]string{}
	add := func(name, id, password, scope string) {
		data := []string{"clientId", id, "clientSecret", password}
		if scope != "" {
			data = append(data, "queryParameters", `{"scope":["`+scope+`"]}`)
		}
		r.secret(name, data...)
		r.application(name, nil, entryWith("svc", target.URL, "OAuth", name, tokens.URL))
		want["/"+name+"/svc"] = fmt.Sprintf("T saw Bearer <%s,%s,%s>", id, password, scope)
	}
	add("reader", "c", "s", "read")
	add("admin", "c", "s", "admin")
	add("plain", "c", "s", "")
	add("joined", "cs", "", "")
	for range 2 {
		for path, text := range want {
			if a := r.get(path); a.Body != text {
				t.Errorf("%s: %q, want %q", path, a.Body, text)
			}
		}
	}
}

func sessionsOfOneURLAreNotSharedBetweenApplications(t *testing.T) {
	r := newRig(t)
	var n atomic.Int64
	sessions := r.target(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Csrf-Token", q.Header.Get("Authorization"))
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint(n.Add(1))})
	})
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprint(w, q.Header["X-Csrf-Token"], q.Header["Cookie"])
	})
	r.secret("a", "username", "a", "password", "a")
	r.secret("b", "username", "b", "password", "b")
	r.application("first", nil, entryCSRF(entryWith("svc", target.URL, "Basic", "a", ""), sessions.URL))
	r.application("second", nil, entryCSRF(entryWith("svc", target.URL, "Basic", "b", ""), sessions.URL))
	r.application("open", nil, entryCSRF(entryWith("svc", target.URL, "None", "", ""), sessions.URL))
	if a := r.get("/first/svc"); a.Body != "[Basic YTph] [sid=1]" {
		t.Error(a.Body)
	}
	if a := r.get("/second/svc"); a.Body != "[Basic Yjpi] [sid=2]" {
		t.Error(a.Body)
	}
	if a := r.get("/open/svc"); a.Status != 502 {
		t.Errorf("an empty CSRF token was sent on: %+v", a)
	}
	if a := r.get("/first/svc"); a.Body != "[Basic YTph] [sid=1]" {
		t.Error(a.Body)
	}
}

func aCertificateIsPresentedOnlyForItsOwnCredential(t *testing.T) {
	r := newRig(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		name := "nobody"
		if len(q.TLS.PeerCertificates) > 0 {
			name = q.TLS.PeerCertificates[0].Subject.CommonName
		}
		w.Header().Set("X-Csrf-Token", name)
		fmt.Fprintf(w, "%s with session of %s", name, q.Header.Get("X-Csrf-Token"))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	defer server.Close()
	one, two := newPair(t), newPair(t)
	r.secret("one", "crt", one.crt, "key", one.key)
	r.secret("two", "crt", two.crt, "key", two.key)
	r.secret("basic", "username", "u", "password", "p")
	skip := func(s *v1alpha1.ApplicationSpec) { s.SkipVerify = true }
	for name, kind := range map[string]string{"one": "CertificateGen", "two": "CertificateGen", "basic": "Basic"} {
		r.application(name, skip, entryCSRF(entryWith("svc", server.URL, kind, name, ""), server.URL+"/csrf"))
	}
	names := map[string]string{"one": one.certificate.Subject.CommonName, "two": two.certificate.Subject.CommonName, "basic": "nobody"}
	for range 3 {
		for name, subject := range names {
			if a := r.get("/" + name + "/svc"); a.Body != subject+" with session of "+subject {
				t.Errorf("%s: %q", name, a.Body)
			}
			// What the caller brought is used without the stored certificate, even beside calls that present it.
			if a := r.get("/"+name+"/svc", "Access-Token", "Bearer x"); a.Body != "nobody with session of nobody" {
				t.Errorf("%s with an external token: %q", name, a.Body)
			}
		}
	}
}

func cookiesOfCallersNeverMix(t *testing.T) {
	const callers, rounds = 16, 1200
	r := newRig(t)
	sessions := r.target(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Csrf-Token", "t")
		w.Header()["Set-Cookie"] = []string{"sid=1", "a=2", "=unparsable", "b=3"}
	})
	target := r.target(func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Header.Get("Cookie")) })
	r.application("app", nil, entryCSRF(entryWith("svc", target.URL, "None", "", ""), sessions.URL))
	handler := r.engine.Services()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range rounds {
				own := fmt.Sprintf("own=%d-%d", caller, i)
				request := httptest.NewRequest(http.MethodGet, "/app/svc", nil)
				request.Header.Set("Cookie", own)
				answer := httptest.NewRecorder() // without a server between, which costs half of the time
				handler.ServeHTTP(answer, request)
				if got, want := answer.Body.String(), "sid=1; a=2; b=3; "+own; answer.Code != http.StatusOK || got != want {
					t.Errorf("%d %q, want %q", answer.Code, got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func manyFirstCallsFetchOneToken(t *testing.T) {
	const callers = 50
	r := newRig(t)
	var n atomic.Int64
	asked, release := make(chan struct{}, callers), make(chan struct{})
	tokens := r.target(func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		asked <- struct{}{}
		<-release
		io.WriteString(w, `{"access_token":"tok","expires_in":60}`)
	})
	target := r.echoAuthorization("T")
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.application("app", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if a, err := r.try("GET", r.services.URL+"/app/svc", nil); err != nil || a.Body != "T saw Bearer tok" {
				t.Errorf("%+v %v", a, err)
			}
		})
	}
	<-asked
	// No token is given out before all of them have asked for one.
	for deadline := time.Now().Add(generous); r.tokens.Load() < callers; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("only %d calls have asked for a token", r.tokens.Load())
			break
		}
	}
	close(release)
	wg.Wait()
	if n.Load() != 1 {
		t.Errorf("%d tokens fetched", n.Load())
	}
}

func manyCallsShareFewConnections(t *testing.T) {
	const callers, rounds = 64, 50
	r := newRig(t)
	r.client.Transport.(*http.Transport).MaxIdleConnsPerHost = callers
	var opened atomic.Int64
	var first sync.WaitGroup // each caller's first call: all at once, so that none of them finds a connection free
	first.Add(callers)
	target := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/first" {
			first.Done()
			first.Wait()
		}
		io.WriteString(w, "ok")
	}))
	target.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	target.Start()
	defer target.Close()
	r.application("app", nil, entry("svc", target.URL))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := range rounds {
				path := "/app/svc"
				if i == 0 {
					path += "/first"
				}
				if a, err := r.try("GET", r.services.URL+path, nil); err != nil || a.Status != 200 {
					t.Errorf("%+v %v", a, err)
					return
				}
			}
		})
	}
	wg.Wait()
	// A call that finds no connection free dials one, and takes the first that is: its own, or another call's that ended
	// meanwhile. So a few are opened that nobody waited for.
	t.Logf("%d calls opened %d connections", callers*rounds, opened.Load())
	if n := opened.Load(); n < callers || n > callers+8 {
		t.Errorf("%d calls opened %d connections", callers*rounds, n)
	}
}

func noSecretIsInAnyLogLine(t *testing.T) {
	r := newRig(t)
	tokens := r.target(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"access_token":"canary-token","expires_in":60}`)
	})
	sessions := r.target(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Csrf-Token", "canary-csrf")
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "canary-cookie"})
	})
	target := r.echoAuthorization("T")
	closed := "http://" + closedPort(t)
	pair := newPair(t)
	r.secret("s", "username", "canary-user", "password", "canary-password", "clientId", "canary-id", "clientSecret", "canary-secret", "crt", pair.crt, "key", pair.key,
		"headers", `{"X-Key":["canary-header"]}`, "queryParameters", `{"api_key":["canary-query"]}`)
	for i, url := range []string{target.URL, closed, "ftp://x/"} {
		var entries []v1alpha1.Entry
		for _, kind := range []string{"None", "Basic", "OAuth", "OAuthWithCert", "CertificateGen"} {
			for j, tokenURL := range []string{tokens.URL, closed} {
				e := entryCSRF(entryWith(fmt.Sprint(kind, j), url+"?t=canary-target", kind, "s", tokenURL+"?q=canary-tokenurl"), sessions.URL+"?q=canary-csrfurl")
				e.RequestParametersSecretName = "s"
				entries = append(entries, e)
			}
		}
		r.application(fmt.Sprint("app", i), nil, entries...)
	}
	n := 0
	for i := range 3 {
		for _, kind := range []string{"none", "basic", "oauth", "oauthwithcert", "certificategen"} {
			for j := range 2 {
				r.get(fmt.Sprintf("/app%d/%s%d/path?caller=canary-caller", i, kind, j), "Access-Token", "")
				r.get(fmt.Sprintf("/app%d/%s%d/path?caller=canary-caller", i, kind, j), "Access-Token", "Bearer canary-external", "Cookie", "c=canary-callercookie")
				n += 2
			}
		}
	}
	r.access(n)
	if log := r.log.String(); strings.Contains(log, "canary") {
		at := strings.Index(log, "canary")
		t.Errorf("…%s…", log[max(0, at-200):min(len(log), at+200)])
	}
}

func TestUnknownNamesAreNotInTheAccessLinesRoute(t *testing.T) {
	r := newRig(t)
	r.application("app", nil, entry("svc", r.echoAuthorization("T").URL))
	r.get("/made-up/name")
	line := r.access(1)
	if _, named := line["application"]; named || line["source"] != "caller" || line["status"] != float64(404) {
		t.Errorf("%v", line)
	}
	r.get("/app/svc/secret/path?q", "X-Request-Id", "the-id")
	line = r.access(2)
	delete(line, "time")
	delete(line, "duration")
	want := map[string]any{
		"level": "INFO", "msg": "call", "request": "the-id", "method": "GET", "status": 200.0, "source": "none", "bytes": 6.0, "attempts": 1.0,
		"application": "app", "service": "svc", "entry": "", "target_status": 200.0,
	}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Error(diff)
	}
}

func TestLocationsAreRewrittenOnTheWayBack(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Location", q.URL.Query().Get("to"))
		w.Header().Set("Content-Location", q.URL.Query().Get("to"))
		w.Header().Set("Set-Cookie", "a=b; Path=/base")
		var code int
		_, _ = fmt.Sscanf(q.URL.Path, "/base/%d", &code)
		w.WriteHeader(code)
	})
	r.application("app", nil, entry("svc", target.URL+"/base"))
	for _, c := range []struct {
		code               int
		to                 string
		location, contents string
	}{
		{307, "/base/x", "/app/svc/x", "/app/svc/x"},
		{201, target.URL + "/base/x", "/app/svc/x", "/app/svc/x"},
		{302, "http://elsewhere/base/x", "http://elsewhere/base/x", "http://elsewhere/base/x"},
		{200, "/base/x", "/base/x", "/app/svc/x"},
		{302, "/basement/x", "/basement/x", "/basement/x"},
	} {
		a := r.get(fmt.Sprintf("/app/svc/%d?to=%s", c.code, c.to))
		if a.Status != c.code || a.Header.Get("Location") != c.location || a.Header.Get("Content-Location") != c.contents || a.Header.Get("Set-Cookie") != "a=b; Path=/app/svc" {
			t.Errorf("%d %s: %+v", c.code, c.to, a)
		}
	}
	a, err := r.try("GET", r.entries.URL+"/app/svc/svc/307?to=/base/x", nil)
	if err != nil || a.Header.Get("Location") != "/app/svc/svc/x" {
		t.Errorf("%+v %v", a, err)
	}
}

func TestACallerNeverLearnsFromALocationWhatWasAddedToItsQuery(t *testing.T) {
	r := newRig(t)
	seen := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/base/dir/", func(_ http.ResponseWriter, q *http.Request) { seen <- q.URL.RawQuery })
	mux.HandleFunc("/base/say", func(w http.ResponseWriter, q *http.Request) {
		for _, name := range []string{"Location", "Content-Location"} {
			w.Header()[name] = []string{q.Header.Get("To"), "/base/second?" + q.URL.RawQuery}
		}
		var code int
		_, _ = fmt.Sscan(q.Header.Get("Code"), &code)
		w.WriteHeader(code)
	})
	target := r.target(mux.ServeHTTP)
	r.secret("p", "queryParameters", `{"api_key":["canary&"],"region":["u s"],"mine":["never"]}`)
	e := entry("svc", target.URL+"/base?t=canary-target")
	e.RequestParametersSecretName = "p"
	r.application("app", nil, e)
	const query = "?mine=1&x=%2F"
	redirect := r.get("/app/svc/dir" + query) // as it is written by what most servers are made of
	if redirect.Status != http.StatusTemporaryRedirect || redirect.Header.Get("Location") != "/app/svc/dir/"+query {
		t.Errorf("%+v", redirect)
	}
	if a := r.get(redirect.Header.Get("Location")); a.Status != http.StatusOK {
		t.Errorf("%+v", a)
	}
	if got := <-seen; got != "t=canary-target&mine=1&x=%2F&api_key=canary%26&region=u+s" {
		t.Errorf("a call that follows the redirect has the query %s", got)
	}
	type told struct {
		Status                    int
		Location, ContentLocation []string
	}
	all := "?t=canary-target&mine=1&x=%2F&region=u%20s&api_key=canary%26"
	for _, c := range []struct{ code, to, location, contentsAreAt, second string }{
		{"302", "#top", "/app/svc/say" + query + "#top", "/app/svc/say" + query + "#top", "/app/svc/second" + query},
		{"201", "", "", "", "/app/svc/second" + query},
		{"302", "?page=2&api_key=canary%26", "/app/svc/say?page=2", "/app/svc/say?page=2", "/app/svc/second" + query},
		{"302", "/base/x?api_key=canary%26", "/app/svc/x", "/app/svc/x", "/app/svc/second" + query},
		// What was said openly of the API stays where it leads elsewhere; what is from a Secret does not.
		{"302", "https://elsewhere/base/x" + all, "https://elsewhere/base/x?t=canary-target&mine=1&x=%2F", "https://elsewhere/base/x?t=canary-target&mine=1&x=%2F", "/app/svc/second" + query},
		{"200", "/base/x" + all, "/base/x?t=canary-target&mine=1&x=%2F", "/app/svc/x" + query, "/base/second?t=canary-target&mine=1&x=%2F"},
	} {
		a := r.get("/app/svc/say"+query, "To", c.to, "Code", c.code)
		got := told{a.Status, a.Header["Location"], a.Header["Content-Location"]}
		var status int
		_, _ = fmt.Sscan(c.code, &status)
		want := told{status, []string{c.location, c.second}, []string{c.contentsAreAt, "/app/svc/second" + query}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s to %q (-want +got):\n%s", c.code, c.to, diff)
		}
	}
}
