package issuer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/issuer-lib/api/v1alpha1"
	"github.com/cert-manager/issuer-lib/controllers/signer"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
)

const (
	subject = "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=me"
	token   = "canary-7d1e"
)

var (
	pairingName = types.NamespacedName{Namespace: "ns", Name: "pairing"}
	clientName  = types.NamespacedName{Namespace: "ns", Name: "client"}
	start       = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := certs.GenerateKey(2048)
	if err != nil {
		panic(err)
	}
	return k
})

// stage is an issuer with a fake cluster and a Connector without a network.
type stage struct {
	t      *testing.T
	clock  *testingclock.FakeClock
	client client.Client
	issuer *issuer.Issuer
	spec   compassv1alpha1.CompassIssuerSpec

	ca     *x509.Certificate
	calls  []string
	failed error
	edit   func(*x509.Certificate)
	used   *tls.Certificate
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{
		t: t, clock: testingclock.NewFakeClock(start), client: fake.NewClientBuilder().Build(),
		spec: compassv1alpha1.CompassIssuerSpec{ClientSecretName: clientName.Name, PairingSecretName: pairingName.Name},
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: start.Add(-time.Hour), NotAfter: start.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	s.ca = s.issue(template, template, key().Public())
	s.issuer = &issuer.Issuer{
		Client: s.client, Reader: s.client, Compass: s, Namespace: "ns", Floor: 10 * time.Second, MinValidity: time.Minute, Clock: s.clock,
	}
	return s
}

func (s *stage) issue(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	s.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key())
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert
}

func (s *stage) TokenConnector(string) issuer.Connector { return s }
func (s *stage) ConnectorWith(c *tls.Certificate, endpoint string) (issuer.Connector, func()) {
	s.used = c
	s.calls = append(s.calls, "connect "+endpoint)
	return s, func() {}
}

func (s *stage) Configuration(context.Context, secret.Value) (connector.Configuration, error) {
	s.calls = append(s.calls, "configuration")
	return connector.Configuration{Subject: subject}, s.failed
}

func (s *stage) Sign(_ context.Context, t secret.Value, csrPEM []byte) (connector.Issued, error) {
	what := "sign"
	if t != "" {
		what = "sign by token"
	}
	s.calls = append(s.calls, what)
	if s.failed != nil {
		return connector.Issued{}, s.failed
	}
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return connector.Issued{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: csr.Subject, NotBefore: s.clock.Now(), NotAfter: s.clock.Now().AddDate(0, 0, 90),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if s.edit != nil {
		s.edit(template)
	}
	leaf := s.issue(template, s.ca, csr.PublicKey)
	return connector.Issued{Certificate: leaf, Chain: []*x509.Certificate{leaf, s.ca}, CA: []*x509.Certificate{s.ca}}, nil
}

func (s *stage) put(name types.NamespacedName, data map[string][]byte) {
	s.t.Helper()
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, Annotations: map[string]string{issuer.AnnotationConnectorURL: "https://connector"}}, Data: data}
	if err := s.client.Create(s.t.Context(), object); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) pairing() {
	s.put(pairingName, map[string][]byte{issuer.KeyToken: []byte(token), issuer.KeyTokenURL: []byte("https://token"), issuer.KeySubject: []byte(subject)})
}

func (s *stage) holdsToken() bool {
	s.t.Helper()
	found := &corev1.Secret{}
	if err := s.client.Get(s.t.Context(), pairingName, found); err != nil {
		s.t.Fatal(err)
	}
	return string(found.Data[issuer.KeyToken]) == token
}

