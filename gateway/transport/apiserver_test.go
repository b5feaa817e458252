package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/gateway/credentials"
)

// names resolves to what it holds, and fails if that is nothing.
type names struct {
	addresses []netip.Addr
	asked     chan struct{} // gets something for each look-up, when it begins
	goOn      chan struct{} // each look-up takes something
}

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n.asked <- struct{}{}
	<-n.goOn
	if n.addresses == nil {
		return nil, errors.New("no such host")
	}
	return n.addresses, nil
}

// one lets one look-up come to its end.
func (n *names) one() {
	<-n.asked
	n.goOn <- struct{}{}
}

func TestTheAPIServersNameIsResolvedAnewWithoutMakingCallsWaitAndKeptWhenThatFails(t *testing.T) {
	one, two := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("::ffff:203.0.113.2")
	clock := clocktesting.NewFakePassiveClock(time.Now())
	n := &names{asked: make(chan struct{}), goOn: make(chan struct{})}
	e, err := newEndpoint("api.example.com:443", n, clock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	is := func(when string, want ...netip.Addr) {
		t.Helper()
		got, err := e.addresses(ctx)
		var all []netip.AddrPort
		for _, a := range want {
			all = append(all, netip.AddrPortFrom(a.Unmap(), 443))
		}
		if diff := cmp.Diff(all, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || (err != nil) != (len(want) == 0) {
			t.Fatalf("%s: %v %v, want %v", when, got, err, want)
		}
		if err != nil && err.Error() != "it is not known where the Kubernetes API server is, which must not be called: no such host" {
			t.Fatalf("%s: %v", when, err)
		}
	}
	// renewed lets a look-up that was begun come to its end.
	renewed := func() {
		before := e.known.Load()
		n.one()
		for e.known.Load() == before {
			if ctx.Err() != nil {
				t.Fatal("the look-up has no end")
			}
			time.Sleep(time.Millisecond)
		}
	}
	go n.one()
	is("when it cannot be resolved at first")
	is("and for a while after that")
	clock.SetTime(clock.Now().Add(lookupAgain))
	n.addresses = []netip.Addr{one}
	go n.one()
	is("when it can", one)
	clock.SetTime(clock.Now().Add(lookupPause))
	is("while it is resolved anew", one)
	n.addresses = []netip.Addr{two}
	renewed()
	is("after that", two)
	clock.SetTime(clock.Now().Add(lookupPause))
	is("while it is resolved once more", two)
	n.addresses = nil
	renewed()
	is("after that failed", two)

	for address, want := range map[string]string{"no-port": "missing port", "host:http": "use a number", "host:65536": "use a number"} {
		if _, err := NewGuard(Allowed{}, APIServer{Addresses: []string{address}}, clock); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestNothingIsCalledWhileItIsNotKnownWhereTheAPIServerIs(t *testing.T) {
	g := guard(t, "", "api.example.com:443")
	n := &names{asked: make(chan struct{}, 1), goOn: make(chan struct{}, 1)}
	n.goOn <- struct{}{}
	g.endpoints[0].resolver, g.kind = n, func(netip.Addr) string { return "" }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, _, err := g.dial(t.Context(), net.Dialer{}, "tcp", l.Addr().String())
	if err == nil {
		conn.Close()
	}
	if err == nil || err.Error() != "it is not known where the Kubernetes API server is, which must not be called: no such host" {
		t.Error(err)
	}
}

func TestTheAPIServerIsKnownByEachOfItsAddressesAndByItsAuthority(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	inCluster := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	for _, c := range []struct {
		config rest.Config
		env    map[string]string
		want   APIServer
	}{
		{rest.Config{Host: "https://api.example.com"}, nil, APIServer{Addresses: []string{"api.example.com:443"}}},
		{rest.Config{Host: "http://127.0.0.1"}, nil, APIServer{Addresses: []string{"127.0.0.1:80"}}},
		{rest.Config{Host: "https://api.example.com:6443", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}, inCluster,
			APIServer{Addresses: []string{"api.example.com:6443", "[fd00::1]:443"}, Authorities: roots}},
	} {
		got, err := APIServerOf(&c.config, func(name string) string { return c.env[name] })
		if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b *x509.CertPool) bool { return a.Equal(b) })); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", c.config.Host, err, diff)
		}
	}
	if _, err := APIServerOf(&rest.Config{Host: "https://h", TLSClientConfig: rest.TLSClientConfig{CAFile: "/nonexistent"}}, func(string) string { return "" }); err == nil {
		t.Error("certificates that cannot be read are not missed")
	}
}

// authority signs certificates of servers.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, above *authority) *authority {
	a := &authority{}
	_, a.certificate, a.key = above.sign(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign makes a certificate; without an authority it signs itself.
func (a *authority) sign(t *testing.T, c *x509.Certificate) (tls.Certificate, *x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	by := &authority{c, key}
	if a != nil {
		by = a
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, parsed, key
}

func TestTheAPIServerIsKnownByItsCertificateWhereverItIs(t *testing.T) {
	ours, other := newAuthority(t, nil), newAuthority(t, nil)
	between := newAuthority(t, ours)
	roots := x509.NewCertPool()
	roots.AddCert(ours.certificate)
	for _, c := range []struct {
		name    string
		by      *authority
		names   []string
		with    []*authority // sent along
		allowed string
		known   *x509.CertPool
		want    string // kind, empty for a call that passes
	}{
		{"the name that all of them have", ours, []string{"kubernetes.default.svc"}, nil, "", roots, kindAPIServer},
		{"the address that we have", ours, []string{"api.example.com"}, nil, "", roots, kindAPIServer},
		{"an authority between", between, []string{"kubernetes"}, []*authority{between}, "", roots, kindAPIServer},
		{"another server of the same authority", ours, []string{"kubelet"}, nil, "", roots, ""},
		{"the API server of another cluster", other, []string{"kubernetes.default.svc"}, nil, "", roots, ""},
		{"an authority that is not known", ours, []string{"kubernetes.default.svc"}, nil, "", nil, ""},
		{"an address that is allowed", ours, []string{"kubernetes.default.svc"}, nil, "127.0.0.1", roots, ""},
		{"a host that is allowed", ours, []string{"kubernetes.default.svc"}, nil, "localhost", roots, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			certificate, _, _ := c.by.sign(t, &x509.Certificate{DNSNames: c.names})
			for _, a := range c.with {
				certificate.Certificate = append(certificate.Certificate, a.certificate.Raw)
			}
			called := false
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
			server.StartTLS()
			defer server.Close()
			g := guard(t, c.allowed, "")
			g.api = APIServer{Addresses: []string{"api.example.com:443"}, Authorities: c.known}
			g.kind = func(netip.Addr) string { return "" } // as if it were somewhere else
			pool := New(Options{Guard: g})
			defer pool.CloseIdleConnections()
			_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
			url := "https://localhost:" + port
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := pool.For(Target{Host: url, Trust: credentials.Trust{SkipVerify: true}, Direct: true}).RoundTrip(request)
			if err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			server.Close()
			got := ""
			if f := Forbidden(err); f != nil {
				got = f.Kind
				if want := "no connection to 127.0.0.1:" + port + ": it is the Kubernetes API server, which -allowedTargets does not allow"; f.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
			}
			if got != c.want || called != (c.want == "") {
				t.Errorf("%v, and it was called: %v", err, called)
			}
		})
	}
}
