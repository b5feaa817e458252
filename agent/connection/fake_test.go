package connection_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// compass is a Compass without a network: one authority, tokens that are good once, and errors on demand.
type compass struct {
	clock clock.PassiveClock
	ca    *x509.Certificate
	key   *rsa.PrivateKey

	mu     sync.Mutex
	good   map[secret.Value]bool
	failed map[string]error // by operation, until removed
	calls  []string
	inUse  *tls.Certificate
	// runtimes of which snapshots were asked for; incomplete makes them incomplete.
	runtimes   []string
	incomplete bool
	// after, if set, is called when an operation succeeded, before its answer arrives.
	after func(operation string)
}

var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := certs.GenerateKey(2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newCompass(c clock.PassiveClock, tokens ...secret.Value) *compass {
	key := signingKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: c.Now().Add(-time.Hour), NotAfter: c.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	f := &compass{clock: c, key: key, good: map[secret.Value]bool{}, failed: map[string]error{}}
	f.ca = f.sign(template, template, key.Public())
	for _, t := range tokens {
		f.good[t] = true
	}
	return f
}

func (f *compass) sign(template, parent *x509.Certificate, public any) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, f.key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// call counts an operation, spends its token if it has one, and fails if that is asked for.
func (f *compass) call(operation string, token secret.Value) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, operation)
	if err := f.failed[operation]; err != nil {
		return err
	}
	if token != "" {
		if !f.good[token] {
			return &graphql.Error{Kind: graphql.Ambiguous, Operation: operation, Status: 400}
		}
		delete(f.good, token)
	}
	if f.after != nil {
		f.after(operation)
	}
	return nil
}

// fail makes an operation fail from now on; nil ends that.
func (f *compass) fail(operation string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed[operation] = err
}

// called gives the operations since it was last asked.
func (f *compass) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *compass) TokenConnector(string) connection.Connector  { return fakeConnector{f, true} }
func (f *compass) Connector(string) connection.Connector       { return fakeConnector{f, false} }
func (f *compass) Director(string, string) connection.Director { return fakeDirector{f, "viewer"} }
func (f *compass) Use(c *tls.Certificate)                      { f.inUse = c }
func (f *compass) Try(*tls.Certificate, string, string) (connection.Director, func()) {
	return fakeDirector{f, "trial"}, func() {}
}

type fakeConnector struct {
	*compass
	byToken bool
}

func (c fakeConnector) Configuration(_ context.Context, token secret.Value) (connector.Configuration, error) {
	if c.byToken != (token != "") {
		return connector.Configuration{}, errors.New("a token belongs to the token endpoint, and only there")
	}
	if err := c.call("configuration", token); err != nil {
		return connector.Configuration{}, err
	}
	answer := connector.Configuration{Subject: "O=Org,CN=me", DirectorURL: "https://director", ConnectorURL: "https://connector"}
	if c.byToken {
		answer.Token = token + "-second"
		c.mu.Lock()
		c.good[answer.Token] = true
		c.mu.Unlock()
	}
	return answer, nil
}

func (c fakeConnector) Sign(ctx context.Context, token secret.Value, csrPEM []byte) (connector.Issued, error) {
	if err := ctx.Err(); err != nil {
		return connector.Issued{}, &graphql.Error{Kind: graphql.Canceled}
	}
	if err := c.call("sign", token); err != nil {
		return connector.Issued{}, err
	}
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return connector.Issued{}, err
	}
	now := c.clock.Now()
	leaf := c.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: csr.Subject, NotBefore: now, NotAfter: now.AddDate(0, 0, 90),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.ca, csr.PublicKey)
	return connector.Issued{Certificate: leaf, Chain: []*x509.Certificate{leaf, c.ca}, CA: []*x509.Certificate{c.ca}}, nil
}

type fakeDirector struct {
	*compass
	viewer string
}

func (d fakeDirector) Viewer(context.Context) error { return d.call(d.viewer, "") }

func (d fakeDirector) Snapshot(_ context.Context, runtimeID string) (director.Snapshot, error) {
	d.mu.Lock()
	d.runtimes = append(d.runtimes, runtimeID)
	d.mu.Unlock()
	return director.Snapshot{Complete: !d.incomplete}, d.call("snapshot", "")
}

func (d fakeDirector) SetRuntimeLabel(context.Context, string, string, string) error {
	return d.call("label", "")
}

// syncer brings nothing into place, and fails on demand. As long as something is missed by snapshots, a complete one prunes
// it.
type syncer struct {
	result connection.Result
	err    error
	missed bool
	pruned int
}

func (s *syncer) Sync(_ context.Context, snapshot director.Snapshot) (connection.Result, error) {
	result := s.result
	switch {
	case s.err != nil || !s.missed:
	case snapshot.Complete:
		s.missed = false
		s.pruned++
	default:
		result.PendingDeletion, result.PruneBlocked = 1, "incomplete"
	}
	return result, s.err
}
