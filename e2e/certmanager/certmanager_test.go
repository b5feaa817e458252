package certmanager_test

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/certmanager"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestACertificateBecomesReadyByBothKindsOfIssuersAndIsRenewedOverMTLSWithANewKey(t *testing.T) {
	s := newStage(t, compass.Options{CertificateValidity: 2 * time.Minute})
	s.start()
	subject := s.pair("pairing")
	mine := s.certificate("mine", subject, s.namespaced(compassv1alpha1.CompassIssuerSpec{
		ClientSecretName: "mine", PairingSecretName: "pairing", ConnectorURL: s.compass.MTLSConnectorURL(),
	}))
	mine.Spec.RenewBeforePercentage = ptr.To[int32](90) // 12 seconds after it was issued
	s.create(mine)
	first := s.ready(mine, 1)
	credential, err := certs.DecodeTLS(first.Data)
	if err != nil {
		t.Fatal(err)
	}
	if got := credential.Leaf().Subject.String(); got != subject && !strings.Contains(got, "OrgUnit") {
		t.Errorf("subject %q", got)
	}
	if token := s.secret(types.NamespacedName{Namespace: s.system, Name: "pairing"}).Data[issuer.KeyToken]; len(token) > 0 {
		t.Error("the spent token is still there")
	}

	// Another namespace, by the kind that is for all of them, over mTLS at once.
	s.create(&compassv1alpha1.CompassClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "compass-" + s.system}, Spec: compassv1alpha1.CompassIssuerSpec{
		ClientSecretName: "mine", ConnectorURL: s.compass.MTLSConnectorURL(),
	}})
	other := s.certificate("other", subject, cmmeta.IssuerReference{Group: compassv1alpha1.GroupVersion.Group, Kind: "CompassClusterIssuer", Name: "compass-" + s.system})
	other.Namespace = kubetest.Namespace(t, cluster)
	s.create(other)
	s.ready(other, 1)

	second := s.ready(mine, 2)
	if bytes.Equal(first.Data[corev1.TLSPrivateKeyKey], second.Data[corev1.TLSPrivateKeyKey]) || bytes.Equal(first.Data[corev1.TLSCertKey], second.Data[corev1.TLSCertKey]) {
		t.Error("the renewal kept key or certificate")
	}
	if _, err := certs.DecodeTLS(second.Data); err != nil {
		t.Error(err)
	}
	for _, kind := range []client.Object{&compassv1alpha1.CompassIssuer{ObjectMeta: s.meta("compass")}, &compassv1alpha1.CompassClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "compass-" + s.system}}} {
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(kind), kind); err != nil {
			t.Fatal(err)
		}
		conditions := kind.(interface{ GetConditions() []metav1.Condition }).GetConditions()
		if ready := meta.FindStatusCondition(conditions, "Ready"); ready == nil || ready.Status != metav1.ConditionTrue || ready.Reason != "Checked" {
			t.Errorf("conditions of %T: %+v", kind, conditions)
		}
	}
}

func TestAnUnreachableConnectorEndsInARetryThatSucceedsWhenItIsBack(t *testing.T) {
	s := newStage(t, compass.Options{})
	s.start()
	subject := s.pair("pairing")
	where, err := url.Parse(s.compass.TokenURL())
	if err != nil {
		t.Fatal(err)
	}
	secured, err := url.Parse(s.compass.MTLSConnectorURL())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.compass.Close(); err != nil {
		t.Fatal(err)
	}
	mine := s.certificate("mine", subject, s.namespaced(compassv1alpha1.CompassIssuerSpec{ClientSecretName: "mine", PairingSecretName: "pairing"}))
	s.create(mine)
	s.eventually("the request to say that the Connector cannot be reached", func() bool {
		condition := s.request(mine)
		return condition.Reason == cmapi.CertificateRequestReasonPending && strings.Contains(condition.Message, "Unreachable")
	})
	if token := s.secret(types.NamespacedName{Namespace: s.system, Name: "pairing"}).Data[issuer.KeyToken]; len(token) == 0 {
		t.Error("the token is gone that was not spent")
	}
	o := s.options
	o.TokenAddress, o.MTLSAddress = "127.0.0.1:"+where.Port(), "127.0.0.1:"+secured.Port()
	if s.compass, err = compass.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s.ready(mine, 1)
	if n := s.signed(); n != 1 {
		t.Errorf("the Connector was asked %d times", n)
	}
}

func TestARequestThatIsWrongFailsForGoodAndSpendsNoToken(t *testing.T) {
	s := newStage(t, compass.Options{})
	s.start()
	subject := s.pair("pairing")
	by := s.namespaced(compassv1alpha1.CompassIssuerSpec{ClientSecretName: "right", PairingSecretName: "pairing", ConnectorURL: s.compass.MTLSConnectorURL()})
	wrongSubject := s.certificate("wrong-subject", strings.Replace(subject, "OrgUnit", "Other", 1), by)
	wrongKey := s.certificate("wrong-key", subject, by)
	wrongKey.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256}
	for certificate, says := range map[*cmapi.Certificate]string{wrongSubject: "literalSubject", wrongKey: "privateKey.algorithm"} {
		s.create(certificate)
		s.eventually("the request of "+certificate.Name+" to fail", func() bool {
			condition := s.request(certificate)
			return condition.Reason == cmapi.CertificateRequestReasonFailed && strings.Contains(condition.Message, says)
		})
	}
	if n := s.signed(); n != 0 {
		t.Errorf("the Connector was asked %d times", n)
	}
	right := s.certificate("right", subject, by)
	s.create(right)
	s.ready(right, 1)
}

