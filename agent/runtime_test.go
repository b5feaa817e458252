package agent_test

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestRegisteringTheClusterAsAnotherRuntimeDeletesNothing(t *testing.T) {
	s := agenttest.New(t)
	sibling, err := s.Compass.Admin().PutRuntime(agenttest.Tenant, compass.Runtime{Name: "sibling"})
	if err != nil {
		t.Fatal(err)
	}
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	old := s.Secret(s.Credential)
	had := s.Applications()
	if len(had) != 1 || old.Annotations["compass.kyma-project.io/runtime-id"] != agenttest.RuntimeID || old.Annotations["compass.kyma-project.io/tenant"] != agenttest.Tenant {
		t.Fatalf("Applications %v, annotations %v", had, old.Annotations)
	}

	// The id comes first, the token later.
	s.Compass.Admin().ResetCounters()
	s.Configure(agenttest.Set("RUNTIME_ID", sibling), agenttest.Set("TOKEN", ""))
	c := s.Until("the condition Stalled", func(c *compassv1alpha1.CompassConnection) bool {
		return meta.IsStatusConditionTrue(c.Status.Conditions, "Stalled")
	})
	stalled := meta.FindStatusCondition(c.Status.Conditions, "Stalled")
	for _, want := range []string{"RUNTIME_ID", s.Configuration.String(), sibling, agenttest.RuntimeID, "TOKEN"} {
		if !strings.Contains(stalled.Message, want) {
			t.Errorf("%q does not hold %q", stalled.Message, want)
		}
	}
	if got := s.Compass.Admin().Counters().Requests.Received; got != 0 {
		t.Errorf("Compass got %d requests by the certificate of another runtime", got)
	}
	if labelled(t, s, sibling) || !labelled(t, s, agenttest.RuntimeID) {
		t.Error("the labels were written to the wrong runtime")
	}

	token, err := s.Compass.Admin().RuntimeToken(sibling)
	if err != nil {
		t.Fatal(err)
	}
	s.Configure(agenttest.Set("RUNTIME_ID", sibling), agenttest.Set("TOKEN", token.Token))
	c = s.Until("the pairing as the other runtime", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.State == compassv1alpha1.Synchronized && agenttest.Fingerprint(c) != agenttest.Fingerprint(before)
	})
	for range 4 {
		if blocked := meta.FindStatusCondition(c.Status.Conditions, "PruneBlocked"); blocked == nil || !strings.Contains(blocked.Message, sibling) {
			t.Errorf("condition PruneBlocked: %+v", blocked)
		}
		if got := s.Applications(); len(got) != 1 || got[0] != had[0] {
			t.Fatalf("Applications %v, before %v", got, had)
		}
		var credentials corev1.SecretList
		if err := s.Client.List(t.Context(), &credentials, client.InNamespace(s.Credential.Namespace), client.HasLabels{"app", "bundleId"}); err != nil || len(credentials.Items) != 1 {
			t.Fatalf("%d Secrets with credentials, %v", len(credentials.Items), err)
		}
		c = s.Resync()
	}
	now := s.Secret(s.Credential)
	if bytes.Equal(now.Data["crt"], old.Data["crt"]) || now.Annotations["compass.kyma-project.io/runtime-id"] != sibling {
		t.Errorf("annotations %v", now.Annotations)
	}
	if !labelled(t, s, sibling) {
		t.Error("the labels of the other runtime are not set")
	}
}

// labelled: the runtime has the labels that the agent sets.
func labelled(t *testing.T, s *agenttest.Stage, id string) bool {
	t.Helper()
	status, err := s.Compass.Admin().RuntimeStatus(id)
	if err != nil {
		t.Fatal(err)
	}
	return status.Labels["runtime_consoleUrl"] != nil
}
