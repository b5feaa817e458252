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
		{"settings without target", settings(map[string]any{"maxConcurrent": 1}), "spec.targetSettings[0].target: Required value"},
		{"settings for a service without entry", settings(map[string]any{"target": "orders-api"}), "spec.targetSettings[0].target: Invalid value"},
		{"settings twice for one API", settings(map[string]any{"target": "*"}, map[string]any{"target": "*"}), "spec.targetSettings[1]: Duplicate value"},
		{"an authority twice", settings(map[string]any{"target": "*", "tls": map[string]any{"caBundle": "-----BEGIN CERTIFICATE-----", "caSecretName": "ca"}}), "spec.targetSettings[0].tls: Invalid value: caBundle and caSecretName: give one of them"},
		{"an authority that is no PEM", settings(map[string]any{"target": "*", "tls": map[string]any{"caBundle": "MIIB"}}), "spec.targetSettings[0].tls.caBundle: Invalid value"},
		{"an old version of TLS", settings(map[string]any{"target": "*", "tls": map[string]any{"minVersion": "1.1"}}), `spec.targetSettings[0].tls.minVersion: Unsupported value: "1.1": supported values: "1.2", "1.3"`},
		{"a time-out without unit", settings(map[string]any{"target": "*", "timeouts": map[string]any{"header": "5"}}), "spec.targetSettings[0].timeouts.header: Invalid value"},
		{"a time-out of no length", settings(map[string]any{"target": "*", "timeouts": map[string]any{"idle": "0s"}}), `spec.targetSettings[0].timeouts.idle: Invalid value: "0s": use a time from 1ms to 24h, for example 10s`},
		{"a time-out without end", settings(map[string]any{"target": "*", "timeouts": map[string]any{"total": "24h1s"}}), `spec.targetSettings[0].timeouts.total: Invalid value: "24h1s": use a time from 1ms to 24h, for example 10s`},
		{"a limit below zero", settings(map[string]any{"target": "*", "maxConcurrent": -1}), "spec.targetSettings[0].maxConcurrent: Invalid value"},
		{"a rate without number", settings(map[string]any{"target": "*", "rateLimit": map[string]any{"per": "1s"}}), "spec.targetSettings[0].rateLimit.requests: Required value"},
		{"a breaker without pause", settings(map[string]any{"target": "*", "circuitBreaker": map[string]any{"failures": 3}}), "spec.targetSettings[0].circuitBreaker.pause: Required value"},
		{"an unknown style of OAuth", settings(map[string]any{"target": "*", "oauth": map[string]any{"clientAuthentication": "Query"}}), `spec.targetSettings[0].oauth.clientAuthentication: Unsupported value: "Query": supported values: "Body", "Header"`},
		{"two scopes in one", settings(map[string]any{"target": "*", "oauth": map[string]any{"scopes": []any{"a b"}}}), "spec.targetSettings[0].oauth.scopes[0]: Invalid value"},
		{"a secret among the token request's parameters", settings(map[string]any{"target": "*", "oauth": map[string]any{"parameters": map[string]any{"client_secret": "x"}}}), "spec.targetSettings[0].oauth.parameters: Invalid value: parameters: grant_type, client_id and client_secret are set by the gateway"},
		{"an unknown method for the CSRF token", settings(map[string]any{"target": "*", "csrf": map[string]any{"method": "POST"}}), `spec.targetSettings[0].csrf.method: Unsupported value: "POST": supported values: "GET", "HEAD"`},
		{"a header with a space", settings(map[string]any{"target": "*", "headers": map[string]any{"request": map[string]any{"remove": []any{"X Y"}}}}), "spec.targetSettings[0].headers.request.remove[0]: Invalid value"},
		{"a header value of two lines", settings(map[string]any{"target": "*", "headers": map[string]any{"response": map[string]any{"set": []any{map[string]any{"name": "X", "value": "a\nb"}}}}}), "spec.targetSettings[0].headers.response.set[0].value: Invalid value"},
		{"callers that are nobody", settings(map[string]any{"target": "*", "allowedCallers": map[string]any{}}), "spec.targetSettings[0].allowedCallers: Invalid value: allowedCallers: name a namespace or a service account, or leave allowedCallers out to allow everybody"},
		{"a service account without namespace", settings(map[string]any{"target": "*", "allowedCallers": map[string]any{"serviceAccounts": []any{"billing"}}}), "spec.targetSettings[0].allowedCallers.serviceAccounts[0]: Invalid value"},
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

// settings puts items into spec.targetSettings.
func settings(items ...any) func(spec, service, entry map[string]any) {
	return func(spec, _, _ map[string]any) { spec["targetSettings"] = items }
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
