package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/routes"
)

// closedPort is the address of a port where nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestErrorsBeforeTheTargetIsCalledHaveAStatusAndAText(t *testing.T) {
	r := newRig(t)
	called := false
	ok := r.target(func(http.ResponseWriter, *http.Request) { called = true })
	answers := func(status int, header http.Header, body string) string {
		return r.target(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}).URL
	}
	closed := "http://" + closedPort(t)
	r.secret("basic", "username", "u", "password", "p")
	r.secret("oauth", "clientId", "c", "clientSecret", "s")
	r.secret("oauth-cert", "clientId", "c", "crt", newPair(t).crt, "key", newPair(t).key)
	pair := newPair(t)
	r.secret("mtls-oauth", "clientId", "c", "crt", pair.crt, "key", pair.key)
	r.secret("bad-cert", "clientId", "c", "crt", "nonsense", "key", "nonsense")
	r.secret("bad-headers", "headers", `{"a":"b"}`)
	r.secret("bad-query", "queryParameters", `["a"]`)
	r.secret("bad-header-value", "headers", `{"a":["b\nc"]}`)
	r.secret("empty")
	csrfEntry := func(name, url string) v1alpha1.Entry {
		return entryCSRF(entryWith(name, ok.URL, "Basic", "basic", ""), url)
	}
	parameters := func(name, secretName string) v1alpha1.Entry {
		e := entry(name, ok.URL)
		e.RequestParametersSecretName = secretName
		return e
	}
	r.application("app", nil,
		entry("fine", ok.URL),
		entryWith("no-secret", ok.URL, "Basic", "absent", ""),
		entryWith("no-secret-name", ok.URL, "Basic", "", ""),
		entryWith("no-keys", ok.URL, "Basic", "empty", ""),
		entryWith("unknown-type", ok.URL, "basic", "basic", ""),
		entryWith("untyped", ok.URL, "", "basic", ""),
		parameters("no-parameters", "absent"), parameters("bad-headers", "bad-headers"), parameters("bad-query", "bad-query"), parameters("bad-value", "bad-header-value"),
		entryWith("bad-cert", ok.URL, "CertificateGen", "bad-cert", ""),
		entryWith("bad-cert-oauth", ok.URL, "OAuthWithCert", "bad-cert", closed),
		entryWith("key-of-another", ok.URL, "OAuthWithCert", "oauth-cert", closed),
		entryWith("token-refused", ok.URL, "OAuth", "oauth", closed+"/t?secret=canary"),
		entryWith("token-no-url", ok.URL, "OAuth", "oauth", ""),
		entryWith("token-201", ok.URL, "OAuth", "oauth", answers(201, nil, `{"access_token":"a"}`)),
		entryWith("token-403", ok.URL, "OAuth", "oauth", answers(403, nil, "no")),
		entryWith("token-redirect", ok.URL, "OAuth", "oauth", answers(307, http.Header{"Location": {ok.URL}}, "")),
		entryWith("token-text", ok.URL, "OAuth", "oauth", answers(200, nil, "access_token=canary")),
		entryWith("token-string", ok.URL, "OAuth", "oauth", answers(200, nil, `{"access_token":"canary","expires_in":"3"}`)),
		entryWith("token-none", ok.URL, "OAuth", "oauth", answers(200, nil, `{"expires_in":3}`)),
		entryWith("token-unusable", ok.URL, "OAuth", "oauth", answers(200, nil, `{"access_token":"a\nb"}`)),
		entryWith("token-huge", ok.URL, "OAuth", "oauth", answers(200, nil, `{"access_token":"`+strings.Repeat("a", 1<<20)+`"}`)),
		entryWith("cert-token-403", ok.URL, "OAuthWithCert", "mtls-oauth", answers(403, nil, "no")),
		entryWith("cert-token-refused", ok.URL, "OAuthWithCert", "mtls-oauth", closed),
		csrfEntry("csrf-refused", closed+"/?secret=canary"), csrfEntry("csrf-204", answers(204, nil, "")), csrfEntry("csrf-404", answers(404, nil, "")),
		csrfEntry("csrf-redirect", answers(302, http.Header{"Location": {ok.URL}}, "")), csrfEntry("csrf-none", answers(200, nil, "")),
		entry("bad-target", "http://[::1"), entry("bad-port", "127.0.0.1:80/x"),
		entry("Twin", ok.URL), entry("twin!", ok.URL),
	)
	for _, c := range []struct {
		path   string
		status int
		reason string
		text   string
	}{
		{"", 400, "PathInvalid", "failed to extract API Identifier from path"},
		{"/", 400, "PathInvalid", "failed to extract API Identifier from path"},
		{"/app", 400, "PathInvalid", "failed to extract API Identifier from path"},
		{"/other/fine", 404, "NotFound", "service with name fine not found"},
		{"/app/other", 404, "NotFound", "service with name other not found"},
		{"/app/Fine", 404, "NotFound", "service with name Fine not found"},
		{"/app/fine-name", 404, "NotFound", "service with name fine-name not found"},
		{"/a%20b/fine", 404, "NotFound", "service with name fine not found"},
		{"/app/twin", 400, "Ambiguous", "failed to get service with name 'twin': multiple services found: service.ID: 'id-Twin', service.DisplayName: 'Twin', entry.Name: 'Twin' | service.ID: 'id-twin!', service.DisplayName: 'twin!', entry.Name: 'twin!'"},
		{"/app/fine/../x", 400, "PathLeavesTarget", "the path leaves the API: it has more '..' than segments before them"},
		{"/app/fine/%2e%2e%2fx", 400, "PathLeavesTarget", "the path leaves the API: it has more '..' than segments before them"},
		{"/app/no-secret", 500, "SecretMissing", "failed to read API for no-secret-name service, secret 'absent' not found"},
		{"/app/no-secret-name", 500, "SecretMissing", "failed to read API for no-secret-name-name service, failed to get '' secret, resource name may not be empty"},
		{"/app/no-keys", 500, "KeyMissing", "failed to read API for no-keys-name service, Secret empty: key username is missing"},
		{"/app/unknown-type", 500, "TypeUnknown", `credentials.type "basic" is not known: use None, NoAuth, Basic, OAuth, OAuthWithCert or CertificateGen`},
		{"/app/untyped", 500, "TypeUnknown", `credentials.type "" is not known: use None, NoAuth, Basic, OAuth, OAuthWithCert or CertificateGen`},
		{"/app/no-parameters", 500, "SecretMissing", "failed to read API for no-parameters-name service, secret 'absent' not found"},
		{"/app/bad-headers", 500, "ParametersInvalid", `failed to read API for bad-headers-name service, Secret bad-headers: key headers is not a JSON object of lists of strings, such as {"name":["value"]}`},
		{"/app/bad-query", 500, "ParametersInvalid", `failed to read API for bad-query-name service, Secret bad-query: key queryParameters is not a JSON object of lists of strings, such as {"name":["value"]}`},
		{"/app/bad-value", 500, "ParametersInvalid", `failed to read API for bad-value-name service, Secret bad-header-value: key headers: a value of "a" holds characters that a header field cannot hold`},
		{"/app/bad-cert", 500, "CertificateInvalid", "Failed to prepare certificate, keys crt and key: tls: failed to find any PEM data in certificate input"},
		{"/app/bad-cert-oauth", 500, "CertificateInvalid", "Failed to get token: Failed to prepare certificate, keys crt and key: tls: failed to find any PEM data in certificate input"},
		{"/app/key-of-another", 500, "CertificateInvalid", "Failed to get token: Failed to prepare certificate, keys crt and key: tls: private key does not match public key"},
		{"/app/token-refused", 502, "TokenUnavailable", "failed to make a request to '" + closed + "/t': dial tcp " + strings.TrimPrefix(closed, "http://") + ": connect: connection refused"},
		{"/app/token-no-url", 502, "TokenUnavailable", "failed to make a request to '': is not an absolute URL with scheme http or https"},
		{"/app/token-201", 502, "TokenUnavailable", "incorrect response code '201' while getting token from *"},
		{"/app/token-403", 502, "TokenUnavailable", "incorrect response code '403' while getting token from *"},
		{"/app/token-redirect", 502, "TokenUnavailable", "incorrect response code '307' while getting token from *"},
		{"/app/token-text", 502, "TokenUnavailable", "failed to unmarshal token response body: *"},
		{"/app/token-string", 502, "TokenUnavailable", "failed to unmarshal token response body: *"},
		{"/app/token-none", 502, "TokenUnavailable", "failed to unmarshal token response body: *"},
		{"/app/token-unusable", 502, "TokenUnavailable", "failed to unmarshal token response body: *"},
		{"/app/token-huge", 502, "TokenUnavailable", "failed to read token response body from *"},
		{"/app/cert-token-403", 500, "TokenUnavailable", "Failed to get token: Failed to fetch token, possible certificate problem: incorrect response code '403' *"},
		{"/app/cert-token-refused", 500, "TokenUnavailable", "Failed to get token: Failed to fetch token, possible certificate problem: failed to make a request to *"},
		{"/app/csrf-refused", 502, "CSRFTokenUnavailable", "failed to make a request to '" + closed + "/': *"},
		{"/app/csrf-204", 502, "CSRFTokenUnavailable", "incorrect response code '204' while getting token from *"},
		{"/app/csrf-404", 502, "CSRFTokenUnavailable", "incorrect response code '404' while getting token from *"},
		{"/app/csrf-redirect", 502, "CSRFTokenUnavailable", "incorrect response code '302' while getting token from *"},
		{"/app/csrf-none", 502, "CSRFTokenUnavailable", "the answer of *"},
		{"/app/bad-target", 500, "TargetInvalid", "failed to parse target url '(not a URL)'"},
		{"/app/bad-port", 500, "TargetInvalid", "failed to parse target url '(not a URL)'"},
	} {
		a := r.get(c.path)
		text := a.problem(t)
		if want, open := strings.CutSuffix(c.text, "*"); a.Status != c.status || a.reason() != c.reason || (open && !strings.HasPrefix(text, want)) || (!open && text != c.text) {
			t.Errorf("%s: %d %s %q, want %d %s %q", c.path, a.Status, a.reason(), text, c.status, c.reason, c.text)
		}
	}
	if called {
		t.Error("the target was called, by a call that had to be refused or by a followed redirect")
	}
	if log := r.log.String(); strings.Contains(log, "canary") {
		t.Errorf("a secret is in the log: %s", log)
	}
	a, err := r.try("GET", r.entries.URL+"/app/fine", nil)
	if err != nil || a.Status != 400 || a.problem(t) != "failed to extract API Identifier from path" {
		t.Errorf("two segments on the port for three: %+v %v", a, err)
	}
	a, err = r.try("GET", r.entries.URL+"/app/fine/other", nil)
	if err != nil || a.Status != 404 || a.problem(t) != "service with name fine and entry name other not found" {
		t.Errorf("another entry: %+v %v", a, err)
	}
}

