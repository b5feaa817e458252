package connection_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/issuer-lib/controllers/signer"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/agent/certmanager"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/certs/issuer"
)

var (
	clientName  = types.NamespacedName{Namespace: "ns", Name: "client"}
	pendingName = types.NamespacedName{Namespace: "ns", Name: "client-pending"}
)

// certManager is what cert-manager's controllers do about one Certificate, on a memory. What asks it, and the issuer that its
// requests go to, are the real ones, and belong to the process of the agent.
type certManager struct {
	w      *world
	m      *memory
	issuer *issuer.Issuer
	// away: it does not run. serverless: the issuer does not.
	away, serverless bool
	// slow makes it store what is signed only at the next call.
	slow              bool
	revision          int
	failedAt          time.Time // the last request
	requested, stored []byte    // private keys of the newest request, and of what it stored last
}

// newManagedWorld is newMemoryWorld, with an agent that leaves its certificate to cert-manager.
func newManagedWorld(t *testing.T) *world {
	t.Helper()
	w := newMemoryWorld(t)
	w.manage()
	return w
}

// manage starts the agent anew, with cert-manager as the owner of its certificate; unmanage without.
func (w *world) manage() {
	if w.manager == nil {
		w.manager = &certManager{w: w, m: w.client.(*memory)}
	}
	w.manager.serverless = false
	w.restart()
}

// unmanage leaves cert-manager with what it has to do, and nobody who signs for it.
func (w *world) unmanage() {
	w.manager.serverless = true
	w.restart()
}

// entrust gives the process of the agent its part.
func (c *certManager) entrust() {
	if c.serverless {
		return
	}
	c.w.r.Delegate = &certmanager.Owner{Client: c.m, Reader: c.m, Secret: clientName, Pairing: pendingName, KeySize: 2048, Threshold: 0.3, Clock: agentClock{c.w}}
	c.issuer = &issuer.Issuer{
		Client: c.m, Reader: c.m, Compass: issuing{c.w.compass}, Namespace: "ns", Floor: floor, MinValidity: time.Minute, Clock: agentClock{c.w},
	}
}

// issuing gives the issuer the Compass of a test.
type issuing struct{ *compass }

func (i issuing) TokenConnector(string) issuer.Connector { return fakeConnector{i.compass, true, nil} }
func (i issuing) ConnectorWith(c *tls.Certificate, _ string) (issuer.Connector, func()) {
	return fakeConnector{i.compass, false, c}, func() {}
}

// work does what there is to do now, and reports whether it wrote into the client Secret.
func (c *certManager) work() bool {
	if c.away || c.m.certificate == nil {
		return false
	}
	certificate := c.m.certificate
	if !apiutil.CertificateHasCondition(certificate, cmapi.CertificateCondition{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue}) {
		if !c.triggered() {
			return false
		}
		c.condition(cmmeta.ConditionTrue, "Renewing")
	}
	request := c.current()
	if request == nil {
		request = c.request()
	}
	if apiutil.GetCertificateRequestCondition(request, cmapi.CertificateRequestConditionReady) == nil || len(request.Status.Certificate) == 0 {
		if !c.sign(request) || c.slow {
			return false
		}
	}
	c.deliver(request)
	return true
}

// triggered: a certificate is to be issued, and no failure is so short ago that it waits.
func (c *certManager) triggered() bool {
	if now := c.w.clock.Now(); !c.failedAt.IsZero() && now.Before(c.failedAt.Add(time.Hour)) {
		return false
	}
	found := c.m.secrets[clientName]
	if found == nil || found.Annotations[cmapi.CertificateNameKey] == "" {
		return true
	}
	credential, err := certs.DecodeTLS(found.Data)
	if err != nil || c.stored != nil && !bytes.Equal(found.Data[certs.TLSKey], c.stored) {
		return true // what it did not store itself it does not take for issued
	}
	wanted, err := certs.ParseSubject(c.m.certificate.Spec.LiteralSubject)
	leaf := credential.Leaf()
	return err != nil || wanted.Check(leaf) != nil || c.w.clock.Now().After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore)*3/10))
}

func (c *certManager) condition(status cmmeta.ConditionStatus, reason string) {
	apiutil.SetCertificateCondition(c.m.certificate, 1, cmapi.CertificateConditionIssuing, status, reason, "")
	for i := range c.m.certificate.Status.Conditions {
		c.m.certificate.Status.Conditions[i].LastTransitionTime = &metav1.Time{Time: c.w.clock.Now()}
	}
	touched(c.m.certificate)
}

