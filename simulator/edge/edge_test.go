package edge_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
	"github.com/application-connector/application-connector/simulator/listener"
)

var cfg rest.Config

func TestMain(m *testing.M) { kubetest.Run(m, &cfg) }

// world is an edge in front of an application that records what it saw.
type world struct {
	t         *testing.T
	namespace string
	kube      kubernetes.Interface
	edge      *edge.Server
	servers   *authority.Authority // signs the edge's certificate
	clients   *authority.Authority // signs what the edge accepts
	seen      chan *http.Request
}

func newWorld(t *testing.T, change func(*edge.Options)) *world {
	t.Helper()
	before := goleak.IgnoreCurrent()
	w := &world{t: t, namespace: kubetest.Namespace(t, &cfg), servers: newAuthority(t, "servers"), clients: newAuthority(t, "clients"), seen: make(chan *http.Request, 100)}
	application := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.seen <- r
		rw.Header().Set("X-Answer", "yes")
		rw.WriteHeader(http.StatusTeapot)
		_, _ = rw.Write(body)
	}))
	own := rest.CopyConfig(&cfg)
	transport, err := rest.HTTPClientFor(own)
	if err != nil {
		t.Fatal(err)
	}
	if w.kube, err = kubernetes.NewForConfigAndClient(own, transport); err != nil {
		t.Fatal(err)
	}
	o := edge.Options{Address: "127.0.0.1:0", Upstream: application.URL, Config: &cfg, Namespace: w.namespace}
	if change != nil {
		change(&o)
	}
	if w.edge, err = edge.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.edge.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		application.Close()
		// client-go keeps connections to the API server in a cache of transports that has no end.
		goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("net/http/internal/http2.(*ClientConn).readLoop"))
	})
	return w
}

func (w *world) put(name string, data map[string][]byte) {
	w.t.Helper()
	secrets := w.kube.CoreV1().Secrets(w.namespace)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
	_, err := secrets.Create(w.t.Context(), s, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(w.t.Context(), s, metav1.UpdateOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) putServer(keys [2]string, more map[string][]byte) {
	w.t.Helper()
	cert, key, err := w.servers.Issue(authority.Request{Subject: pkix.Name{CommonName: "edge"}, Hosts: []string{"localhost", "127.0.0.1", "gateway.example.com"}, Server: true})
	if err != nil {
		w.t.Fatal(err)
	}
	data := map[string][]byte{keys[0]: cert, keys[1]: key}
	for k, v := range more {
		data[k] = v
	}
	w.put("kyma-gateway-certs", data)
}

func (w *world) putBoth() {
	w.t.Helper()
	w.putServer([2]string{"tls.crt", "tls.key"}, nil)
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"cacert": w.clients.CA()})
	w.ready()
}

func (w *world) ready() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.edge.WaitReady(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// client makes an HTTP client that closes its connection after each request.
func (w *world) client(certs ...tls.Certificate) *http.Client {
	// GetClientCertificate sends the certificate even when the server names other authorities.
	config := &tls.Config{RootCAs: pool(w.servers), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil
	}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: time.Minute}
}

func (w *world) request(method, path, body string, header http.Header) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.edge.URL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	return r
}

// call sends a request with a certificate and gives what the application saw of it.
func (w *world) call(cert tls.Certificate, r *http.Request) *http.Request {
	w.t.Helper()
	resp, err := w.client(cert).Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Answer") != "yes" {
		w.t.Fatalf("answer %s, the application's was expected", resp.Status)
	}
	return <-w.seen
}

func (w *world) app(name string) tls.Certificate {
	return issue(w.t, w.clients, authority.Request{Subject: pkix.Name{CommonName: name}})
}

