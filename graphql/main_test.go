package graphql_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	genqlient "github.com/Khan/genqlient/graphql"
	"go.uber.org/goleak"

	"github.com/application-connector/application-connector/graphql"
)

func TestMain(m *testing.M) {
	if proxyChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// authority signs client certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key}
}

// issue makes a client certificate that is good until then.
func (a *authority) issue(t testing.TB, name string, notAfter time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// serve starts an HTTPS server; configure may be nil.
func serve(t testing.TB, handler http.HandlerFunc, configure func(*httptest.Server)) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{}
	server.Config.ErrorLog = log.New(new(bytes.Buffer), "", 0) // handshake failures are what is tested
	if configure != nil {
		configure(server)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// rootsOf gives the pool and the PEM of a test server's authority.
func rootsOf(server *httptest.Server) (*x509.CertPool, []byte) {
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return pool, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// transportTo gives a transport that trusts the server.
func transportTo(t testing.TB, server *httptest.Server, change func(*graphql.Options)) *graphql.Transport {
	t.Helper()
	var o graphql.Options
	o.RootCAs, _ = rootsOf(server)
	if change != nil {
		change(&o)
	}
	transport := graphql.NewTransport(o)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

type pong struct {
	Ping string `json:"ping"`
}

// ping sends a request and gives what came in data.ping.
func ping(ctx context.Context, t *graphql.Transport, endpoint string, header http.Header) (string, error) {
	var data pong
	err := t.Client(endpoint, header).MakeRequest(ctx,
		&genqlient.Request{OpName: "Ping", Query: "query Ping($v: Int) { ping(v: $v) }", Variables: map[string]any{"v": 1}},
		&genqlient.Response{Data: &data})
	return data.Ping, err
}

func answering(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}
