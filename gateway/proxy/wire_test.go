package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// wire is a target that keeps the bytes of each request, and answers by what the test says.
type wire struct {
	url      string
	requests chan string
	identity chan string // common name of the certificate presented, for wires with TLS
	refuses  string      // method that is answered by 405
	answers  []string    // one after the other, of which the last stands for all that follow
}

func newWire(t *testing.T, config *tls.Config, answers ...string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "http://" + l.Addr().String(), requests: make(chan string, 10), identity: make(chan string, 10), answers: answers}
	if config != nil {
		l, w.url = tls.NewListener(l, config), "https://"+l.Addr().String()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.serve(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return w
}

// serve handles one request by hand, so that nothing parses and rewrites what the test wants to see.
func (w *wire) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(generous))
	reader := bufio.NewReader(conn)
	var text strings.Builder
	length := 0
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		text.WriteString(line)
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
		if line == "\r\n" {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(reader, body); err != nil {
		return
	}
	text.Write(body)
	if c, ok := conn.(*tls.Conn); ok {
		name := ""
		if peers := c.ConnectionState().PeerCertificates; len(peers) > 0 {
			name = peers[0].Subject.CommonName
		}
		w.identity <- name
	}
	w.requests <- text.String()
	answer := w.answers[0]
	if w.refuses != "" && strings.HasPrefix(text.String(), w.refuses+" ") {
		answer = "405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
	} else if len(w.answers) > 1 {
		w.answers = w.answers[1:]
	}
	status, rest, _ := strings.Cut(answer, "\r\n")
	io.WriteString(conn, "HTTP/1.1 "+status+"\r\nConnection: close\r\n"+rest)
}

const (
	plainAnswer  = "200 OK\r\nContent-Length: 2\r\n\r\nok"
	tokenAnswer  = "200 OK\r\nContent-Length: 39\r\n\r\n{\"access_token\":\"tok\",\"expires_in\":300}"
	secondToken  = "200 OK\r\nContent-Length: 39\r\n\r\n{\"access_token\":\"new\",\"expires_in\":300}"
	csrfAnswer   = "200 OK\r\nX-CSRF-Token: csrf\r\nSet-Cookie: sid=1; Path=/; HttpOnly\r\nSet-Cookie: q=\"two\"\r\nContent-Length: 0\r\n\r\n"
	secondCSRF   = "200 OK\r\nX-CSRF-Token: fresh\r\nSet-Cookie: sid=2\r\nContent-Length: 0\r\n\r\n"
	unauthorized = "401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
	forbidden    = "403 Forbidden\r\nContent-Length: 4\r\n\r\nnope"
)

var port = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// seen are all requests that came so far, with the port of their Host masked.
func (w *wire) seen() string {
	all := ""
	for len(w.requests) > 0 {
		all += <-w.requests
	}
	return port.ReplaceAllString(strings.ReplaceAll(all, "\r\n", "\n"), "TARGET")
}

// wireCase is a call, and what each party sees of it.
type wireCase struct {
	name     string
	tls      bool
	secrets  map[string][]string
	settings v1alpha1.TargetSettings // of all APIs
	entry    func(target, token, csrf string) v1alpha1.Entry
	headers  []string // of the caller
	body     string   // likewise: a POST, else it is a GET
	refusal  string   // the target's answer to the first attempt; empty for none
	target   string   // all requests together
	token    string   // "" if the token endpoint must not be called
	csrf     string   // likewise; all requests together
	identity string   // at the target
	tokenID  string   // at the token endpoint, likewise the common name of a certificate
	csrfID   string   // at the CSRF token endpoint
	refuses  string   // method that the CSRF token endpoint refuses
}

