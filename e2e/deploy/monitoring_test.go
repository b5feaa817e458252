package deploy

import (
	"context"
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// operator installs the Prometheus Operator's resource definitions, generated from its API types, by which its own are.
func operator(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	generate := exec.CommandContext(t.Context(), "go", "tool", "controller-gen", "crd",
		"paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1", "output:crd:dir="+dir)
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	apply := []string{"apply", "--server-side", "--validate=strict"}
	var files []string
	for _, resource := range []string{"podmonitors", "prometheusrules"} {
		files = append(files, "-f", filepath.Join(dir, "monitoring.coreos.com_"+resource+".yaml"))
	}
	if _, err := kubectl(t.Context(), "", append(apply, files...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := kubectl(context.Background(), "", append([]string{"delete"}, files...)...); err != nil {
			t.Error(err)
		}
	})
	wait := []string{"wait", "--for=condition=Established", "--timeout=2m"}
	if _, err := kubectl(t.Context(), "", append(wait, files...)...); err != nil {
		t.Fatal(err)
	}
}

func TestWhatPrometheusAndDashboardsNeedIsAcceptedAndFits(t *testing.T) {
	operator(t)
	install(t, "compass")
	apply(t, renderedOnboarding(t, "")) // whose namespace is its own
	folders := []string{manifests(t, "monitoring"), manifests(t, filepath.Join("monitoring", "agent")), manifests(t, filepath.Join("monitoring", "onboarding")), manifests(t, "busola")}
	t.Cleanup(func() {
		for _, folder := range folders {
			if _, err := kubectl(context.Background(), "", "delete", "-k", folder); err != nil {
				t.Error(err)
			}
		}
	})
	for _, folder := range folders {
		if _, err := kubectl(t.Context(), "", "apply", "--server-side", "--field-manager=administrator", "--validate=strict", "-k", folder); err != nil {
			t.Fatalf("%s: %v", folder, err)
		}
	}
	if err := monitoringv1.AddToScheme(kube.Scheme()); err != nil {
		t.Fatal(err)
	}
	names := []string{validatorName, gatewayName, agentName}

	var rules monitoringv1.PrometheusRuleList
	if err := kube.List(t.Context(), &rules, client.InNamespace(system)); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, r := range rules.Items {
		found = append(found, r.Name)
	}
	slices.Sort(found)
	if diff := cmp.Diff(names, found); diff != "" {
		t.Errorf("PrometheusRules (-want +got):\n%s", diff)
	}

	var policy networkingv1.NetworkPolicy
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "kyma-project.io--acm-module-allow-metrics"}, &policy); err != nil {
		t.Fatal(err)
	}
	var open []int32
	for _, p := range policy.Spec.Ingress[0].Ports {
		open = append(open, p.Port.IntVal)
	}
	var monitors monitoringv1.PodMonitorList
	if err := kube.List(t.Context(), &monitors, client.InNamespace(system)); err != nil {
		t.Fatal(err)
	}
	all := objects(t, "compass")
	found = nil
	for _, m := range monitors.Items {
		found = append(found, m.Name)
		selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if matches := selector.Matches(labels.Set(deployment(t, all, name).Spec.Template.Labels)); matches != (name == m.Name) {
				t.Errorf("PodMonitor %s matches Pods of %s: %v", m.Name, name, matches)
			}
		}
		for _, endpoint := range m.Spec.PodMetricsEndpoints {
			ports := deployment(t, all, m.Name).Spec.Template.Spec.Containers[0].Ports
			at := slices.IndexFunc(ports, func(p corev1.ContainerPort) bool { return p.Name == *endpoint.Port })
			if at < 0 || !slices.Contains(open, ports[at].ContainerPort) {
				t.Errorf("PodMonitor %s: its port %s is not among those of the Pods, %v, that Prometheus may reach, %v", m.Name, *endpoint.Port, ports, open)
			}
		}
	}
	slices.Sort(found)
	if diff := cmp.Diff(names, found); diff != "" {
		t.Errorf("PodMonitors (-want +got):\n%s", diff)
	}

	var ofOnboarding monitoringv1.PodMonitor
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: onboarding, Name: onboarding}, &ofOnboarding); err != nil {
		t.Fatal(err)
	}
	controller := deployment(t, parsed(t, renderedOnboarding(t, "")), onboarding).Spec.Template
	selector, err := metav1.LabelSelectorAsSelector(&ofOnboarding.Spec.Selector)
	if err != nil || !selector.Matches(labels.Set(controller.Labels)) {
		t.Errorf("PodMonitor %s does not match its Pods: %v", onboarding, err)
	}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: onboarding, Name: onboarding + "-from-probes-and-prometheus"}, &policy); err != nil {
		t.Fatal(err)
	}
	ports, reached := controller.Spec.Containers[0].Ports, policy.Spec.Ingress[1].Ports[0].Port.IntVal
	if !slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool {
		return p.Name == *ofOnboarding.Spec.PodMetricsEndpoints[0].Port && p.ContainerPort == reached
	}) {
		t.Errorf("PodMonitor %s: its port is not %d, which Prometheus may reach, of %v", onboarding, reached, ports)
	}

	var dashboards corev1.ConfigMapList
	if err := kube.List(t.Context(), &dashboards, client.InNamespace(system), client.MatchingLabels{"grafana_dashboard": "1"}); err != nil {
		t.Fatal(err)
	}
	shipped := map[string]bool{}
	for _, d := range dashboards.Items {
		for name, text := range d.Data {
			if !json.Valid([]byte(text)) {
				t.Errorf("%s of ConfigMap %s is no JSON", name, d.Name)
			}
			shipped[name] = true
		}
	}
	written, err := filepath.Glob(filepath.Join(manifests(t, "monitoring"), "dashboards", "*.json"))
	if err != nil || len(written) == 0 {
		t.Fatalf("%v: %v", written, err)
	}
	for _, path := range written {
		if !shipped[filepath.Base(path)] {
			t.Errorf("no ConfigMap holds %s", path)
		}
	}
	if len(shipped) != len(written) {
		t.Errorf("%d dashboards are written and %d shipped", len(written), len(shipped))
	}

	var extensions corev1.ConfigMapList
	if err := kube.List(t.Context(), &extensions, client.InNamespace("kube-public"), client.MatchingLabels{"busola.io/extension": "resource", "busola.io/extension-version": "0.5"}); err != nil {
		t.Fatal(err)
	}
	parts := map[string][]string{}
	for _, e := range extensions.Items {
		parts[e.Name] = slices.Sorted(maps.Keys(e.Data))
	}
	want := []string{"details", "general", "list"}
	if diff := cmp.Diff(map[string][]string{"application-connector-busola-application": want, "application-connector-busola-compassconnection": want}, parts); diff != "" {
		t.Errorf("extensions of Busola (-want +got):\n%s", diff)
	}
}
