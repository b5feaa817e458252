package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// settings are those of every API of an Application.
func settings(t v1alpha1.TargetSettings) func(*v1alpha1.ApplicationSpec) {
	t.Target = "*"
	return func(s *v1alpha1.ApplicationSpec) { s.TargetSettings = []v1alpha1.TargetSettings{t} }
}

// secureTarget is a target with TLS, and the certificate that it is to be trusted by.
func (r *rig) secureTarget(config *tls.Config, h http.HandlerFunc) (server *httptest.Server, ca string) {
	s := httptest.NewUnstartedServer(h)
	s.TLS = config
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	r.t.Cleanup(s.Close)
	return s, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// want compares an error of the gateway's that has no body.
func (a answer) want(t *testing.T, status int, reason string) {
	t.Helper()
	if a.Status != status || a.Header.Get("Gateway-Error-Reason") != reason {
		t.Errorf("%d %s %q, want %d %s", a.Status, a.Header.Get("Gateway-Error-Reason"), a.Body, status, reason)
	}
}

func TestAnAPIIsTrustedByItsOwnAuthorityAndSpeaksNoOlderTLSThanItsSettingsSay(t *testing.T) {
	r := newRig(t)
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }
	modern, ca := r.secureTarget(nil, ok)
	old, oldCA := r.secureTarget(&tls.Config{MaxVersion: tls.VersionTLS12}, ok)
	r.secret("ca", "ca.crt", ca)
	r.secret("not-ca", "ca.crt", "canary")
	r.application("untrusted", nil, entry("svc", modern.URL))
	r.application("inline", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: ca, MinVersion: "1.3"}}), entry("svc", modern.URL))
	r.application("secret", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "ca"}}), entry("svc", modern.URL))
	r.application("broken", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "not-ca"}}), entry("svc", modern.URL))
	r.application("absent", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "nothing"}}), entry("svc", modern.URL))
	r.application("old", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: oldCA}}), entry("svc", old.URL))
	r.application("too-old", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: oldCA, MinVersion: "1.3"}}), entry("svc", old.URL))
	r.get("/untrusted/svc").want(t, 502, "TargetUntrusted")
	r.get("/inline/svc").want(t, 200, "")
	r.get("/secret/svc").want(t, 200, "")
	r.get("/old/svc").want(t, 200, "")
	r.get("/too-old/svc").want(t, 502, "TargetRefusedTLS")
	r.get("/absent/svc").want(t, 500, "SecretMissing")
	broken := r.get("/broken/svc")
	broken.want(t, 500, "SettingsInvalid")
	if text := broken.problem(t); text != `failed to read API for svc-name service, spec.targetSettings["*"].tls.caSecretName: Secret not-ca: key ca.crt holds no certificate: give certificates in PEM form (-----BEGIN CERTIFICATE-----)` {
		t.Error(text)
	}
}

