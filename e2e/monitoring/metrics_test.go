package monitoring

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what of a dashboard's JSON matters here.
type dashboard struct {
	UID        string  `json:"uid"`
	Title      string  `json:"title"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID          int      `json:"id"`
	Type        string   `json:"type"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Targets     []target `json:"targets"`
	GridPos     struct {
		H, W, X, Y int
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit       string   `json:"unit"`
			Max        *float64 `json:"max"`
			Thresholds struct {
				Steps []struct {
					Value *float64 `json:"value"`
					Color string   `json:"color"`
				} `json:"steps"`
			} `json:"thresholds"`
			Mappings []struct {
				Options map[string]struct {
					Text  string `json:"text"`
					Color string `json:"color"`
				} `json:"options"`
			} `json:"mappings"`
			Custom struct {
				Stacking struct {
					Mode string `json:"mode"`
				} `json:"stacking"`
				Scale struct {
					Type string `json:"type"`
				} `json:"scaleDistribution"`
			} `json:"custom"`
		} `json:"defaults"`
		Overrides []struct {
			Matcher struct {
				Options string `json:"options"`
			} `json:"matcher"`
			Properties []struct {
				Value struct {
					FixedColor string `json:"fixedColor"`
				} `json:"value"`
			} `json:"properties"`
		} `json:"overrides"`
	} `json:"fieldConfig"`
}

type target struct {
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
	Instant      bool   `json:"instant"`
}

// dashboards are those that are shipped, by file name.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(manifests("monitoring", "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	all := map[string]dashboard{}
	for _, file := range files {
		var d dashboard
		if err := json.Unmarshal(read(t, file), &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = d
	}
	return all
}

// documented are the metrics in the tables of the reference, which tests of the components compare with their registries.
func documented(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, component := range components {
		page := component
		if component == "onboarding" { // which is a command of the tool
			page = "appconn-onboard"
		}
		_, section, found := strings.Cut(string(read(t, filepath.Join("..", "..", "docs", "reference", page+".md"))), "\n## Metrics\n")
		if !found {
			t.Fatalf("docs/reference/%s.md has no section of metrics", page)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		before := len(names)
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+_[a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
			names = append(names, m[1])
		}
		if len(names) == before {
			t.Fatalf("docs/reference/%s.md has no table of metrics", page)
		}
	}
	return names
}

// foreign are metrics of Prometheus itself and of its client library.
var foreign = []string{"ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes", "go_goroutines"}

var (
	matchers = regexp.MustCompile(`\{[^}]*\}|"[^"]*"|\[[^\]]*\]`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	function = regexp.MustCompile(`\b[a-z_0-9]+\s*\(`)
	name     = regexp.MustCompile(`[A-Za-z_:][A-Za-z0-9_:]*`)
)

// named are the metrics that an expression names: what is left when all else is taken away.
func named(expr string) []string {
	left := function.ReplaceAllString(grouping.ReplaceAllString(matchers.ReplaceAllString(expr, " "), " "), " ")
	var all []string
	for _, word := range name.FindAllString(left, -1) {
		switch word {
		case "by", "and", "or", "unless", "bool", "offset", "sum", "max", "min", "count":
		default:
			all = append(all, word)
		}
	}
	return all
}

func TestOnlyMetricsAreNamedThatThereAre(t *testing.T) {
	known := append(documented(t), foreign...)
	is := func(metric string) bool {
		if slices.Contains(known, metric) {
			return true
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(metric, suffix); cut && strings.HasSuffix(base, "_seconds") && slices.Contains(known, base) {
				return true
			}
		}
		return false
	}
	check := func(where, expr string) {
		metrics := named(expr)
		if len(metrics) == 0 {
			t.Errorf("%s names no metric: %s", where, expr)
		}
		for _, metric := range metrics {
			if !is(metric) {
				t.Errorf("%s names %s, which is in no table of docs/reference: %s", where, metric, expr)
			}
		}
	}
	rules, _ := writeRules(t, t.TempDir())
	for name, r := range rules {
		check("alert "+name, r.Expr)
	}
	for file, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				check(file+": "+p.Title, target.Expr)
			}
		}
		for _, v := range d.Templating.List {
			if query, ok := v.Query.(string); ok && v.Type == "query" {
				check(file+": variable "+v.Name, strings.TrimSuffix(strings.TrimPrefix(query, "label_values("), ", application)"))
			}
		}
	}
}

func TestTheMetricsThatAnExpressionNamesAreFound(t *testing.T) {
	got := named(`histogram_quantile(0.9, sum by (le) (rate(a_bucket{x="b_total"}[5m]))) and on (namespace) max(c_total > 0) - time() or vector(0) unless ignoring (state) d`)
	if want := []string{"a_bucket", "c_total", "d"}; !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

func TestEachPanelIsExplainedAndHasAUnitAndAPlaceOfItsOwn(t *testing.T) {
	uids := map[string]string{}
	for file, d := range dashboards(t) {
		if other := uids[d.UID]; other != "" {
			t.Errorf("%s and %s have the same uid", file, other)
		}
		uids[d.UID] = file
		taken := map[[2]int]string{}
		titles, ids := map[string]bool{}, map[int]bool{}
		for _, p := range d.Panels {
			if titles[p.Title] || ids[p.ID] || p.ID == 0 {
				t.Errorf("%s: title or id of %s (%d) is there twice", file, p.Title, p.ID)
			}
			titles[p.Title], ids[p.ID] = true, true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Errorf("%s: %s lies upon %s, or beside the page", file, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type == "row" {
				continue
			}
			if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
				t.Errorf("%s: %s has no description, no unit or no query", file, p.Title)
			}
		}
	}
}
