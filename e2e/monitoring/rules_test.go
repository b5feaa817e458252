package monitoring

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// rule is an alert as a PrometheusRule has it.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type groups struct {
	Groups []group `json:"groups"`
}

// components are those that have a folder in manifests/monitoring.
var components = []string{"agent", "gateway", "validator", "onboarding"}

// manifests is the path of a file or folder of manifests.
func manifests(path ...string) string {
	return filepath.Join(append([]string{"..", "..", "manifests"}, path...)...)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// write writes something as YAML.
func write(t *testing.T, file string, what any) {
	t.Helper()
	text, err := yaml.Marshal(what)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// writeRules writes the rules of all PrometheusRules as files that Prometheus reads, and gives them by name, with the paths.
func writeRules(t *testing.T, dir string) (map[string]rule, []string) {
	t.Helper()
	rules := map[string]rule{}
	var files []string
	for _, component := range components {
		var manifest struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   any    `json:"metadata"`
			Spec       groups `json:"spec"`
		}
		if err := yaml.UnmarshalStrict(read(t, manifests("monitoring", component, "rules.yaml")), &manifest); err != nil {
			t.Fatalf("%s: %v", component, err)
		}
		for _, g := range manifest.Spec.Groups {
			for _, r := range g.Rules {
				if _, twice := rules[r.Alert]; twice {
					t.Errorf("the alert %s is there twice", r.Alert)
				}
				rules[r.Alert] = r
			}
		}
		file := filepath.Join(dir, component+".yaml")
		write(t, file, manifest.Spec)
		files = append(files, file)
	}
	return rules, files
}

// program is one of Prometheus' programs.
func program(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("PROMETHEUS")
	if dir == "" {
		t.Fatal("PROMETHEUS is not set: run the tests by \"make test\", or set it to the folder that build/prometheus prints")
	}
	return filepath.Join(dir, name)
}

// TestEachAlertFiresWhenItShouldAndOnlyThen has promtool run the rules over the series of scenarios.
func TestEachAlertFiresWhenItShouldAndOnlyThen(t *testing.T) {
	dir := t.TempDir()
	rules, files := writeRules(t, dir)
	promtool := program(t, "promtool")
	if out, err := exec.CommandContext(t.Context(), promtool, append([]string{"check", "rules", "--lint-fatal"}, files...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	type alert struct {
		Labels      map[string]string `json:"exp_labels"`
		Annotations map[string]string `json:"exp_annotations"`
	}
	type check struct {
		At     string  `json:"eval_time"`
		Alert  string  `json:"alertname"`
		Alerts []alert `json:"exp_alerts"`
	}
	type series struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	type test struct {
		Name     string   `json:"name"`
		Interval string   `json:"interval"`
		Input    []series `json:"input_series"`
		Checks   []check  `json:"alert_rule_test"`
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		t.Run(name, func(t *testing.T) {
			var tests []test
			fires, silent := 0, 0
			for _, s := range scenarios[name] {
				c := check{At: "1h", Alert: name, Alerts: []alert{}}
				for _, f := range s.fires {
					expected := alert{Labels: maps.Clone(rules[name].Labels), Annotations: maps.Clone(rules[name].Annotations)}
					maps.Copy(expected.Labels, f.labels)
					expected.Annotations["description"] = f.says
					c.Alerts = append(c.Alerts, expected)
				}
				if len(s.fires) > 0 {
					fires++
				} else {
					silent++
				}
				input := []series{}
				for _, name := range slices.Sorted(maps.Keys(s.series)) {
					input = append(input, series{name, s.series[name]})
				}
				tests = append(tests, test{Name: s.name, Interval: "1m", Input: input, Checks: []check{c}})
			}
			if fires == 0 || silent == 0 {
				t.Fatalf("%d scenarios in which it fires, and %d in which it does not", fires, silent)
			}
			// The rule by itself, since promtool evaluates all that a file has, which takes ten times as long.
			file := filepath.Join(dir, name+".yaml")
			write(t, file, groups{[]group{{Name: name, Rules: []rule{rules[name]}}}})
			scenarios := filepath.Join(dir, name+".test.yaml")
			write(t, scenarios, map[string]any{"rule_files": []string{file}, "evaluation_interval": "1m", "tests": tests})
			if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", scenarios).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	for name := range scenarios {
		if _, known := rules[name]; !known {
			t.Errorf("there is no alert %s", name)
		}
	}
}

func TestEachAlertSaysWhatIsWrongAndWhereTheRemedyStands(t *testing.T) {
	const page = "https://github.com/application-connector/application-connector/blob/main/docs/monitoring.md#"
	text := string(read(t, filepath.Join("..", "..", "docs", "monitoring.md")))
	rules, _ := writeRules(t, t.TempDir())
	for name, r := range rules {
		if want := page + strings.ToLower(name); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %s, want %s", name, r.Annotations["runbook_url"], want)
		}
		for _, annotation := range []string{"summary", "description"} {
			if r.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", name, annotation)
			}
		}
		if strings.Contains(r.Annotations["summary"], "{{") {
			t.Errorf("%s: alerts of one name are told apart by their descriptions, not by summaries: %s", name, r.Annotations["summary"])
		}
		if len(r.Annotations) != 3 {
			t.Errorf("%s: annotations %v", name, r.Annotations)
		}
		if severity := r.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s: severity %q", name, severity)
		}
		if len(r.Labels) != 2 || r.Labels["part_of"] != "application-connector" {
			t.Errorf("%s: labels %v", name, r.Labels)
		}
		section := fmt.Sprintf("\n### %s\n", name)
		_, after, found := strings.Cut(text, section)
		if !found {
			t.Errorf("docs/monitoring.md has no section %s", name)
			continue
		}
		after, _, _ = strings.Cut(after, "\n##")
		if !strings.Contains(after, "**"+r.Labels["severity"]+"**") {
			t.Errorf("docs/monitoring.md does not say that %s is %s", name, r.Labels["severity"])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(text, -1) {
		if _, known := rules[m[1]]; !known {
			t.Errorf("docs/monitoring.md describes %s, which is no alert", m[1])
		}
	}
}