// credential is a client certificate as Compass would have issued it.
func (s *stage) credential() certs.Credential {
	parsed, err := certs.ParseSubject(subject)
	if err != nil {
		s.t.Fatal(err)
	}
	csr, err := certs.NewRequest(key(), parsed)
	if err != nil {
		s.t.Fatal(err)
	}
	issued, err := s.Sign(s.t.Context(), "", csr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.calls = nil
	return certs.Credential{Key: key(), Chain: issued.Chain, CA: issued.CA}
}

// sign signs; neither the error nor the log, at every level, may hold a secret.
func (s *stage) sign(cr *cmapi.CertificateRequest) (signer.PEMBundle, error) {
	text, err := certs.EncodeKey(key())
	if err != nil {
		s.t.Fatal(err)
	}
	watch := leaktest.Of(s.t)
	watch.Add("the token", token)
	watch.Add("the key", string(text))
	log := logr.FromSlogHandler(watch.Logger("issuer").Handler())
	bundle, err := s.issuer.Sign(ctrl.LoggerInto(s.t.Context(), log), signer.CertificateRequestObjectFromCertificateRequest(cr),
		&compassv1alpha1.CompassIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "i"}, Spec: s.spec})
	watch.Told("error of the issuer", fmt.Sprint(err))
	return bundle, err
}

func requested(t *testing.T, dn string, k crypto.Signer) *cmapi.CertificateRequest {
	t.Helper()
	parsed, err := certs.ParseSubject(dn)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := certs.NewRequest(k, parsed)
	if err != nil {
		t.Fatal(err)
	}
	return &cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{Request: csr, Usages: []cmapi.KeyUsage{cmapi.UsageClientAuth}}}
}

// kind of an error, as issuer-lib sees it.
func kind(err error) issuer.Outcome {
	switch {
	case err == nil:
		return ""
	case errors.As(err, &signer.PermanentError{}):
		return issuer.Permanent
	case errors.As(err, &signer.PendingError{}):
		return issuer.Pending
	}
	return issuer.Retry
}

func TestTheFirstRequestIsSignedByTheTokenAndALostAnswerIsGivenAgain(t *testing.T) {
	s := newStage(t)
	s.pairing()
	request := requested(t, subject, key())
	first, err := s.sign(request)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := certs.DecodeChain(first.ChainPEM)
	if err != nil || len(chain) != 2 || chain[0].Subject.CommonName != "me" {
		t.Errorf("chain %v, %v", chain, err)
	}
	if s.holdsToken() {
		t.Error("a token that is spent is still there")
	}
	again, err := s.sign(request)
	if diff := cmp.Diff(first, again); err != nil || diff != "" {
		t.Errorf("the same request again: %v %s", err, diff)
	}
	if diff := cmp.Diff([]string{"sign by token"}, s.calls); diff != "" {
		t.Error(diff)
	}
}

func TestNoTokenIsSpentOnARequestThatTheConnectorWouldRefuse(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := requested(t, subject, key())
	authority.Spec.IsCA = true
	broken := requested(t, subject, key())
	broken.Spec.Request = []byte("no PEM")
	for name, test := range map[string]struct {
		request *cmapi.CertificateRequest
		says    string
	}{
		"another subject":       {requested(t, strings.Replace(subject, "=me", "=you", 1), key()), "literalSubject"},
		"an attribute more":     {requested(t, subject+",OU=more", key()), "literalSubject"},
		"a key that is not RSA": {requested(t, subject, ec), "privateKey.algorithm"},
		"an authority":          {authority, "spec.isCA"},
		"what is no request":    {broken, "spec.request"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, by := range []string{"token", "certificate"} {
				s := newStage(t)
				if by == "token" {
					s.pairing()
				} else {
					data, err := certs.EncodeClient(s.credential())
					if err != nil {
						t.Fatal(err)
					}
					s.put(clientName, data)
				}
				_, err := s.sign(test.request)
				if kind(err) != issuer.Permanent || !strings.Contains(err.Error(), test.says) {
					t.Errorf("by %s: %v", by, err)
				}
				for _, call := range s.calls {
					if strings.HasPrefix(call, "sign") {
						t.Errorf("by %s: the Connector was asked to sign", by)
					}
				}
				if by == "token" && !s.holdsToken() {
					t.Error("the token is gone")
				}
			}
		})
	}
}

func TestLaterRequestsAreSignedByTheCertificateThatThereIs(t *testing.T) {
	for _, keys := range [][]string{{certs.TLSKey, certs.TLSCertificate, certs.ClientCA}, {certs.ClientKey, certs.ClientCertificate, certs.ClientChain}} {
		t.Run(keys[0], func(t *testing.T) {
			s := newStage(t)
			current := s.credential()
			all, err := certs.EncodeClient(current)
			if err != nil {
				t.Fatal(err)
			}
			data := map[string][]byte{}
			for _, k := range keys {
				data[k] = all[k]
			}
			s.put(clientName, data)
			if _, err := s.sign(requested(t, subject, key())); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"connect https://connector", "configuration", "sign"}, s.calls); diff != "" {
				t.Error(diff)
			}
			if !s.used.Leaf.Equal(current.Leaf()) {
				t.Error("another certificate was used")
			}
		})
	}
}

