package chart

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/loader"
	"helm.sh/helm/v4/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

const name = "application-connector"

var (
	crds         = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	applications = schema.GroupVersionResource{Group: "applicationconnector.kyma-project.io", Version: "v1alpha1", Resource: "applications"}
	deployments  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	secrets      = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
)

// helm is its configuration for the cluster.
func helm(t *testing.T) *action.Configuration {
	t.Helper()
	path, err := kubetest.Kubeconfig(cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	flags := genericclioptions.NewConfigFlags(false).WithDiscoveryQPS(-1) // an own limit would be 5 requests a second
	flags.KubeConfig, flags.Namespace = ptr.To(path), ptr.To(system)
	flags.WrapConfigFn = func(c *rest.Config) *rest.Config {
		c.QPS = -1
		return c
	}
	configuration := action.NewConfiguration()
	if err := configuration.Init(flags, system, ""); err != nil {
		t.Fatal(err)
	}
	return configuration
}

// install does what "helm install" does; to take over is its --take-ownership with --force-conflicts.
func install(t *testing.T, chart string, takeOver bool, values map[string]any) error {
	t.Helper()
	loaded, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	install := action.NewInstall(helm(t))
	install.ReleaseName, install.Namespace, install.WaitStrategy = name, system, kube.HookOnlyStrategy
	install.TakeOwnership, install.ForceConflicts = takeOver, takeOver
	_, err = install.RunWithContext(t.Context(), loaded, values)
	return err
}

func upgrade(t *testing.T, values map[string]any) error {
	t.Helper()
	loaded, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	upgrade := action.NewUpgrade(helm(t))
	upgrade.Namespace, upgrade.WaitStrategy = system, kube.HookOnlyStrategy
	_, err = upgrade.RunWithContext(t.Context(), name, loaded, values)
	return err
}

func rollback(t *testing.T, revision int) error {
	t.Helper()
	rollback := action.NewRollback(helm(t))
	rollback.Version, rollback.ServerSideApply, rollback.WaitStrategy = revision, "auto", kube.HookOnlyStrategy
	return rollback.Run(name)
}

func uninstall(t *testing.T) error {
	t.Helper()
	uninstall := action.NewUninstall(helm(t))
	uninstall.WaitStrategy, uninstall.IgnoreNotFound = kube.HookOnlyStrategy, true
	_, err := uninstall.Run(name)
	return err
}

// clean takes away what an uninstallation keeps.
func clean(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if err := uninstall(t); err != nil {
			t.Error(err)
		}
		// Before the definitions go, since a namespace ends only when each kind could be listed.
		if _, err := kubectl(context.Background(), "", "delete", "--ignore-not-found", "--wait", "--timeout=2m", "namespace/application-connector-edge"); err != nil {
			t.Error(err)
		}
		err := resources(secrets).Namespace("istio-system").Delete(context.Background(), "kyma-gateway-certs-cacert", metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		// Before the API server lets a definition go it lists what there is of it. If its cache is not ready for that yet, it tries again
		// after longer and longer, up to minutes: so the cache is made ready first.
		if err := listed(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := kubectl(context.Background(), "", "delete", "--ignore-not-found", "--wait", "-f", filepath.Join(manifests, "crds")); err != nil {
			t.Error(err)
		}
	})
}

// listed waits until objects of each of the project's definitions can be listed.
func listed(ctx context.Context) error {
	all, err := resources(crds).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, crd := range all.Items {
		group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
		if !strings.HasSuffix(group, ".kyma-project.io") {
			continue
		}
		plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
		of := resources(schema.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: plural})
		var last error
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
			_, last = of.List(ctx, metav1.ListOptions{})
			return last == nil, nil
		})
		if err != nil {
			return fmt.Errorf("listing %s: %w: %w", crd.GetName(), err, last)
		}
	}
	return nil
}

