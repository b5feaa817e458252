package chart

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// variant is a way to install the software, by kustomize and by Helm.
type variant struct {
	name          string
	kustomization string // in a folder beside the overlays
	values        string
}

// variants are all that the manifests have, and those of the chart's values that say something else.
var variants = []variant{
	{"compass", "resources: [../overlays/compass, ../istio/fail-closed]", ``},
	{"standalone", "resources: [../overlays/standalone, ../istio/fail-closed]", `agent: {enabled: false}`},
	{"no-istio", "resources: [../overlays/no-istio]", `istio: {enabled: false}`},
	{"gateway-api", with("compass", "components: [../components/gateway-api, ../settings]"), `istio: {gatewayAPI: true}`},
	{"server-certificate", with("standalone", "components: [../components/server-certificate, ../settings]"), `
agent: {enabled: false}
istio: {serverCertificate: {enabled: true, issuer: {name: example}}}`},
	{"agent-cert-manager", with("compass", "components: [../components/agent-cert-manager]"), `agent: {certManager: true}`},
	{"agent-cert-manager-no-istio", "resources: [../overlays/no-istio]\ncomponents: [../components/agent-cert-manager]", `
agent: {certManager: true}
istio: {enabled: false}`},
	{"tracing", with("compass", "components: [../components/tracing]"), `tracing: {endpoint: "http://collector.observability:4318"}`},
	{"tracing-no-istio", "resources: [../overlays/no-istio]\ncomponents: [../components/tracing]", `
istio: {enabled: false}
tracing: {endpoint: "http://collector.observability:4318"}`},
	{"monitoring", "resources: [../overlays/compass, ../istio/fail-closed, ../monitoring, ../monitoring/agent]", `monitoring: {enabled: true}`},
	{"monitoring-standalone", `
resources: [../overlays/standalone, ../istio/fail-closed, ../monitoring]
patches: [{patch: "{$patch: delete, apiVersion: v1, kind: ConfigMap, metadata: {name: application-connector-dashboard-agent, namespace: kyma-system}}"}]`, `
agent: {enabled: false}
monitoring: {enabled: true}`},
	{"onboarding", "resources: [../overlays/compass, ../istio/fail-closed, ../onboarding]", `
onboarding: {enabled: true, directorURL: "https://director.example.com/director/graphql"}`},
	{"onboarding-offboard-monitoring", `
resources: [../overlays/standalone, ../istio/fail-closed, ../onboarding, ../monitoring, ../monitoring/onboarding]
components: [../onboarding/offboard]
patches: [{patch: "{$patch: delete, apiVersion: v1, kind: ConfigMap, metadata: {name: application-connector-dashboard-agent, namespace: kyma-system}}"}]`, `
agent: {enabled: false}
monitoring: {enabled: true}
onboarding: {enabled: true, offboard: true, directorURL: "https://director.example.com/director/graphql"}`},
	{"all", with("compass", "components: [../components/gateway-api, ../components/server-certificate, ../components/agent-cert-manager, ../components/tracing, ../settings]"), `
agent: {certManager: true}
tracing: {endpoint: "http://collector.observability:4318"}
istio: {gatewayAPI: true, serverCertificate: {enabled: true, issuer: {name: example}}}`},
}

// with is an overlay of an edge by Istio, with more.
func with(overlay, more string) string {
	return "resources: [../overlays/" + overlay + ", ../istio/fail-closed]\n" + more
}

// every is what all variants have set, so that images are those of the overlays.
const every = `
domain: kyma.example.com
agent: {image: compass-runtime-agent}
gateway: {image: central-application-gateway}
validator: {image: central-application-connectivity-validator}
onboarding: {image: appconn}
`

// helmsLabels are on what Helm installs, and not on what kustomize does.
var helmsLabels = map[string]string{"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "application-connector-0.1.0"}

func TestHelmInstallsWhatKustomizeDoes(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			got := objects(t, rendered(t, values(t, every, v.values)))
			for key, object := range got {
				labels := object.GetLabels()
				for name, value := range helmsLabels {
					if labels[name] != value {
						t.Errorf("%s has label %s=%q, not %q", key, name, labels[name], value)
					}
					delete(labels, name)
				}
				object.SetLabels(labels)
			}
			if secret := got["v1 Secret istio-system kyma-gateway-certs-cacert"]; secret != nil {
				annotations := secret.GetAnnotations()
				if when := annotations["helm.sh/hook"]; when != "pre-install,pre-upgrade" {
					t.Errorf("the Secret of nobody is made when the hook is %q, and not before all else", when)
				}
				delete(annotations, "helm.sh/hook")
				secret.SetAnnotations(annotations)
			}
			want := objects(t, built(t, v.kustomization))
			if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("objects (-kustomize +helm):\n%s", diff)
			}
			for key, object := range want {
				if got[key] == nil {
					continue
				}
				if diff := cmp.Diff(object.Object, got[key].Object); diff != "" {
					t.Errorf("%s (-kustomize +helm):\n%s", key, diff)
				}
			}
		})
	}
}

// built is what kustomize says.
func built(t *testing.T, kustomization string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "built")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(kustomization), 0o600)); err != nil {
		t.Fatal(err)
	}
	text, err := kubectl(t.Context(), "", "kustomize", folder)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// values are those of several YAML texts, the later ones above.
func values(t *testing.T, texts ...string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, text := range texts {
		var some map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &some); err != nil {
			t.Fatal(err)
		}
		overlay(all, some)
	}
	return all
}

func overlay(all, some map[string]any) {
	for key, value := range some {
		below, isMap := value.(map[string]any)
		if under, isToo := all[key].(map[string]any); isMap && isToo {
			overlay(under, below)
		} else {
			all[key] = value
		}
	}
}

// template is what "helm template" does.
func template(values map[string]any) (string, error) {
	loaded, err := loader.Load(chart)
	if err != nil {
		return "", err
	}
	install := action.NewInstall(action.NewConfiguration())
	if install.KubeVersion, err = common.ParseKubeVersion("v1.30.0"); err != nil {
		return "", err
	}
	install.DryRunStrategy, install.ReleaseName, install.Namespace = action.DryRunClient, "application-connector", system
	made, err := install.Run(loaded, values)
	if err != nil {
		return "", err
	}
	text := made.(*release.Release).Manifest
	for _, hook := range made.(*release.Release).Hooks {
		text += "\n---\n" + hook.Manifest
	}
	return text, nil
}

func rendered(t *testing.T, values map[string]any) string {
	t.Helper()
	text, err := template(values)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// objects are those of a text, by group, kind, namespace and name.
func objects(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	found := map[string]*unstructured.Unstructured{}
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		key := strings.Join([]string{object.GetAPIVersion(), object.GetKind(), object.GetNamespace(), object.GetName()}, " ")
		if found[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		found[key] = object
	}
}