func TestAnAmbiguousEntryIsRefusedOnItsOwnPort(t *testing.T) {
	r := newRig(t)
	target := r.target(func(http.ResponseWriter, *http.Request) {})
	r.application("app", nil, entry("Twin", target.URL), entry("twin!", target.URL))
	a, err := r.try("GET", r.entries.URL+"/app/twin/twin", nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "failed to get service with name 'twin' and entry name 'twin': multiple services found: service.ID: 'id-Twin', service.DisplayName: 'Twin', entry.Name: 'Twin' | service.ID: 'id-twin!', service.DisplayName: 'twin!', entry.Name: 'twin!'"
	if got := a.problem(t); a.Status != 400 || got != want {
		t.Errorf("%d %s", a.Status, got)
	}
}

func TestCallsBeforeTheApplicationsAreReadAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.get("/app/svc")
	if got := a.problem(t); a.Status != 500 || a.reason() != "NotReady" || got != "failed to get service with name 'svc': the Applications have not been read yet" {
		t.Errorf("%d %q", a.Status, got)
	}
	r.snapshot.Store(routes.NewSnapshot(nil, nil))
	if a := r.get("/app/svc"); a.Status != 404 {
		t.Errorf("once they are read: %d", a.Status)
	}
}

func TestErrorsOfTheTargetHaveAStatusAndNoBody(t *testing.T) {
	r := newRig(t, timeouts{target: 3 * time.Second, request: generous})
	release := make(chan struct{})
	slow := r.target(func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-release:
		case <-q.Context().Done():
		}
	})
	defer close(release)
	reset := r.target(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	})
	selfSigned := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "unverified") }))
	selfSigned.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	selfSigned.StartTLS()
	defer selfSigned.Close()
	entries := []v1alpha1.Entry{
		entry("closed", "http://"+closedPort(t)), entry("reset", reset.URL), entry("slow", slow.URL), entry("no-scheme", "example.com/x"),
		entry("ftp", "ftp://example.com/x"), entry("empty", ""), entry("self-signed", selfSigned.URL),
		entry("no-dns", "http://no..name:8080/"), // no resolver has to be asked for what is no name
	}
	r.application("app", nil, entries...)
	for name, c := range map[string]struct {
		status int
		reason string
	}{
		"closed": {502, "TargetUnreachable"}, "reset": {502, "TargetUnreachable"}, "slow": {504, "TargetTimeout"}, "no-scheme": {502, "TargetInvalid"},
		"ftp": {502, "TargetInvalid"}, "empty": {502, "TargetInvalid"}, "self-signed": {502, "TargetUntrusted"}, "no-dns": {502, "TargetUnreachable"},
	} {
		a := r.get("/app/" + name)
		if a.Status != c.status || a.Header.Get("Gateway-Error-Reason") != c.reason || a.Body != "" || a.Header.Get("Content-Type") != "" || a.Header.Get("Target-System-Status") != "" {
			t.Errorf("%s: %+v, want %v and nothing more", name, a, c)
		}
	}
	r.application("trusting", func(s *v1alpha1.ApplicationSpec) { s.SkipVerify = true }, entry("self-signed", selfSigned.URL))
	if a := r.get("/trusting/self-signed"); a.Status != 200 || a.Body != "unverified" {
		t.Errorf("with skipVerify: %+v", a)
	}
	if a := r.get("/app/self-signed"); a.Status != 502 {
		t.Errorf("an unverified connection served a call that wants verification: %+v", a)
	}
}

