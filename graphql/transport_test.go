package graphql_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/application-connector/application-connector/graphql"
)

func TestARequestIsWhatCompassExpects(t *testing.T) {
	var got *http.Request
	var body []byte
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = w.Write([]byte(`{"data":{"ping":"pong"}}`))
	}, nil)
	transport := transportTo(t, server, nil)
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	}))
	header := http.Header{"Connector-Token": {"one-time"}, "Content-Type": {"text/plain"}}
	answer, err := ping(ctx, transport, server.URL+"/connector/graphql", header)
	if err != nil || answer != "pong" {
		t.Fatalf("got %q, %v", answer, err)
	}
	requestID := got.Header.Get("X-Request-Id")
	if _, err := uuid.Parse(requestID); err != nil {
		t.Errorf("x-request-id %q is no UUID", requestID)
	}
	got.Header.Del("X-Request-Id")
	want := http.Header{
		"Accept":          {"application/json; charset=utf-8"},
		"Accept-Encoding": {"gzip"},
		"Connector-Token": {"one-time"},
		"Content-Length":  {fmt.Sprint(len(body))},
		"Content-Type":    {"application/json; charset=utf-8"},
		"Traceparent":     {"00-01000000000000000000000000000000-0200000000000000-01"},
		"User-Agent":      {"application-connector"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if got.Method != http.MethodPost || got.URL.Path != "/connector/graphql" {
		t.Errorf("%s %s", got.Method, got.URL)
	}
	if want := `{"query":"query Ping($v: Int) { ping(v: $v) }","variables":{"v":1},"operationName":"Ping"}`; string(body) != want {
		t.Errorf("body %s, want %s", body, want)
	}
	if _, err := ping(ctx, transport, server.URL, header); err != nil || got.Header.Get("X-Request-Id") == requestID {
		t.Errorf("the second request has id %q as the first, or failed: %v", got.Header.Get("X-Request-Id"), err)
	}
	if header.Get("X-Request-Id") != "" || header.Get("Content-Type") != "text/plain" {
		t.Error("the caller's header was changed")
	}
}

func TestAServerMustBeProved(t *testing.T) {
	server := serve(t, answering(`{"data":{"ping":"pong"}}`), nil)
	pool, bundle := rootsOf(server)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	extended, err := graphql.Roots(bundle)
	if err != nil {
		t.Fatal(err)
	}
	other := newAuthority(t, "other").pool()
	tests := map[string]struct {
		endpoint string
		options  graphql.Options
		want     graphql.Kind
	}{
		"system roots do not know it":     {server.URL, graphql.Options{}, graphql.ServerUntrusted},
		"another authority":               {server.URL, graphql.Options{RootCAs: other}, graphql.ServerUntrusted},
		"another name":                    {"https://localhost:" + port, graphql.Options{RootCAs: pool}, graphql.ServerUntrusted},
		"its authority":                   {server.URL, graphql.Options{RootCAs: pool}, ""},
		"system roots and its authority":  {server.URL, graphql.Options{RootCAs: extended}, ""},
		"another, verification is off":    {server.URL, graphql.Options{RootCAs: other, InsecureSkipVerify: true}, ""},
		"plain HTTP is refused by itself": {"http://" + server.Listener.Addr().String(), graphql.Options{RootCAs: pool}, graphql.Invalid},
		"no URL":                          {"https://[::1", graphql.Options{RootCAs: pool}, graphql.Invalid},
		"no host":                         {"https:///graphql", graphql.Options{RootCAs: pool}, graphql.Invalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			transport := graphql.NewTransport(test.options)
			defer transport.CloseIdleConnections()
			if _, err := ping(t.Context(), transport, test.endpoint, nil); graphql.KindOf(err) != test.want {
				t.Errorf("got %v, want kind %q", err, test.want)
			}
		})
	}
}

func TestABundleWithoutCertificateIsRefused(t *testing.T) {
	for name, bundle := range map[string]string{"empty": "", "text": "hello", "key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := graphql.Roots([]byte(bundle)); err == nil || !strings.Contains(err.Error(), "PEM block CERTIFICATE") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	dir := t.TempDir()
	if _, err := graphql.RootsFromFile(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := graphql.RootsFromFile(large); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("large file: got %v", err)
	}
	good := filepath.Join(dir, "good")
	pemBytes := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t, "ca").certificate.Raw})
	if err := os.WriteFile(good, pemBytes, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := graphql.RootsFromFile(good); err != nil {
		t.Error(err)
	}
}