func TestWhatATargetSeesByteForByte(t *testing.T) {
	clientPair := newPair(t)
	for _, c := range []wireCase{
		{
			name:    "none",
			entry:   func(target, _, _ string) v1alpha1.Entry { return entry("svc", target+"/base?a=b;c&d") },
			headers: []string{"Authorization", "Bearer callers-own", "X-Forwarded-For", "10.0.0.1", "X-Forwarded-Client-Cert", "Hash=x", "X-Forwarded-Proto", "https", "Connection", "X-Hop", "X-Hop", "1"},
			target:  "GET /base/items?a=b;c&d&q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer callers-own\nX-Forwarded-For: 10.0.0.1, 127.0.0.1\nX-Forwarded-Proto: https\n\n",
		},
		{
			name:    "basic",
			secrets: map[string][]string{"s": {"username", "user", "password", "p:w"}},
			entry:   func(target, _, _ string) v1alpha1.Entry { return entryWith("svc", target, "Basic", "s", "") },
			headers: []string{"Authorization", "Bearer callers-own", "Connection", "Authorization, X-Forwarded-For"},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Basic dXNlcjpwOnc=\nX-Forwarded-For: 127.0.0.1\n\n",
		},
		{
			name:    "oauth",
			secrets: map[string][]string{"s": {"clientId", "id", "clientSecret", "s&c", "headers", `{"x-tenant":["t1"],"authorization":["never"]}`, "queryParameters", `{"scope":["read"],"l":["never"]}`}},
			entry: func(target, token, _ string) v1alpha1.Entry {
				return entryWith("svc", target, "OAuth", "s", token+"/oauth/token?l=5s")
			},
			target: "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer tok\nX-Forwarded-For: 127.0.0.1\n\n",
			token: "POST /oauth/token?l=5s&scope=read HTTP/1.1\nHost: TARGET\nContent-Length: 62\nAuthorization: Basic aWQ6cyZj\nContent-Type: application/x-www-form-urlencoded\nX-Tenant: t1\n\n" +
				"client_id=id&client_secret=s%26c&grant_type=client_credentials",
		},
		{
			name:    "oauth with certificate",
			tls:     true,
			secrets: map[string][]string{"s": {"clientId", "id", "crt", clientPair.crt, "key", clientPair.key}},
			entry: func(target, token, _ string) v1alpha1.Entry {
				return entryWith("svc", target, "OAuthWithCert", "s", token+"/t")
			},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer tok\nX-Forwarded-For: 127.0.0.1\n\n",
			token:   "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 42\nContent-Type: application/x-www-form-urlencoded\n\nclient_id=id&grant_type=client_credentials",
			tokenID: clientPair.certificate.Subject.CommonName,
		},
		{
			name:     "client certificate",
			tls:      true,
			secrets:  map[string][]string{"s": {"crt", clientPair.crt, "key", clientPair.key}},
			entry:    func(target, _, _ string) v1alpha1.Entry { return entryWith("svc", target, "CertificateGen", "s", "") },
			headers:  []string{"Authorization", "Bearer callers-own"},
			target:   "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer callers-own\nX-Forwarded-For: 127.0.0.1\n\n",
			identity: clientPair.certificate.Subject.CommonName,
		},
		{
			name:    "csrf",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			entry: func(target, _, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "Basic", "s", ""), csrf+"/csrf")
			},
			headers: []string{"Cookie", "mine=1; sid=callers", "X-Csrf-Token", "callers"},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Basic dTpw\nCookie: sid=1; q=\"two\"; mine=1\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n",
			csrf:    "GET /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nAuthorization: Basic dTpw\nCache-Control: no-cache\nX-Csrf-Token: fetch\n\n",
		},
		{
			name:    "parameters",
			secrets: map[string][]string{"p": {"headers", `{"x-key":["k1","k2"],"X-Callers":["never"],"User-Agent":["agent"],"Host":["never"]}`, "queryParameters", `{"region":["eu","u s"],"q":["never"]}`}},
			entry: func(target, _, _ string) v1alpha1.Entry {
				e := entry("svc", target)
				e.RequestParametersSecretName = "p"
				return e
			},
			headers: []string{"X-Callers", "mine"},
			target:  "GET /items?q=%zz;x&region=eu&region=u+s HTTP/1.1\nHost: TARGET\nUser-Agent: agent\nX-Callers: mine\nX-Forwarded-For: 127.0.0.1\nX-Key: k1\nX-Key: k2\n\n",
		},
		{
			name:    "external token",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			entry:   func(target, _, _ string) v1alpha1.Entry { return entryWith("svc", target, "Basic", "s", "") },
			headers: []string{"Access-Token", "Bearer users"},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer users\nX-Forwarded-For: 127.0.0.1\n\n",
		},
		{
			name:    "external token with csrf",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			entry: func(target, _, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "Basic", "s", ""), csrf+"/csrf")
			},
			headers: []string{"Access-Token", "Bearer users"},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer users\nCookie: sid=1; q=\"two\"\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n",
			csrf:    "GET /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nAuthorization: Bearer users\nCache-Control: no-cache\nX-Csrf-Token: fetch\n\n",
		},
		{
			name:    "basic with parameters",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}, "p": {"headers", `{"Authorization":["never"],"X-Key":["k"]}`, "queryParameters", `{"region":["eu"]}`}},
			entry: func(target, _, _ string) v1alpha1.Entry {
				e := entryWith("svc", target+"/base?a=b", "Basic", "s", "")
				e.RequestParametersSecretName = "p"
				return e
			},
			target: "GET /base/items?a=b&q=%zz;x&region=eu HTTP/1.1\nHost: TARGET\nAuthorization: Basic dTpw\nX-Forwarded-For: 127.0.0.1\nX-Key: k\n\n",
		},
		{
			name:    "oauth with csrf",
			secrets: map[string][]string{"s": {"clientId", "id", "clientSecret", "s"}},
			entry: func(target, token, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "OAuth", "s", token+"/t"), csrf+"/csrf")
			},
			target: "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer tok\nCookie: sid=1; q=\"two\"\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n",
			token:  "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 58\nAuthorization: Basic aWQ6cw==\nContent-Type: application/x-www-form-urlencoded\n\nclient_id=id&client_secret=s&grant_type=client_credentials",
			csrf:   "GET /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nAuthorization: Bearer tok\nCache-Control: no-cache\nX-Csrf-Token: fetch\n\n",
		},
		{
			name:    "client certificate with csrf",
			tls:     true,
			secrets: map[string][]string{"s": {"crt", clientPair.crt, "key", clientPair.key}},
			entry: func(target, _, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "CertificateGen", "s", ""), csrf+"/csrf")
			},
			target:   "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nCookie: sid=1; q=\"two\"\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n",
			csrf:     "GET /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nCache-Control: no-cache\nX-Csrf-Token: fetch\n\n",
			identity: clientPair.certificate.Subject.CommonName,
			csrfID:   clientPair.certificate.Subject.CommonName,
		},
		{
			name:    "oauth with certificate and csrf",
			tls:     true,
			secrets: map[string][]string{"s": {"clientId", "id", "crt", clientPair.crt, "key", clientPair.key}},
			entry: func(target, token, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "OAuthWithCert", "s", token+"/t"), csrf+"/csrf")
			},
			headers: []string{"Cookie", "mine=1", "Authorization", "Bearer callers-own"},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer tok\nCookie: sid=1; q=\"two\"; mine=1\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n",
			token:   "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 42\nContent-Type: application/x-www-form-urlencoded\n\nclient_id=id&grant_type=client_credentials",
			csrf:    "GET /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nAuthorization: Bearer tok\nCache-Control: no-cache\nX-Csrf-Token: fetch\n\n",
			tokenID: clientPair.certificate.Subject.CommonName,
		},
		{
			name:    "an empty external token is no token",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			entry:   func(target, _, _ string) v1alpha1.Entry { return entryWith("svc", target, "Basic", "s", "") },
			headers: []string{"Access-Token", ""},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAccess-Token: \nAuthorization: Basic dTpw\nX-Forwarded-For: 127.0.0.1\n\n",
		},
	} {
		t.Run(c.name, c.run)
	}
}