func TestATargetThatStallsInTheBodyIsCutOffVisibly(t *testing.T) {
	for name, length := range map[string]string{"chunked": "", "with a length": "100"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, timeouts{target: 300 * time.Millisecond, request: generous})
			stalls := r.target(func(w http.ResponseWriter, q *http.Request) {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				io.WriteString(w, "begin")
				_ = http.NewResponseController(w).Flush()
				<-q.Context().Done()
			})
			r.application("app", nil, entry("stalls", stalls.URL))
			a, err := r.try("GET", r.services.URL+"/app/stalls", nil)
			if err == nil {
				t.Errorf("the caller takes %q for the whole answer", a.Body)
			}
			if line := r.access(1); line["aborted"] != true || line["source"] != "target" {
				t.Errorf("%v", line)
			}
		})
	}
}

func TestAnAnswerMayTakeLongerThanTheTimeoutAsLongAsItMoves(t *testing.T) {
	const timeout, pieces = 600 * time.Millisecond, 10
	r := newRig(t, timeouts{target: timeout, request: generous})
	steady := r.target(func(w http.ResponseWriter, _ *http.Request) {
		for range pieces {
			io.WriteString(w, "piece ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(timeout / 5) // the pace of the target is what is tested
		}
	})
	r.application("app", nil, entry("steady", steady.URL))
	if a := r.get("/app/steady"); a.Body != strings.Repeat("piece ", pieces) {
		t.Errorf("%+v", a)
	}
}

func TestARequestBodyThatStallsIsA502(t *testing.T) {
	for name, c := range map[string]struct {
		begin  string // of the request, after its first two lines
		called bool   // the target
	}{
		"small":             {"Content-Length: 100\r\n\r\nbegin", false},
		"large":             {"Content-Length: 100000\r\n\r\nbegin", true},
		"of unknown length": {"Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, timeouts{target: generous, request: 300 * time.Millisecond})
			called := make(chan bool, 10)
			target := r.target(func(w http.ResponseWriter, q *http.Request) {
				called <- true
				_, _ = io.Copy(io.Discard, q.Body)
			})
			r.application("app", nil, entry("svc", target.URL))
			conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(generous))
			fmt.Fprintf(conn, "POST /app/svc HTTP/1.1\r\nHost: g\r\n%s", c.begin)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != 502 || len(body) != 0 || response.Header.Get("Gateway-Error-Reason") != "RequestBodyIncomplete" {
				t.Errorf("%d %q", response.StatusCode, body)
			}
			if line := r.access(1); line["source"] != "caller" {
				t.Errorf("%v", line)
			}
			if got := len(called) > 0; got != c.called {
				t.Errorf("the target was called: %v", got)
			}
		})
	}
}

