package api_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestWhatCanNeverWorkIsRefusedByTheNameOfItsField(t *testing.T) {
	c := newClient(t)
	texts := files(t, accepted, examples)
	type change func(spec, service, entry map[string]any)
	for _, test := range []struct {
		name   string
		change change
		want   string
	}{
		{"an API without a target", func(_, _, entry map[string]any) { delete(entry, "targetUrl") }, "spec.services[0].entries[0]: Invalid value: targetUrl: an entry of type API needs the URL of the API"},
		{"an API with an empty target", func(_, _, entry map[string]any) { entry["targetUrl"] = "" }, "targetUrl: an entry of type API needs the URL of the API"},
		{"an entry of unknown type", func(_, _, entry map[string]any) { entry["type"] = "Events2" }, `spec.services[0].entries[0].type: Unsupported value: "Events2": supported values: "API", "Events"`},
		{"an entry without type", func(_, _, entry map[string]any) { delete(entry, "type") }, "spec.services[0].entries[0].type: Required value"},
		{"a Secret name in upper case", func(_, _, entry map[string]any) { credentials(entry)["secretName"] = "Shop" }, "spec.services[0].entries[0].credentials.secretName: Invalid value"},
		{"a Secret name with a slash", func(_, _, entry map[string]any) { credentials(entry)["secretName"] = "a/b" }, "spec.services[0].entries[0].credentials.secretName: Invalid value"},
		{"a Secret name too long", func(_, _, entry map[string]any) { credentials(entry)["secretName"] = strings.Repeat("a", 254) }, "spec.services[0].entries[0].credentials.secretName: Too long: may not be more than 253"},
		{"a parameters Secret name with a space", func(_, _, entry map[string]any) { entry["requestParametersSecretName"] = "a b" }, "spec.services[0].entries[0].requestParametersSecretName: Invalid value"},
		{"credentials without type", func(_, _, entry map[string]any) { delete(credentials(entry), "type") }, "spec.services[0].entries[0].credentials.type: Required value"},
		{"credentials without Secret name", func(_, _, entry map[string]any) { delete(credentials(entry), "secretName") }, "spec.services[0].entries[0].credentials.secretName: Required value"},
		{"CSRF without URL", func(_, _, entry map[string]any) { credentials(entry)["csrfInfo"] = map[string]any{} }, "spec.services[0].entries[0].credentials.csrfInfo.tokenEndpointURL: Required value"},
		{"an empty access label", func(_, _, entry map[string]any) { entry["accessLabel"] = "" }, "spec.services[0].entries[0].accessLabel: Invalid value"},
		{"an access label too long", func(spec, _, _ map[string]any) { spec["accessLabel"] = strings.Repeat("a", 64) }, "spec.accessLabel: Too long: may not be more than 63"},
		{"a service without id", func(_, service, _ map[string]any) { delete(service, "id") }, "spec.services[0].id: Required value"},
		{"a service without name", func(_, service, _ map[string]any) { delete(service, "name") }, "spec.services[0].name: Required value"},
		{"a service without displayName", func(_, service, _ map[string]any) { delete(service, "displayName") }, "spec.services[0].displayName: Required value"},
		{"a service without providerDisplayName", func(_, service, _ map[string]any) { delete(service, "providerDisplayName") }, "spec.services[0].providerDisplayName: Required value"},
		{"a service without description", func(_, service, _ map[string]any) { delete(service, "description") }, "spec.services[0].description: Required value"},
		{"a service without entries", func(_, service, _ map[string]any) { delete(service, "entries") }, "spec.services[0].entries: Required value"},
		{"metadata without authentication", func(spec, _, _ map[string]any) { spec["compassMetadata"] = map[string]any{"applicationId": "a"} }, "spec.compassMetadata.authentication: Required value"},
		{"client ids that are null", func(spec, _, _ map[string]any) {
			spec["compassMetadata"] = map[string]any{"authentication": map[string]any{"clientIds": nil}}
		}, "spec.compassMetadata.authentication.clientIds: Required value"},
		{"an unknown field, when the client asks for strictness", func(spec, _, _ map[string]any) { spec["targetURL"] = "https://x" }, `unknown field "spec.targetURL"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			object := documents(t, texts["application-basic"])[0]
			object.SetName("refused")
			spec := object.Object["spec"].(map[string]any)
			service := spec["services"].([]any)[0].(map[string]any)
			test.change(spec, service, service["entries"].([]any)[0].(map[string]any))
			expectRefusal(t, c.Create(t.Context(), object), test.want)
		})
	}

	t.Run("a connection without URLs", func(t *testing.T) {
		object := documents(t, texts["compassconnection"])[0]
		object.SetName("refused")
		object.Object["spec"] = map[string]any{"managementInfo": map[string]any{"directorUrl": "https://d.example.com"}}
		expectRefusal(t, c.Create(t.Context(), object), "spec.managementInfo.connectorUrl: Required value")
	})
	t.Run("a connection without spec", func(t *testing.T) {
		object := documents(t, texts["compassconnection"])[0]
		object.SetName("refused")
		unstructured.RemoveNestedField(object.Object, "spec")
		expectRefusal(t, c.Create(t.Context(), object), "spec: Required value")
	})
}

func credentials(entry map[string]any) map[string]any {
	return entry["credentials"].(map[string]any)
}

func expectRefusal(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatal("the server took it")
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("refused with\n%v\nwant in it\n%s", err, want)
	}
}

func TestThereIsNoLimitToTheNumberOfServicesAndEntries(t *testing.T) {
	c := newClient(t)
	object := documents(t, files(t, accepted, examples)["application-basic"])[0]
	object.SetName("large")
	spec := object.Object["spec"].(map[string]any)
	service := spec["services"].([]any)[0].(map[string]any)
	entry := service["entries"].([]any)[0]
	var entries, services []any
	for range 50 {
		entries = append(entries, entry)
	}
	service["entries"] = entries
	for range 60 {
		services = append(services, service)
	}
	spec["services"] = services
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	remove(t, c, object)
}