// TestAReleaseIsUpgradedAndUninstalledWithoutLossOfWhatIsNotItsOwn plays its whole life: installed by an older chart, upgraded,
// uninstalled, installed again.
func TestAReleaseIsUpgradedAndUninstalledWithoutLossOfWhatIsNotItsOwn(t *testing.T) {
	clean(t)
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(old, "templates", "common", "customresourcedefinition.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const has = "    shortNames:\n    - app\n"
	if !strings.Contains(string(text), has) {
		t.Fatalf("%s has not %q", file, has)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), has, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := install(t, old, false, values(t, every)); err != nil {
		t.Fatal(err)
	}
	shortNames := func() string {
		crd, err := resources(crds).Get(t.Context(), "applications.applicationconnector.kyma-project.io", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return field(crd.Object, []string{"spec", "names", "shortNames"})
	}
	if got := shortNames(); got != "" {
		t.Fatalf("the older chart's Application has the short names %s", got)
	}
	authorities := func() string {
		secret, err := resources(secrets).Namespace("istio-system").Get(t.Context(), "kyma-gateway-certs-cacert", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return field(secret.Object, []string{"data", "cacert"})
	}
	if authorities() == "" {
		t.Error("the edge would let in clients of the server certificate's authority")
	}

	// What agents and administrators do meanwhile.
	_, err = resources(secrets).Namespace("istio-system").Apply(t.Context(), "kyma-gateway-certs-cacert", &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "kyma-gateway-certs-cacert"}, "data": map[string]any{"cacert": "b3RoZXJz"},
	}}, metav1.ApplyOptions{FieldManager: "compass-runtime-agent", Force: true})
	if err != nil {
		t.Fatal(err)
	}
	application := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "applicationconnector.kyma-project.io/v1alpha1", "kind": "Application",
		"metadata": map[string]any{"name": "shop"}, "spec": map[string]any{"description": "", "services": []any{}},
	}}
	if _, err := resources(applications).Create(t.Context(), application, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	if err := upgrade(t, values(t, every, `agent: {replicas: 2}`)); err != nil {
		t.Fatal(err)
	}
	agent, err := resources(deployments).Namespace(system).Get(t.Context(), "compass-runtime-agent", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := field(agent.Object, []string{"spec", "replicas"}); got != "2" {
		t.Errorf("after the upgrade there are %s replicas", got)
	}
	if got := shortNames(); got != `["app"]` {
		t.Errorf("after the upgrade Application has the short names %s", got)
	}

	// As --rollback-on-failure does by itself. The first revision is the one that made the Secret.
	if err := rollback(t, 1); err != nil {
		t.Fatal(err)
	}
	if got := shortNames(); got != "" {
		t.Errorf("after the rollback Application has the short names %s", got)
	}
	if got := authorities(); got != `"b3RoZXJz"` {
		t.Errorf("after the rollback the authorities are %s", got)
	}

	if err := uninstall(t); err != nil {
		t.Fatal(err)
	}
	left, err := resources(deployments).Namespace(system).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(left.Items) > 0 {
		t.Errorf("%d Deployments are left", len(left.Items))
	}
	if err := install(t, chart, false, values(t, every)); err != nil {
		t.Fatalf("installing it again: %v", err)
	}
	if _, err := resources(applications).Get(t.Context(), "shop", metav1.GetOptions{}); err != nil {
		t.Errorf("the Application: %v", err)
	}
	if got := authorities(); got != `"b3RoZXJz"` {
		t.Errorf("the authorities are now %s", got)
	}
}

func TestWhatKustomizeInstalledIsTakenOverOnlyIfThatIsAskedFor(t *testing.T) {
	clean(t)
	if _, err := kubectl(t.Context(), built(t, variants[0].kustomization), "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	err := install(t, chart, false, values(t, every))
	if err == nil || !strings.Contains(err.Error(), "invalid ownership metadata") {
		t.Errorf("without asking: %v", err)
	}
	if err := install(t, chart, true, values(t, every)); err != nil {
		t.Errorf("asking: %v", err)
	}
}

func TestEveryVariantIsInstalled(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			clean(t)
			if err := install(t, chart, false, values(t, every, v.values)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestTheAPIServerTakesWhatAnAdministratorAddsToPods has the page's own example, and variables that the chart has too: an API server
// refuses two of one name. Upgrading by the values of before keeps them.
func TestTheAPIServerTakesWhatAnAdministratorAddsToPods(t *testing.T) {
	clean(t)
	page, err := os.ReadFile("../../docs/reference/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(page), "```yaml\n")
	if example, _, _ = strings.Cut(example, "```"); !found {
		t.Fatal("the page has no example")
	}
	const added = `
nodeSelector: {disk: ssd}
tolerations: [{operator: Exists}]
affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}
podLabels: {team: shop}
podAnnotations: {example.com/a: b}
extraVolumes: [{name: more, emptyDir: {}}]
extraVolumeMounts: [{name: more, mountPath: /more}]
extraEnv: [{name: GOMEMLIMIT, value: 100MiB}, {name: MORE, value: m}]
`
	given := values(t, every, example)
	for _, component := range []string{"gateway", "validator"} {
		overlay(given[component].(map[string]any), values(t, added))
	}
	given["agent"].(map[string]any)["extraEnv"] = append(given["agent"].(map[string]any)["extraEnv"].([]any), map[string]any{"name": "APP_LOG_LEVEL", "value": "debug"})
	if err := install(t, chart, false, given); err != nil {
		t.Fatal(err)
	}
	variables := func() map[string]string {
		got := map[string]string{}
		for _, name := range []string{"compass-runtime-agent", "central-application-gateway", "central-application-connectivity-validator"} {
			d, err := resources(deployments).Namespace(system).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			containers, _, _ := unstructured.NestedSlice(d.Object, "spec", "template", "spec", "containers")
			for _, variable := range containers[0].(map[string]any)["env"].([]any) {
				v := variable.(map[string]any)
				if value, is := v["value"].(string); is {
					got[name+" "+v["name"].(string)] += value
				}
			}
		}
		return got
	}
	before := variables()
	for name, want := range map[string]string{
		"compass-runtime-agent APP_LOG_LEVEL":                       "debug",
		"compass-runtime-agent APP_COMPASS_CA_FILE":                 "/etc/compass/ca.crt",
		"compass-runtime-agent APP_LOG_FORMAT":                      "json",
		"central-application-gateway GOMEMLIMIT":                    "100MiB",
		"central-application-connectivity-validator GOMEMLIMIT":     "100MiB",
		"central-application-connectivity-validator MORE":           "m",
		"central-application-connectivity-validator APP_LOG_FORMAT": "json",
	} {
		if before[name] != want {
			t.Errorf("%s is %q, not %q", name, before[name], want)
		}
	}
	loaded, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	for _, reuse := range []func(*action.Upgrade){
		func(u *action.Upgrade) { u.ReuseValues = true },
		func(u *action.Upgrade) { u.ResetThenReuseValues = true },
	} {
		upgrade := action.NewUpgrade(helm(t))
		upgrade.Namespace, upgrade.WaitStrategy = system, kube.HookOnlyStrategy
		reuse(upgrade)
		if _, err := upgrade.RunWithContext(t.Context(), name, loaded, map[string]any{"image": map[string]any{"pullPolicy": "Always"}}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, variables()); diff != "" {
			t.Errorf("after an upgrade by the values of before (-before +after):\n%s", diff)
		}
	}
}

// TestTheEdgesNamespaceStaysWithWhatSomebodyElseRunsThere is for the edge of clusters without Istio, which is no part of the chart.
func TestTheEdgesNamespaceStaysWithWhatSomebodyElseRunsThere(t *testing.T) {
	clean(t)
	noIstio := values(t, every, `istio: {enabled: false}`)
	if err := install(t, chart, false, noIstio); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl(t.Context(), "", "-n", "application-connector-edge", "create", "configmap", "haproxy", "--from-literal=haproxy.cfg=of-the-edge"); err != nil {
		t.Fatal(err)
	}
	if err := uninstall(t); err != nil {
		t.Fatal(err)
	}
	phase, err := kubectl(t.Context(), "", "get", "namespace", "application-connector-edge", "-o", "jsonpath={.status.phase}")
	if err != nil || phase != "Active" {
		t.Errorf("the edge's namespace is %q after the chart was uninstalled: %v", phase, err)
	}
	if err := install(t, chart, false, noIstio); err != nil {
		t.Errorf("installing it again: %v", err)
	}
	if _, err := kubectl(t.Context(), "", "-n", "application-connector-edge", "get", "configmap", "haproxy"); err != nil {
		t.Error(err)
	}
}
