package compass

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// replayWorld is a Compass that is prepared for one recorded request after the
// other. Preconditions reach into it where a client could not: recorded ids
// and tokens are made its own, so that requests are sent as they were.
type replayWorld struct {
	t      *testing.T
	server *Server
	// exchange is the recording that is prepared for.
	exchange recordedExchange
	certs    map[string]*tls.Certificate
	// cert is what the request will be sent with.
	cert *tls.Certificate
}

func newReplayWorld(t *testing.T) *replayWorld {
	t.Helper()
	f, err := os.Open("testdata/replay.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seed, err := ParseSeed(f)
	if err != nil {
		t.Fatal(err)
	}
	fillUnrecorded(&seed)
	return &replayWorld{t: t, server: startCompass(t, Options{Seed: seed}), certs: map[string]*tls.Certificate{}}
}

// fillUnrecorded adds what comes before the recorded pages.
func fillUnrecorded(seed *Seed) {
	id := func(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }
	apps := seed.Tenants[2].Applications
	for i := range apps {
		switch apps[i].Name {
		case "many-bundles":
			names := []string{"bundle-040", "bundle-001", "bundle-third"}
			for n := range 200 {
				name := fmt.Sprintf("bundle-filler-%d", n)
				if n < len(names) {
					name = names[n]
				}
				apps[i].Bundles = append(apps[i].Bundles, Bundle{ID: id(n), Name: name})
			}
		case "many-apis":
			for n := range 200 {
				apps[i].Bundles[0].APIs = append(apps[i].Bundles[0].APIs,
					API{ID: id(1000 + n), Name: fmt.Sprintf("api-filler-%d", n), TargetURL: "https://apis.example.com"})
			}
		}
	}
}

// addAuth makes a system auth of a known id.
func (w *replayWorld) addAuth(id, runtimeID string) {
	if id == "" {
		return
	}
	ids := w.server.identities
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if ids.auths[id] == nil {
		ids.auths[id] = &systemAuth{ID: id, Kind: ownerRuntime, OwnerID: runtimeID, Tenant: w.server.inventory.Load().runtimes[runtimeID].Tenant, Created: w.server.now()}
	}
}

// recordedToken is the token that the recorded request carries.
func (w *replayWorld) recordedToken() string {
	if token := w.exchange.Request.Headers["Connector-Token"]; token != "" {
		return token
	}
	u, err := url.Parse(w.exchange.Request.URL)
	if err != nil || u.Query().Get("token") == "" {
		w.t.Fatalf("the request carries no token: %v", err)
	}
	return u.Query().Get("token")
}

func (w *replayWorld) addToken(authID string, expires time.Time) {
	ids := w.server.identities
	ids.mu.Lock()
	defer ids.mu.Unlock()
	ids.tokens[tokenHash(w.recordedToken())] = oneTimeToken{AuthID: authID, Expires: expires}
}

// adoptFirstToken gives the system auth and token of step 01 the recorded ids.
func (w *replayWorld) adoptFirstToken() {
	ids := w.server.identities
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if len(ids.auths) != 1 || len(ids.tokens) != 1 {
		w.t.Fatalf("step 01 left %d system auths and %d tokens, want 1 and 1", len(ids.auths), len(ids.tokens))
	}
	for id, auth := range ids.auths {
		delete(ids.auths, id)
		auth.ID = flowAuth
		ids.auths[flowAuth] = auth
	}
	for hash, token := range ids.tokens {
		delete(ids.tokens, hash)
		token.AuthID = flowAuth
		ids.tokens[tokenHash(w.recordedToken())] = token
	}
}

// mint makes a client certificate with the recorded subject and chain length.
// The same name gives the same certificate.
func (w *replayWorld) mint(name string, notBefore, notAfter time.Time) {
	recorded := w.exchange.Request.TLSClientCertificate
	if recorded == nil {
		w.t.Fatal("the recorded request has no client certificate")
	}
	key := name + "|" + recorded.Subject
	if w.certs[key] == nil {
		ca, err := w.server.clientCA.get()
		if err != nil {
			w.t.Fatal(err)
		}
		w.certs[key] = signClientCertificate(w.t, ca, parseSubject(recorded.Subject), notBefore, notAfter)
		if recorded.ChainLength == 2 {
			w.certs[key].Certificate = append(w.certs[key].Certificate, ca.cert.Raw)
		}
	}
	w.cert = w.certs[key]
}

func signClientCertificate(t *testing.T, ca *authority, subject pkix.Name, notBefore, notAfter time.Time) *tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, clientTemplate(subject, notBefore, notAfter), ca.cert, testKey().Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: testKey()}
}