func TestSwitchingVerificationOffIsLoudOnce(t *testing.T) {
	var log bytes.Buffer
	server := serve(t, answering(`{"data":{"ping":"pong"}}`), nil)
	transport := transportTo(t, server, func(o *graphql.Options) {
		o.InsecureSkipVerify = true
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	transport.SetCertificate(nil)
	for range 3 {
		if _, err := ping(t.Context(), transport, server.URL, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "NOT verified") {
		t.Errorf("%d warnings, want one about verification:\n%s", n, log.String())
	}
}

func TestFailuresOfTLSAreToldApart(t *testing.T) {
	ca := newAuthority(t, "clients")
	tests := map[string]struct {
		configure   func(*tls.Config)
		certificate *tls.Certificate
		want        graphql.Kind
	}{
		"no certificate":          {nil, nil, graphql.CertificateRefused},
		"another authority":       {nil, newAuthority(t, "others").issue(t, "x", time.Now().Add(time.Hour)), graphql.CertificateRefused},
		"expired":                 {nil, ca.issue(t, "x", time.Now().Add(-time.Hour)), graphql.CertificateExpired},
		"good":                    {nil, ca.issue(t, "x", time.Now().Add(time.Hour)), ""},
		"protocol older than 1.2": {func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, nil, graphql.TLS},
		// TLS 1.2 has no alert of its own for that (RFC 5246, 7.4.6).
		"TLS 1.2, no certificate":   {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil, graphql.TLS},
		"TLS 1.2, expired":          {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ca.issue(t, "x", time.Now().Add(-time.Hour)), graphql.CertificateExpired},
		"TLS 1.2, good":             {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ca.issue(t, "x", time.Now().Add(time.Hour)), ""},
		"not before, in the future": {func(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(-48 * time.Hour) } }, ca.issue(t, "x", time.Now().Add(time.Hour)), graphql.CertificateExpired},
	}
	for name, test := range tests {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, http2), func(t *testing.T) {
				server := serve(t, answering(`{"data":{"ping":"pong"}}`), func(s *httptest.Server) {
					s.EnableHTTP2 = http2
					s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
					if test.configure != nil {
						test.configure(s.TLS)
					}
				})
				transport := transportTo(t, server, nil)
				transport.SetCertificate(test.certificate)
				// The server sends its alert and hangs up; if it does so before the request is written, the operating
				// system may drop the alert, and the connection just breaks. So: until it is not only unreachable.
				deadline := time.Now().Add(30 * time.Second)
				_, err := ping(t.Context(), transport, server.URL, nil)
				for graphql.KindOf(err) == graphql.Unreachable && time.Now().Before(deadline) {
					_, err = ping(t.Context(), transport, server.URL, nil)
				}
				if graphql.KindOf(err) != test.want {
					t.Errorf("got %v, want kind %q", err, test.want)
				}
			})
		}
	}
	t.Run("no TLS at all", func(t *testing.T) {
		plain := httptest.NewServer(answering("hello"))
		defer plain.Close()
		transport := graphql.NewTransport(graphql.Options{RootCAs: x509.NewCertPool()})
		if _, err := ping(t.Context(), transport, strings.Replace(plain.URL, "http:", "https:", 1), nil); graphql.KindOf(err) != graphql.TLS {
			t.Errorf("got %v, want kind TLS", err)
		}
	})
}

