package compass

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/application-connector/application-connector/simulator/compass/connectorapi"
	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

type recordedExchange struct {
	What    string
	Request struct {
		Method               string
		URL                  string
		Headers              map[string]string
		GraphQL              *string
		Variables            map[string]any
		RawBody              *string
		TLSClientCertificate *struct {
			Subject     string
			ChainLength int
		}
	}
	Response struct {
		Status         int
		Headers        map[string]string
		Body           any
		RawBody        *string
		TransportError string
	}
}

func readExchange(t *testing.T, path string) recordedExchange {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e recordedExchange
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&e); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return e
}

func recordings(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/exchanges/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	return files
}

func TestEveryRecordingHasAPrecondition(t *testing.T) {
	var listed []string
	for group, cases := range replayGroups {
		for _, c := range cases {
			listed = append(listed, filepath.Join("testdata/exchanges", group, c.file+".json"))
			if c.precondition == "" {
				t.Errorf("%s/%s has no precondition", group, c.file)
			}
		}
	}
	slices.Sort(listed)
	if diff := cmp.Diff(recordings(t), listed); diff != "" {
		t.Errorf("recordings and table differ:\n%s", diff)
	}
}

func TestTheSimulatorAnswersAsTheRealCompassDid(t *testing.T) {
	for group, cases := range replayGroups {
		t.Run(group, func(t *testing.T) {
			w := newReplayWorld(t)
			for _, c := range cases {
				t.Run(c.file, func(t *testing.T) {
					w.t, w.cert = t, nil
					w.exchange = readExchange(t, filepath.Join("testdata/exchanges", group, c.file+".json"))
					if !c.goesOn {
						w.server.Admin().ClearFaults()
					}
					if c.prepare != nil {
						c.prepare(w)
					}
					w.compare(c.either)
				})
			}
		})
	}
}

// address is where the recorded request goes now.
func (w *replayWorld) address() string {
	u, err := url.Parse(w.exchange.Request.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	bases := map[string]string{"13443": w.server.TokenURL(), "13444": w.server.DirectorURL(), "13042": w.server.AdminURL()}
	base, err := url.Parse(bases[u.Port()])
	if err != nil || base.Host == "" {
		w.t.Fatalf("no endpoint for port %s: %v", u.Port(), err)
	}
	u.Scheme, u.Host = base.Scheme, base.Host
	return u.String()
}

// send sends the request as it was recorded.
func (w *replayWorld) send() reply {
	w.t.Helper()
	r := w.exchange.Request
	var body []byte
	switch {
	case r.RawBody != nil:
		body = []byte(*r.RawBody)
	default:
		var err error
		if body, err = json.Marshal(map[string]any{"query": r.GraphQL, "variables": r.Variables}); err != nil {
			w.t.Fatal(err)
		}
	}
	header := map[string][]string{}
	for key, value := range r.Headers {
		header[key] = []string{value}
	}
	return caller{t: w.t, server: w.server, cert: w.cert}.send(w.address(), r.Headers["Content-Type"], body, header)
}

func (w *replayWorld) compare(either func(map[string]any)) {
	w.t.Helper()
	want := w.exchange.Response
	if want.TransportError != "" {
		_, alert, _ := strings.Cut(want.TransportError, "remote error: ")
		if got := w.handshakeAlert(); got != alert {
			w.t.Errorf("alert %q, want %q", got, alert)
		}
		return
	}
	got := w.send()
	if got.Err != nil {
		w.t.Fatal(got.Err)
	}
	type envelope struct {
		Status      int
		ContentType string
		RateLimit   string
		RetryAfter  string
	}
	wantEnvelope := envelope{want.Status, want.Headers["Content-Type"], want.Headers["X-Local-Rate-Limit"], want.Headers["Retry-After"]}
	gotEnvelope := envelope{got.Status, got.Header.Get("Content-Type"), got.Header.Get("X-Local-Rate-Limit"), got.Header.Get("Retry-After")}
	if diff := cmp.Diff(wantEnvelope, gotEnvelope); diff != "" {
		w.t.Errorf("status or headers (-real +simulated):\n%s", diff)
	}
	if want.Body == nil {
		if diff := cmp.Diff(deref(want.RawBody), string(got.Body)); diff != "" {
			w.t.Errorf("body (-real +simulated):\n%s", diff)
		}
		return
	}
	var body any
	decoder := json.NewDecoder(bytes.NewReader(got.Body))
	decoder.UseNumber()
	if err := decoder.Decode(&body); err != nil {
		w.t.Fatalf("%v: %s", err, got.Body)
	}
	n := w.normalizer()
	gotNormalized := n.value(body, "")
	diff := cmp.Diff(n.value(want.Body, ""), gotNormalized)
	if diff != "" && either != nil {
		other := w.exchange.Response.Body.(map[string]any)
		either(other)
		diff = cmp.Diff(n.value(other, ""), gotNormalized)
	}
	if diff != "" {
		w.t.Errorf("body (-real +simulated):\n%s", diff)
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// handshakeAlert shakes hands and reads, without sending anything: so the
// server's alert cannot be lost in a reset for data that nobody read.
func (w *replayWorld) handshakeAlert() string {
	w.t.Helper()
	u, err := url.Parse(w.address())
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.server.ServerCA())
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if w.cert != nil {
		config.Certificates = []tls.Certificate{*w.cert}
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: testDeadline}, "tcp", u.Host, config)
	if err == nil {
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(testDeadline)); err != nil {
			w.t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
	}
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		w.t.Fatalf("no alert, but %v", err)
	}
	return remote.Err.Error()
}

