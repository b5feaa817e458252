package connection_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/secret"
)

// mirrored looks that the agent's keys of the client Secret hold what those of cert-manager do, and that nothing is pending.
func (w *world) mirrored() {
	w.t.Helper()
	data := w.clientData()
	theirs, err := certs.DecodeTLS(data)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.fingerprint() != theirs.Fingerprint() || !bytes.Equal(data[certs.ClientKey], data[certs.TLSKey]) {
		w.t.Error("the keys of the agent do not hold what those of cert-manager do")
	}
	if w.client.(*memory).secrets[pendingName] != nil {
		w.t.Error("the pending Secret is still there")
	}
}

// renewAt moves the clock to when the certificate is renewed, by whom soever.
func (w *world) renewAt() {
	w.clock.SetTime(w.connection().Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
}

func (w *world) certificateReady() metav1.Condition {
	w.t.Helper()
	c := meta.FindStatusCondition(w.connection().Status.Conditions, compassv1alpha1.ConditionCertificateReady)
	if c == nil {
		w.t.Fatal("there is no condition CertificateReady")
	}
	return metav1.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message}
}

func (w *world) unpair() {
	w.t.Helper()
	if err := w.client.Delete(w.t.Context(), w.connection()); err != nil {
		w.t.Fatal(err)
	}
}

// pairedBy looks by which token the current certificate was had.
func (w *world) pairedBy(want secret.Value) {
	w.t.Helper()
	token := slices.Contains(w.compass.sent, want+"-second")
	if got := w.connection().Status.TokenFingerprint; !token || got == "" || got != w.clientSecret().Annotations[annotation+"token-fingerprint"] {
		w.t.Error("the certificate was not had by the token")
	}
}

func TestCertManagerGetsTheCertificateOfAPairing(t *testing.T) {
	w := newManagedWorld(t)
	w.manager.away = true
	c := w.step()
	w.calls("configuration")
	if r := meta.FindStatusCondition(c.Status.Conditions, compassv1alpha1.ConditionReconciling); r == nil || r.Reason != "Progressing" || r.Message != "cert-manager is to issue a certificate into Secret ns/client" {
		t.Errorf("conditions %+v", c.Status.Conditions)
	}
	w.manager.away = false
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.calls("sign", "viewer", "snapshot", "label")
	w.mirrored()
	w.pairedBy("t1")
	if got := w.certificateReady(); got.Reason != "Valid" {
		t.Errorf("%+v", got)
	}
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if n := len(w.compass.issued); n != 1 {
		t.Errorf("%d certificates were issued", n)
	}
}

func TestNothingIsAskedOfCertManagerThatArrivedMeanwhile(t *testing.T) {
	for name, begin := range map[string]func(w *world){
		"a pairing": func(*world) {},
		"a renewal": func(w *world) {
			w.manager.away = false
			w.next()
			w.manager.away = true
			w.ask(compassv1alpha1.RenewAnnotation, "1")
			w.step()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newManagedWorld(t)
			w.manager.away = true
			w.step()
			begin(w)
			issued := len(w.compass.issued) + 1
			w.refuse = func(verb, name string) error {
				if verb == "apply" && name == "Certificate" {
					w.manager.away = false
					w.manager.work()
				}
				return nil
			}
			w.next()
			w.refuse = func(string, string) error { return nil }
			w.state(w.step(), compassv1alpha1.Synchronized, "")
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			w.mirrored()
			if n := len(w.compass.issued); n != issued {
				t.Errorf("%d certificates were issued, want %d", n, issued)
			}
		})
	}
}

