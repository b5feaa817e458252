package chart

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

// before is what clusters with the module in use today have.
const before = "../upgrade/testdata/"

var block = regexp.MustCompile("(?ms)^ *```\n(.*?)^ *```$")

// TestTheModuleInUseTodayIsTakenOverByTheChartAndPutBackWithoutLoss does what docs/upgrade.md says of the chart. That agent and
// gateway go on with what they find is e2e/upgrade's to show.
func TestTheModuleInUseTodayIsTakenOverByTheChartAndPutBackWithoutLoss(t *testing.T) {
	clean(t)
	page, err := os.ReadFile("../../docs/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := func(section string) (all []string) {
		_, text, _ := strings.Cut(string(page), "\n## "+section+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			all = append(all, b[1])
		}
		return all
	}
	up := commands("Upgrade")
	if len(up) != 7 || !strings.Contains(up[4], "-k manifests/crds\n") {
		t.Fatalf("docs/upgrade.md has other steps than this test knows: %q", up)
	}
	operate := func() {
		t.Helper()
		for _, file := range []string{"definitions.yaml", "installed.yaml"} {
			if _, err := kubectl(t.Context(), "", "apply", "--server-side", "--force-conflicts", "--field-manager=application-connector-manager", "-f", before+file); err != nil {
				t.Fatal(err)
			}
			if _, err := kubectl(t.Context(), "", "wait", "--for=condition=Established", "--timeout=1m", "crd", "--all"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := kubectl(t.Context(), "", "apply", "--server-side", "-f", before+"operator.yaml"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		shell(t, up[2]) // nobody is here who would do what the finalizers wait for
		if _, err := kubectl(context.Background(), "", "delete", "--ignore-not-found", "-f", before+"installed.yaml", "-f", before+"operator.yaml", "-f", before+"definitions.yaml"); err != nil {
			t.Error(err)
		}
		if _, err := kubectl(context.Background(), "", "-n", system, "delete", "--ignore-not-found", "secrets", "mp-shop-1", "cluster-client-certificates"); err != nil {
			t.Error(err)
		}
	})
	operate()
	if _, err := kubectl(t.Context(), `
{apiVersion: v1, kind: Secret, metadata: {namespace: kyma-system, name: cluster-client-certificates}, stringData: {crt: c, key: k, crtChain: c}}
---
{apiVersion: v1, kind: Secret, metadata: {namespace: kyma-system, name: mp-shop-1, labels: {app: mp-shop, bundleId: "1"}}, stringData: {username: u, password: p}}
---
{apiVersion: v1, kind: Secret, metadata: {namespace: istio-system, name: kyma-gateway-certs-cacert}, stringData: {cacert: a}}
---
{apiVersion: applicationconnector.kyma-project.io/v1alpha1, kind: Application, metadata: {name: mp-shop}, spec: {description: d, skipVerify: true, services: []}}
---
{apiVersion: compass.kyma-project.io/v1alpha1, kind: CompassConnection, metadata: {name: compass-connection}, spec: {managementInfo: {connectorUrl: "https://c", directorUrl: "https://d"}}}
`, "create", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	kept := func() map[string]any {
		return seen(t, true, "secrets/cluster-client-certificates", "secrets/mp-shop-1", "applications.applicationconnector.kyma-project.io/mp-shop", "compassconnections.compass.kyma-project.io/compass-connection", "crd/applications.applicationconnector.kyma-project.io", "crd/compassconnections.compass.kyma-project.io")
	}
	data, installed := kept(), seen(t, false, "-f", before+"installed.yaml")

	for _, commands := range up[1:4] { // the operator and its finalizers, and the agent
		shell(t, commands)
	}
	definitions, _, _ := strings.Cut(up[4], "kubectl apply --server-side --force-conflicts --field-manager=application-connector-manager -k manifests/overlays/")
	shell(t, definitions)
	if err := install(t, chart, true, values(t, every)); err != nil {
		t.Fatal(err)
	}
	shell(t, up[5]) // what nothing needs any more
	if diff := cmp.Diff(data, kept()); diff != "" {
		t.Errorf("what must be kept, before (-) and after the upgrade (+):\n%s", diff)
	}
	for _, name := range []string{"central-application-gateway", "central-application-connectivity-validator", "compass-runtime-agent"} {
		var deployment unstructured.Unstructured
		get(t, &deployment.Object, "-n", system, "deployment/"+name)
		if image := field(deployment.Object, []string{"spec", "template", "spec", "containers", "0", "image"}); strings.Contains(image, "/prod/") || image == "" {
			t.Errorf("after the upgrade %s has the image %s", name, image)
		}
	}
	var route unstructured.Unstructured
	get(t, &route.Object, "-n", system, "virtualservices.networking.istio.io/central-application-connectivity-validator")
	if text := field(route.Object, []string{"spec", "http"}); strings.Contains(text, "metadata") || len(route.GetFinalizers()) > 0 {
		t.Errorf("after the upgrade the operator's VirtualService is still there: %s, %v", text, route.GetFinalizers())
	}

	// The way back.
	if err := uninstall(t); err != nil {
		t.Fatal(err)
	}
	operate()
	if diff := cmp.Diff(data, kept()); diff != "" {
		t.Errorf("what must be kept, before (-) and after the way back (+):\n%s", diff)
	}
	if diff := cmp.Diff(installed, seen(t, false, "-f", before+"installed.yaml")); diff != "" {
		t.Errorf("what the operator put in place, before (-) and after the way back (+):\n%s", diff)
	}
	for key := range objects(t, rendered(t, values(t, every))) {
		parts := strings.SplitN(key, " ", 4)
		kind, name := parts[1], parts[3]
		if installed[kind+" "+name] != nil || kind == "CustomResourceDefinition" || name == "kyma-gateway-certs-cacert" {
			continue
		}
		resource := kind
		if group, version, grouped := strings.Cut(parts[0], "/"); grouped {
			resource += "." + version + "." + group
		}
		args := []string{"get", "--ignore-not-found", "-o", "name", resource + "/" + name}
		if parts[2] != "" {
			args = append(args, "-n", parts[2])
		}
		if out, err := kubectl(t.Context(), "", args...); err != nil || out != "" {
			t.Errorf("after the way back there is %s %v", out, err)
		}
	}
	// And once more.
	shell(t, up[2])
	if err := install(t, chart, true, values(t, every)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(data, kept()); diff != "" {
		t.Errorf("what must be kept, before (-) and after the second upgrade (+):\n%s", diff)
	}
}

// TestTheCommandsOfTheInstallationPageInstallAndUninstall runs them as they stand, in a cluster with the namespaces, with the images that
// the page names.
func TestTheCommandsOfTheInstallationPageInstallAndUninstall(t *testing.T) {
	clean(t)
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(title string) string {
		_, text, found := strings.Cut(string(text), "\n## "+title+"\n")
		if text, _, _ = strings.Cut(text, "\n## "); !found {
			t.Fatalf("docs/install.md has no section %s", title)
		}
		return text
	}
	checkout := t.TempDir()
	if err := os.CopyFS(filepath.Join(checkout, "manifests"), os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	_, steps, found := strings.Cut(section("By kustomize"), "   ```yaml\n")
	images, steps, closed := strings.Cut(steps, "   ```\n")
	if !found || !closed {
		t.Fatal("the page does not say how to name images")
	}
	file, err := os.OpenFile(filepath.Join(checkout, "manifests/overlays/compass/kustomization.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(images) {
		if _, err := file.WriteString(strings.TrimPrefix(line, "   ")); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, b := range block.FindAllStringSubmatch(steps, -1) {
		commands = append(commands, b[1])
	}
	if len(commands) != 2 {
		t.Fatalf("docs/install.md has other steps than this test knows: %q", commands)
	}
	rest, made := strings.CutPrefix(strings.TrimSpace(commands[1]), "kubectl create namespace "+system+"\n")
	if !made {
		t.Errorf("the namespace is not made: %s", commands[1])
	}
	shellIn(t, checkout, commands[0])
	shellIn(t, checkout, rest)
	for _, name := range []string{"central-application-gateway", "central-application-connectivity-validator", "compass-runtime-agent"} {
		var deployment unstructured.Unstructured
		get(t, &deployment.Object, "-n", system, "deployment/"+name)
		containers, _, _ := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
		if got, want := containers[0].(map[string]any)["image"], "registry.example.com/"+name+":0.1.0"; got != want {
			t.Errorf("%s has image %v, not %s", name, got, want)
		}
	}
	for _, b := range block.FindAllStringSubmatch(section("Uninstalling"), -1) {
		shellIn(t, checkout, b[1])
	}
	out, err := kubectl(t.Context(), "", "get", "--all-namespaces", "-o", "name", "-l", "kyma-project.io/module=application-connector",
		"deployments,services,networkpolicies,roles,clusterroles,validatingadmissionpolicies,customresourcedefinitions,gateways.networking.istio.io")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(out) {
		if !strings.HasPrefix(name, "customresourcedefinition") {
			t.Errorf("%s is left", name)
		}
	}
	if !strings.Contains(out, "applications.applicationconnector.kyma-project.io") {
		t.Errorf("the resource definitions are gone; there are %q", out)
	}
}

// shell runs commands of a page where an administrator would.
func shell(t *testing.T, commands string) {
	t.Helper()
	shellIn(t, "../..", commands)
}

func shellIn(t *testing.T, folder, commands string) {
	t.Helper()
	dir := t.TempDir()
	config, err := kubetest.Kubeconfig(cluster, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.Getenv("KUBECTL"), filepath.Join(dir, "kubectl")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "KUBECONFIG="+config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", commands, err, out)
	}
}

func get(t *testing.T, into any, args ...string) {
	t.Helper()
	text, err := kubectl(t.Context(), "", append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// seen are objects by kind and name: of those that must be kept which ones they are and what data they have, and of others all but
// what differs from one time to the next.
func seen(t *testing.T, keep bool, args ...string) map[string]any {
	t.Helper()
	all := map[string]any{}
	add := func(o unstructured.Unstructured) {
		key := o.GetKind() + " " + o.GetName()
		if keep {
			all[key] = []any{string(o.GetUID()), o.Object["data"]}
			if o.GetKind() == "Application" {
				all[key] = []any{string(o.GetUID()), o.Object["spec"]}
			}
			return
		}
		for _, path := range [][]string{
			{"status"}, {"metadata", "uid"}, {"metadata", "resourceVersion"}, {"metadata", "generation"}, {"metadata", "creationTimestamp"}, {"metadata", "managedFields"},
			{"spec", "clusterIP"}, {"spec", "clusterIPs"},
		} {
			unstructured.RemoveNestedField(o.Object, path...)
		}
		all[key] = o.Object
	}
	if keep {
		for _, arg := range args {
			var o unstructured.Unstructured
			get(t, &o.Object, "-n", system, arg)
			add(o)
		}
		return all
	}
	var list struct{ Items []map[string]any }
	get(t, &list, args...)
	for _, o := range list.Items {
		add(unstructured.Unstructured{Object: o})
	}
	return all
}
