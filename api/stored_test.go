package api_test

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

const (
	accepted = "testdata/accepted/*.yaml"
	examples = "../docs/examples/*.yaml"
)

func TestEveryExampleIsStoredAsItIsWritten(t *testing.T) {
	c := newClient(t)
	needNamespace(t, c, "kyma-system")
	for name, text := range files(t, accepted, examples) {
		t.Run(name, func(t *testing.T) {
			for _, written := range documents(t, text) {
				roundTrip(t, c, written)
			}
		})
	}
}

// roundTrip creates an object, writes it whole once more through the main resource, as agents did before there was a
// status subresource, writes its status, and compares what the server holds in the end.
func roundTrip(t *testing.T, c client.Client, written *unstructured.Unstructured) {
	t.Helper()
	want := expected(written)
	object := written.DeepCopy()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatalf("create: %v", err)
	}
	remove(t, c, object)

	again := written.DeepCopy()
	again.SetResourceVersion(object.GetResourceVersion())
	if err := c.Update(t.Context(), again); err != nil {
		t.Fatalf("update of the main resource: %v", err)
	}
	if written.Object["status"] != nil {
		if status := again.Object["status"]; status != nil {
			t.Errorf("a write to the main resource changed the status: %v", status)
		}
		again.Object["status"] = written.DeepCopy().Object["status"]
		if err := c.Status().Update(t.Context(), again); err != nil {
			t.Fatalf("update of the status: %v", err)
		}
	}

	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(written.GroupVersionKind())
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(written), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Object, withoutServersFields(got).Object); diff != "" {
		t.Errorf("written (-), read (+):\n%s", diff)
	}

	// The Go types keep everything, too.
	var typed any
	switch written.GetKind() {
	case "Application":
		typed = &applicationv1alpha1.Application{}
	case "CompassConnection":
		typed = &compassv1alpha1.CompassConnection{}
	default:
		return
	}
	raw, err := json.Marshal(written.Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, typed); err != nil {
		t.Fatal(err)
	}
	raw, err = json.Marshal(typed)
	if err != nil {
		t.Fatal(err)
	}
	through := map[string]any{}
	if err := utiljson.Unmarshal(raw, &through); err != nil {
		t.Fatal(err)
	}
	if missing := lost(written.Object, through, ""); len(missing) > 0 {
		t.Errorf("the Go type loses %v", missing)
	}
}

// expected is what the server should hold: what was written, the one default, and Secrets in base64.
func expected(written *unstructured.Unstructured) *unstructured.Unstructured {
	want := written.DeepCopy()
	switch want.GetKind() {
	case "Application":
		spec := want.Object["spec"].(map[string]any)
		if _, ok := spec["encodeUrl"]; !ok {
			spec["encodeUrl"] = true
		}
	case "Secret":
		data := map[string]any{}
		for k, v := range want.Object["stringData"].(map[string]any) {
			data[k] = base64.StdEncoding.EncodeToString([]byte(v.(string)))
		}
		delete(want.Object, "stringData")
		want.Object["data"] = data
		want.Object["type"] = "Opaque"
	}
	return want
}

func withoutServersFields(object *unstructured.Unstructured) *unstructured.Unstructured {
	object = object.DeepCopy()
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"} {
		unstructured.RemoveNestedField(object.Object, "metadata", field)
	}
	return object
}

// lost names the values of a that b does not hold; null, empty text, false and empty lists may be left out.
func lost(a, b any, path string) []string {
	switch a := a.(type) {
	case map[string]any:
		other, _ := b.(map[string]any)
		var names []string
		for k, v := range a {
			names = append(names, lost(v, other[k], path+"."+k)...)
		}
		return names
	case []any:
		other, _ := b.([]any)
		var names []string
		for i, v := range a {
			var o any
			if i < len(other) {
				o = other[i]
			}
			names = append(names, lost(v, o, path+"[]")...)
		}
		return names
	case nil:
		return nil
	}
	if a == b || b == nil && (a == "" || a == false) {
		return nil
	}
	return []string{path}
}

func TestAZeroApplicationWritesWhatItsReadersNeedToSee(t *testing.T) {
	entry := applicationv1alpha1.Entry{Type: applicationv1alpha1.EntryTypeEvents}
	service := applicationv1alpha1.Service{Entries: []applicationv1alpha1.Entry{entry}}
	for _, test := range []struct {
		name  string
		value any
		want  string
	}{
		{"application", applicationv1alpha1.Application{}, `{"metadata":{},"spec":{"description":"","skipVerify":false,"encodeUrl":false,"displayName":"","providerDisplayName":"","longDescription":""},"status":{}}`},
		{"service with an entry", service, `{"id":"","identifier":"","name":"","displayName":"","description":"","providerDisplayName":"","entries":[{"type":"Events","targetUrl":"","credentials":{"type":"","secretName":""},"id":"","name":"","gatewayUrl":"","centralGatewayUrl":""}]}`},
		{"connection", compassv1alpha1.CompassConnection{}, `{"metadata":{},"spec":{"managementInfo":{"directorUrl":"","connectorUrl":""}}}`},
		{"connection status", compassv1alpha1.ConnectionStatus{}, `{"established":null,"renewed":null,"lastSync":null,"lastSuccess":null,"certificateStatus":{"acquired":null,"notBefore":null,"notAfter":null}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := json.Marshal(test.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