func TestATokenServerIsTrustedByTheAPIsAuthorityToo(t *testing.T) {
	r := newRig(t)
	tokens, ca := r.secureTarget(nil, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"access_token":"t"}`) })
	target := r.target(func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Header.Get("Authorization")) })
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.application("without", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	r.application("with", settings(v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: ca}}), entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	r.get("/without/svc").want(t, 502, "TokenUnavailable")
	if a := r.get("/with/svc"); a.Status != 200 || a.Body != "Bearer t" {
		t.Errorf("%+v", a)
	}
}

func TestEachTimeOutOfAnAPIEndsItsCalls(t *testing.T) {
	r := newRig(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and never says a word
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	release := make(chan struct{})
	hanging := r.target(func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the target is closed, which waits for its calls
	begun := func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-q.Context().Done()
	}
	stalling := r.target(begun)
	moving := r.target(func(w http.ResponseWriter, q *http.Request) {
		for q.Context().Err() == nil {
			io.WriteString(w, "x")
			http.NewResponseController(w).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	r.secret("s", "clientId", "c", "clientSecret", "s")
	const short = "50ms"
	timeouts := func(s v1alpha1.TimeoutSettings) func(*v1alpha1.ApplicationSpec) {
		return settings(v1alpha1.TargetSettings{Timeouts: &s})
	}
	r.application("connect", timeouts(v1alpha1.TimeoutSettings{Connect: short}), entry("svc", "https://"+silent.Addr().String()))
	r.application("header", timeouts(v1alpha1.TimeoutSettings{Header: short}), entry("svc", hanging.URL))
	r.application("idle", timeouts(v1alpha1.TimeoutSettings{Idle: short}), entry("svc", stalling.URL))
	r.application("total", timeouts(v1alpha1.TimeoutSettings{Total: short}), entry("begins", hanging.URL), entry("moves", moving.URL), entryWith("token", moving.URL, "OAuth", "s", hanging.URL))
	r.get("/connect/svc").want(t, 504, "TargetTimeout")
	r.get("/header/svc").want(t, 504, "TargetTimeout")
	r.get("/total/begins").want(t, 504, "TargetTimeout")
	token := r.get("/total/token")
	token.want(t, 504, "TargetTimeout")
	if text := token.problem(t); !strings.Contains(text, "timeouts.total") {
		t.Error(text)
	}
	for _, path := range []string{"/idle/svc", "/total/moves"} {
		if a, err := r.try(http.MethodGet, r.services.URL+path, nil); err == nil || a.Status != 200 || a.Body == "" {
			t.Errorf("%s: an answer that was cut off looks whole: %d %q", path, a.Status, a.Body[:min(len(a.Body), 20)])
		}
	}
}

func TestTheTimeForATokenIsThatOfTheAPIWhetherLessOrMoreThanTheGateways(t *testing.T) {
	r := newRig(t, timeouts{target: 300 * time.Millisecond, request: generous})
	target := r.target(func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Header.Get("Authorization")) })
	slow := r.target(func(w http.ResponseWriter, q *http.Request) {
		select {
		case <-time.After(time.Second): // how slow it is, is what is tested
		case <-q.Context().Done():
		}
		w.Header().Set("X-Csrf-Token", "csrf")
		io.WriteString(w, `{"access_token":"t"}`)
	})
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.secret("basic", "username", "u", "password", "p")
	for name, c := range map[string]struct {
		token v1alpha1.Duration
		ok    bool
	}{"less": {"50ms", false}, "as ever": {"", false}, "more": {"30s", true}} {
		name = strings.ReplaceAll(name, " ", "-")
		r.application(name, settings(v1alpha1.TargetSettings{Timeouts: &v1alpha1.TimeoutSettings{Token: c.token}}),
			entryWith("oauth", target.URL, "OAuth", "s", slow.URL), entryCSRF(entryWith("csrf", target.URL, "Basic", "basic", ""), slow.URL))
		for service, reason := range map[string]string{"oauth": "TokenUnavailable", "csrf": "CSRFTokenUnavailable"} {
			if a := r.get("/" + name + "/" + service); c.ok {
				a.want(t, 200, "")
			} else {
				a.want(t, 502, reason)
			}
		}
	}
}

func TestMoreCallsThanAnAPITakesAreRefusedAndSayWhenToComeBack(t *testing.T) {
	r := newRig(t)
	arrived, finish := make(chan struct{}), make(chan struct{})
	target := r.target(func(_ http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/wait" {
			arrived <- struct{}{}
			<-finish
		}
	})
	r.application("one", settings(v1alpha1.TargetSettings{MaxConcurrent: 1}), entry("svc", target.URL), entry("other", target.URL))
	r.application("rate", settings(v1alpha1.TargetSettings{RateLimit: &v1alpha1.RateLimit{Requests: 2, Per: "1h"}}), entry("svc", target.URL))
	done := make(chan answer)
	go func() {
		a, _ := r.try(http.MethodGet, r.services.URL+"/one/svc/wait", nil)
		done <- a
	}()
	<-arrived
	refused := r.get("/one/svc")
	refused.want(t, 503, "ConcurrencyLimited")
	if refused.Header.Get("Retry-After") != "1" || refused.problem(t) != "too many calls of this API are under way (maxConcurrent)" || refused.reason() != "ConcurrencyLimited" {
		t.Errorf("%+v", refused)
	}
	if line := r.access(1); line["source"] != "limits" || line["reason"] != "ConcurrencyLimited" || line["status"] != 503.0 {
		t.Errorf("%v", line)
	}
	r.get("/one/other").want(t, 200, "")
	close(finish)
	if a := <-done; a.Status != 200 {
		t.Errorf("%+v", a)
	}
	r.access(3) // the first call has ended
	r.get("/one/svc").want(t, 200, "")
	r.get("/rate/svc").want(t, 200, "")
	r.get("/rate/svc").want(t, 200, "")
	refused = r.get("/rate/svc")
	refused.want(t, 429, "RateLimited")
	if after := refused.Header.Get("Retry-After"); after != "1800" && after != "1799" && after != "1798" {
		t.Errorf("Retry-After %s", after)
	}
	// The port for entries leads to the same API.
	if a, err := r.try(http.MethodGet, r.entries.URL+"/rate/svc/svc", nil); err != nil || a.Status != 429 {
		t.Errorf("%+v %v", a, err)
	}
}

func TestAnAPIThatFailsIsLeftAloneAndCallersFailuresDoNotCount(t *testing.T) {
	r := newRig(t)
	var seen calls
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		seen.add(q.URL.Path)
		status := 500
		fmt.Sscanf(q.URL.Path, "/%d", &status)
		w.WriteHeader(status)
	})
	closed := httptest.NewServer(nil)
	closed.Close()
	breaker := settings(v1alpha1.TargetSettings{CircuitBreaker: &v1alpha1.CircuitBreaker{Failures: 2, Pause: "1h"}})
	r.application("status", breaker, entry("svc", target.URL))
	r.application("down", breaker, entry("svc", closed.URL))
	r.application("token", breaker, entryWith("svc", target.URL, "OAuth", "s", closed.URL))
	r.secret("s", "clientId", "c", "clientSecret", "s")
	for _, path := range []string{"/500", "/404", "/503", "/401", "/500"} {
		r.get("/status/svc" + path)
	}
	r.get("/status/svc/500").want(t, 502, "TargetFailed")
	refused := r.get("/status/svc/200")
	refused.want(t, 503, "CircuitOpen")
	if after := refused.Header.Get("Retry-After"); !strings.HasPrefix(after, "3") || len(after) != 4 || refused.reason() != "CircuitOpen" {
		t.Errorf("Retry-After %q, %+v", after, refused)
	}
	if n := len(seen.seen()); n != 6 {
		t.Errorf("the target was called %d times", n)
	}
	r.get("/down/svc").want(t, 502, "TargetUnreachable")
	r.get("/down/svc").want(t, 502, "TargetUnreachable")
	r.get("/down/svc").want(t, 503, "CircuitOpen")
	for range 3 { // it is the token server that fails
		r.get("/token/svc").want(t, 502, "TokenUnavailable")
	}
}

func TestTokensAreAskedForAsTheSettingsSay(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Header.Get("Authorization")) })
	var seen calls
	tokens := r.target(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		seen.add(q.Header.Get("Authorization") + " " + string(body))
		fmt.Fprintf(w, `{"access_token":"t%d"}`, len(seen.seen()))
	})
	r.secret("s", "clientId", "the id", "clientSecret", "p+:")
	oauth := func(o v1alpha1.OAuthSettings) func(*v1alpha1.ApplicationSpec) {
		return settings(v1alpha1.TargetSettings{OAuth: &o})
	}
	for _, c := range []struct {
		name string
		set  func(*v1alpha1.ApplicationSpec)
		want string
	}{
		{"both", nil, "Basic " + base64Of("the id:p+:") + " client_id=the+id&client_secret=p%2B%3A&grant_type=client_credentials"},
		{"body", oauth(v1alpha1.OAuthSettings{ClientAuthentication: "Body"}), " client_id=the+id&client_secret=p%2B%3A&grant_type=client_credentials"},
		{"header", oauth(v1alpha1.OAuthSettings{ClientAuthentication: "Header"}), "Basic " + base64Of("the+id:p%2B%3A") + " grant_type=client_credentials"},
		{"more", oauth(v1alpha1.OAuthSettings{ClientAuthentication: "Body", Scopes: []string{"a", "b"}, Audience: "https://api", Parameters: map[string]v1alpha1.OAuthParameter{"resource": "r&s"}}),
			" audience=https%3A%2F%2Fapi&client_id=the+id&client_secret=p%2B%3A&grant_type=client_credentials&resource=r%26s&scope=a+b"},
	} {
		r.application(c.name, c.set, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
		a := r.get("/" + c.name + "/svc")
		all := seen.seen()
		// What is asked for otherwise is another token, although client and URL are the same.
		if a.Status != 200 || a.Body != fmt.Sprintf("Bearer t%d", len(all)) {
			t.Errorf("%s: %+v", c.name, a)
		}
		if diff := cmp.Diff(c.want, all[len(all)-1]); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if n := len(seen.seen()); n != 4 {
		t.Errorf("%d tokens", n)
	}
}

func TestABoundTokenIsSentWithTheCertificateThatItIsBoundTo(t *testing.T) {
	r := newRig(t)
	subject := func(w http.ResponseWriter, q *http.Request) string {
		if len(q.TLS.PeerCertificates) == 0 {
			return "nobody"
		}
		return q.TLS.PeerCertificates[0].Subject.CommonName
	}
	asks := &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	target, _ := r.secureTarget(asks.Clone(), func(w http.ResponseWriter, q *http.Request) {
		io.WriteString(w, subject(w, q)+" "+q.Header.Get("Authorization"))
	})
	tokens, _ := r.secureTarget(asks.Clone(), func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, `{"access_token":%q}`, "for-"+subject(w, q))
	})
	first, second := newPair(t), newPair(t)
	r.secret("s", "clientId", "c", "crt", first.crt, "key", first.key)
	skip := func(bound bool) func(*v1alpha1.ApplicationSpec) {
		return func(s *v1alpha1.ApplicationSpec) {
			settings(v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{CertificateBound: bound}})(s)
			s.SkipVerify = true
		}
	}
	r.application("bound", skip(true), entryWith("svc", target.URL, "OAuthWithCert", "s", tokens.URL))
	r.application("unbound", skip(false), entryWith("svc", target.URL, "OAuthWithCert", "s", tokens.URL))
	name := first.certificate.Subject.CommonName
	if a := r.get("/bound/svc"); a.Body != name+" Bearer for-"+name {
		t.Errorf("%+v", a)
	}
	if a := r.get("/unbound/svc"); a.Body != "nobody Bearer for-"+name {
		t.Errorf("%+v", a)
	}
	if a := r.get("/bound/svc", "Access-Token", "Bearer mine"); a.Body != "nobody Bearer mine" {
		t.Errorf("a caller's own token went out with the certificate: %+v", a)
	}
	// A new certificate retires the token of the old one at once.
	r.secret("s", "clientId", "c", "crt", second.crt, "key", second.key)
	name = second.certificate.Subject.CommonName
	if a := r.get("/bound/svc"); a.Body != name+" Bearer for-"+name {
		t.Errorf("%+v", a)
	}
}

func TestCSRFTokensAreAskedForAsTheSettingsSay(t *testing.T) {
	r := newRig(t)
	var seen calls
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		seen.add(fmt.Sprintf("%s %s token=%q csrf=%q", q.Method, q.URL.Path, q.Header.Get("X-Token"), q.Header.Get("X-Csrf-Token")))
		w.Header().Set("X-Fresh", "fresh")
		w.Header().Set("X-Csrf-Token", "other")
	})
	r.secret("s", "username", "u", "password", "p")
	r.application("app", settings(v1alpha1.TargetSettings{CSRF: &v1alpha1.CSRFSettings{Method: "HEAD", RequestHeader: "x-token", ResponseHeader: "x-fresh", Lifetime: "1h"}}),
		entryCSRF(entryWith("svc", target.URL, "Basic", "s", ""), target.URL+"/csrf"))
	r.do(http.MethodPost, "/app/svc/x", nil).want(t, 200, "")
	if diff := cmp.Diff([]string{`HEAD /csrf token="fetch" csrf=""`, `POST /x token="fresh" csrf=""`}, seen.seen()); diff != "" {
		t.Error(diff)
	}
}

func TestAHeaderPolicyChangesWhatThePartiesSeeButNotTheCredential(t *testing.T) {
	r := newRig(t)
	var got http.Header
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		got = q.Header
		w.Header().Set("Server", "canary")
		w.Header().Set("Set-Cookie", "a=b")
	})
	r.secret("s", "username", "u", "password", "p")
	policy := settings(v1alpha1.TargetSettings{Headers: &v1alpha1.HeaderSettings{
		Request:  &v1alpha1.HeaderPolicy{Remove: []string{"Cookie", "Authorization", "X-Forwarded-*", "Traceparent"}, Set: []v1alpha1.HeaderField{{Name: "X-Tenant", Value: "acme"}}},
		Response: &v1alpha1.HeaderPolicy{Remove: []string{"Server"}, Set: []v1alpha1.HeaderField{{Name: "Cache-Control", Value: "no-store"}}},
	}})
	r.application("basic", policy, entryWith("svc", target.URL, "Basic", "s", ""))
	r.application("open", policy, entry("svc", target.URL))
	sent := []string{"Cookie", "c=d", "Authorization", "Bearer mine", "X-Tenant", "other", "X-Forwarded-Host", "h", "Accept", "a", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	a := r.get("/basic/svc", sent...)
	if diff := cmp.Diff(http.Header{"Authorization": {"Basic " + base64Of("u:p")}, "X-Tenant": {"acme"}, "Accept": {"a"}, "User-Agent": {"Go-http-client/1.1"}}, got); diff != "" {
		t.Error(diff)
	}
	if a.Header.Get("Server") != "" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Set-Cookie") == "" {
		t.Errorf("%v", a.Header)
	}
	r.get("/open/svc", sent...)
	if diff := cmp.Diff(http.Header{"X-Tenant": {"acme"}, "Accept": {"a"}, "User-Agent": {"Go-http-client/1.1"}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyAllowedWorkloadsMayCallAndWhoIsUnknownMayNot(t *testing.T) {
	r := newRig(t)
	var seen calls
	target := r.target(func(_ http.ResponseWriter, q *http.Request) { seen.add(q.Header.Get("X-Forwarded-Client-Cert")) })
	allowed := &v1alpha1.AllowedCallers{Namespaces: []string{"shop"}, ServiceAccounts: []string{"billing/invoices"}}
	r.application("app", func(s *v1alpha1.ApplicationSpec) {
		s.TargetSettings = []v1alpha1.TargetSettings{{Target: "closed/closed", AllowedCallers: allowed}, {Target: "broken/broken", AllowedCallers: allowed, MaxConcurrent: -1}}
	}, entry("closed", target.URL), entry("broken", target.URL), entry("open", target.URL))
	const field = "X-Forwarded-Client-Cert"
	xfcc := func(account string) string {
		return "By=spiffe://cluster.local/ns/kyma-system/sa/gateway;Hash=00;Subject=\"\";URI=spiffe://cluster.local/ns/" + account
	}
	r.get("/app/closed", field, xfcc("shop/sa/any")).want(t, 200, "")
	r.get("/app/closed", field, xfcc("billing/sa/invoices")).want(t, 200, "")
	r.get("/app/open").want(t, 200, "")
	refused := r.get("/app/closed", field, xfcc("shop/sa/any")+","+xfcc("billing/sa/other"))
	refused.want(t, 403, "CallerNotAllowed")
	if text := refused.problem(t); text != "the service account billing/other may not call this API (allowedCallers)" {
		t.Error(text)
	}
	if line := r.access(4); line["caller"] != "billing/other" || line["source"] != "caller" || line["reason"] != "CallerNotAllowed" {
		t.Errorf("%v", line)
	}
	for _, headers := range [][]string{nil, {field, "canary"}, {field, xfcc("shop/sa/any"), field, xfcc("shop/sa/any")}, {field, "URI=spiffe://cluster.local/ns/shop/sa/any"}} {
		a := r.get("/app/closed", headers...)
		a.want(t, 403, "CallerUnknown")
		if strings.Contains(a.Body, "canary") {
			t.Errorf("the answer repeats the header: %s", a.Body)
		}
	}
	// Who may not call an API does not learn what is wrong with it.
	r.get("/app/broken", field, xfcc("other/sa/x")).want(t, 403, "CallerNotAllowed")
	r.get("/app/broken", field, xfcc("shop/sa/x")).want(t, 500, "SettingsInvalid")
	if diff := cmp.Diff([]string{"", "", ""}, seen.seen()); diff != "" {
		t.Errorf("the target saw identities of the mesh: %s", diff)
	}
}

func TestAnErrorIsFoundInTheLogByItsRequestID(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) { w.Header().Set("X-Seen", q.Header.Get("X-Request-Id")) })
	r.application("app", nil, entry("svc", target.URL), entry("down", "http://127.0.0.1:1"))
	for i, c := range []struct{ path, id, want string }{
		{"/no/such", "caller-1", "caller-1"}, {"/app/down", "caller-2", "caller-2"}, {"/no/such", "", ""}, {"/no/such", strings.Repeat("x", 129), ""}, {"/no/such", "a b", ""},
	} {
		var header []string
		if c.id != "" {
			header = []string{"X-Request-Id", c.id}
		}
		a := r.get(c.path, header...)
		got := a.Header.Get("X-Request-Id")
		if line := r.access(i + 1); line["request"] != got || c.want != "" && got != c.want || c.want == "" && len(got) != 16 {
			t.Errorf("%q: answer %q, log %v", c.id, got, line["request"])
		}
	}
	if a := r.get("/app/svc"); a.Header.Get("X-Seen") != "" || a.Header.Get("X-Request-Id") != "" {
		t.Errorf("an id was added: %v", a.Header)
	}
	if a := r.get("/app/svc", "X-Request-Id", "caller 3"); a.Header.Get("X-Seen") != "caller 3" {
		t.Errorf("the caller's id does not reach the target as it came: %v", a.Header)
	}
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
