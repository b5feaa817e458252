package agent_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

func TestARenewalIsAskedForByAnAnnotation(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	c := s.connection(t.Context())
	asked := c.DeepCopy()
	asked.Annotations = map[string]string{compassv1alpha1.RenewAnnotation: "now"}
	if err := s.client.Patch(t.Context(), asked, client.MergeFrom(c)); err != nil {
		t.Fatal(err)
	}
	after := s.until("the answer", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.RenewalRequest != nil && c.Status.RenewalRequest.HandledAt != nil
	})
	if fingerprint(after) == fingerprint(before) || after.Status.RenewalRequest.Requested != "now" {
		t.Errorf("certificate %s, before %s, answer %+v", fingerprint(after), fingerprint(before), after.Status.RenewalRequest)
	}
	if got := s.calls("signCertificateSigningRequest"); got != 2 {
		t.Errorf("%d certificates were asked for, want 2", got)
	}
}

func TestAClusterLeavesCompassAndComesBack(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	mine := &applicationv1alpha1.Application{}
	mine.Name = "made-by-hand"
	if err := s.client.Create(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.Farewell = compassv1alpha1.FarewellRevoke })
	s.until("the finalizer", func(c *compassv1alpha1.CompassConnection) bool { return len(c.Finalizers) == 1 })
	if err := s.client.Delete(t.Context(), s.connection(t.Context())); err != nil {
		t.Fatal(err)
	}
	s.eventually("the CompassConnection to go", func() bool { return s.connection(t.Context()) == nil })
	if got := s.calls("revokeCertificate"); got != 1 {
		t.Errorf("%d revocations, want one", got)
	}
	var applications applicationv1alpha1.ApplicationList
	var secrets corev1.SecretList
	if err := s.client.List(t.Context(), &applications); err != nil {
		t.Fatal(err)
	}
	if len(applications.Items) != 1 || applications.Items[0].Name != mine.Name {
		t.Errorf("%d Applications are left", len(applications.Items))
	}
	if err := s.client.List(t.Context(), &secrets, client.InNamespace(s.credential.Namespace), client.HasLabels{"app", "bundleId"}); err != nil {
		t.Fatal(err)
	}
	if len(secrets.Items) != 0 {
		t.Errorf("%d Secrets of Applications are left", len(secrets.Items))
	}
	if left := s.secret(s.credential); len(left.Data) != 0 || left.Annotations["compass.kyma-project.io/left"] == "" {
		t.Errorf("the client Secret has %d keys and annotations %v", len(left.Data), left.Annotations)
	}
	if left := s.secret(s.authorities); len(left.Data) != 0 {
		t.Errorf("the CA Secret has %d keys", len(left.Data))
	}
	// With a token for the same runtime it comes back.
	s.configure()
	after := s.inState(compassv1alpha1.Synchronized)
	if fingerprint(after) == fingerprint(before) {
		t.Error("the revoked certificate is in use")
	}
}
