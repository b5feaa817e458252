package chart

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yannh/kubeconform/pkg/validator"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi"
)

// TestEveryManifestFitsTheSchemasOfTheAPIServer is for what kustomize and Helm give in each variant, and for the examples of the
// documentation.
func TestEveryManifestFitsTheSchemasOfTheAPIServer(t *testing.T) {
	clean(t)
	if _, err := kubectl(t.Context(), "", "apply", "--server-side", "-f", filepath.Join(manifests, "crds")); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl(t.Context(), "", "wait", "--for=condition=Established", "--timeout=2m", "-f", filepath.Join(manifests, "crds")); err != nil {
		t.Fatal(err)
	}
	check := conformity(t)
	texts := map[string]string{}
	for _, v := range variants {
		texts[v.name+" by kustomize"] = built(t, v.kustomization)
		texts[v.name+" by Helm"] = rendered(t, values(t, every, v.values))
	}
	examples, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(examples) == 0 {
		t.Error("there are no examples")
	}
	for _, file := range examples {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(text)
	}
	for name, text := range texts {
		valid := 0
		for _, r := range check.Validate(name, io.NopCloser(strings.NewReader(text))) {
			switch r.Status {
			case validator.Valid:
				valid++
			case validator.Empty:
			default:
				t.Errorf("%s: %v\n%s", name, r.Err, r.Resource.Bytes)
			}
		}
		if want := len(objects(t, text)); valid != want {
			t.Errorf("%s: %d of %d objects are valid", name, valid, want)
		}
	}

	for text, says := range map[string]string{
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {}, template: {spec: {container: []}}}}":            "'container' not allowed",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {}, template: {}, replicas: \"1\"}}":                "got string, want integer",
		"{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}, spec: {servers: [{hosts: [a], ports: {}}]}}":             "'ports' not allowed",
		"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}, spec: {gatewayClassName: istio, listeners: [{}]}}": "missing properties 'name', 'port', 'protocol'",
		"{apiVersion: applicationconnector.kyma-project.io/v1alpha1, kind: Application, metadata: {name: a}, spec: {services: [{}]}}":      "missing properties",
		"{apiVersion: example.com/v1, kind: Unknown, metadata: {name: a}}":                                                                 "could not find schema for Unknown",
	} {
		for _, r := range check.Validate("wrong", io.NopCloser(strings.NewReader(text))) {
			if r.Status == validator.Valid || r.Err == nil || !strings.Contains(r.Err.Error(), says) {
				t.Errorf("%s\nis judged %v: %v, without %q", text, r.Status, r.Err, says)
			}
		}
	}
}

// conformity is kubeconform with the schemas that the API server publishes, under which unknown fields are wrong.
func conformity(t *testing.T) validator.Validator {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(cluster)
	if err != nil {
		t.Fatal(err)
	}
	var versions map[string]openapi.GroupVersion
	ours := map[string][]string{
		"apis/applicationconnector.kyma-project.io/v1alpha1": {"Application"},
		"apis/compass.kyma-project.io/v1alpha1":              {"CompassConnection", "CompassIssuer", "CompassClusterIssuer"},
	}
	err = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 2*time.Minute, true, func(context.Context) (bool, error) {
		versions, err = client.OpenAPIV3().Paths()
		for path, kinds := range ours {
			if err != nil || versions[path] == nil {
				return false, err
			}
			text, err := versions[path].Schema("application/json")
			if err != nil || slices.ContainsFunc(kinds, func(kind string) bool { return !strings.Contains(string(text), ".v1alpha1."+kind+`"`) }) {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("the API server does not publish the schemas of %v: %v", ours, err)
	}
	dir := t.TempDir()
	for path, version := range versions {
		if strings.HasPrefix(path, "api/") || strings.HasPrefix(path, "apis/") {
			save(t, dir, strings.ReplaceAll(path, "/", "_")+".json", version)
		}
	}
	check, err := validator.New([]string{dir + "/{{ .Group }}/{{ .ResourceKind }}-{{ .ResourceAPIVersion }}.json"}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return check
}

// save writes the schemas of a group and version into one file, and for each kind one that refers to it.
func save(t *testing.T, dir, file string, version openapi.GroupVersion) {
	t.Helper()
	text, err := version.Schema("application/json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Components struct {
			Schemas map[string]map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for name, schema := range document.Components.Schemas {
		strict(schema)
		kinds, _ := schema["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			kind := k.(map[string]any)
			folder := filepath.Join(dir, kind["group"].(string))
			if kind["group"] == "" {
				folder = filepath.Join(dir, kind["version"].(string)) // as kubeconform has it
			}
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			ref := map[string]string{"$ref": "file://" + filepath.Join(dir, file) + "#/components/schemas/" + name}
			write(t, filepath.Join(folder, strings.ToLower(kind["kind"].(string))+"-"+kind["version"].(string)+".json"), ref)
		}
	}
	write(t, filepath.Join(dir, file), document)
}

func write(t *testing.T, path string, content any) {
	t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// strict says in JSON Schema what OpenAPI and the API server mean: null is another type, and fields that are not listed are wrong
// where the server would drop them.
func strict(schema map[string]any) {
	if kind, is := schema["type"].(string); is && schema["nullable"] == true {
		schema["type"] = []string{kind, "null"}
	}
	if properties, is := schema["properties"].(map[string]any); is {
		for _, p := range properties {
			strict(p.(map[string]any))
		}
		if _, open := schema["additionalProperties"]; !open && schema["x-kubernetes-preserve-unknown-fields"] != true {
			if schema["x-kubernetes-embedded-resource"] != true {
				schema["additionalProperties"] = false
			}
		}
	}
	for _, of := range []string{"items", "additionalProperties"} {
		if below, is := schema[of].(map[string]any); is {
			strict(below)
		}
	}
}
