package scaling

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
)

// part is what the manifests say of one component.
type part struct {
	deployment appsv1.Deployment
	scaler     *autoscalingv2.HorizontalPodAutoscaler
	budget     *policyv1.PodDisruptionBudget
}

func readPart(t *testing.T, folder string) (p part) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "manifests", "base", folder, "workload.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := yaml.NewYAMLOrJSONDecoder(f, 4096); ; {
		var o unstructured.Unstructured
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			t.Fatal(err)
		}
		var into any
		switch o.GetKind() {
		case "Deployment":
			into = &p.deployment
		case "HorizontalPodAutoscaler":
			p.scaler = &autoscalingv2.HorizontalPodAutoscaler{}
			into = p.scaler
		case "PodDisruptionBudget":
			p.budget = &policyv1.PodDisruptionBudget{}
			into = p.budget
		default:
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
			t.Fatal(err)
		}
	}
}

func TestThePageSaysWhatTheManifestsSay(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "scaling.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for _, folder := range []string{"agent", "gateway", "validator"} {
		p := readPart(t, folder)
		pod := p.deployment.Spec.Template.Spec
		container := pod.Containers[0]
		replicas, away, delay := fmt.Sprint(ptr.Deref(p.deployment.Spec.Replicas, 0)), "any", ""
		if p.scaler != nil {
			replicas = fmt.Sprintf("%d to %d, at %d %% of the CPU asked for", *p.scaler.Spec.MinReplicas, p.scaler.Spec.MaxReplicas, *p.scaler.Spec.Metrics[0].Resource.Target.AverageUtilization)
		}
		if p.budget != nil {
			away = p.budget.Spec.MaxUnavailable.String() + " at most"
		}
		for _, argument := range container.Args {
			if value, found := strings.CutPrefix(argument, "--drainDelay="); found {
				delay = value
			}
		}
		var spread []string
		for _, c := range pod.TopologySpreadConstraints {
			spread = append(spread, map[string]string{"kubernetes.io/hostname": "nodes", "topology.kubernetes.io/zone": "zones"}[c.TopologyKey])
		}
		asked, most := container.Resources.Requests, container.Resources.Limits
		for row, value := range map[string]string{
			"replicas": replicas, "taken away at once by a drain of nodes": away, "serves on, not ready, after it is asked to end": delay,
			"ended at the latest after": fmt.Sprintf("%d s", *pod.TerminationGracePeriodSeconds), "spread over": strings.Join(spread, ", "),
			"CPU and memory asked for": asked.Cpu().String() + ", " + asked.Memory().String(),
			"CPU and memory at most":   most.Cpu().String() + ", " + most.Memory().String(),
		} {
			rows[row] = append(rows[row], value)
		}
	}
	for row, values := range rows {
		line := "| " + row + " |"
		for _, value := range values {
			line += strings.TrimRight(" "+value, " ") + " |"
		}
		if !strings.Contains(string(page), "\n"+line+"\n") {
			t.Errorf("docs/scaling.md lacks the line %q", line)
		}
	}
}