func TestTheCertificateInUseSignsAndNotOneThatIsNotUsed(t *testing.T) {
	s := newStage(t)
	inUse := s.credential()
	s.edit = func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }
	other := s.credential()
	all, err := certs.EncodeClient(inUse)
	if err != nil {
		t.Fatal(err)
	}
	unused, err := certs.EncodeClient(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{certs.TLSKey, certs.TLSCertificate, certs.ClientCA} {
		all[key] = unused[key]
	}
	s.put(clientName, all)
	if _, err := s.sign(requested(t, subject, key())); err != nil {
		t.Fatal(err)
	}
	if !s.used.Leaf.Equal(inUse.Leaf()) {
		t.Error("another certificate was used")
	}
}

func TestWhatATokenBoughtIsStoredInSpiteOfTroubleButNotOverAnotherToken(t *testing.T) {
	for name, test := range map[string]struct {
		trouble func(s *stage) error
		times   int
		stored  bool
	}{
		"the API server is away for a moment": {func(*stage) error { return apierrors.NewServiceUnavailable("in a moment") }, 2, true},
		"somebody labels the Secret": {func(s *stage) error {
			s.relabel(nil)
			return nil
		}, 1, true},
		"somebody puts another token there": {func(s *stage) error {
			s.relabel([]byte("another"))
			return nil
		}, 1, false},
		"somebody deletes the Secret": {func(s *stage) error {
			return s.client.Delete(s.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: pairingName.Name}})
		}, 1, false},
		"the API server refuses": {func(*stage) error {
			return apierrors.NewForbidden(corev1.Resource("secrets"), "pairing", errors.New("no"))
		}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.pairing()
			times := 0
			s.issuer.Client = interceptor.NewClient(s.client.(client.WithWatch), interceptor.Funcs{
				Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
					if times++; times <= test.times {
						if err := test.trouble(s); err != nil {
							return err
						}
					}
					return c.Patch(ctx, o, patch, opts...)
				},
			})
			if _, err := s.sign(requested(t, subject, key())); err != nil {
				t.Fatal(err) // it is signed in any case
			}
			found := &corev1.Secret{}
			if err := s.client.Get(t.Context(), pairingName, found); client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
			if stored := len(found.Data[issuer.KeyIssuedCertificate]) > 0; stored != test.stored {
				t.Errorf("stored: %v", stored)
			}
			if name == "somebody puts another token there" && string(found.Data[issuer.KeyToken]) != "another" {
				t.Error("the other token is gone")
			}
		})
	}
}

// relabel changes the pairing Secret, and the token in it unless that is nil.
func (s *stage) relabel(token []byte) {
	s.t.Helper()
	found := &corev1.Secret{}
	if err := s.client.Get(s.t.Context(), pairingName, found); err != nil {
		s.t.Fatal(err)
	}
	found.Labels = map[string]string{"a": "b"}
	if token != nil {
		found.Data[issuer.KeyToken] = token
	}
	if err := s.client.Update(s.t.Context(), found); err != nil {
		s.t.Fatal(err)
	}
}

func TestARequestWaitsForAsLongAsThereIsNothingToBeSignedBy(t *testing.T) {
	s := newStage(t)
	current := s.credential()
	_, err := s.sign(requested(t, subject, key()))
	if kind(err) != issuer.Pending || !strings.Contains(err.Error(), "no one-time token") {
		t.Errorf("no Secret: %v", err)
	}
	data, err := certs.EncodeClient(current)
	if err != nil {
		t.Fatal(err)
	}
	s.put(clientName, data)
	s.clock.SetTime(current.Leaf().NotAfter)
	if _, err = s.sign(requested(t, subject, key())); kind(err) != issuer.Pending || !strings.Contains(err.Error(), "valid from") {
		t.Errorf("a certificate that ended: %v", err)
	}
	if len(s.calls) > 0 {
		t.Errorf("calls: %v", s.calls)
	}
}