func TestWhatATargetSeesOfASecondAttemptByteForByte(t *testing.T) {
	pair := newPair(t)
	const (
		form   = "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 58\nAuthorization: Basic aWQ6cw==\nContent-Type: application/x-www-form-urlencoded\n\nclient_id=id&client_secret=s&grant_type=client_credentials"
		bound  = "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 42\nContent-Type: application/x-www-form-urlencoded\n\nclient_id=id&grant_type=client_credentials"
		fields = "\nCache-Control: no-cache\nX-Csrf-Token: fetch\n\n"
		fetch  = "GET /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nAuthorization: "
	)
	for _, c := range []wireCase{
		{
			name:    "oauth, with a body and parameters",
			secrets: map[string][]string{"s": {"clientId", "id", "clientSecret", "s"}, "p": {"headers", `{"X-Key":["k"]}`, "queryParameters", `{"region":["eu"]}`}},
			entry: func(target, token, _ string) v1alpha1.Entry {
				e := entryWith("svc", target+"/base?a=b", "OAuth", "s", token+"/t")
				e.RequestParametersSecretName = "p"
				return e
			},
			headers: []string{"Cookie", "mine=1", "Content-Type", "text/plain"},
			body:    "the body",
			refusal: unauthorized,
			target: "POST /base/items?a=b&q=%zz;x&region=eu HTTP/1.1\nHost: TARGET\nContent-Length: 8\nAuthorization: Bearer tok\nContent-Type: text/plain\nCookie: mine=1\nX-Forwarded-For: 127.0.0.1\nX-Key: k\n\nthe body" +
				"POST /base/items?a=b&q=%zz;x&region=eu HTTP/1.1\nHost: TARGET\nContent-Length: 8\nAuthorization: Bearer new\nContent-Type: text/plain\nCookie: mine=1\nX-Forwarded-For: 127.0.0.1\nX-Key: k\n\nthe body",
			token: form + form,
		},
		{
			name:    "basic with csrf",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			entry: func(target, _, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "Basic", "s", ""), csrf+"/csrf")
			},
			headers: []string{"Cookie", "mine=1; q=callers; sid=callers"},
			refusal: forbidden,
			target: "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Basic dTpw\nCookie: sid=1; q=\"two\"; mine=1\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n" +
				"GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Basic dTpw\nCookie: sid=2; mine=1; q=callers\nX-Csrf-Token: fresh\nX-Forwarded-For: 127.0.0.1\n\n",
			csrf: fetch + "Basic dTpw" + fields + fetch + "Basic dTpw" + fields,
		},
		{
			name:    "oauth with certificate and csrf",
			tls:     true,
			secrets: map[string][]string{"s": {"clientId", "id", "crt", pair.crt, "key", pair.key}},
			entry: func(target, token, csrf string) v1alpha1.Entry {
				return entryCSRF(entryWith("svc", target, "OAuthWithCert", "s", token+"/t"), csrf+"/csrf")
			},
			refusal: forbidden,
			target: "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer tok\nCookie: sid=1; q=\"two\"\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n" +
				"GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer new\nCookie: sid=2\nX-Csrf-Token: fresh\nX-Forwarded-For: 127.0.0.1\n\n",
			token:   bound + bound,
			csrf:    fetch + "Bearer tok" + fields + fetch + "Bearer new" + fields,
			tokenID: pair.certificate.Subject.CommonName,
		},
	} {
		t.Run(c.name, c.run)
	}
}