func clientTemplate(subject pkix.Name, notBefore, notAfter time.Time) *x509.Certificate {
	// Unlike the Connector's, serial numbers differ, so that two certificates
	// of one second do too.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

// parseSubject reads the plain DNs of the recordings.
func parseSubject(dn string) pkix.Name {
	var name pkix.Name
	for _, part := range strings.Split(dn, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "CN":
			name.CommonName = value
		case "C":
			name.Country = []string{value}
		case "O":
			name.Organization = []string{value}
		case "OU":
			name.OrganizationalUnit = []string{value}
		case "L":
			name.Locality = []string{value}
		case "ST":
			name.Province = []string{value}
		}
	}
	return name
}

func (w *replayWorld) selfSigned() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := clientTemplate(parseSubject(w.exchange.Request.TLSClientCertificate.Subject), time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (w *replayWorld) expired() {
	w.mint("expired", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
}

func knownAuth(id, runtimeID string) func(*replayWorld) {
	return func(w *replayWorld) { w.addAuth(id, runtimeID) }
}

func freshToken(authID string) func(*replayWorld) {
	return func(w *replayWorld) {
		w.addAuth(authID, runtimeA)
		w.addToken(authID, time.Now().Add(time.Hour))
	}
}

func expiredToken(authID string) func(*replayWorld) {
	return func(w *replayWorld) {
		w.addAuth(authID, runtimeA)
		w.addToken(authID, time.Now().Add(-time.Second))
	}
}

func usedToken(authID string) func(*replayWorld) {
	return func(w *replayWorld) {
		freshToken(authID)(w)
		if got := w.send(); got.Status != 200 {
			w.t.Fatalf("the first use of the token: status %d", got.Status)
		}
	}
}

// tokenForCSR makes a token of the system auth that the recorded CSR names.
func tokenForCSR(w *replayWorld) {
	encoded, _ := w.exchange.Request.Variables["csr"].(string)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		w.t.Fatal("the recorded request is no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		w.t.Fatal(err)
	}
	freshToken(csr.Subject.CommonName)(w)
}

func tokenSpentOnBadCSR(w *replayWorld) {
	tokenForCSR(w)
	got := caller{t: w.t, server: w.server, token: w.recordedToken()}.query(w.server.TokenURL(), signMutation, map[string]any{"csr": "bm9uc2Vuc2U="})
	if got.Status != 200 || !strings.Contains(string(got.Body), "Error while decoding pem block.") {
		w.t.Fatalf("the bad request: status %d, body %s", got.Status, got.Body)
	}
}

func certificate(name, authID string) func(*replayWorld) {
	return certificateOf(name, authID, runtimeA)
}

func certificateOf(name, authID, runtimeID string) func(*replayWorld) {
	return func(w *replayWorld) {
		w.addAuth(authID, runtimeID)
		w.mint(name, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	}
}

func revokedCertificate(w *replayWorld) {
	certificate("revoked", revokedAuth)(w)
	w.server.identities.revoke(certificateHash(w.cert.Certificate[0]))
}

func deletedAuthCertificate(w *replayWorld) {
	certificate("", deletedAuth)(w)
	if err := w.server.Admin().DeleteSystemAuth(deletedAuth); err != nil {
		w.t.Fatal(err)
	}
}

func runtimeWithoutFormation(w *replayWorld) {
	if _, err := w.server.Admin().PutRuntime(tenantA, Runtime{ID: runtimeNone, Name: "runtime-none"}); err != nil {
		w.t.Fatal(err)
	}
	certificateOf("", noneAuth, runtimeNone)(w)
}

func unregisteredRuntime(w *replayWorld) {
	runtimeWithoutFormation(w)
	if err := w.server.Admin().DeleteRuntime(runtimeNone); err != nil {
		w.t.Fatal(err)
	}
}

func (w *replayWorld) setFault(f Fault) {
	w.t.Helper()
	if _, err := w.server.Admin().SetFault(f); err != nil {
		w.t.Fatal(err)
	}
}

func down(kind FaultKind, and func(*replayWorld)) func(*replayWorld) {
	return func(w *replayWorld) {
		and(w)
		w.setFault(Fault{Kind: kind})
	}
}

func rateLimitAfter(n int) func(*replayWorld) {
	return func(w *replayWorld) {
		certificate("", outageAuth)(w)
		w.setFault(Fault{Kind: FaultRateLimited, Skip: n})
	}
}

// secondAliasWins: Director loads both lists with the arguments of either.
func secondAliasWins(answer map[string]any) {
	application := answer["data"].(map[string]any)["application"].(map[string]any)
	for _, alias := range []string{"x", "y"} {
		list := application[alias].(map[string]any)
		list["data"] = append(list["data"].([]any), map[string]any{"name": "bundle-third"})
	}
}

// oathkeepersOwnText: the recording was made with a stand-in for Oathkeeper,
// which tells more than the real one.
func oathkeepersOwnText(answer map[string]any) {
	answer["error"].(map[string]any)["message"] = "An internal server error occurred, please contact the system administrator"
}
