package connection_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
)

// deny makes the cluster take no write of a Secret; empty ends that.
func (w *world) deny(secret string) {
	w.refuse = func(verb, name string) error {
		if verb == "apply" && name == secret {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, errors.New(leaked))
		}
		return nil
	}
}

func TestASecretThatTheClusterDoesNotTakeStopsNeitherSyncsNorRenewals(t *testing.T) {
	for name, test := range map[string]struct {
		secret string
		spoil  func(*corev1.Secret)
	}{
		"the CA Secret, emptied":     {"ca", func(s *corev1.Secret) { s.Data = nil }},
		"the client Secret, emptied": {"client", func(s *corev1.Secret) { s.Data = nil }},
		"the client Secret, as agents before wrote it": {"client", func(s *corev1.Secret) {
			for _, key := range []string{certs.TLSKey, certs.TLSCertificate, certs.ClientCA} {
				delete(s.Data, key)
			}
			s.Annotations = nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newMemoryWorld(t)
			w.step()
			w.compass.called()
			w.deny(test.secret)
			w.change(test.secret, test.spoil)
			c := w.next()
			w.state(c, compassv1alpha1.Synchronized, "")
			w.calls("snapshot", "label")
			got := w.certificateReady()
			if got.Status != metav1.ConditionFalse || got.Reason != "SecretNotWritten" ||
				!strings.HasPrefix(got.Message, "writing Secret ns/"+test.secret+": the API server answers Forbidden; the client certificate is valid until ") {
				t.Errorf("%+v", got)
			}
			w.silent(leaked)

			w.clock.SetTime(c.Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
			w.step()
			if calls := strings.Join(w.compass.called(), " "); !strings.HasPrefix(calls, "configuration sign trial") || !strings.Contains(calls, "snapshot") {
				t.Errorf("no renewal, or no sync: %s", calls)
			}
			w.deny("")
			w.state(w.next(), compassv1alpha1.Synchronized, "")
			if got := w.certificateReady(); got.Status != metav1.ConditionTrue || got.Reason != "Valid" {
				t.Errorf("%+v", got)
			}
			w.mirroredAuthorities()
		})
	}
}

// mirroredAuthorities: both Secrets hold what they should.
func (w *world) mirroredAuthorities() {
	w.t.Helper()
	credential, err := certs.DecodeClient(w.secret("client").Data)
	if err != nil {
		w.t.Fatal(err)
	}
	trusted, err := certs.DecodeCA(w.secret("ca").Data)
	if err != nil || len(trusted) != 1 || !trusted[0].Equal(credential.CA[0]) {
		w.t.Errorf("%d authorities are trusted, %v", len(trusted), err)
	}
	if certs.Fingerprint(w.compass.inUse.Leaf) != credential.Fingerprint() {
		w.t.Error("another certificate is in use than is stored")
	}
}

func TestACASecretThatMayNotBeReadIsNotWrittenAndStopsNothing(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.called()
	foreign := w.compass.rotate(77, time.Hour) // somebody else's, as good as any
	w.change("ca", func(s *corev1.Secret) {
		s.Data = map[string][]byte{certs.CACert: certs.EncodeChain([]*x509.Certificate{foreign})}
	})
	w.r.Reader = forbidding{w.client, "ca"}
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	w.calls("snapshot", "label")
	if got := w.certificateReady(); got.Reason != "SecretNotWritten" || !strings.HasPrefix(got.Message, "reading Secret ns/ca: ") {
		t.Errorf("%+v", got)
	}
	if trusted, err := certs.DecodeCA(w.secret("ca").Data); err != nil || len(trusted) != 1 || !trusted[0].Equal(foreign) {
		t.Errorf("the Secret was written: %d authorities, %v", len(trusted), err)
	}
	w.r.Reader = w.client
	w.state(w.next(), compassv1alpha1.Synchronized, "")
	if trusted, err := certs.DecodeCA(w.secret("ca").Data); err != nil || len(trusted) != 2 {
		t.Errorf("%d authorities are trusted, %v; want the other one too", len(trusted), err)
	}
}

// forbidding is a cluster that does not let one object be read.
type forbidding struct {
	client.Reader
	name string
}

func (f forbidding) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if key.Name == f.name {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("no right to get it"))
	}
	return f.Reader.Get(ctx, key, object, options...)
}