func TestStatusCodesOfTheTargetAreKeptBut5xxBecome502(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		var code int
		_, _ = fmt.Sscanf(q.URL.Path, "/%d", &code)
		w.Header().Set("X-Kept", "yes")
		w.WriteHeader(code)
		fmt.Fprint(w, code)
	})
	r.application("app", nil, entry("svc", target.URL))
	for _, code := range []int{200, 201, 203, 307, 400, 401, 404, 429, 451, 500, 502, 503, 599} {
		a := r.get(fmt.Sprintf("/app/svc/%d", code))
		want, original := code, ""
		if code >= 500 {
			want, original = 502, fmt.Sprint(code)
		}
		if a.Status != want || a.Body != fmt.Sprint(code) || a.Header.Get("X-Kept") != "yes" || a.Header.Get("Target-System-Status") != original {
			t.Errorf("%d: %+v", code, a)
		}
	}
}

func TestAConnectRequestIsRefusedAndOptionsStarIsAnswered(t *testing.T) {
	r := newRig(t)
	r.snapshot.Store(routes.NewSnapshot(nil, nil))
	for request, want := range map[string]string{
		"CONNECT example.com:443 HTTP/1.1": "400 Bad Request", "OPTIONS * HTTP/1.1": "200 OK",
	} {
		conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(generous))
		fmt.Fprintf(conn, "%s\r\nHost: example.com:443\r\nConnection: close\r\n\r\n", request)
		line, err := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if err != nil || strings.TrimSpace(line) != "HTTP/1.1 "+want {
			t.Errorf("%s: %q %v", request, line, err)
		}
	}
}

