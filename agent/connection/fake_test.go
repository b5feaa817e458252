package connection_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
	// owner of a one-time token, if it is not the runtime that is configured (see runtime) when it is spent.
	owner map[secret.Value]string
	// runtime that a token belongs to if nothing else is said.
	runtime func() string
	issued  map[string]string // runtimes, by fingerprint of their certificates
	revoked map[string]bool   // by fingerprint
	// runtimes of which snapshots were asked for; incomplete makes them incomplete.
	runtimes   []string
	incomplete bool
	// reported is the runtime's label connection.ReportLabel, as JSON; empty if there is none.
	reported string
	// after, if set, is called when an operation succeeded, before its answer arrives.
	after func(operation string)
	// dead, if set, says that the process is, so that nobody calls any more.
	dead func() bool
	// sent are the one-time tokens that came, in order, refused or not.
	sent   []secret.Value
	serial int64
	// life of the certificates that it signs; 0 means 90 days.
	life time.Duration
	// subject is what it demands of requests.
	subject string
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
	f := &compass{
		clock: c, key: key, good: map[secret.Value]bool{}, failed: map[string]error{}, owner: map[secret.Value]string{},
		issued: map[string]string{}, revoked: map[string]bool{}, subject: "O=Org,CN=me",
	}
	f.ca = f.sign(template, template, key.Public())
	for _, t := range tokens {
		f.good[t] = true
	}
	return f
}

// rotate gives Compass another authority, which signs from now on.
func (f *compass) rotate(serial int64, life time.Duration) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "ca"}, NotBefore: f.clock.Now().Add(-time.Hour), NotAfter: f.clock.Now().Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	f.ca = f.sign(template, template, f.key.Public())
	return f.ca
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
	if f.dead != nil && f.dead() {
		return &graphql.Error{Kind: graphql.Canceled}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, operation)
	if token != "" {
		f.sent = append(f.sent, token)
	}
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

func (f *compass) TokenConnector(string) connection.Connector  { return fakeConnector{f, true, nil} }
func (f *compass) Connector(string) connection.Connector       { return fakeConnector{f, false, nil} }
func (f *compass) Director(string, string) connection.Director { return fakeDirector{f, "viewer", nil} }
func (f *compass) Use(c *tls.Certificate)                      { f.inUse = c }
func (f *compass) Try(c *tls.Certificate, _, _ string) (connection.Director, func()) {
	return fakeDirector{f, "trial", c}, func() {}
}

// accept is what becomes of a call with a certificate; nil means the one in use.
func (f *compass) accept(operation string, c *tls.Certificate) error {
	if f.dead != nil && f.dead() {
		return &graphql.Error{Kind: graphql.Canceled}
	}
	f.mu.Lock()
	if c == nil {
		c = f.inUse
	}
	var refused error
	switch {
	case f.failed[operation] != nil:
	case c == nil:
		refused = &graphql.Error{Kind: graphql.CertificateRefused, Operation: operation}
	case !f.clock.Now().Before(c.Leaf.NotAfter):
		refused = &graphql.Error{Kind: graphql.CertificateExpired, Operation: operation}
	case f.revoked[certs.Fingerprint(c.Leaf)]:
		refused = &graphql.Error{Kind: graphql.Ambiguous, Operation: operation, Status: 400}
	}
	if refused != nil {
		f.calls = append(f.calls, operation)
		f.mu.Unlock()
		return refused
	}
	f.mu.Unlock()
	return f.call(operation, "")
}

type fakeConnector struct {
	*compass
	byToken bool
	with    *tls.Certificate // nil means the one in use
}

func (c fakeConnector) Configuration(_ context.Context, token secret.Value) (connector.Configuration, error) {
	if c.byToken != (token != "") {
		return connector.Configuration{}, errors.New("a token belongs to the token endpoint, and only there")
	}
	if !c.byToken {
		if err := c.accept("configuration", c.with); err != nil {
			return connector.Configuration{}, err
		}
	} else if err := c.call("configuration", token); err != nil {
		return connector.Configuration{}, err
	}
	answer := connector.Configuration{Subject: c.subject, DirectorURL: "https://director", ConnectorURL: "https://connector"}
	if c.byToken {
		answer.Token = token + "-second"
		c.mu.Lock()
		c.good[answer.Token] = true
		if c.owner[token] == "" {
			c.owner[token] = c.runtime()
		}
		c.owner[answer.Token] = c.owner[token]
		c.mu.Unlock()
	}
	return answer, nil
}

func (c fakeConnector) Sign(ctx context.Context, token secret.Value, csrPEM []byte) (connector.Issued, error) {
	if err := ctx.Err(); err != nil {
		return connector.Issued{}, &graphql.Error{Kind: graphql.Canceled}
	}
	if !c.byToken {
		if err := c.accept("sign", c.with); err != nil {
			return connector.Issued{}, err
		}
	} else if err := c.call("sign", token); err != nil {
		return connector.Issued{}, err
	}
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return connector.Issued{}, err
	}
	now := c.clock.Now()
	c.serial++
	leaf := c.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1000 + c.serial), Subject: csr.Subject, NotBefore: now, NotAfter: now.Add(cmp.Or(c.life, 90*24*time.Hour)),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.ca, csr.PublicKey)
	c.mu.Lock()
	defer c.mu.Unlock()
	owner := c.owner[token]
	if !c.byToken {
		by := c.with
		if by == nil {
			by = c.inUse
		}
		owner = c.issued[certs.Fingerprint(by.Leaf)]
	}
	c.issued[certs.Fingerprint(leaf)] = owner
	return connector.Issued{Certificate: leaf, Chain: []*x509.Certificate{leaf, c.ca}, CA: []*x509.Certificate{c.ca}}, nil
}

func (c fakeConnector) Revoke(context.Context) error {
	if err := c.accept("revoke", nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked[certs.Fingerprint(c.inUse.Leaf)] = true
	return nil
}

type fakeDirector struct {
	*compass
	viewer string
	trial  *tls.Certificate // nil means the one in use
}

func (d fakeDirector) Viewer(context.Context) (string, error) {
	if err := d.accept(d.viewer, d.trial); err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.trial
	if c == nil {
		c = d.inUse
	}
	return d.issued[certs.Fingerprint(c.Leaf)], nil
}

func (d fakeDirector) Snapshot(_ context.Context, runtimeID string) (director.Snapshot, error) {
	d.mu.Lock()
	d.runtimes = append(d.runtimes, runtimeID)
	d.mu.Unlock()
	snapshot := director.Snapshot{Complete: !d.incomplete, RuntimeLabels: map[string]any{}}
	if d.reported != "" {
		var value any
		if err := json.Unmarshal([]byte(d.reported), &value); err != nil {
			return director.Snapshot{}, err
		}
		snapshot.RuntimeLabels[connection.ReportLabel] = value
	}
	return snapshot, d.accept("snapshot", nil)
}

func (d fakeDirector) SetRuntimeLabel(_ context.Context, _, key string, value any) error {
	if key != connection.ReportLabel {
		return d.accept("label", nil)
	}
	if err := d.accept("report", nil); err != nil {
		return err
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reported = string(text)
	return nil
}

// cleaner counts, and fails on demand.
type cleaner struct {
	cleaned int
	err     error
}

func (c *cleaner) Clean(context.Context) error {
	if c.err == nil {
		c.cleaned++
	}
	return c.err
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
