package agent_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
)

func TestARenewalIsAskedForByAnAnnotation(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	s.Ask("now")
	after := s.Until("the answer", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.RenewalRequest != nil && c.Status.RenewalRequest.HandledAt != nil
	})
	if agenttest.Fingerprint(after) == agenttest.Fingerprint(before) || after.Status.RenewalRequest.Requested != "now" {
		t.Errorf("certificate %s, before %s, answer %+v", agenttest.Fingerprint(after), agenttest.Fingerprint(before), after.Status.RenewalRequest)
	}
	if got := s.Calls("signCertificateSigningRequest"); got != 2 {
		t.Errorf("%d certificates were asked for, want 2", got)
	}
}

func TestAClusterLeavesCompassAndComesBack(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	mine := &applicationv1alpha1.Application{}
	mine.Name = "made-by-hand"
	if err := s.Client.Create(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.Farewell = compassv1alpha1.FarewellRevoke })
	s.Until("the finalizer", func(c *compassv1alpha1.CompassConnection) bool { return len(c.Finalizers) == 1 })
	if err := s.Client.Delete(t.Context(), s.Connection(t.Context())); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the CompassConnection to go", func() bool { return s.Connection(t.Context()) == nil })
	if got := s.Calls("revokeCertificate"); got != 1 {
		t.Errorf("%d revocations, want one", got)
	}
	var applications applicationv1alpha1.ApplicationList
	var secrets corev1.SecretList
	if err := s.Client.List(t.Context(), &applications); err != nil {
		t.Fatal(err)
	}
	if len(applications.Items) != 1 || applications.Items[0].Name != mine.Name {
		t.Errorf("%d Applications are left", len(applications.Items))
	}
	if err := s.Client.List(t.Context(), &secrets, client.InNamespace(s.Credential.Namespace), client.HasLabels{"app", "bundleId"}); err != nil {
		t.Fatal(err)
	}
	if len(secrets.Items) != 0 {
		t.Errorf("%d Secrets of Applications are left", len(secrets.Items))
	}
	if left := s.Secret(s.Credential); len(left.Data) != 0 || left.Annotations["compass.kyma-project.io/left"] == "" {
		t.Errorf("the client Secret has %d keys and annotations %v", len(left.Data), left.Annotations)
	}
	if left := s.Secret(s.Authorities); len(left.Data) != 0 {
		t.Errorf("the CA Secret has %d keys", len(left.Data))
	}
	// With a token for the same runtime it comes back.
	s.Configure()
	after := s.InState(compassv1alpha1.Synchronized)
	if agenttest.Fingerprint(after) == agenttest.Fingerprint(before) {
		t.Error("the revoked certificate is in use")
	}
}