// normalizer makes comparable what differs from run to run: ids that were not
// known before, times, tokens, certificates, ports.
type normalizer struct {
	hosts map[string]string
}

func (w *replayWorld) normalizer() normalizer {
	hosts := map[string]string{}
	for recorded, now := range map[string]string{"localhost:13443": w.server.TokenURL(), "localhost:13444": w.server.DirectorURL()} {
		u, err := url.Parse(now)
		if err != nil {
			w.t.Fatal(err)
		}
		hosts[u.Host] = recorded
	}
	return normalizer{hosts}
}

var (
	uuidInText  = regexp.MustCompile(`errorID=[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	wholeSecond = regexp.MustCompile(`^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	nanosecond  = regexp.MustCompile(`^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$`)
	tokenForm   = regexp.MustCompile(`^[A-Za-z0-9_-]{86}==$`)
)

// madeUpIDs are keys whose ids are made in the request.
var madeUpIDs = map[string]bool{"requestBundleInstanceAuthCreation.id": true}

func (n normalizer) value(v any, at string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			out[key] = n.value(item, lastOf(at)+"."+key)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = n.value(item, at)
		}
		if unordered(at) {
			slices.SortFunc(out, func(a, b any) int { return strings.Compare(sortKey(a), sortKey(b)) })
		}
		return out
	case string:
		return n.text(v, at)
	}
	return v
}

func lastOf(at string) string { return at[strings.LastIndex(at, ".")+1:] }

// unordered lists: Director resolves fields and loads nested lists side by
// side, so that errors and items come in any order.
func unordered(at string) bool {
	switch at {
	case ".errors", "bundles.data", "packages.data", "apiDefinitions.data", "eventDefinitions.data", "documents.data":
		return true
	}
	return false
}

// sortKey is the same on both sides: names and paths do not change.
func sortKey(item any) string {
	if object, ok := item.(map[string]any); ok {
		for _, key := range []string{"name", "path"} {
			if object[key] != nil {
				return fmt.Sprint(object[key])
			}
		}
	}
	return fmt.Sprint(item)
}

func (n normalizer) text(s, at string) any {
	key := lastOf(at)
	switch {
	case madeUpIDs[at]:
		return "<id>"
	case wholeSecond.MatchString(s):
		return "<time>"
	case nanosecond.MatchString(s):
		return "<time with fraction>"
	case tokenForm.MatchString(s):
		return "<token>"
	case key == "raw":
		var inner any
		if json.Unmarshal([]byte(s), &inner) == nil {
			return n.value(inner, at)
		}
	case key == "rawEncoded":
		if raw, err := base64.StdEncoding.DecodeString(s); err == nil {
			return n.text(string(raw), "raw")
		}
	case key == "certificateChain" || key == "caCertificate" || key == "clientCertificate":
		return describeCertificates(s)
	}
	for now, recorded := range n.hosts {
		s = strings.ReplaceAll(s, now, recorded)
	}
	return uuidInText.ReplaceAllString(s, "errorID=<id>")
}

// describeCertificates tells everything of certificates that must be alike.
func describeCertificates(encoded string) any {
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "no base64: " + encoded
	}
	var out []any
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err.Error()
		}
		description := map[string]any{
			"subject": c.Subject.String(), "issuer": c.Issuer.String(), "isCA": c.IsCA, "keyUsage": c.KeyUsage,
			"extKeyUsage": c.ExtKeyUsage, "signature": c.SignatureAlgorithm.String(), "key": c.PublicKeyAlgorithm.String(),
			"dnsNames": c.DNSNames, "pem": block.Type,
		}
		if !c.IsCA {
			description["serial"] = c.SerialNumber.String()
			description["validity"] = c.NotAfter.Sub(c.NotBefore).String()
			description["rawSubject"] = fmt.Sprintf("%x", c.RawSubject)
		}
		out = append(out, description)
	}
	return out
}

func TestOurSchemaHoldsEveryFieldThatARecordingAsksFor(t *testing.T) {
	schemas := map[string]*ast.Schema{
		apiConnector: connectorapi.NewExecutableSchema(connectorapi.Config{}).Schema(),
		apiDirector:  directorapi.NewExecutableSchema(directorapi.Config{}).Schema(),
	}
	// What the real one refuses as well.
	invalid := map[string]bool{
		"testdata/exchanges/errors/10-token-unknown-field.json": true,
		"testdata/exchanges/errors/89-syntax-error.json":        true,
		"testdata/exchanges/errors/90-unknown-field.json":       true,
	}
	checked := 0
	for _, file := range recordings(t) {
		e := readExchange(t, file)
		if e.Request.GraphQL == nil {
			continue
		}
		api := apiConnector
		if strings.Contains(e.Request.URL, "/director/") {
			api = apiDirector
		}
		document, _ := withoutLegacyWords(*e.Request.GraphQL)
		_, err := gqlparser.LoadQueryWithRules(schemas[api], document, nil)
		if invalid[file] != (err != nil) {
			t.Errorf("%s: %v", file, err)
		}
		if err == nil {
			checked++
		}
	}
	if checked < 100 {
		t.Errorf("only %d documents were checked", checked)
	}
}
