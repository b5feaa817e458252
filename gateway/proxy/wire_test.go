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

// wire is a target that keeps the bytes of each request, and answers by 200 and what the test says.
type wire struct {
	url      string
	requests chan string
	identity chan string // common name of the certificate presented, for wires with TLS
	refuses  string      // method that is answered by 405
}

func newWire(t *testing.T, config *tls.Config, answer string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "http://" + l.Addr().String(), requests: make(chan string, 10), identity: make(chan string, 10)}
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
			w.serve(conn, answer)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return w
}

// serve handles one request by hand, so that nothing parses and rewrites what the test wants to see.
func (w *wire) serve(conn net.Conn, answer string) {
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
	if w.refuses != "" && strings.HasPrefix(text.String(), w.refuses+" ") {
		answer = "405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	} else {
		answer = "200 OK\r\nConnection: close\r\n" + answer
	}
	io.WriteString(conn, "HTTP/1.1 "+answer)
}

const (
	plainAnswer = "Content-Length: 2\r\n\r\nok"
	tokenAnswer = "Content-Length: 39\r\n\r\n{\"access_token\":\"tok\",\"expires_in\":300}"
	csrfAnswer  = "X-CSRF-Token: csrf\r\nSet-Cookie: sid=1; Path=/; HttpOnly\r\nSet-Cookie: q=\"two\"\r\nContent-Length: 0\r\n\r\n"
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
	target   string
	token    string // "" if the token endpoint must not be called
	csrf     string // likewise; all requests together
	identity string // at the target
	tokenID  string // at the token endpoint, likewise the common name of a certificate
	refuses  string // method that the CSRF token endpoint refuses
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

func (c wireCase) run(t *testing.T) {
	r := newRig(t)
	var config *tls.Config
	if c.tls {
		config = &tls.Config{Certificates: []tls.Certificate{newServerPair(t)}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"}}
	}
	target, token, csrf := newWire(t, config, plainAnswer), newWire(t, config, tokenAnswer), newWire(t, config, csrfAnswer)
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
	fmt.Fprint(conn, "GET /app/svc/items?q=%zz;x HTTP/1.1\r\nHost: gateway\r\n")
	for i := 0; i+1 < len(c.headers); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", c.headers[i], c.headers[i+1])
	}
	fmt.Fprint(conn, "\r\n")
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
	if got := <-target.identity; got != c.identity {
		t.Errorf("the target sees the certificate of %q, want %q", got, c.identity)
	}
	if c.token != "" {
		if got := <-token.identity; got != c.tokenID {
			t.Errorf("the token endpoint sees the certificate of %q, want %q", got, c.tokenID)
		}
	}
}
