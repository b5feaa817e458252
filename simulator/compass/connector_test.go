package compass

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testclock "k8s.io/utils/clock/testing"
)

func (f faultFixture) tokenFor(t *testing.T) string {
	t.Helper()
	token, err := f.server.Admin().RuntimeToken(testRuntime)
	if err != nil {
		t.Fatal(err)
	}
	return token.Token
}

func TestATokenDiesAtItsHourAndNotBefore(t *testing.T) {
	clock := testclock.NewFakePassiveClock(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	s := startCompass(t, Options{Seed: shopSeed(), Clock: clock})
	for name, test := range map[string]struct {
		age    time.Duration
		status int
	}{
		"one second before": {DefaultTokenValidity - time.Second, 200},
		"at the hour":       {DefaultTokenValidity, 400},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := s.Admin().RuntimeToken(testRuntime)
			if err != nil {
				t.Fatal(err)
			}
			clock.SetTime(clock.Now().Add(test.age))
			if got := (caller{t: t, server: s, token: token.Token}).query(s.TokenURL(), configurationQuery, nil); got.Status != test.status {
				t.Errorf("status %d, want %d", got.Status, test.status)
			}
		})
	}
}

func TestEarlierTokensOfARuntimeStayValid(t *testing.T) {
	f := newFaultFixture(t)
	first := f.tokenFor(t)
	f.tokenFor(t)
	pair(t, f.server, first)
}

func TestWhateverIsSentWithATokenUsesItUp(t *testing.T) {
	f := newFaultFixture(t)
	for name, body := range map[string]string{
		"GraphQL that does not parse": `{"query":"query {"}`,
		"no GraphQL":                  `hello`,
		"nothing":                     ``,
	} {
		t.Run(name, func(t *testing.T) {
			c := caller{t: t, server: f.server, token: f.tokenFor(t)}
			c.send(f.server.TokenURL(), contentTypeJSON, []byte(body), nil)
			if got := c.query(f.server.TokenURL(), configurationQuery, nil); got.Status != 400 || len(got.Body) != 0 {
				t.Errorf("second use: status %d, body %q; want 400 and nothing", got.Status, got.Body)
			}
		})
	}
}

func TestRenewalKeepsTheNameAndTheOldCertificate(t *testing.T) {
	f := newFaultFixture(t)
	var configuration configurationResult
	f.runtime.query(f.server.MTLSConnectorURL(), configurationQuery, nil).data(t, &configuration)
	name := commonName(t, configuration.Result.CertificateSigningRequestInfo.Subject)
	var signed signResult
	f.runtime.query(f.server.MTLSConnectorURL(), signMutation,
		map[string]any{"csr": encodeCSR(t, &x509.CertificateRequest{Subject: connectorSubject(name)}, testKey())}).data(t, &signed)
	renewed := f.runtime
	renewed.cert = decodeChain(t, signed.Result.CertificateChain)
	for _, c := range []caller{f.runtime, renewed} {
		if got := c.query(f.server.DirectorURL(), `{ viewer { type } }`, nil); string(got.Body) != viewerAnswer {
			t.Errorf("status %d, body %s, error %v", got.Status, got.Body, got.Err)
		}
	}
	// The token that came with the configuration works at the token endpoint.
	second := caller{t: t, server: f.server, token: configuration.Result.Token.Token}
	if got := second.query(f.server.TokenURL(), configurationQuery, nil); got.Status != 200 {
		t.Errorf("the token of a renewal: status %d", got.Status)
	}
}

