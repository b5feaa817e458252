package compass

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testTenant  = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	testRuntime = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
)

const testDeadline = 30 * time.Second

const configurationQuery = `query { result: configuration { token { token } certificateSigningRequestInfo { subject keyAlgorithm } managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }`

const signMutation = `mutation($csr: String!) { result: signCertificateSigningRequest(csr: $csr) { certificateChain caCertificate clientCertificate } }`

// testKey is shared: making RSA keys is most of what such tests would do.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func startCompass(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// reply is what came back for a request.
type reply struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error
}

// caller sends requests to one Compass. Each request is a new connection, so
// that a test sees what a handshake says.
type caller struct {
	t       *testing.T
	server  *Server
	cert    *tls.Certificate
	tenant  string
	token   string
	timeout time.Duration
}

func (c caller) send(url, contentType string, body []byte, header http.Header) reply {
	c.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.server.ServerCA())
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if c.cert != nil {
		config.Certificates = []tls.Certificate{*c.cert}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	timeout := c.timeout
	if timeout == 0 {
		timeout = testDeadline
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for key, values := range header {
		req.Header[key] = values
	}
	req.Header.Set("Content-Type", contentType)
	if c.tenant != "" {
		req.Header.Set("Tenant", c.tenant)
	}
	if c.token != "" {
		req.Header.Set("Connector-Token", c.token)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return reply{Err: err}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return reply{Status: resp.StatusCode, Header: resp.Header, Body: raw, Err: err}
}

func (c caller) query(url, query string, variables map[string]any) reply {
	c.t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.send(url, "application/json; charset=utf-8", body, nil)
}

// data decodes the data of a reply without errors.
func (r reply) data(t *testing.T, into any) {
	t.Helper()
	var envelope struct {
		Data   json.RawMessage
		Errors []any
	}
	if r.Err != nil || r.Status != http.StatusOK {
		t.Fatalf("status %d, error %v, body %s", r.Status, r.Err, r.Body)
	}
	if err := json.Unmarshal(r.Body, &envelope); err != nil || len(envelope.Errors) > 0 {
		t.Fatalf("error %v, body %s", err, r.Body)
	}
	if err := json.Unmarshal(envelope.Data, into); err != nil {
		t.Fatalf("%v: %s", err, envelope.Data)
	}
}

type configurationResult struct {
	Result struct {
		Token                         struct{ Token string }
		CertificateSigningRequestInfo struct{ Subject, KeyAlgorithm string }
		ManagementPlaneInfo           struct{ DirectorURL, CertificateSecuredConnectorURL string }
	}
}

type signResult struct {
	Result struct{ CertificateChain, CaCertificate, ClientCertificate string }
}

// connectorSubject is what the Connector wants to see, with a common name.
func connectorSubject(commonName string) pkix.Name {
	return pkix.Name{CommonName: commonName, Country: []string{"DE"}, Organization: []string{"Org"},
		OrganizationalUnit: []string{"OrgUnit"}, Locality: []string{"locality"}, Province: []string{"province"}}
}

func encodeCSR(t *testing.T, template *x509.CertificateRequest, key any) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// commonName is the last part of the subject that the Connector asks for.
func commonName(t *testing.T, subject string) string {
	t.Helper()
	const prefix = "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN="
	if len(subject) <= len(prefix) || subject[:len(prefix)] != prefix {
		t.Fatalf("subject %q", subject)
	}
	return subject[len(prefix):]
}

func decodeChain(t *testing.T, encoded string) *tls.Certificate {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	cert := &tls.Certificate{PrivateKey: testKey()}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return cert
}

// pair goes from a token to a certificate, as an agent does.
func pair(t *testing.T, s *Server, token string) *tls.Certificate {
	t.Helper()
	var configuration configurationResult
	caller{t: t, server: s, token: token}.query(s.TokenURL(), configurationQuery, nil).data(t, &configuration)
	csr := encodeCSR(t, &x509.CertificateRequest{Subject: connectorSubject(commonName(t, configuration.Result.CertificateSigningRequestInfo.Subject))}, testKey())
	var signed signResult
	caller{t: t, server: s, token: configuration.Result.Token.Token}.query(s.TokenURL(), signMutation, map[string]any{"csr": csr}).data(t, &signed)
	return decodeChain(t, signed.Result.CertificateChain)
}

// pairRuntime takes the token from the administrator.
func pairRuntime(t *testing.T, s *Server, id string) *tls.Certificate {
	t.Helper()
	token, err := s.Admin().RuntimeToken(id)
	if err != nil {
		t.Fatal(err)
	}
	return pair(t, s, token.Token)
}