func hash(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

func certText(c tls.Certificate) string {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
	return strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(text)
}

// meshHash is the one thing in the header that a test cannot know.
var meshHash = regexp.MustCompile(`(,By=[^;]*;Hash=)[0-9a-f]{64};`)

const sidecar = `,By=spiffe://cluster.local/ns/kyma-system/sa/central-application-connectivity-validator;Hash=MESH;Subject="";URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account`

func identity(r *http.Request) []string {
	var out []string
	for _, v := range r.Header.Values(envoy.Header) {
		out = append(out, meshHash.ReplaceAllString(v, "${1}MESH;"))
	}
	return out
}

func TestTheApplicationSeesTheClientAndThenTheIngressWhateverTheClientSends(t *testing.T) {
	w := newWorld(t, nil)
	w.putBoth()
	odd := name(t,
		nameSET{text(19, "DE", 2, 5, 4, 6)}, org(12, `Foo, Inc.;URI=spiffe://x,Subject="CN=shop"`),
		nameSET{text(12, "ü+\\", 2, 5, 4, 11), text(12, "till=shop", 2, 5, 4, 3)})
	for what, c := range map[string]struct {
		cert tls.Certificate
		want string
	}{
		"plain": {w.app("shop"), `Subject="CN=shop";URI=`},
		"odd":   {issue(t, w.clients, authority.Request{RawSubject: odd}), `Subject="CN=till=shop+OU=\C3\BC\+\\,O=Foo\, Inc.\;URI=spiffe://x\,Subject=\"CN=shop\",C=DE";URI=`},
		"names": {issue(t, w.clients, authority.Request{Subject: pkix.Name{CommonName: "shop"}, Hosts: []string{"a.test", "b.test"}, URIs: []string{"spiffe://a/1", "spiffe://a/2"}}),
			`Subject="CN=shop";URI=spiffe://a/1;URI=spiffe://a/2;DNS=a.test;DNS=b.test`},
		"none": {issue(t, w.clients, authority.Request{}), `Subject="";URI=`},
	} {
		for how, header := range map[string]http.Header{
			"nothing sent": {},
			"spoofed":      {envoy.Header: {`Hash=00;Subject="CN=victim";URI=`, `By=x;Subject="CN=victim"`}},
			"hidden":       {"Connection": {envoy.Header}, envoy.Header: {`Subject="CN=victim"`}},
		} {
			got := identity(w.call(c.cert, w.request("POST", "/shop/events", "", header)))
			want := []string{`Hash=` + hash(c.cert) + `;Cert="` + certText(c.cert) + `";` + c.want + sidecar}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s, %s (-want +got):\n%s", what, how, d)
			}
		}
	}
}

func TestNobodyGetsInWithoutACertificateOfTheRightAuthority(t *testing.T) {
	w := newWorld(t, nil)
	w.putBoth()
	other := newAuthority(t, "clients") // the same name with another key
	past := time.Now().Add(-time.Hour)
	cert, key, err := w.clients.Issue(authority.Request{Subject: pkix.Name{CommonName: "shop"}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	server, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for what, certs := range map[string][]tls.Certificate{
		"none":                    nil,
		"other authority":         {issue(t, other, authority.Request{Subject: pkix.Name{CommonName: "shop"}})},
		"expired":                 {issue(t, w.clients, authority.Request{Subject: pkix.Name{CommonName: "shop"}, NotBefore: past.Add(-time.Hour), NotAfter: past})},
		"not valid yet":           {issue(t, w.clients, authority.Request{Subject: pkix.Name{CommonName: "shop"}, NotBefore: time.Now().Add(time.Hour)})},
		"certificate of a server": {server},
	} {
		resp, err := w.client(certs...).Do(w.request("POST", "/shop/events", "", nil))
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: got %s", what, resp.Status)
		} else if !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("%s: %v, want a TLS alert", what, err)
		}
	}
	old := w.client(w.app("shop"))
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	if resp, err := old.Do(w.request("POST", "/shop/events", "", nil)); err == nil {
		resp.Body.Close()
		t.Errorf("TLS 1.1: got %s", resp.Status)
	}
	if len(w.seen) != 0 {
		t.Error("the application saw a request")
	}
}

func TestOnlyTheRoutesOfTheVirtualServiceReachTheApplication(t *testing.T) {
	w := newWorld(t, func(o *edge.Options) { o.Host = "gateway.example.com" })
	w.putBoth()
	cert := w.app("shop")
	for target, want := range map[string]string{ // "" means 404
		"/shop/events":               "/shop/events",
		"/shop/events/":              "/shop/events/",
		"/shop/events/x?a=%2F;b":     "/shop/events/x?a=%2F;b",
		"/shop/v1/events":            "/shop/v1/events",
		"/shop/v1/events/subscribed": "/shop/v1/events/subscribed",
		"/shop/v2/events":            "/shop/v2/events",
		"/shop/v1/metadata/services": "/shop/v1/metadata/services",
		"/shop/eventsX":              "",
		"/shop/v3/events":            "",
		"/shop/v1/eventsX/y":         "",
		"/shop":                      "",
		"/":                          "",
		"/x//events":                 "",
		"/shop/x/../events":          "/shop/events",
		"/till/%2e%2E/shop/./events": "/shop/events",
		"/../../shop/events":         "/shop/events",
		"/shop/events/..":            "",
		"/shop%2Fevents":             "",
		"/a%2Fb/events":              "/a%2Fb/events",
		"/shop/events/%C3%BC":        "/shop/events/%C3%BC",
	} {
		r := w.request("PUT", "/", "", nil)
		u, err := url.Parse(w.edge.URL())
		if err != nil {
			t.Fatal(err)
		}
		path, query, _ := strings.Cut(target, "?")
		r.URL = &url.URL{Scheme: "https", Host: u.Host, Opaque: path, RawQuery: query}
		r.Host = "gateway.example.com"
		resp, err := w.client(cert).Do(r)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		resp.Body.Close()
		if want == "" {
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: got %s", target, resp.Status)
			}
			continue
		}
		if resp.StatusCode != http.StatusTeapot {
			t.Errorf("%s: got %s", target, resp.Status)
			continue
		}
		if got := (<-w.seen).RequestURI; got != want {
			t.Errorf("%s: the application saw %s, want %s", target, got, want)
		}
	}
	r := w.request("POST", "/shop/events", "", nil)
	r.Host = "other.example.com"
	resp, err := w.client(cert).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("another host: got %s", resp.Status)
	}
}