func TestWhatCertManagerIsInTroubleWithIsToldAndSyncsGoOn(t *testing.T) {
	w := newManagedWorld(t)
	w.compass.fail("sign", &graphql.Error{Kind: graphql.Unreachable})
	w.state(w.step(), compassv1alpha1.Connected[:0], "")
	w.state(w.next(), compassv1alpha1.ConnectionFailed, "Failed to retrieve certificate: cert-manager: CertificateRequest ns/client-1: ")
	w.compass.fail("sign", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")

	// A renewal that a person asks for.
	w.compass.fail("sign", &graphql.Error{Kind: graphql.Unreachable})
	w.compass.called()
	w.ask(compassv1alpha1.RenewAnnotation, "1")
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	for range 3 {
		w.state(w.next(), compassv1alpha1.ConnectionMaintenanceFailed, "Error while trying to maintain connection: cert-manager: CertificateRequest ns/client-2: ")
		if calls := w.compass.called(); !slices.Contains(calls, "snapshot") {
			t.Errorf("calls %v", calls)
		}
	}
	w.compass.fail("sign", nil)
	c := w.next()
	w.state(c, compassv1alpha1.Synchronized, "")
	if got := c.Status.RenewalRequest; got == nil || got.HandledAt == nil {
		t.Errorf("the request is not answered: %+v", got)
	}
	w.mirrored()

	// One that cert-manager makes by itself.
	w.compass.fail("sign", &graphql.Error{Kind: graphql.Rejected})
	w.renewAt()
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if got := w.certificateReady(); got.Status != metav1.ConditionTrue || got.Reason != "RenewalFailing" || !strings.Contains(got.Message, "; cert-manager does not renew it: CertificateRequest ns/client-3: ") {
		t.Errorf("%+v", got)
	}
	w.compass.fail("sign", nil)
	w.clock.Step(61 * time.Minute)
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if got := w.certificateReady(); got.Reason != "Valid" {
		t.Errorf("%+v", got)
	}
	if n := len(w.compass.issued); n != 3 {
		t.Errorf("%d certificates were issued", n)
	}
}

func TestThatCertManagerCannotBeAskedIsTold(t *testing.T) {
	w := newManagedWorld(t)
	refuse := func(verb, name string) error {
		if name == "CompassIssuer" {
			return errors.New("no matches for kind")
		}
		return nil
	}
	w.refuse = refuse
	w.state(w.step(), compassv1alpha1.ConnectionFailed, "Failed to retrieve certificate: writing CompassIssuer ns/compass-runtime-agent: no matches for kind")
	w.refuse = func(string, string) error { return nil }
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.pairedBy("t1")
	w.refuse = refuse
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if got := w.certificateReady(); got.Status != metav1.ConditionTrue || got.Reason != "RenewalFailing" || !strings.HasSuffix(got.Message, "; cert-manager could not be asked to renew it: writing CompassIssuer ns/compass-runtime-agent: no matches for kind") {
		t.Errorf("%+v", got)
	}
	w.ask(compassv1alpha1.RenewAnnotation, "1")
	w.compass.called()
	w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, "Error while trying to maintain connection: writing CompassIssuer ns/compass-runtime-agent: no matches for kind")
	w.calls("snapshot", "label")
	w.refuse = func(string, string) error { return nil }
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if got := w.connection().Status.RenewalRequest; got.HandledAt == nil {
		t.Errorf("%+v", got)
	}
}

// made is what somebody else has cert-manager store.
func (w *world) made(subject string, from, to time.Time, key *rsa.PrivateKey) map[string][]byte {
	w.t.Helper()
	s, err := certs.ParseSubject(subject)
	if err != nil {
		w.t.Fatal(err)
	}
	csr, err := certs.NewRequest(key, s)
	if err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode(csr)
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf := w.compass.sign(&x509.Certificate{SerialNumber: big.NewInt(7), RawSubject: parsed.RawSubject, NotBefore: from, NotAfter: to}, w.compass.ca, key.Public())
	w.compass.issued[certs.Fingerprint(leaf)] = "runtime"
	data, err := certs.EncodeClient(certs.Credential{Key: key, Chain: []*x509.Certificate{leaf, w.compass.ca}, CA: []*x509.Certificate{w.compass.ca}})
	if err != nil {
		w.t.Fatal(err)
	}
	return map[string][]byte{certs.TLSKey: data[certs.TLSKey], certs.TLSCertificate: data[certs.TLSCertificate], certs.ClientCA: data[certs.ClientCA]}
}

