package onboard_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard"
	"github.com/application-connector/application-connector/simulator/compass"
)

const otherwise = "11111111-2222-4333-8444-555555555555"

// registeredOtherwise has Compass and the cluster know each other by another onboarding, which set no label.
func (c *control) registeredOtherwise(of string) *corev1.Secret {
	c.t.Helper()
	if _, err := c.compass.Admin().PutRuntime(tenant, compass.Runtime{ID: otherwise, Name: "otherwise"}); err != nil {
		c.t.Fatal(err)
	}
	namespace, name, _ := strings.Cut(c.options.Secret, "/")
	c.must(c.kube.Create(c.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		StringData: map[string]string{"RUNTIME_ID": otherwise, "TENANT": of, "CONNECTOR_URL": "https://connector.example.com/graphql"},
	}))
	return c.configuration()
}

// connectionSays sets what the agent says.
func (c *control) connectionSays(connected metav1.ConditionStatus, reason string) {
	c.t.Helper()
	connection := &compassv1alpha1.CompassConnection{}
	connection.Name = compassv1alpha1.ConnectionName
	c.must(c.kube.Create(c.t.Context(), connection))
	connection.Status.State, connection.Status.ConnectionStatus = compassv1alpha1.Synchronized, &compassv1alpha1.ConnectionStatus{}
	connection.Status.Conditions = []metav1.Condition{{Type: compassv1alpha1.ConditionConnected, Status: connected, Reason: reason, LastTransitionTime: metav1.Now()}}
	c.must(c.kube.Status().Update(c.t.Context(), connection))
}

func TestAClusterThatWasRegisteredOtherwiseIsNeitherTakenFromItsRuntimeNorHalfRemoved(t *testing.T) {
	for name, test := range map[string]struct {
		tenant, state, reason string
		onboard, offboard     string // what the errors say; empty for none
	}{
		"connected":                   {tenant, "True", "Connected", "", "was registered otherwise: nothing is removed"},
		"Compass is away":             {tenant, "False", "CallFailed", "", "was registered otherwise: nothing is removed"},
		"not paired yet":              {tenant, "False", "NotPaired", "was registered otherwise: set its label application_connector_cluster to ", "was registered otherwise: nothing is removed"},
		"connected in another tenant": {"another", "True", "Connected", `is of tenant "another"`, `is of tenant "another"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newControl(t)
			before := c.registeredOtherwise(test.tenant)
			c.connectionSays(metav1.ConditionStatus(test.state), test.reason)
			for command, says := range map[string]string{"onboard": test.onboard, "offboard": test.offboard} {
				f := (*onboard.Options).Onboard
				if command == "offboard" {
					f = (*onboard.Options).Offboard
				}
				if err := c.run(f); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
					t.Errorf("%s says %v, not %q", command, err, says)
				}
				if diff := cmp.Diff(before, c.configuration()); diff != "" {
					t.Errorf("%s has changed the Secret:\n%s", command, diff)
				}
				if got := c.runtimes(); !cmp.Equal(got, []string{otherwise}) {
					t.Errorf("after %s Compass has runtimes %v", command, got)
				}
			}
		})
	}
}