func TestTheAgentLeavesItsCertificateToCertManager(t *testing.T) {
	s := newStage(t, compass.Options{})
	s.configure()
	s.start()
	s.synchronized()
	name := types.NamespacedName{Namespace: s.system, Name: "cluster-client-certificates"}
	before := s.secret(name)
	if before.Type != corev1.SecretTypeOpaque {
		t.Errorf("type %s", before.Type)
	}
	s.mirrored(before)
	if authorities := s.secret(types.NamespacedName{Namespace: s.system, Name: "kyma-gateway-certs-cacert"}).Data[certs.CACert]; !bytes.Equal(authorities, before.Data[certs.ClientCA]) {
		t.Error("the CA Secret does not hold the authorities")
	}
	if n := s.signed(); n != 1 {
		t.Errorf("pairing cost %d signatures", n)
	}
	found := &cmapi.Certificate{}
	if err := s.client.Get(t.Context(), name, found); err != nil {
		t.Fatal(err)
	}
	if k := found.Spec.PrivateKey; k.Algorithm != cmapi.RSAKeyAlgorithm || k.Encoding != cmapi.PKCS1 || k.RotationPolicy != cmapi.RotationPolicyAlways || k.Size != 2048 || found.Spec.IssuerRef.Name != certmanager.IssuerName {
		t.Errorf("Certificate: %+v", found.Spec)
	}

	// A renewal that a person asks for: cert-manager makes the key, the issuer signs over mTLS, the agent mirrors.
	s.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	s.eventually("the new certificate to be current", func() bool {
		now := s.secret(name)
		return !bytes.Equal(now.Data[certs.ClientCertificate], before.Data[certs.ClientCertificate]) && bytes.Equal(now.Data[certs.ClientChain], now.Data[certs.TLSCertificate])
	})
	s.mirrored(s.secret(name))
	s.eventually("the connection to say so", func() bool {
		c := s.connection()
		return !c.Spec.RefreshCredentialsNow && !c.Status.ConnectionStatus.Renewed.IsZero() && meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady)
	})
	if n := s.signed(); n != 2 {
		t.Errorf("pairing and one renewal cost %d signatures", n)
	}
	pending := &corev1.Secret{}
	if err := s.client.Get(t.Context(), types.NamespacedName{Namespace: s.system, Name: name.Name + "-pending"}, pending); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the pending Secret is still there: %v", err)
	}
}

// mirrored checks that the keys of the agent hold what those of cert-manager do.
func (s *stage) mirrored(found *corev1.Secret) {
	s.t.Helper()
	theirs, err := certs.DecodeTLS(found.Data)
	if err != nil {
		s.t.Fatal(err)
	}
	ours, err := certs.DecodeClient(found.Data)
	if err != nil {
		s.t.Fatal(err)
	}
	if ours.Fingerprint() != theirs.Fingerprint() || !bytes.Equal(found.Data[certs.ClientKey], found.Data[certs.TLSKey]) || !bytes.Equal(found.Data[certs.ClientChain], found.Data[certs.TLSCertificate]) {
		s.t.Error("the keys of the agent are not those of cert-manager")
	}
}

// leave has the cluster leave Compass, and looks that cert-manager has nothing to do for it any more.
func (s *stage) leave() {
	s.t.Helper()
	s.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.Farewell = compassv1alpha1.FarewellRevoke })
	s.eventually("the finalizer", func() bool { return len(s.connection().Finalizers) > 0 })
	if err := s.client.Delete(s.t.Context(), s.connection()); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the CompassConnection to be gone", func() bool { return s.connection() == nil })
	name := types.NamespacedName{Namespace: s.system, Name: "cluster-client-certificates"}
	if err := s.client.Get(s.t.Context(), name, &cmapi.Certificate{}); client.IgnoreNotFound(err) != nil || err == nil {
		s.t.Errorf("the Certificate is still there: %v", err)
	}
	if left := s.secret(name).Data; len(left) > 0 {
		s.t.Errorf("the client Secret still has %d keys", len(left))
	}
	if n := s.compass.Admin().Counters().Operations["revokeCertificate"].Received; n != 1 {
		s.t.Errorf("%d certificates were revoked", n)
	}
}

func (s *stage) connection() *compassv1alpha1.CompassConnection {
	c := &compassv1alpha1.CompassConnection{}
	if err := s.client.Get(s.t.Context(), types.NamespacedName{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		return nil
	}
	return c
}

func (s *stage) synchronized() {
	s.t.Helper()
	s.eventually("the agent to synchronise", func() bool {
		c := s.connection()
		return c != nil && c.Status.State == compassv1alpha1.Synchronized
	})
}