func TestACertificateThatCannotTakeThePlaceOfTheCurrentOneIsLeftAloneAndTold(t *testing.T) {
	key, other := keys()[0], keys()[1]
	for name, test := range map[string]struct {
		edit func(w *world, from, to time.Time) map[string][]byte
		says string
	}{
		"for another subject": {func(w *world, from, to time.Time) map[string][]byte { return w.made("O=Org,CN=you", from, to, key) },
			`it is for "CN=you,O=Org", and the current one for "CN=me,O=Org"`},
		"with another key": {func(w *world, from, to time.Time) map[string][]byte {
			data := w.made("O=Org,CN=me", from, to, key)
			data[certs.TLSKey] = w.made("O=Org,CN=me", from, to, other)[certs.TLSKey]
			return data
		}, `data["tls.crt"]: the certificate is for another key`},
		"without a key": {func(w *world, from, to time.Time) map[string][]byte {
			data := w.made("O=Org,CN=me", from, to, key)
			data[certs.TLSKey] = nil
			return data
		}, `data["tls.key"] is missing`},
		"without authorities": {func(w *world, from, to time.Time) map[string][]byte {
			data := w.made("O=Org,CN=me", from, to, key)
			first, _, _ := bytes.Cut(data[certs.TLSCertificate], []byte("-----END CERTIFICATE-----\n"))
			data[certs.TLSCertificate], data[certs.ClientCA] = append(first, "-----END CERTIFICATE-----\n"...), nil
			return data
		}, `data["ca.crt"] is missing`},
		"that ended": {func(w *world, from, _ time.Time) map[string][]byte {
			return w.made("O=Org,CN=me", from, from.Add(time.Minute), key)
		}, "it is valid from 2026-03-01T11:00:00Z to 2026-03-01T11:01:00Z"},
		"that begins later": {func(w *world, _, to time.Time) map[string][]byte {
			return w.made("O=Org,CN=me", to, to.Add(time.Hour), key)
		}, "it is valid from 2026-03-02T12:00:00Z to 2026-03-02T13:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newManagedWorld(t)
			w.step()
			before, good := w.fingerprint(), w.client.(*memory).secrets[clientName].DeepCopy().Data
			w.compass.called()
			w.manager.away = true
			began := w.clock.Now()
			w.manager.put(test.edit(w, began.Add(-time.Hour), began.Add(24*time.Hour)))
			w.step()
			w.calls() // it is no reason to call Compass
			until := w.connection().Status.ConnectionStatus.CertificateStatus
			want := metav1.Condition{
				Type: compassv1alpha1.ConditionCertificateReady, Status: metav1.ConditionTrue, Reason: "RenewalFailing",
				Message: "the client certificate is valid until " + until.NotAfter.UTC().Format(time.RFC3339) + " and will be renewed at " + until.RenewAt.UTC().Format(time.RFC3339) +
					"; the certificate that cert-manager left in Secret ns/client is not used: " + test.says,
			}
			if diff := cmp.Diff(want, w.certificateReady()); diff != "" {
				t.Error(diff)
			}
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			if diff := cmp.Diff(want, w.certificateReady()); diff != "" {
				t.Errorf("after a sync: %s", diff)
			}
			if w.fingerprint() != before {
				t.Error("it became current")
			}
			w.manager.put(map[string][]byte{certs.TLSKey: good[certs.TLSKey], certs.TLSCertificate: good[certs.TLSCertificate], certs.ClientCA: good[certs.ClientCA]})
			w.step()
			if got := w.certificateReady(); got.Reason != "Valid" || strings.Contains(got.Message, "cert-manager") {
				t.Errorf("when it is gone: %+v", got)
			}
		})
	}
}

func TestTheCertificateOfAnotherRuntimeDoesNotBecomeCurrent(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	before := w.fingerprint()
	w.manager.away = true
	w.manager.put(w.made("O=Org,CN=me", w.clock.Now(), w.clock.Now().Add(90*24*time.Hour), keys()[0]))
	for fingerprint := range w.compass.issued {
		if fingerprint != before {
			w.compass.issued[fingerprint] = "other"
		}
	}
	w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, `the new certificate does not work: it is that of runtime "other", and the current one that of "runtime"`)
	w.manager.away = false
	for range 5 { // until another one is asked for
		w.next()
	}
	w.state(w.connection(), compassv1alpha1.Synchronized, "")
	w.mirrored()
}