func TestAnAnswerIsWholeOrAnError(t *testing.T) {
	const limit = 1000
	padded := func(size int) string {
		const frame = `{"data":{"ping":""}}`
		return `{"data":{"ping":"` + strings.Repeat("x", size-len(frame)) + `"}}`
	}
	zipped := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, s)
			_ = z.Close()
		}
	}
	status := func(code int, header, value, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set(header, value)
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	var followed bool
	elsewhere := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		followed = true
		_, _ = io.WriteString(w, `{"data":{"ping":"pong"}}`)
	}, nil)
	const good = `{"data":{"ping":"pong"}}`
	tests := map[string]struct {
		handler http.HandlerFunc
		want    graphql.Kind
	}{
		"good":                               {answering(good), ""},
		"201":                                {status(201, "", "", good), ""},
		"errors are an empty list":           {answering(`{"data":{"ping":"pong"},"errors":[]}`), ""},
		"errors are null":                    {answering(`{"data":{"ping":"pong"},"errors":null}`), ""},
		"as large as can be":                 {answering(padded(limit)), ""},
		"one byte larger":                    {answering(padded(limit + 1)), graphql.TooLarge},
		"zipped":                             {zipped(good), ""},
		"zipped, and larger than it looks":   {zipped(padded(1 << 20)), graphql.TooLarge},
		"an error that is too large":         {status(500, "", "", padded(limit+1)), graphql.TooLarge},
		"empty":                              {answering(""), graphql.Malformed},
		"HTML":                               {answering("<html>"), graphql.Malformed},
		"cut JSON":                           {answering(`{"data":{"ping":"po`), graphql.Malformed},
		"more after the JSON":                {answering(good + good), graphql.Malformed},
		"a list":                             {answering("[" + good + "]"), graphql.Malformed},
		"data null":                          {answering(`{"data":null}`), graphql.Malformed},
		"no data":                            {answering(`{}`), graphql.Malformed},
		"null":                               {answering(`null`), graphql.Malformed},
		"data of another shape":              {answering(`{"data":{"ping":{"x":1}}}`), graphql.Malformed},
		"errors of another shape":            {answering(`{"data":{"ping":"pong"},"errors":"x"}`), graphql.Malformed},
		"data and an error":                  {answering(`{"data":{"ping":"pong"},"errors":[{"message":"x"}]}`), graphql.Rejected},
		"data and an error that is null":     {answering(`{"data":{"ping":"pong"},"errors":[null]}`), graphql.Rejected},
		"an error without anything":          {answering(`{"errors":[{}]}`), graphql.Rejected},
		"an error of another shape":          {answering(`{"errors":[{"message":{"a":1},"path":"x","extensions":[]}]}`), graphql.Rejected},
		"data of another shape and an error": {answering(`{"data":[],"errors":[{"message":"x","extensions":{"error_code":10}}]}`), graphql.Server},
		"500 with good data":                 {status(500, "", "", good), graphql.Server},
		"400 with good data":                 {status(400, "", "", good), graphql.Invalid},
		"401":                                {status(401, "", "", ""), graphql.Refused},
		"403 with good data":                 {status(403, "", "", good), graphql.Refused},
		"404":                                {status(404, "", "", "404 page not found"), graphql.Invalid},
		"408":                                {status(408, "", "", ""), graphql.Server},
		"503 that is no GraphQL":             {status(503, "", "", `{"Message":"operation has timed out"}`), graphql.Server},
		"a redirect":                         {status(307, "Location", elsewhere.URL, ""), graphql.Invalid},
		"a redirect with good data":          {status(302, "Location", elsewhere.URL, good), graphql.Invalid},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, good)
		}, graphql.Malformed},
		"broken off, chunked": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, good)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, graphql.Malformed},
		"no answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, graphql.Unreachable},
	}
	for name, test := range tests {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, http2), func(t *testing.T) {
				server := serve(t, test.handler, func(s *httptest.Server) { s.EnableHTTP2 = http2 })
				// An empty root pool would not do: the redirect must fail because it is not followed, not for want of trust.
				pool, _ := rootsOf(server)
				pool.AddCert(elsewhere.Certificate())
				transport := transportTo(t, server, func(o *graphql.Options) { o.RootCAs, o.MaxResponseBytes = pool, limit })
				_, err := ping(t.Context(), transport, server.URL, nil)
				if graphql.KindOf(err) != test.want || (err == nil) != (test.want == "") {
					t.Errorf("got %v, want kind %q", err, test.want)
				}
			})
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