func TestTheRequestArrivesAsEnvoyPassesItOn(t *testing.T) {
	w := newWorld(t, nil)
	w.putBoth()
	r := w.request("POST", "/shop/events?q=1", `{"n":1}`, http.Header{
		"X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Proto": {"http"}, "X-Request-Id": {"mine"}, "Ce-Id": {"7"}, "User-Agent": nil,
	})
	r.Host = "gateway.example.com"
	got := w.call(w.app("shop"), r)
	got.Header.Del(envoy.Header)
	want := http.Header{
		"X-Forwarded-For": {"1.2.3.4,127.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Request-Id": {"mine"}, "Ce-Id": {"7"},
		"Content-Length": {"7"},
	}
	if got.Header.Get("Accept-Encoding") == "gzip" { // Go's client adds it
		got.Header.Del("Accept-Encoding")
	}
	if d := cmp.Diff(want, got.Header); d != "" {
		t.Errorf("fields (-want +got):\n%s", d)
	}
	if got.Host != "gateway.example.com" || got.Method != "POST" {
		t.Errorf("host %s, method %s", got.Host, got.Method)
	}
	if id := w.call(w.app("shop"), w.request("POST", "/shop/events", "", nil)).Header.Get("X-Request-Id"); len(id) != 36 {
		t.Errorf("request id %q, want a UUID", id)
	}
}

func TestMisconfiguredMeshesAreCopiedExactly(t *testing.T) {
	const spoof = `Hash=00;Subject="CN=victim";URI=`
	for what, c := range map[string]struct {
		change func(*edge.Options)
		want   func(own string) []string
	}{
		"ingress appends":       {func(o *edge.Options) { o.Ingress = envoy.AppendForward }, func(own string) []string { return []string{spoof + "," + own + sidecar} }},
		"ingress forwards":      {func(o *edge.Options) { o.Ingress = envoy.ForwardOnly }, func(string) []string { return []string{spoof + sidecar} }},
		"ingress always":        {func(o *edge.Options) { o.Ingress = envoy.AlwaysForwardOnly }, func(string) []string { return []string{spoof + sidecar} }},
		"ingress sanitizes":     {func(o *edge.Options) { o.Ingress = envoy.Sanitize }, func(string) []string { return []string{sidecar[1:]} }},
		"no sidecar":            {func(o *edge.Options) { o.NoSidecar = true }, func(own string) []string { return []string{own} }},
		"sidecar sanitizes":     {func(o *edge.Options) { o.Sidecar = envoy.Sanitize }, func(string) []string { return nil }},
		"sidecar sets":          {func(o *edge.Options) { o.Sidecar = envoy.SanitizeSet }, func(string) []string { return []string{sidecar[1:]} }},
		"nothing and no header": {func(o *edge.Options) { o.Ingress, o.NoSidecar = envoy.Sanitize, true }, func(string) []string { return nil }},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, c.change)
			w.putBoth()
			cert := w.app("shop")
			own := `Hash=` + hash(cert) + `;Cert="` + certText(cert) + `";Subject="CN=shop";URI=`
			got := w.call(cert, w.request("POST", "/shop/events", "", http.Header{envoy.Header: {spoof}}))
			var values []string
			for _, v := range got.Header.Values(envoy.Header) {
				v = regexp.MustCompile(`(By=spiffe://cluster.local[^;]*;Hash=)[0-9a-f]{64};`).ReplaceAllString(v, "${1}MESH;")
				values = append(values, v)
			}
			if d := cmp.Diff(c.want(own), values); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestAnApplicationThatIsAwayIs503(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	w := newWorld(t, func(o *edge.Options) { o.Upstream = "http://" + gone.Addr().String() })
	w.putBoth()
	resp, err := w.client(w.app("shop")).Do(w.request("POST", "/shop/events", "", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", resp.Status)
	}
}

func TestOptionsThatAreWrongAreNamed(t *testing.T) {
	_, err := edge.Start(t.Context(), edge.Options{Address: "127.0.0.1:0", Upstream: "localhost:8080", Ingress: "append"})
	want := `edge: Upstream is "localhost:8080", must be http://host:port
Config is missing: the edge reads its certificates from Secrets
Ingress is "append", must be SANITIZE, FORWARD_ONLY, ALWAYS_FORWARD_ONLY, APPEND_FORWARD or SANITIZE_SET`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = edge.Start(t.Context(), edge.Options{Address: l.Addr().String(), Upstream: "http://localhost:8080", Config: &cfg})
	var taken *listener.Error
	if !errors.As(err, &taken) || taken.Option != "Address" {
		t.Errorf("got %v", err)
	}
}