func TestWhatCertManagerRenewsIsTriedBeforeItIsCurrentAndReplacedIfItDoesNotWork(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	before := w.fingerprint()
	w.compass.fail("trial", &graphql.Error{Kind: graphql.Refused})
	w.renewAt()
	w.compass.called()
	w.step() // a sync, or none, and cert-manager renews
	w.state(w.connection(), compassv1alpha1.ConnectionMaintenanceFailed, "the new certificate does not work")
	for range 3 { // a process that starts does not know whether it was tried
		w.restart()
		calls := w.compass.called()
		w.step()
		if more := w.compass.called(); slices.Contains(more, "trial") {
			t.Errorf("tried at once, after %v: %v", calls, more)
		}
	}
	if w.fingerprint() != before {
		t.Error("it became current")
	}
	for range 3 {
		w.state(w.next(), compassv1alpha1.ConnectionMaintenanceFailed, "the new certificate does not work")
	}
	if n := len(w.compass.issued); n != 2 {
		t.Errorf("%d certificates were issued", n)
	}
	w.state(w.next(), compassv1alpha1.ConnectionMaintenanceFailed, "the new certificate does not work")
	if n := len(w.compass.issued); n != 3 {
		t.Errorf("%d certificates were issued", n)
	}
	w.compass.fail("trial", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
}

func TestARenewalThatWasUnderWayIsNotTakenForAPairing(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	w.manager.slow = true
	w.ask(compassv1alpha1.RenewAnnotation, "1")
	w.step() // signed over mTLS, not stored yet
	w.compass.good["t2"] = true
	w.configure("t2")
	w.unpair()
	w.manager.slow = false
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.pairedBy("t2")
	w.mirrored()
}

func TestAPairingThatWasOnlyBegunIsNotForgottenForARenewal(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	w.manager.slow = true
	w.ask(compassv1alpha1.RenewAnnotation, "1")
	w.step() // signed over mTLS, not stored yet
	w.compass.good["t2"] = true
	w.configure("t2")
	w.unpair()
	d := &death{after: 4} // the CompassConnection, its status, and the pending Secret, deleted and written
	w.mortal(d)
	if _, err := w.r.Reconcile(t.Context(), request); err == nil || !slices.Equal(d.effects[2:], []string{"delete client-pending", "apply client-pending"}) {
		t.Fatalf("%v, %v", err, d.effects)
	}
	w.manager.work()
	w.manager.slow = false
	d.dead = false
	w.restart()
	w.next()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.pairedBy("t2")
	w.mirrored()
}

func TestAPairingThatCameToNothingKeepsNoRenewalOut(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	before := w.fingerprint()
	w.compass.good["t2"] = true
	w.configure("t2")
	w.compass.fail("sign", &graphql.Error{Kind: graphql.Rejected})
	w.unpair()
	w.step()
	w.next()
	w.state(w.next(), compassv1alpha1.Synchronized, "") // by the certificate of before
	if w.fingerprint() != before {
		t.Fatal("there is another certificate")
	}
	w.compass.fail("sign", nil)
	w.renewAt()
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	if w.fingerprint() == before {
		t.Error("the renewal is not current")
	}
}

func TestCertManagerRenewsTheCertificateOfAnotherRuntimeUntilThereIsOneOfThis(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	before := w.fingerprint()
	w.register("other", "tenant", "")
	w.stalled(w.step(), "RUNTIME_ID")
	w.renewAt()
	w.step()
	w.clock.Step(floor)
	w.stalled(w.step(), "RUNTIME_ID")
	w.mirrored()
	if w.fingerprint() == before {
		t.Error("the renewal is not current")
	}
	w.ask(compassv1alpha1.RenewAnnotation, "1")
	for range 10 {
		w.step()
		w.clock.Step(time.Minute)
	}
	if n := len(w.compass.issued); n != 3 {
		t.Errorf("%d certificates were issued", n)
	}
	w.compass.good["t2"] = true
	w.register("other", "tenant", "t2")
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.pairedBy("t2")
	if got := w.identity()["runtime-id"]; got != "other" {
		t.Errorf("paired as %q", got)
	}
}

func TestADeletedClientSecretIsRestoredAndRenewedByCertManager(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	sent := len(w.compass.sent)
	before := w.fingerprint()
	delete := func() {
		t.Helper()
		if err := w.client.Delete(t.Context(), w.secret("client")); err != nil {
			t.Fatal(err)
		}
	}
	delete()
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	if w.fingerprint() == before || len(w.compass.sent) != sent {
		t.Error("cert-manager did not renew what it had lost, or a token was sent")
	}

	// While no agent runs: cert-manager's request waits for a token.
	delete()
	w.restart()
	c := w.next()
	if stalled := meta.FindStatusCondition(c.Status.Conditions, compassv1alpha1.ConditionStalled); stalled == nil || stalled.Reason != "TokenNeeded" {
		t.Errorf("conditions %+v", c.Status.Conditions)
	}
	w.compass.good["t2"] = true
	w.configure("t2")
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.pairedBy("t2")
	w.mirrored()
}

func TestTheOldAuthorityStaysTrustedWhenCertManagerRenewsByANewOne(t *testing.T) {
	w := newManagedWorld(t)
	w.step()
	first := w.compass.ca
	next := w.compass.rotate(2, 10*365*24*time.Hour)
	both := func(name string, data map[string][]byte, key string) {
		t.Helper()
		got, err := certs.DecodeChain(data[key])
		if err != nil || len(got) != 2 || !got[0].Equal(next) || !got[1].Equal(first) {
			t.Errorf("key %s of %s holds %d authorities, %v", key, name, len(got), err)
		}
	}
	w.renewAt()
	w.step()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	both("the CA Secret", w.secret("ca").Data, certs.CACert)
	both("the client Secret", w.clientData(), certs.CACert)
	if err := w.client.Delete(t.Context(), w.secret("ca")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.step()
	both("the CA Secret", w.secret("ca").Data, certs.CACert)

	// Switched off, there is one key less.
	w.unmanage()
	w.step()
	both("the client Secret", w.clientData(), certs.ClientCA)
	if w.clientData()[certs.CACert] != nil {
		t.Error("the key is still there")
	}
	told := 0
	for len(w.events.Events) > 0 {
		if e := <-w.events.Events; strings.Contains(e, "AuthoritiesChanged") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d events AuthoritiesChanged", told)
	}
}

func TestCertManagerIsSwitchedOnAndOffOnAConnectedCluster(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	own := w.fingerprint()
	w.refuse = func(string, string) error {
		if data := w.clientData(); len(data[certs.TLSKey]) == 0 || len(data[certs.TLSCertificate]) == 0 || len(data[certs.ClientCA]) == 0 {
			t.Error("the client Secret lacks a key of cert-manager's, which others may read")
		}
		return nil
	}
	issued := func(want int) {
		t.Helper()
		if got := len(w.compass.issued); got != want {
			t.Errorf("%d certificates were issued, want %d", got, want)
		}
		if len(w.compass.sent) != 2 {
			t.Error("another token was spent")
		}
	}

	// On: cert-manager renews once, and nothing else changes.
	w.compass.fail("trial", &graphql.Error{Kind: graphql.Unreachable})
	w.manage()
	w.next()
	w.next()
	if w.fingerprint() != own {
		t.Error("the certificate of before is not current any more, and the new one does not work")
	}
	w.compass.fail("trial", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	issued(2)
	theirs := w.fingerprint()

	// Off: the agent goes on with that, and renews by itself. What cert-manager asks for nobody signs.
	w.unmanage()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if w.fingerprint() != theirs {
		t.Error("the certificate of cert-manager is not current any more")
	}
	w.renewAt()
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	issued(3)
	ours := w.fingerprint()
	w.clock.Step(time.Hour)
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	issued(3)
	if w.client.(*memory).certificate == nil || w.fingerprint() != ours {
		t.Error("the Certificate is gone, or the certificate of the agent")
	}

	// On again.
	w.manage()
	w.next()
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	issued(4)
}

func TestAPairingGoesOnWhenCertManagerIsSwitchedOnOrOff(t *testing.T) {
	for name, begin := range map[string]func(w *world){
		"on, and the second token is not spent": func(w *world) {
			w.compass.fail("sign", &graphql.Error{Kind: graphql.Unreachable})
			w.step()
			w.compass.fail("sign", nil)
			w.manage()
		},
		"on, and the certificate is not current": func(w *world) {
			w.refuse = func(verb, name string) error {
				if verb == "apply" && name == "client" {
					return errors.New("no")
				}
				return nil
			}
			w.step()
			w.refuse = func(string, string) error { return nil }
			w.manage()
			w.manager.away = true
		},
		"off, and the second token is not spent": func(w *world) {
			w.manage()
			w.manager.away = true
			w.step()
			w.unmanage()
		},
		"off, and the certificate is still to arrive": func(w *world) {
			w.manage()
			w.manager.slow = true
			w.step()
			w.unmanage()
			w.manager.work()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			begin(w)
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			w.pairedBy("t1")
			for range 3 {
				w.state(w.next(), compassv1alpha1.Synchronized, "")
			}
			if !slices.Equal(slices.Compact(w.compass.sent), []secret.Value{"t1", "t1-second"}) {
				t.Error("other tokens were sent")
			}
			if c := w.client.(*memory).certificate; strings.HasPrefix(name, "off") && c != nil && len(w.compass.issued) != 1 {
				t.Errorf("%d certificates were issued", len(w.compass.issued))
			}
		})
	}
}

func TestAnAgentThatWaitsForCertManagerKeepsATokenThatItCouldNotStore(t *testing.T) {
	w := newManagedWorld(t)
	applied := 0
	w.refuse = func(verb, name string) error {
		if verb == "apply" && name == "client-pending" {
			if applied++; applied == 2 {
				return errors.New("no")
			}
		}
		return nil
	}
	w.state(w.step(), compassv1alpha1.ConnectionFailed, "writing Secret ns/client-pending")
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("configuration", "sign", "viewer", "snapshot", "label")
}

// released is a Delegate of whom nothing is wanted any more.
type released struct {
	connection.Delegate
	w   *world
	err error
	// revoked: the certificate was, before this was asked.
	revoked bool
}

func (r *released) Release(context.Context) error {
	r.revoked = r.revoked || len(r.w.compass.revoked) > 0
	return r.err
}

func TestBeforeTheClusterLeavesCertManagerIsToldToAskForNothingMore(t *testing.T) {
	w := newWorld(t)
	w.step()
	d := &released{w: w, err: errors.New("deleting Certificate ns/client: forbidden")}
	w.farewell(compassv1alpha1.FarewellRevoke)
	w.r.Delegate = d
	w.compass.called()
	w.delete()
	w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, "Failed to take the client certificate back from cert-manager: deleting Certificate ns/client: forbidden")
	w.calls()
	d.err = nil
	w.clock.SetTime(w.connection().Status.NextAttempt.Add(time.Second))
	w.gone()
	w.calls("revoke")
	if d.revoked {
		t.Error("the certificate was revoked first, and another one could have arrived after that")
	}
	if left := w.secret("client").Data; len(left) != 0 {
		t.Errorf("the client Secret still has %d keys", len(left))
	}
}

func TestAClusterThatLeftIsPairedAnewByCertManager(t *testing.T) {
	w := newMemoryWorld(t)
	m := w.client.(*memory)
	m.secrets[clientName] = &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "client", Annotations: map[string]string{annotation + "left": "2026-02-01T12:00:00Z"}},
	}
	m.applied[clientName] = []string{"annotation " + annotation + "left"}
	w.manage()
	// What arrived too late belongs to nobody.
	w.manager.put(w.made("O=Org,CN=me", w.clock.Now(), w.clock.Now().Add(time.Hour), keys()[0]))
	w.manager.away = true
	w.step()
	if w.fingerprint() != "" {
		t.Error("a certificate from before is current")
	}
	w.manager.away, m.secrets[clientName].Annotations[cmapi.CertificateNameKey] = false, "" // its Certificate is another one
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	w.pairedBy("t1")
	if got := m.secrets[clientName].Annotations[annotation+"left"]; got != "" {
		t.Errorf("the cluster still counts as having left at %s", got)
	}
}

// asked: cert-manager is asked for a certificate.
func (c *certManager) asked() bool {
	return apiutil.CertificateHasCondition(c.m.certificate, cmapi.CertificateCondition{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue})
}

func TestARenewalByTheSpecIsAskedForOnceAlsoBeforeThereIsACertificate(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.manage()
	w.manager.away = true
	c := w.connection()
	c.Spec.RefreshCredentialsNow = true
	c.Generation++ // the API server does that
	if err := w.client.Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.compass.called()
	c = w.step()
	w.state(c, compassv1alpha1.Synchronized, "")
	w.calls("viewer", "snapshot", "label")
	if c.Spec.RefreshCredentialsNow || !w.manager.asked() {
		t.Error("cert-manager was not asked, or will be again")
	}
	w.manager.away = false
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.mirrored()
	if n := len(w.compass.issued); n != 2 {
		t.Errorf("%d certificates were issued", n)
	}
}
