package controller

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// table reads the first columns of the rows of a table of the reference.
func table(t *testing.T, heading string, columns int) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/reference/appconn-onboard.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	var rows []string
	for line := range strings.Lines(below) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) > columns+1 {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, strings.Join(cells[1:columns+1], " | "))
		}
	}
	if len(rows) < 3 {
		t.Fatalf("there is no table below %q", heading)
	}
	return rows[2:]
}

func TestTheReferenceListsEveryFlagWithItsDefault(t *testing.T) {
	kubectl := pflag.NewFlagSet("", pflag.ContinueOnError)
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil
	config.AddFlags(kubectl)
	var want []string
	NewCommand(genericiooptions.IOStreams{}).Flags().VisitAll(func(f *pflag.Flag) {
		if kubectl.Lookup(f.Name) != nil {
			return
		}
		value := ""
		if f.DefValue != "" {
			value = "`" + f.DefValue + "`"
		}
		want = append(want, fmt.Sprintf("`--%s` | %s | %s", f.Name, value, f.Usage))
	})
	got := table(t, "Flags", 3)
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-program +page):\n%s", diff)
	}
}

func TestTheReferenceListsEveryStateReasonKeyAndLabel(t *testing.T) {
	quoted := func(words ...string) []string {
		var all []string
		for _, w := range words {
			all = append(all, "`"+w+"`")
		}
		slices.Sort(all)
		return all
	}
	var states, reasons, keys []string
	for _, s := range States() {
		states = append(states, string(s))
	}
	for _, r := range Reasons() {
		reasons = append(reasons, string(r))
	}
	text, err := os.ReadFile("failure.go")
	if err != nil {
		t.Fatal(err)
	}
	if declared := regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "`).FindAll(text, -1); len(declared) != len(reasons) {
		t.Errorf("%d reasons are declared, and Reasons gives %d", len(declared), len(reasons))
	}
	all := record{state: Failed, reason: ReasonConnected, message: "m", cluster: "c", runtime: "r", tenant: "t", unverified: true}
	all.expires = all.expires.AddDate(2000, 0, 0)
	all.next = all.expires
	keys = slices.Collect(maps.Keys(all.data()))
	for heading, want := range map[string][]string{"States": states, "Reasons": reasons, "Records": keys} {
		got := table(t, heading, 1)
		slices.Sort(got)
		if diff := cmp.Diff(quoted(want...), got); diff != "" {
			t.Errorf("%s (-program +page):\n%s", heading, diff)
		}
	}
	want := []string{"annotation `" + AnnotationAdopt + "`", "annotation `" + AnnotationCluster + "`", "annotation `" + AnnotationTenant + "`", "finalizer `" + Finalizer + "`", "label `" + LabelName + "`"}
	for from := range RuntimeLabels {
		want = append(want, "label `"+from+"`")
	}
	slices.Sort(want)
	got := table(t, "Labels and annotations of a Secret", 1)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels (-program +page):\n%s", diff)
	}
	for _, row := range table(t, "Labels and annotations of a Secret", 2) {
		for from, to := range RuntimeLabels {
			if strings.HasPrefix(row, "label `"+from+"`") && !strings.Contains(row, "label `"+to+"` of the runtime") {
				t.Errorf("the page does not say that it becomes %s: %s", to, row)
			}
		}
	}
}

func TestTheReferenceListsEveryMetric(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	descriptions := make(chan *prometheus.Desc, 100)
	for _, c := range []prometheus.Collector{m, m.actions, m.failures, m.requests} {
		c.Describe(descriptions)
	}
	close(descriptions)
	form := regexp.MustCompile(`fqName: "([^"]*)".*variableLabels: \{([^}]*)\}`)
	var want []string
	for d := range descriptions {
		found := form.FindStringSubmatch(d.String())
		var labels []string
		for label := range strings.SplitSeq(found[2], ",") {
			if label == "" {
				continue
			}
			labels = append(labels, "`"+label+"`")
		}
		kind := "counter"
		if !strings.HasSuffix(found[1], "_total") {
			kind = "gauge"
		}
		want = append(want, fmt.Sprintf("`%s` | %s | %s", found[1], kind, strings.Join(labels, ", ")))
	}
	got := table(t, "Metrics", 3)
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-program +page):\n%s", diff)
	}
}