func TestARequestEndsInTime(t *testing.T) {
	stop := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client hangs up
		select {
		case <-r.Context().Done():
		case <-stop:
		}
		panic(http.ErrAbortHandler) // else an empty answer could still overtake the client's own end
	}
	trickle := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"data":`)
		_ = http.NewResponseController(w).Flush()
		hang(w, r)
	}
	t.Cleanup(func() { close(stop) })
	short := func(o *graphql.Options) { o.Timeout = 50 * time.Millisecond }
	for name, handler := range map[string]http.HandlerFunc{"before the header": hang, "within the body": trickle} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, handler, nil)
			_, err := ping(t.Context(), transportTo(t, server, short), server.URL, nil)
			if graphql.KindOf(err) != graphql.Timeout || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want kind Timeout", err)
			}
		})
	}
	t.Run("the caller's deadline is shorter", func(t *testing.T) {
		server := serve(t, hang, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := ping(ctx, transportTo(t, server, nil), server.URL, nil); graphql.KindOf(err) != graphql.Timeout {
			t.Errorf("got %v, want kind Timeout", err)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		server := serve(t, func(w http.ResponseWriter, r *http.Request) { cancel(); hang(w, r) }, nil)
		_, err := ping(ctx, transportTo(t, server, nil), server.URL, nil)
		if graphql.KindOf(err) != graphql.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want kind Canceled", err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		server := serve(t, hang, nil)
		endpoint := server.URL
		transport := transportTo(t, server, nil)
		server.Close()
		if _, err := ping(t.Context(), transport, endpoint, nil); graphql.KindOf(err) != graphql.Unreachable {
			t.Errorf("got %v, want kind Unreachable", err)
		}
	})
}

// TestNothingSecretIsPrinted has a server that writes everything it gets into every part of its answer.
func TestNothingSecretIsPrinted(t *testing.T) {
	const token, bearer, body = "canary-token-0123456789", "canary-bearer-0123456789", "canary-body-0123456789"
	for _, status := range []int{200, 400, 422, 500} {
		for _, shape := range []string{"errors", "data", "text"} {
			t.Run(fmt.Sprintf("%d %s", status, shape), func(t *testing.T) {
				server := serve(t, func(w http.ResponseWriter, r *http.Request) {
					all := r.Header.Get("Connector-Token") + " " + r.Header.Get("Authorization")
					w.Header().Set("X-Echo", all)
					w.WriteHeader(status)
					switch shape {
					case "errors":
						_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"ping": body}, "errors": []any{map[string]any{
							"message": "cannot " + all, "path": []any{token, bearer, body},
							"extensions": map[string]any{"error": token, "code": bearer},
						}}})
					case "data":
						_, _ = fmt.Fprintf(w, `{"data":{"ping":{"%s":%q}}}`, body, all)
					case "text":
						_, _ = fmt.Fprint(w, all, body)
					}
				}, nil)
				var log bytes.Buffer
				transport := transportTo(t, server, func(o *graphql.Options) {
					o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				header := http.Header{"Connector-Token": {token}, "Authorization": {"Bearer " + bearer}}
				_, err := ping(t.Context(), transport, server.URL+"/graphql?token="+token, header)
				var e *graphql.Error
				if !errors.As(err, &e) {
					t.Fatalf("got %v, want an error", err)
				}
				if status == 200 && shape == "errors" && e.Detail() != "cannot [redacted] Bearer [redacted]" {
					t.Errorf("detail %q", e.Detail())
				}
				printed := strings.Join([]string{err.Error(), fmt.Sprintf("%v %+v", err, err), e.Detail(), log.String(),
					fmt.Sprint(errors.Unwrap(err)), fmt.Sprintf("%+v", e.Errors)}, "\n")
				for _, canary := range []string{token, bearer, body, "X-Echo"} {
					if strings.Contains(printed, canary) {
						t.Errorf("%s is printed:\n%s", canary, printed)
					}
				}
				if want := e.RequestID; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("HTTP %d", status)) ||
					!strings.Contains(err.Error(), "Ping") || !strings.Contains(log.String(), want) {
					t.Errorf("operation, status or request id is missing: %v", err)
				}
			})
		}
	}
	t.Run("no connection", func(t *testing.T) {
		server := serve(t, answering(""), nil)
		endpoint := strings.Replace(server.URL, "https://", "https://user:"+token+"@", 1) + "?token=" + token
		transport := transportTo(t, server, nil)
		server.Close()
		if _, err := ping(t.Context(), transport, endpoint, nil); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("got %v", err)
		}
	})
}

const proxyChildEnv = "GRAPHQL_TEST_PROXY_CHILD"

// proxyChild is what the next test runs in a process of its own: net/http reads the environment once.
func proxyChild() bool {
	endpoint := os.Getenv(proxyChildEnv)
	if endpoint == "" {
		return false
	}
	_, err := ping(context.Background(), graphql.NewTransport(graphql.Options{}), endpoint, nil)
	fmt.Print(graphql.KindOf(err))
	return true
}

func TestTheProxyOfTheEnvironmentIsUsed(t *testing.T) {
	asked := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "HTTPS_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=", proxyChildEnv+"=https://compass.example.com/graphql")
	out, err := child.CombinedOutput()
	if err != nil || string(out) != string(graphql.Unreachable) {
		t.Fatalf("child: %v, %s", err, out)
	}
	if got := <-asked; got != "CONNECT compass.example.com:443" {
		t.Errorf("the proxy was asked %q", got)
	}
}
