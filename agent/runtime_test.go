package agent_test

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

// applications names the Applications in the cluster.
func (s *stage) applications() (names []string) {
	s.t.Helper()
	var list applicationv1alpha1.ApplicationList
	if err := s.client.List(s.t.Context(), &list); err != nil {
		s.t.Fatal(err)
	}
	for _, app := range list.Items {
		names = append(names, app.Name)
	}
	return names
}

// resync asks for a sync and waits until it was done.
func (s *stage) resync() *compassv1alpha1.CompassConnection {
	s.t.Helper()
	before := s.calls("applicationsForRuntime")
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	return s.until("the sync", func(c *compassv1alpha1.CompassConnection) bool {
		return !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation && c.Status.State == compassv1alpha1.Synchronized && s.calls("applicationsForRuntime") > before
	})
}

func TestRegisteringTheClusterAsAnotherRuntimeDeletesNothing(t *testing.T) {
	s := newStage(t)
	sibling, err := s.compass.Admin().PutRuntime(tenant, compass.Runtime{Name: "sibling"})
	if err != nil {
		t.Fatal(err)
	}
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	old := s.secret(s.credential)
	had := s.applications()
	if len(had) != 1 || old.Annotations["compass.kyma-project.io/runtime-id"] != runtimeID || old.Annotations["compass.kyma-project.io/tenant"] != tenant {
		t.Fatalf("Applications %v, annotations %v", had, old.Annotations)
	}

	// The id comes first, the token later.
	s.compass.Admin().ResetCounters()
	s.configure(set("RUNTIME_ID", sibling), set("TOKEN", ""))
	c := s.until("the condition Stalled", func(c *compassv1alpha1.CompassConnection) bool {
		return meta.IsStatusConditionTrue(c.Status.Conditions, "Stalled")
	})
	stalled := meta.FindStatusCondition(c.Status.Conditions, "Stalled")
	for _, want := range []string{"RUNTIME_ID", s.configuration.String(), sibling, runtimeID, "TOKEN"} {
		if !strings.Contains(stalled.Message, want) {
			t.Errorf("%q does not hold %q", stalled.Message, want)
		}
	}
	if got := s.compass.Admin().Counters().Requests.Received; got != 0 {
		t.Errorf("Compass got %d requests by the certificate of another runtime", got)
	}
	if labelled(t, s, sibling) || !labelled(t, s, runtimeID) {
		t.Error("the labels were written to the wrong runtime")
	}

	token, err := s.compass.Admin().RuntimeToken(sibling)
	if err != nil {
		t.Fatal(err)
	}
	s.configure(set("RUNTIME_ID", sibling), set("TOKEN", token.Token))
	c = s.until("the pairing as the other runtime", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.State == compassv1alpha1.Synchronized && fingerprint(c) != fingerprint(before)
	})
	for range 4 {
		if blocked := meta.FindStatusCondition(c.Status.Conditions, "PruneBlocked"); blocked == nil || !strings.Contains(blocked.Message, sibling) {
			t.Errorf("condition PruneBlocked: %+v", blocked)
		}
		if got := s.applications(); len(got) != 1 || got[0] != had[0] {
			t.Fatalf("Applications %v, before %v", got, had)
		}
		var credentials corev1.SecretList
		if err := s.client.List(t.Context(), &credentials, client.InNamespace(s.credential.Namespace), client.HasLabels{"app", "bundleId"}); err != nil || len(credentials.Items) != 1 {
			t.Fatalf("%d Secrets with credentials, %v", len(credentials.Items), err)
		}
		c = s.resync()
	}
	now := s.secret(s.credential)
	if bytes.Equal(now.Data["crt"], old.Data["crt"]) || now.Annotations["compass.kyma-project.io/runtime-id"] != sibling {
		t.Errorf("annotations %v", now.Annotations)
	}
	if !labelled(t, s, sibling) {
		t.Error("the labels of the other runtime are not set")
	}
}

// labelled: the runtime has the labels that the agent sets.
func labelled(t *testing.T, s *stage, id string) bool {
	t.Helper()
	status, err := s.compass.Admin().RuntimeStatus(id)
	if err != nil {
		t.Fatal(err)
	}
	return status.Labels["runtime_consoleUrl"] != nil
}
