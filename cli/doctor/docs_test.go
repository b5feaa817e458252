package doctor_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/e2e/kubetest"
)

const (
	reference       = "../../docs/reference/appconn-doctor.md"
	troubleshooting = "../../docs/troubleshooting.md"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheReferenceListsEveryFlagAndExitCode(t *testing.T) {
	page := read(t, reference)
	doctor.NewCommand(genericiooptions.NewTestIOStreamsDiscard()).Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(page, "| `--"+f.Name+"`") {
			t.Errorf("the page does not have --%s", f.Name)
		}
	})
	for _, row := range []string{"| 0 |", "| 1 |", "| 2 |"} {
		if !strings.Contains(page, row) {
			t.Errorf("the page does not have %q", row)
		}
	}
}

func TestEverySymptomThatProgramsNameIsInTroubleshooting(t *testing.T) {
	page := read(t, troubleshooting)
	gateway := read(t, "../../docs/reference/gateway.md") // which a test of the gateway compares with the code
	_, table, found := strings.Cut(gateway, "## Error reasons")
	table, _, more := strings.Cut(table, "\n## ")
	reasons := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|").FindAllStringSubmatch(table, -1)
	if !found || !more || len(reasons) < 20 {
		t.Fatalf("only %d reasons in the reference of the gateway", len(reasons))
	}
	words := []string{}
	for _, m := range reasons {
		words = append(words, m[1])
	}
	for _, state := range []compassv1alpha1.ConnectionState{
		compassv1alpha1.ConnectionFailed, compassv1alpha1.ConnectionMaintenanceFailed, compassv1alpha1.SynchronizationFailed,
		compassv1alpha1.ResourceApplicationFailed, compassv1alpha1.MetadataUpdateFailed,
	} {
		words = append(words, string(state))
	}
	for _, word := range words {
		if !strings.Contains(page, "`"+word+"`") {
			t.Errorf("%s is not in %s", word, troubleshooting)
		}
	}
	steps := map[string]bool{}
	for _, name := range doctor.StepNames() {
		steps[name] = true
	}
	for _, m := range regexp.MustCompile("[Dd]octor ((`[A-Za-z]+`(, | to )?)+)").FindAllStringSubmatch(page, -1) {
		for _, name := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(m[1], -1) {
			if !steps[name[1]] {
				t.Errorf("%q is no step", name[1])
			}
		}
	}
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	for _, page := range []string{reference, troubleshooting} {
		links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(read(t, page), -1)
		if len(links) == 0 {
			t.Errorf("%s has no link", page)
		}
		for _, m := range links {
			file, anchor, _ := strings.Cut(m[1], "#")
			path := page
			if file != "" {
				path = filepath.Join(filepath.Dir(page), file)
			}
			headings := map[string]bool{"": true}
			for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(read(t, path), -1) {
				headings[strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")] = true
			}
			if !headings[anchor] {
				t.Errorf("%s: there is no heading for %s", page, m[1])
			}
		}
	}
}

func TestThePodOfTheReferenceIsAcceptedUnderPodSecurityRestricted(t *testing.T) {
	_, text, begins := strings.Cut(read(t, reference), "kubectl apply -f - <<'EOF'\n")
	text, _, ends := strings.Cut(text, "\nEOF\n")
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil || !begins || !ends {
		t.Fatalf("no Pod in the reference: %v", err)
	}
	c, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, &cluster)
	found, err := c.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if _, err := c.CoreV1().Namespaces().Update(t.Context(), found, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: pod.Spec.ServiceAccountName}}
	if _, err := c.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod.Namespace = namespace
	if _, err := c.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Error(err)
	}
	pod.Spec.SecurityContext.RunAsNonRoot = nil
	if _, err := c.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err == nil {
		t.Error("Pod Security is not enforced here")
	}
}

func TestAReportSaysWhatItsPageSays(t *testing.T) {
	page := read(t, reference)
	text, err := json.Marshal(doctor.Report{Steps: []doctor.Step{{}}})
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]any
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	for field := range report {
		if !strings.Contains(page, "| `"+field) {
			t.Errorf("the page does not have the field %s", field)
		}
	}
	for field := range report["steps"].([]any)[0].(map[string]any) {
		if !strings.Contains(page, "| `steps[]."+field+"` |") {
			t.Errorf("the page does not have the field steps[].%s", field)
		}
	}
	last := 0
	for _, name := range doctor.StepNames() {
		at := strings.Index(page, "\n| `"+name+"` |")
		if at < last {
			t.Errorf("the page does not have the step %s, or at another place", name)
		}
		last = max(at, last)
	}
	if rows := strings.Count(page, "\n| `"); rows < len(doctor.StepNames()) {
		t.Errorf("%d rows", rows)
	}
	for _, state := range []doctor.State{doctor.OK, doctor.Wrong, doctor.Skipped, doctor.Unknown} {
		if !strings.Contains(page, "`"+string(state)+"`") {
			t.Errorf("the page does not have the state %s", state)
		}
	}
}
