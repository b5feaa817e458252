package api_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

func condition(kind, status, reason string) map[string]any {
	return map[string]any{
		"type": kind, "status": status, "reason": reason, "message": "m",
		"lastTransitionTime": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Format(time.RFC3339),
	}
}

func applyConditions(ctx context.Context, c client.Client, name, owner string, conditions ...any) error {
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": applicationv1alpha1.GroupVersion.String(), "kind": "Application",
		"metadata": map[string]any{"name": name},
		"status":   map[string]any{"conditions": conditions},
	}}
	return c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(owner))
}

func TestTwoWritersOwnTheirConditionsWithoutConflict(t *testing.T) {
	c := newClient(t)
	app := &applicationv1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "two-writers"}}
	if err := c.Create(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	remove(t, c, app)

	const agent, gateway = "compass-runtime-agent", "central-application-gateway"
	for _, write := range []struct {
		owner      string
		conditions []any
	}{
		{agent, []any{condition("Synchronized", "True", "UpToDate"), condition("CredentialsReady", "False", "Empty")}},
		{gateway, []any{condition("RoutesReady", "True", "Ready")}},
		{agent, []any{condition("Synchronized", "False", "Stale")}},
	} {
		if err := applyConditions(t.Context(), c, app.Name, write.owner, write.conditions...); err != nil {
			t.Fatalf("%s: %v", write.owner, err)
		}
	}

	if err := c.Get(t.Context(), client.ObjectKeyFromObject(app), app); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, condition := range app.Status.Conditions {
		got[condition.Type] = string(condition.Status) + " " + condition.Reason
	}
	if diff := cmp.Diff(map[string]string{"Synchronized": "False Stale", "RoutesReady": "True Ready"}, got); diff != "" {
		t.Error(diff)
	}
	if app.Generation != 1 {
		t.Errorf("a status write raised the generation to %d", app.Generation)
	}

	if err := applyConditions(t.Context(), c, app.Name, agent, condition("RoutesReady", "False", "Wrong")); err == nil {
		t.Error("the agent overwrote a condition of the gateway without conflict")
	}
}

// table asks the server for what kubectl get prints.
func table(t *testing.T, group schema.GroupVersion, resource, name string, wide bool) map[string]any {
	t.Helper()
	config := rest.CopyConfig(&cfg)
	config.APIPath, config.GroupVersion, config.NegotiatedSerializer = "/apis", &group, scheme.Codecs.WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	printed := &metav1.Table{}
	err = c.Get().Resource(resource).Name(name).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Into(printed)
	if err != nil {
		t.Fatal(err)
	}
	row := map[string]any{}
	for i, column := range printed.ColumnDefinitions {
		if (column.Priority == 0 || wide) && column.Name != "Age" {
			row[column.Name] = printed.Rows[0].Cells[i]
		}
	}
	return row
}

func TestKubectlGetShowsWhatMatters(t *testing.T) {
	c := newClient(t)
	ago := metav1.NewTime(time.Now().Add(-90 * time.Second))
	expiry := metav1.NewTime(time.Date(2126, 5, 11, 10, 35, 22, 0, time.UTC))

	app := &applicationv1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "printed"}, Spec: applicationv1alpha1.ApplicationSpec{
		Description: "a shop", CompassMetadata: &applicationv1alpha1.CompassMetadata{ApplicationID: "id-1", Authentication: applicationv1alpha1.Authentication{ClientIDs: []string{}}},
	}}
	if err := c.Create(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	remove(t, c, app)
	app.Status.Conditions = []metav1.Condition{
		{Type: applicationv1alpha1.ConditionSynchronized, Status: metav1.ConditionTrue, Reason: "R", LastTransitionTime: ago},
		{Type: applicationv1alpha1.ConditionCredentialsReady, Status: metav1.ConditionFalse, Reason: "R", LastTransitionTime: ago},
		{Type: applicationv1alpha1.ConditionRoutesReady, Status: metav1.ConditionUnknown, Reason: "R", LastTransitionTime: ago},
	}
	if err := c.Status().Update(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"Name": "printed", "Synced": "True", "Credentials": "False", "Routes": "Unknown", "Compass ID": "id-1", "Description": "a shop",
	}
	if diff := cmp.Diff(want, table(t, applicationv1alpha1.GroupVersion, "applications", "printed", true)); diff != "" {
		t.Error(diff)
	}
	delete(want, "Compass ID")
	delete(want, "Description")
	if diff := cmp.Diff(want, table(t, applicationv1alpha1.GroupVersion, "applications", "printed", false)); diff != "" {
		t.Error(diff)
	}

	connection := &compassv1alpha1.CompassConnection{ObjectMeta: metav1.ObjectMeta{Name: "printed"}}
	if err := c.Create(t.Context(), connection); err != nil {
		t.Fatal(err)
	}
	remove(t, c, connection)
	connection.Status = compassv1alpha1.CompassConnectionStatus{
		State:                 compassv1alpha1.Synchronized,
		ConnectionStatus:      &compassv1alpha1.ConnectionStatus{CertificateStatus: compassv1alpha1.CertificateStatus{NotAfter: expiry, RenewAt: &expiry}},
		SynchronizationStatus: &compassv1alpha1.SynchronizationStatus{LastSuccessfulApplication: ago},
		Applications:          &compassv1alpha1.ApplicationCounts{Total: 3, Synced: 2, Failed: 1},
		Conditions:            []metav1.Condition{{Type: compassv1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "R", Message: "all is well", LastTransitionTime: ago}},
	}
	if err := c.Status().Update(t.Context(), connection); err != nil {
		t.Fatal(err)
	}
	got := table(t, compassv1alpha1.GroupVersion, "compassconnections", "printed", true)
	if since, _ := got["Last sync"].(string); since == "" || since == "<invalid>" || since == "<unknown>" {
		t.Errorf("Last sync is printed as %q, want an age", since)
	}
	delete(got, "Last sync")
	want = map[string]any{
		"Name": "printed", "State": "Synchronized", "Ready": "True", "Apps": int64(3), "Failed": int64(1),
		"Cert expires": "2126-05-11T10:35:22Z", "Renews": "2126-05-11T10:35:22Z", "Message": "all is well",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