func TestOnlyRSAKeysAreSigned(t *testing.T) {
	f := newFaultFixture(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var configuration configurationResult
	f.runtime.query(f.server.MTLSConnectorURL(), configurationQuery, nil).data(t, &configuration)
	name := commonName(t, configuration.Result.CertificateSigningRequestInfo.Subject)
	for label, test := range map[string]struct{ csr, message string }{
		"ECDSA": {encodeCSR(t, &x509.CertificateRequest{Subject: connectorSubject(name)}, key),
			"Error while signing Certificate Signing Request: Error while creating certificate: x509: requested SignatureAlgorithm does not match private key type"},
		"no base64": {"%%%", "Error while decoding Certificate Signing Request: Error while parsing base64 content. Incorrect value provided."},
	} {
		t.Run(label, func(t *testing.T) {
			got := f.runtime.query(f.server.MTLSConnectorURL(), signMutation, map[string]any{"csr": test.csr})
			want := `{"errors":[{"message":"` + test.message + `","path":["result"]}],"data":null}`
			if diff := cmp.Diff(want, string(got.Body)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheTenantOfSomebodyElseIsAnErrorAtTheConnector(t *testing.T) {
	seed := shopSeed()
	seed.Tenants = append(seed.Tenants, Tenant{ID: "b2222222-2222-4222-8222-222222222222"})
	s := startCompass(t, Options{Seed: seed})
	c := caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime), tenant: seed.Tenants[1].ID}
	got := c.query(s.MTLSConnectorURL(), configurationQuery, nil)
	want := `{"errors":[{"message":"Failed to get one-time token during fetching configuration process: could not get one time token: Failed to authenticate request, tenant not found: cannot read TenantKey key from context","path":["result"]}],"data":null}`
	if diff := cmp.Diff(want, string(got.Body)); diff != "" {
		t.Error(diff)
	}
	c.tenant = "d0000000-0000-4000-8000-000000000000"
	got = c.query(s.DirectorURL(), `query($id: ID!) { applicationsForRuntime(runtimeID: $id) { totalCount } }`, map[string]any{"id": testRuntime})
	if !strings.Contains(string(got.Body), "[actual=; required=application:read]") {
		t.Errorf("a tenant that does not exist: status %d, body %s", got.Status, got.Body)
	}
}

func TestRevokedCertificatesAreRefusedWhileNewOnesWork(t *testing.T) {
	f := newFaultFixture(t)
	auths := f.server.Admin().SystemAuths(testRuntime)
	if len(auths) != 1 || len(auths[0].Certificates) != 1 {
		t.Fatalf("system auths %+v", auths)
	}
	if err := f.server.Admin().Revoke(auths[0].ID); err != nil {
		t.Fatal(err)
	}
	if got := f.runtime.query(f.server.MTLSConnectorURL(), configurationQuery, nil); got.Status != 400 || len(got.Body) != 0 {
		t.Errorf("status %d, body %q; want 400 and nothing", got.Status, got.Body)
	}
	if !f.server.Admin().SystemAuths(testRuntime)[0].Certificates[0].Revoked {
		t.Error("the certificate is not listed as revoked")
	}
	again := f.runtime
	again.cert = pairRuntime(t, f.server, testRuntime)
	f.want(again.query(f.server.DirectorURL(), `{ viewer { type } }`, nil), 200, viewerAnswer)
}

func TestAnExpiredCertificateIsRefusedInTheHandshake(t *testing.T) {
	clock := testclock.NewFakePassiveClock(time.Now())
	s := startCompass(t, Options{Seed: shopSeed(), Clock: clock, CertificateValidity: time.Hour})
	c := caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime)}
	if got := c.query(s.DirectorURL(), `{ viewer { type } }`, nil); got.Status != 200 {
		t.Fatalf("status %d, error %v", got.Status, got.Err)
	}
	clock.SetTime(clock.Now().Add(time.Hour + time.Second))
	if got := c.query(s.DirectorURL(), `{ viewer { type } }`, nil); got.Err == nil {
		t.Errorf("status %d, want a refused handshake", got.Status)
	}
	s.Admin().SetClockSkew(-time.Minute)
	if got := c.query(s.DirectorURL(), `{ viewer { type } }`, nil); got.Status != 200 {
		t.Errorf("with the clock behind: status %d, error %v", got.Status, got.Err)
	}
}

func TestANewClientCAKeepsOrRefusesWhatTheOldOneSigned(t *testing.T) {
	for name, test := range map[string]struct{ keep bool }{"kept": {true}, "refused": {false}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := startCompass(t, Options{Seed: shopSeed(), StateDir: dir})
			old := caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime)}
			before, err := s.Admin().ClientCA()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Admin().RotateClientCA(test.keep); err != nil {
				t.Fatal(err)
			}
			after, err := s.Admin().ClientCA()
			if err != nil || string(before) == string(after) {
				t.Errorf("the CA is the same; error %v", err)
			}
			renewed := caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime)}
			check := func(s *Server) {
				old.server, renewed.server = s, s
				if got := old.query(s.DirectorURL(), `{ viewer { type } }`, nil); (got.Err == nil) != test.keep {
					t.Errorf("old certificate: status %d, error %v", got.Status, got.Err)
				}
				if got := renewed.query(s.DirectorURL(), `{ viewer { type } }`, nil); got.Status != 200 {
					t.Errorf("new certificate: status %d, error %v", got.Status, got.Err)
				}
			}
			check(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			check(startCompass(t, Options{StateDir: dir}))
		})
	}
}

func TestANewServerCAIsNotTrustedByWhoTrustsTheOldOne(t *testing.T) {
	s := startCompass(t, Options{})
	old := x509.NewCertPool()
	old.AppendCertsFromPEM(s.ServerCA())
	if err := s.Admin().RotateServerCA(); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(s.TokenURL(), "https://"), "/connector/graphql")
	_, err := tls.Dial("tcp", address, &tls.Config{RootCAs: old, MinVersion: tls.VersionTLS12})
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("error %v", err)
	}
	if got := (caller{t: t, server: s}).query(s.TokenURL(), configurationQuery, nil); got.Status != 400 {
		t.Errorf("who trusts the new CA: status %d, error %v", got.Status, got.Err)
	}
}

func TestIdleConnectionsEndWithAChangeOfCA(t *testing.T) {
	s := startCompass(t, Options{})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ServerCA())
	address := strings.TrimSuffix(strings.TrimPrefix(s.TokenURL(), "https://"), "/connector/graphql")
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("POST /connector/graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	if _, err := conn.Read(buffer); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(testDeadline)
	for s.idleConnections() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err := s.Admin().RotateServerCA(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(buffer); err == nil {
		t.Errorf("read %d bytes, want the end", n)
	}
}

func (s *Server) idleConnections() int {
	s.idleMu.Lock()
	defer s.idleMu.Unlock()
	return len(s.idle)
}