func (c wireCase) run(t *testing.T) {
	r := newRig(t)
	var config *tls.Config
	if c.tls {
		config = &tls.Config{Certificates: []tls.Certificate{newServerPair(t)}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"}}
	}
	answers := []string{plainAnswer}
	if c.refusal != "" {
		answers = []string{c.refusal, plainAnswer}
	}
	target, token, csrf := newWire(t, config, answers...), newWire(t, config, tokenAnswer, secondToken), newWire(t, config, csrfAnswer, secondCSRF)
	csrf.refuses = c.refuses
	for name, data := range c.secrets {
		r.secret(name, data...)
	}
	r.application("app", func(s *v1alpha1.ApplicationSpec) { settings(c.settings)(s); s.SkipVerify = true }, c.entry(target.url, token.url, csrf.url))
	conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(generous))
	method := map[bool]string{true: "GET", false: "POST"}[c.body == ""]
	fmt.Fprintf(conn, "%s /app/svc/items?q=%%zz;x HTTP/1.1\r\nHost: gateway\r\n", method)
	for i := 0; i+1 < len(c.headers); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", c.headers[i], c.headers[i+1])
	}
	if c.body != "" {
		fmt.Fprintf(conn, "Content-Length: %d\r\n", len(c.body))
	}
	fmt.Fprint(conn, "\r\n"+c.body)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 200 || string(body) != "ok" {
		t.Fatalf("%d %q; log %s", response.StatusCode, body, r.log)
	}
	// Whatever was asked before the target has been answered by now.
	for _, seen := range []struct {
		what string
		wire *wire
		want string
	}{{"token endpoint", token, c.token}, {"CSRF token endpoint", csrf, c.csrf}, {"target", target, c.target}} {
		if diff := cmp.Diff(seen.want, seen.wire.seen()); diff != "" {
			t.Errorf("the %s sees (-want +got):\n%s", seen.what, diff)
		}
	}
	if !c.tls {
		return
	}
	for _, seen := range []struct {
		what, want string
		wire       *wire
	}{{"target", c.identity, target}, {"token endpoint", c.tokenID, token}, {"CSRF token endpoint", c.csrfID, csrf}} {
		for len(seen.wire.identity) > 0 {
			if got := <-seen.wire.identity; got != seen.want {
				t.Errorf("the %s sees the certificate of %q, want %q", seen.what, got, seen.want)
			}
		}
	}
}