// verbatim is a server that answers each connection by a text, whatever it is asked.
func verbatim(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(generous))
			if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, request.Body)
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

func TestNothingOfAnAnswerThatIsNoHTTPIsToldToCallersNorLogged(t *testing.T) {
	const why = "the connection failed, or what came was no HTTP"
	r := newRig(t)
	target := r.target(func(http.ResponseWriter, *http.Request) {})
	token := verbatim(t, `{"access_token":"canary-token","expires_in":60}`+"\r\n\r\n")
	noColon := verbatim(t, "HTTP/1.1 200 OK\r\nX-Csrf-Token: t\r\nSet-Cookie sid=canary-cookie\r\n\r\n")
	protocol := verbatim(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: canary\r\n\r\n")
	length := verbatim(t, "HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n")
	pair := newPair(t)
	r.secret("s", "clientId", "c", "clientSecret", "s", "username", "u", "password", "p", "crt", pair.crt, "key", pair.key)
	r.application("app", nil,
		entryWith("token", target.URL, "OAuth", "s", token), entryWith("cert-token", target.URL, "OAuthWithCert", "s", token),
		entryCSRF(entryWith("csrf", target.URL, "Basic", "s", ""), noColon), entry("no-colon", noColon),
		entry("protocol", protocol), entry("length", length),
	)
	for i, c := range []struct {
		service string
		status  int
		text    string // in the answer; empty for an answer without a body
		log     string
	}{
		{"token", 502, "failed to make a request to '" + token + "': " + why, "failed to make a request to '" + token + "': " + why},
		{"cert-token", 500, "Failed to get token: Failed to fetch token, possible certificate problem: failed to make a request to '" + token + "': " + why, "Failed to get token: Failed to fetch token, possible certificate problem: failed to make a request to '" + token + "': " + why},
		{"csrf", 502, "failed to make a request to '" + noColon + "': " + why, "failed to make a request to '" + noColon + "': " + why},
		{"no-colon", 502, "", why},
		{"protocol", 502, "", why},
		{"length", 502, "", why},
	} {
		a := r.get("/app/" + c.service)
		text := ""
		if a.Body != "" {
			text = a.problem(t)
		}
		line := r.access(i + 1)
		if a.Status != c.status || text != c.text || line["error"] != c.log {
			t.Errorf("%s: %d %q, want %d %q; log %v, want %q", c.service, a.Status, text, c.status, c.text, line["error"], c.log)
		}
		for name, values := range a.Header {
			if strings.Contains(fmt.Sprint(name, values), "canary") {
				t.Errorf("%s: %s: %v", c.service, name, values)
			}
		}
	}
	if log := r.log.String(); strings.Contains(log, "canary") {
		t.Errorf("a secret is in the log: %s", log)
	}
}
