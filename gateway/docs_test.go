package gateway

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/application-connector/application-connector/gateway/routes"
)

// section is the text under a heading of the reference page.
func section(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/reference/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("no section %s", heading)
	}
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

// rows are the cells of table rows whose first cell matches a pattern, without backquotes.
func rows(text, first string) [][]string {
	var list [][]string
	pattern := regexp.MustCompile("^`" + first + "`$")
	for line := range strings.SplitSeq(text, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !strings.HasPrefix(line, "|") || !pattern.MatchString(cells[0]) {
			continue
		}
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "`", "")
		}
		list = append(list, cells)
	}
	return list
}

func TestTheReferencePageListsExactlyTheFlagsWithTheirDefaults(t *testing.T) {
	documented, code := map[string]string{}, map[string]string{}
	for _, row := range rows(section(t, "Flags"), "-.*") {
		documented[strings.TrimPrefix(row[0], "-")] = row[1]
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	(&Options{}).BindFlags(flags)
	flags.VisitAll(func(f *flag.Flag) { code[f.Name] = f.DefValue })
	if diff := cmp.Diff(code, documented); diff != "" {
		t.Errorf("flags (-code +page):\n%s", diff)
	}
}

func TestTheReferencePageListsExactlyTheMetricsWithTheirLabels(t *testing.T) {
	documented, code := map[string]string{}, map[string]string{}
	for _, row := range rows(section(t, "Metrics"), metricsPrefix+".*") {
		documented[row[0]] = row[1]
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		newMetrics().registry.Describe(descriptions)
		newCollector(nil, nil, nil).Describe(descriptions)
		close(descriptions)
	}()
	pattern := regexp.MustCompile(`fqName: "(` + metricsPrefix + `[^"]*)".*variableLabels: \{([^}]*)\}`)
	for d := range descriptions {
		if m := pattern.FindStringSubmatch(d.String()); m != nil {
			code[m[1]] = strings.ReplaceAll(m[2], ",", ", ")
		}
	}
	if diff := cmp.Diff(code, documented); diff != "" {
		t.Errorf("metrics (-code +page):\n%s", diff)
	}
}

// constants are the values of string constants in a folder whose names begin with prefix.
func constants(t *testing.T, prefix string, files ...string) []string {
	t.Helper()
	var values []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
			return true
		})
	}
	slices.Sort(values)
	return values
}

func TestTheReferencePageListsExactlyTheReasonsAndSources(t *testing.T) {
	for _, c := range []struct {
		heading string
		code    []string
	}{
		{"Condition", constants(t, "Reason", "conditions/conditions.go", "routes/compile.go", "credentials/credentials.go")},
		{"Metrics", constants(t, "Source", "proxy/exchange.go")},
	} {
		var documented []string
		for _, row := range rows(section(t, c.heading), "[A-Za-z]+") {
			documented = append(documented, row[0])
		}
		slices.Sort(documented)
		if diff := cmp.Diff(c.code, documented); diff != "" || len(c.code) == 0 {
			t.Errorf("%s (-code +page):\n%s", c.heading, diff)
		}
	}
}

func TestTheReferencePageListsExactlyTheReasonsOfErrors(t *testing.T) {
	code := append(constants(t, "Failure", "proxy/failures.go", "credentials/resolve.go"), constants(t, "Reason", "limits/limits.go")...)
	for _, reason := range constants(t, "Reason", "routes/compile.go", "credentials/credentials.go") {
		// These are said in the condition; calls end by FailureToken and FailureCSRF.
		if reason != string(routes.ReasonTokenURLInvalid) && reason != string(routes.ReasonCSRFURLInvalid) && reason != string(routes.ReasonCallersUnused) {
			code = append(code, reason)
		}
	}
	slices.Sort(code)
	var documented []string
	for _, row := range rows(section(t, "Error reasons"), "[A-Za-z]+") {
		documented = append(documented, row[0])
	}
	slices.Sort(documented)
	if diff := cmp.Diff(code, documented); diff != "" {
		t.Errorf("reasons (-code +page):\n%s", diff)
	}
}

func TestTheReferencePageNamesEachKeyOfASecret(t *testing.T) {
	keys := constants(t, "Key", "credentials/credentials.go")
	if len(keys) != 8 {
		t.Fatalf("%d keys", len(keys))
	}
	text := section(t, "Credentials")
	for _, key := range keys {
		if !strings.Contains(text, "`"+key+"`") {
			t.Errorf("the key %s is not named", key)
		}
	}
}
