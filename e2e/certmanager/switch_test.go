package certmanager_test

import (
	"bytes"
	"slices"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/simulator/compass"
)

// configure writes the configuration Secret with a new token.
func (s *stage) configure() {
	s.t.Helper()
	first, err := s.compass.Admin().RuntimeToken(runtimeID)
	if err != nil {
		s.t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: s.meta("compass-agent-configuration"), StringData: map[string]string{
		"CONNECTOR_URL": first.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": first.Token,
	}}
	if err := s.client.Create(s.t.Context(), secret); client.IgnoreAlreadyExists(err) != nil {
		s.t.Fatal(err)
	} else if err != nil {
		if err := s.client.Update(s.t.Context(), secret); err != nil {
			s.t.Fatal(err)
		}
	}
}

// ask changes the spec of the CompassConnection.
func (s *stage) ask(edit func(*compassv1alpha1.CompassConnectionSpec)) {
	s.t.Helper()
	connection := s.connection()
	changed := connection.DeepCopy()
	edit(&changed.Spec)
	if err := s.client.Patch(s.t.Context(), changed, client.MergeFrom(connection)); err != nil {
		s.t.Fatal(err)
	}
}

func TestCertManagerIsSwitchedOnAndOffOnAConnectedClusterThatIsPairedAnewInBetween(t *testing.T) {
	s := newStage(t, compass.Options{})
	name := types.NamespacedName{Namespace: s.system, Name: "cluster-client-certificates"}
	s.configure()
	replaced := func(before *corev1.Secret, signed int) *corev1.Secret {
		t.Helper()
		var now *corev1.Secret
		s.eventually("another certificate to be current", func() bool {
			now = s.secret(name)
			for _, key := range []string{certs.TLSKey, certs.TLSCertificate, certs.ClientCA} {
				if len(now.Data[key]) == 0 {
					t.Fatalf("key %s is missing, which others may read", key)
				}
			}
			return !bytes.Equal(now.Data[certs.ClientCertificate], before.Data[certs.ClientCertificate]) && bytes.Equal(now.Data[certs.ClientChain], now.Data[certs.TLSCertificate]) &&
				s.connection() != nil && s.connection().Status.State == compassv1alpha1.Synchronized
		})
		s.mirrored(now)
		if n := s.signed(); n != signed {
			t.Errorf("the Connector signed %d times, want %d", n, signed)
		}
		return now
	}
	pairedBy := func(want string) {
		t.Helper()
		if s.connection().Status.TokenFingerprint != want || s.secret(name).Annotations["compass.kyma-project.io/token-fingerprint"] != want {
			t.Error("the certificate was not had by the token")
		}
	}

	s.env["APP_CERT_MANAGER"] = "false"
	stop := s.start()
	s.synchronized()
	own, token := s.secret(name), s.connection().Status.TokenFingerprint
	stop()

	// On: one renewal over mTLS, with the next sync.
	s.env["APP_CERT_MANAGER"] = "true"
	stop = s.start()
	s.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	theirs := replaced(own, 2)
	if theirs.Type != corev1.SecretTypeOpaque {
		t.Errorf("type %s", theirs.Type)
	}
	pairedBy(token)

	// Paired anew as the same runtime.
	s.configure()
	if err := s.client.Delete(t.Context(), s.connection()); err != nil {
		t.Fatal(err)
	}
	anew := replaced(theirs, 3)
	s.eventually("the pairing to be told", func() bool {
		c := s.connection()
		return c != nil && c.Status.TokenFingerprint != token && c.Status.TokenFingerprint != ""
	})
	token = s.connection().Status.TokenFingerprint
	pairedBy(token)
	stop()

	// Off: the agent goes on with what is there, renews by itself, and what cert-manager asks for nobody signs.
	s.env["APP_CERT_MANAGER"] = "false"
	stop = s.start()
	s.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	s.eventually("a sync", func() bool { return !s.connection().Spec.ResyncNow })
	s.synchronized()
	if now := s.secret(name); !bytes.Equal(now.Data[certs.ClientCertificate], anew.Data[certs.ClientCertificate]) {
		t.Error("another certificate is current")
	}
	s.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	last := replaced(anew, 4)
	s.eventually("cert-manager to ask for what it does not find any more", func() bool {
		var all cmapi.CertificateRequestList
		return s.client.List(t.Context(), &all, client.InNamespace(s.system)) == nil &&
			slices.ContainsFunc(all.Items, func(r cmapi.CertificateRequest) bool { return len(r.Status.Certificate) == 0 })
	})
	stop()

	// On again: that is signed, by the certificate of the agent.
	s.env["APP_CERT_MANAGER"] = "true"
	s.start()
	replaced(last, 5)
	pairedBy(token)

	// Gone, and back again.
	s.leave()
	s.configure()
	s.eventually("the cluster to be paired again", func() bool { c := s.connection(); return c != nil && c.Status.State == compassv1alpha1.Synchronized })
	s.mirrored(s.secret(name))
}
