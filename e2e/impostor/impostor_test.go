package impostor_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"go.uber.org/goleak"

	"github.com/application-connector/application-connector/e2e/impostor"
	"github.com/application-connector/application-connector/simulator/authority"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// believer is a validator that sees the client's certificate itself. Its fields are ways of being fooled.
type believer struct {
	publisher string
	// names are the common names that it takes the client to have.
	names func(r *http.Request) []string
	// any lets one of several names do; trusting passes on who the client says it is; lax leaves the source alone; cleans
	// cleans the path when it has decided.
	any, trusting, lax, cleans bool

	mu   sync.Mutex
	apps map[string][]string
}

func (b *believer) create(a impostor.Application) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apps[a.Name] = a.Clients
}

func (b *believer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segments := strings.Split(r.URL.EscapedPath(), "/")
	names := b.names(r)
	if len(segments) < 3 || len(names) == 0 || len(names) > 1 && !b.any {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	app, rest := segments[1], strings.Join(segments[2:], "/")
	b.mu.Lock()
	may := slices.ContainsFunc(names, func(name string) bool { return slices.Contains(b.apps[app], name) })
	b.mu.Unlock()
	if !may {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	body, _ := io.ReadAll(r.Body)
	header := r.Header.Clone()
	if !b.trusting || header.Get("X-Verified-Application") == "" {
		header["X-Verified-Application"] = []string{app}
	}
	legacy := strings.HasPrefix(rest, "v1/events")
	if legacy {
		target := r.URL.Path
		if b.cleans {
			target = path.Clean(target)
		}
		w.WriteHeader(b.send(header, target, body, true, app))
		return
	}
	if r.Header.Get("Content-Type") != "application/cloudevents-batch+json" {
		w.WriteHeader(b.send(header, "/publish", body, b.lax, app))
		return
	}
	var events []json.RawMessage
	if err := json.Unmarshal(body, &events); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	header.Set("Content-Type", "application/cloudevents+json")
	status := http.StatusNoContent
	for _, e := range events {
		status = max(status, b.send(header, "/publish", e, b.lax, app))
	}
	w.WriteHeader(status)
}

// send gives an event to the publisher unless it is in another name.
func (b *believer) send(header http.Header, target string, body []byte, lax bool, app string) int {
	if !lax {
		e, err := binding.ToEvent(b.request(header, target, body).Context(), cehttp.NewMessageFromHttpRequest(b.request(header, target, body)))
		if err != nil || e.Source() != app || len(header.Values("Ce-Source")) > 1 {
			return http.StatusBadRequest
		}
	}
	answer, err := http.DefaultClient.Do(b.request(header, target, body))
	if err != nil {
		return http.StatusBadGateway
	}
	answer.Body.Close()
	return answer.StatusCode
}

func (b *believer) request(header http.Header, target string, body []byte) *http.Request {
	r, err := http.NewRequest(http.MethodPost, b.publisher, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.URL.Path, r.Header = target, header.Clone()
	for _, name := range []string{"Connection", "Te", "Upgrade", "Trailer", "Content-Length"} {
		r.Header.Del(name)
	}
	return r
}

// commonNames reads a subject by what it holds.
func commonNames(r *http.Request) []string {
	var names []string
	for _, a := range r.TLS.PeerCertificates[0].Subject.Names {
		if text, ok := a.Value.(string); ok && a.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			names = append(names, text)
		}
	}
	return names
}

// result is a test of its own that may fail.
type result struct {
	*testing.T
	failed bool
	texts  []string
}

func (t *result) Failed() bool                      { return t.failed }
func (t *result) Fail()                             { t.failed = true }
func (t *result) FailNow()                          { t.Fail(); runtime.Goexit() }
func (t *result) Log(args ...any)                   { t.texts = append(t.texts, fmt.Sprint(args...)) }
func (t *result) Logf(format string, args ...any)   { t.Log(fmt.Sprintf(format, args...)) }
func (t *result) Error(args ...any)                 { t.Log(args...); t.Fail() }
func (t *result) Errorf(format string, args ...any) { t.Logf(format, args...); t.Fail() }
func (t *result) Fatal(args ...any)                 { t.Log(args...); t.FailNow() }
func (t *result) Fatalf(format string, args ...any) { t.Logf(format, args...); t.FailNow() }

func TestAValidatorThatIsFooledIsFoundAndOneThatIsNotPasses(t *testing.T) {
	// A failure is what most of these are about: no time for small ones, no files, and so many attempts that none is missed.
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.shrinktime": "0s", "rapid.checks": "300"} {
		f := flag.Lookup(name)
		before := f.Value.String()
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(name, before) })
	}
	claimed := regexp.MustCompile(`Subject="CN=([^"]*)"`)
	const taken, untaken = "was taken for", "under its own certificate got status"
	for what, tc := range map[string]struct {
		validator *believer
		want      string // empty if nothing is to be found
	}{
		"nobody fools it":                       {&believer{names: commonNames}, ""},
		"one of several names does":             {&believer{names: commonNames, any: true}, taken},
		"it believes who the client says it is": {&believer{names: commonNames, trusting: true}, taken},
		"it leaves the source alone":            {&believer{names: commonNames, lax: true}, taken},
		"it cleans the path too late":           {&believer{names: commonNames, cleans: true}, taken},
		"it believes the header of the client": {&believer{any: true, names: func(r *http.Request) []string {
			names := commonNames(r)
			for _, m := range claimed.FindAllStringSubmatch(strings.Join(r.Header.Values("X-Forwarded-Client-Cert"), ","), -1) {
				names = append(names, m[1])
			}
			return names
		}}, taken},
		"it splits the printed subject": {&believer{any: true, names: func(r *http.Request) []string {
			names := commonNames(r)
			for _, piece := range strings.FieldsFunc(r.TLS.PeerCertificates[0].Subject.String(), func(r rune) bool { return r == ',' || r == '+' }) {
				if name, ok := strings.CutPrefix(piece, "CN="); ok {
					names = append(names, name)
				}
			}
			return names
		}}, taken},
		"it refuses a certificate with alternative names": {&believer{names: func(r *http.Request) []string {
			if len(r.TLS.PeerCertificates[0].DNSNames) > 0 {
				return nil
			}
			return commonNames(r)
		}}, untaken},
	} {
		t.Run(what, func(t *testing.T) {
			clients, err := authority.New("clients", nil)
			if err != nil {
				t.Fatal(err)
			}
			publisher := impostor.NewPublisher()
			defer publisher.Close()
			b := tc.validator
			b.publisher, b.apps = publisher.URL(), map[string][]string{}
			server := httptest.NewUnstartedServer(b)
			server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool()}
			server.StartTLS()
			defer http.DefaultClient.CloseIdleConnections()
			defer server.Close()
			pool := x509.NewCertPool()
			pool.AddCert(server.Certificate())
			road := impostor.Road{
				Address: server.Listener.Addr().String(), Servers: pool, Clients: clients, Publisher: publisher, Create: b.create,
			}
			got := &result{T: t}
			done := make(chan struct{})
			go func() { defer close(done); road.Check(got) }()
			<-done
			if text := strings.Join(got.texts, "\n"); got.failed != (tc.want != "") || !strings.Contains(text, tc.want) {
				t.Errorf("want %q, got failed=%v and:\n%s", tc.want, got.failed, text)
			}
		})
	}
}
