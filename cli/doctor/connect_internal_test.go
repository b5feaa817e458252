package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/simulator/authority"
)

func address(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestWhatGoesThroughAProxyIsNotLookedAtByItself(t *testing.T) {
	u := address(t, "https://api.example.com/v1")
	dialled := false
	l := connect(t.Context(), &http.Transport{
		Proxy: func(*http.Request) (*url.URL, error) {
			return address(t, "http://user:canary@proxy.example.com:3128"), nil
		},
		DialContext: func(context.Context, string, string) (net.Conn, error) { dialled = true; return nil, errors.New("no") },
	}, u)
	p := peer{what: "the API"}
	want := []outcome{
		{state: Skipped, finding: "requests to api.example.com go through the proxy proxy.example.com:3128 from here, which looks up the name"},
		{state: Skipped, finding: "requests to api.example.com:443 go through the proxy proxy.example.com:3128 from here, which connects"},
		{state: Skipped, finding: "requests to api.example.com:443 go through the proxy proxy.example.com:3128 from here, and only they show the handshake"},
	}
	got := []outcome{p.dns(l), p.tcp(l), p.tls(t.Context(), l)}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(outcome{})); diff != "" || dialled {
		t.Errorf("dialled: %v, (-want,+got):\n%s", dialled, diff)
	}
	// What comes after is looked at all the same.
	var c chain
	c.do(t.Context(), StepTargetTLS, nil, func(context.Context) outcome { return got[2] })
	c.do(t.Context(), StepAnswer, []string{StepTargetTLS}, func(context.Context) outcome { return fine("200") })
	if c.steps[1].State != OK {
		t.Errorf("%+v", c.steps[1])
	}
}

// A server of HTTP/1.1 says nothing about the client certificate as long as it is asked nothing.
func TestAServerThatAcceptsTheClientCertificateMayBeSilent(t *testing.T) {
	ca, err := authority.New("authority", nil)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(r authority.Request) tls.Certificate {
		cert, key, err := ca.Issue(r)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair(authority.Request{Hosts: []string{"127.0.0.1"}, Server: true})}, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), MinVersion: tls.VersionTLS13,
	}
	s.StartTLS()
	defer s.Close()
	client := pair(authority.Request{Subject: pkix.Name{CommonName: "me"}})
	l := connect(t.Context(), &http.Transport{
		DialContext: new(net.Dialer).DialContext, TLSHandshakeTimeout: time.Minute,
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }},
	}, address(t, s.URL))
	if l.shaken != nil || !l.asked || l.sent == nil || l.sent.Subject.CommonName != "me" || len(l.authorities) != 1 || l.authorities[0] != "CN=authority" {
		t.Errorf("%+v", l)
	}
}

func TestWhatIsOfTheClustersNetworkIsNotJudgedFromOutside(t *testing.T) {
	refused := wrong("mend it", "it refuses connections")
	for host, known := range map[string]bool{
		"api.example.com": true, "localhost": true, "192.0.2.1": true, "2001:db8::1": true, "example.github.io": true, "api.example.com.": true,
		"stock": false, "stock.backend": false, "stock.backend.svc": false, "stock.backend.svc.cluster.local": false, "crm.corp": false,
		"10.1.2.3": false, "172.16.0.1": false, "fd00::1": false,
	} {
		l := &link{host: host}
		want := refused
		if !known {
			want = unknown("run this command in the cluster: see docs/reference/appconn-doctor.md", "could not be checked from here, for it may be of the cluster's network: it refuses connections")
		}
		if diff := cmp.Diff(want, (&walk{from: FromMachine}).fromHere(refused, l), cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s from outside: %s", host, diff)
		}
		if diff := cmp.Diff(refused, (&walk{from: FromCluster}).fromHere(refused, l), cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s from within: %s", host, diff)
		}
	}
	// A public name that stands for a private address is as private.
	l := &link{host: "api.example.com", addresses: []net.IP{net.ParseIP("10.1.2.3")}}
	if got := (&walk{from: FromMachine}).fromHere(refused, l); got.state != Unknown {
		t.Errorf("%+v", got)
	}
	if got := (&walk{from: FromMachine}).fromHere(fine("it is there"), &link{host: "stock"}); got.state != OK {
		t.Errorf("%+v", got)
	}
}

func TestNamesThatMayHaveBeenMeantAreNear(t *testing.T) {
	all := []string{"mp-shop", "mp-shop-2", "mp-crm", "mp-billing", "warehouse"}
	for name, want := range map[string][]string{
		"mp-shpo": {"mp-shop"}, "shop": {"mp-shop", "mp-shop-2"}, "mp-bililng": {"mp-billing"}, "x": nil, "finance": nil,
	} {
		if diff := cmp.Diff(want, nearest(name, all)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
