package resources

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// file is where the results are kept, below the folder of benchmarks.
const file = "resources.json"

// margin is how far a memory limit is above the most that was ever measured: what a Pod's processes and sockets take in the kernel
// is not measured, and another machine's garbage collector may be late.
const margin = 1.25

// What a load is for.
const (
	// request: what a Pod of this kind is meant to carry. It asks for that much.
	request = "request"
	// limit: the most that may be asked of a Pod, as fast as the machine allows. Its limit holds it.
	limit = "limit"
)

// report is what stands in bench/resources.json.
type report struct {
	What    string `json:"what"`
	Machine string `json:"machine"`
	// Load is the load average of a minute before the first measurement.
	Load    string   `json:"loadAverage"`
	Results []result `json:"results"`
}

// result is what one program took under one load.
type result struct {
	Program string `json:"program"`
	Load    string `json:"load"`
	// For is request, limit, or empty for what is only of interest.
	For string `json:"for,omitempty"`
	// PerSecond is how many calls or events there were a second, all of them answered well.
	PerSecond float64 `json:"perSecond,omitempty"`
	Seconds   float64 `json:"seconds"`
	// Cores is the processor time by the time that passed.
	Cores float64 `json:"cores"`
	// PeakMiB is the most memory that the process had resident, its program included.
	PeakMiB float64 `json:"peakMiB"`
}

// workload is what the manifests say of a program.
type workload struct {
	container corev1.Container
	scaler    *autoscalingv2.HorizontalPodAutoscaler // nil if there is none
}

// programs that are measured: each one's folder in manifests/base.
var programs = []string{"agent", "gateway", "validator"}

func readWorkload(tb testing.TB, folder string) (w workload) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "manifests", "base", folder, "workload.yaml"))
	must(tb, err)
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var o unstructured.Unstructured
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		must(tb, err)
		switch o.GetKind() {
		case "Deployment":
			var deployment appsv1.Deployment
			must(tb, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &deployment))
			w.container = deployment.Spec.Template.Spec.Containers[0]
		case "HorizontalPodAutoscaler":
			w.scaler = &autoscalingv2.HorizontalPodAutoscaler{}
			must(tb, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, w.scaler))
		}
	}
	if w.container.Name == "" {
		tb.Fatalf("manifests/base/%s has no Deployment", folder)
	}
	return w
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// measured reads one of the files in bench.
func measured(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "bench", name))
	must(t, err)
	must(t, json.Unmarshal(text, into))
}

const mebibyte = 1 << 20

func TestTheManifestsAskForWhatWasMeasuredAndTheirLimitsHoldTheMost(t *testing.T) {
	var r report
	measured(t, file, &r)
	// What other benchmarks saw of the same programs counts as well.
	var others struct {
		Gateway struct {
			Results []struct{ GatewayPeakMiB float64 }
		}
		Sync struct{ Results []struct{ PeakMiB float64 } }
	}
	measured(t, "gateway.json", &others.Gateway)
	measured(t, "sync.json", &others.Sync)
	most := map[string]float64{}
	for _, o := range others.Gateway.Results {
		most["gateway"] = max(most["gateway"], o.GatewayPeakMiB)
	}
	for _, o := range others.Sync.Results {
		most["agent"] = max(most["agent"], o.PeakMiB)
	}
	for _, name := range programs {
		w := readWorkload(t, name)
		requests, limits := w.container.Resources.Requests, w.container.Resources.Limits
		seen := map[string]int{}
		for _, m := range r.Results {
			if m.Program != name {
				continue
			}
			seen[m.For]++
			most[name] = max(most[name], m.PeakMiB)
			if m.For != request {
				continue
			}
			if asked := requests.Cpu().AsApproximateFloat64(); asked < m.Cores {
				t.Errorf("%s asks for %v cores, and took %v for %s", name, asked, m.Cores, m.Load)
			} else if w.scaler != nil {
				// What one Pod is meant to carry is no reason for one more.
				if at := asked * float64(*w.scaler.Spec.Metrics[0].Resource.Target.AverageUtilization) / 100; at < m.Cores {
					t.Errorf("%s is given another Pod at %v cores, and took %v for %s", name, at, m.Cores, m.Load)
				}
			}
			if asked := requests.Memory().AsApproximateFloat64() / mebibyte; asked < m.PeakMiB {
				t.Errorf("%s asks for %v MiB, and took %v for %s", name, asked, m.PeakMiB, m.Load)
			}
		}
		if seen[request] == 0 || seen[limit] == 0 {
			t.Errorf("of %s there are %d results for its request and %d for its limit", name, seen[request], seen[limit])
		}
		if held := limits.Memory().AsApproximateFloat64() / mebibyte; held < margin*most[name] {
			t.Errorf("the limit of %s is %v MiB, and should be %v times the most that was measured, %v MiB", name, held, margin, most[name])
		}
	}
}

// TestTheGarbageCollectorKnowsTheLimit: Go's own bound is a little below the Pod's, whatever that is set to.
func TestTheGarbageCollectorKnowsTheLimit(t *testing.T) {
	for _, name := range programs {
		w := readWorkload(t, name)
		held := w.container.Resources.Limits.Memory().Value()
		bound := memoryBound(t, w)
		if bound < held*9/10 || bound > held*97/100 {
			t.Errorf("%s: GOMEMLIMIT is %d bytes, and the limit %d", name, bound, held)
		}
	}
}

func TestThePageSaysWhatWasMeasured(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "scaling.md"))
	must(t, err)
	var r report
	measured(t, file, &r)
	for _, want := range r.rows() {
		if !strings.Contains(string(page), "\n"+want+"\n") {
			t.Errorf("docs/scaling.md lacks the line %q", want)
		}
	}
	if rows := slices.Compact(strings.Split(string(page), "\n| `")); len(r.rows()) == 0 || len(rows)-1 != len(r.rows()) {
		t.Errorf("docs/scaling.md has %d measured lines, and there are %d results", len(rows)-1, len(r.rows()))
	}
	want := fmt.Sprintf("a gateway is given company at about %d calls a second, a validator at about %d events", r.company(t, "gateway"), r.company(t, "validator"))
	if !strings.Contains(strings.Join(strings.Fields(string(page)), " "), want) {
		t.Errorf("docs/scaling.md does not say that %s", want)
	}
}

// company is how many requests a second a program has when it is given another Pod, in tens, by what it takes for those of its request.
func (r report) company(t *testing.T, name string) int {
	t.Helper()
	w := readWorkload(t, name)
	at := w.container.Resources.Requests.Cpu().AsApproximateFloat64() * float64(*w.scaler.Spec.Metrics[0].Resource.Target.AverageUtilization) / 100
	for _, m := range r.Results {
		if m.Program == name && m.For == request {
			return int(at/(m.Cores/m.PerSecond)/10) * 10
		}
	}
	t.Fatalf("no result for the request of %s", name)
	return 0
}

// rows are the lines of the page's table.
func (r report) rows() []string {
	var rows []string
	for _, m := range r.Results {
		pace := ""
		if m.PerSecond > 0 {
			pace = fmt.Sprintf("%.0f", m.PerSecond)
		}
		why := m.For
		rows = append(rows, strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | %s | %.0fm | %.0f MiB | %s |", m.Program, m.Load, pace, 1000*m.Cores, m.PeakMiB, why), "|  |", "| |"))
	}
	return rows
}