// current is the request that is under way, unless the Certificate asks for something else now.
func (c *certManager) current() *cmapi.CertificateRequest {
	if len(c.m.requests) == 0 {
		return nil
	}
	r := &c.m.requests[len(c.m.requests)-1]
	if r.Annotations[cmapi.CertificateRequestRevisionAnnotationKey] != fmt.Sprint(c.revision+1) || r.Annotations["subject"] != c.m.certificate.Spec.LiteralSubject {
		return nil
	}
	if ready := apiutil.GetCertificateRequestCondition(r, cmapi.CertificateRequestConditionReady); ready != nil && ready.Reason == cmapi.CertificateRequestReasonFailed {
		return nil
	}
	return r
}

func (c *certManager) request() *cmapi.CertificateRequest {
	t := c.w.t
	key, err := nextKey(0)
	if err != nil {
		t.Fatal(err)
	}
	if c.requested, err = certs.EncodeKey(key); err != nil {
		t.Fatal(err)
	}
	subject, err := certs.ParseSubject(c.m.certificate.Spec.LiteralSubject)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := certs.NewRequest(key, subject)
	if err != nil {
		t.Fatal(err)
	}
	c.m.requests = append(c.m.requests, cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: fmt.Sprintf("client-%d", len(c.m.requests)+1), CreationTimestamp: metav1.NewTime(c.w.clock.Now()),
			Annotations: map[string]string{
				cmapi.CertificateNameKey: "client", cmapi.CertificateRequestRevisionAnnotationKey: fmt.Sprint(c.revision + 1), "subject": c.m.certificate.Spec.LiteralSubject,
			},
		},
		Spec:   cmapi.CertificateRequestSpec{Request: csr, Usages: []cmapi.KeyUsage{cmapi.UsageClientAuth}},
		Status: cmapi.CertificateRequestStatus{Conditions: []cmapi.CertificateRequestCondition{{Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue}}},
	})
	return &c.m.requests[len(c.m.requests)-1]
}

// sign has a request signed, if the issuer runs, and reports whether it is.
func (c *certManager) sign(r *cmapi.CertificateRequest) bool {
	if c.serverless {
		return false
	}
	bundle, err := c.issuer.Sign(c.w.t.Context(), signer.CertificateRequestObjectFromCertificateRequest(r), c.m.issuer)
	if c.w.compass.dead != nil && c.w.compass.dead() {
		return false // what came of it does not get out of the process
	}
	told := func(status cmmeta.ConditionStatus, reason, message string) {
		apiutil.SetCertificateRequestCondition(r, cmapi.CertificateRequestConditionReady, status, reason, message)
	}
	switch pending := (signer.PendingError{}); {
	case err == nil:
		r.Status.Certificate, r.Status.CA = bundle.ChainPEM, bundle.CAPEM
		told(cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, "")
	case errors.As(err, &signer.PermanentError{}), !errors.As(err, &pending) && c.w.clock.Now().Sub(r.CreationTimestamp.Time) > issuer.MaxRetryDuration:
		told(cmmeta.ConditionFalse, cmapi.CertificateRequestReasonFailed, err.Error())
		c.failedAt = c.w.clock.Now()
		c.condition(cmmeta.ConditionFalse, "Failed")
	default:
		told(cmmeta.ConditionFalse, cmapi.CertificateRequestReasonPending, err.Error())
	}
	return err == nil
}

// deliver stores what was signed, as cert-manager does: the keys are its own from then on.
func (c *certManager) deliver(r *cmapi.CertificateRequest) {
	c.put(map[string][]byte{certs.TLSKey: c.requested, certs.TLSCertificate: r.Status.Certificate, certs.ClientCA: r.Status.CA})
	c.revision++
	c.stored = c.requested
	c.failedAt = time.Time{}
	c.condition(cmmeta.ConditionFalse, "Issued")
}

// put writes keys of the client Secret as somebody else than the agent.
func (c *certManager) put(data map[string][]byte) {
	s := c.m.secrets[clientName]
	if s == nil {
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "client"}, Type: corev1.SecretTypeTLS}
		c.m.secrets[clientName] = s
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	var left []string
	for _, key := range c.m.applied[clientName] {
		if _, taken := data[key]; !taken {
			left = append(left, key)
		}
	}
	for key, value := range data {
		s.Data[key] = value
	}
	c.m.applied[clientName] = left
	s.Annotations[cmapi.CertificateNameKey] = "client"
}