func TestEveryKindOfErrorHasItsOutcomeAndATokenIsKeptIfItMayBeGood(t *testing.T) {
	kept := map[graphql.Kind]bool{
		graphql.Unreachable: true, graphql.Timeout: true, graphql.Canceled: true, graphql.ServerUntrusted: true, graphql.TLS: true,
		graphql.Ambiguous: true, graphql.Throttled: true, graphql.Server: true, graphql.Malformed: true,
	}
	if len(issuer.Outcomes) != len(graphql.Kinds()) {
		t.Errorf("%d outcomes for %d kinds", len(issuer.Outcomes), len(graphql.Kinds()))
	}
	for _, k := range graphql.Kinds() {
		s := newStage(t)
		s.pairing()
		s.failed = &graphql.Error{Kind: k, Operation: "sign", Errors: []graphql.ServerError{{Message: "in its words"}}}
		_, err := s.sign(requested(t, subject, key()))
		if kind(err) != issuer.Outcomes[k] || !strings.Contains(err.Error(), "in its words") || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %s, %v", k, kind(err), err)
		}
		if s.holdsToken() != kept[k] {
			t.Errorf("%s: the token is there: %v", k, s.holdsToken())
		}
	}
}

func TestAfterAFailureCompassIsLeftAloneForAWhile(t *testing.T) {
	for name, test := range map[string]struct {
		retryAfter, wait time.Duration
	}{"by the floor": {0, 10 * time.Second}, "by what it asks for": {time.Minute, time.Minute}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.pairing()
			s.failed = &graphql.Error{Kind: graphql.Unreachable, RetryAfter: test.retryAfter}
			request := requested(t, subject, key())
			if _, err := s.sign(request); err == nil {
				t.Fatal("no error")
			}
			s.failed = nil
			s.clock.Step(test.wait - time.Second)
			if _, err := s.sign(request); kind(err) != issuer.Pending {
				t.Errorf("too soon: %v", err)
			}
			s.clock.Step(time.Second)
			if _, err := s.sign(request); err != nil {
				t.Errorf("in time: %v", err)
			}
			if len(s.calls) != 2 {
				t.Errorf("calls: %v", s.calls)
			}
		})
	}
}

func TestAnAnswerThatIsNotWhatWasAskedForIsRefused(t *testing.T) {
	s := newStage(t)
	s.pairing()
	s.edit = func(c *x509.Certificate) { c.NotAfter = s.clock.Now().Add(time.Second) }
	_, err := s.sign(requested(t, subject, key()))
	var refused *certs.IssuanceError
	if kind(err) != issuer.Permanent || !errors.As(err, &refused) || refused.Check != certs.CheckValidity {
		t.Error(err)
	}
	if s.holdsToken() {
		t.Error("a token that is spent is still there")
	}
}

func TestAnIssuerThatCannotWorkSaysWhichFieldIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		spec compassv1alpha1.CompassIssuerSpec
		says string
	}{
		"right":                   {compassv1alpha1.CompassIssuerSpec{ClientSecretName: "a", PairingSecretName: "b", ConnectorURL: "https://c"}, ""},
		"no client Secret":        {compassv1alpha1.CompassIssuerSpec{}, "spec.clientSecretName"},
		"a name that is none":     {compassv1alpha1.CompassIssuerSpec{ClientSecretName: "a", PairingSecretName: "A b"}, "spec.pairingSecretName"},
		"a URL that is not https": {compassv1alpha1.CompassIssuerSpec{ClientSecretName: "a", ConnectorURL: "http://c"}, "spec.connectorURL"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, object := range []v1alpha1.Issuer{&compassv1alpha1.CompassIssuer{Spec: test.spec}, &compassv1alpha1.CompassClusterIssuer{Spec: test.spec}} {
				switch err := issuer.Check(t.Context(), object); {
				case test.says == "":
					if err != nil {
						t.Error(err)
					}
				case kind(err) != issuer.Permanent || !strings.Contains(err.Error(), test.says):
					t.Error(err)
				}
			}
		})
	}
}
