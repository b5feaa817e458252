package api_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
)

var update = flag.Bool("update", false, "write the tables of docs/reference instead of comparing them")

const docs = "../docs"

// pages are the reference pages and the resource definitions that they describe.
var pages = map[string]string{
	"application.md":       "applicationconnector.kyma-project.io_applications.yaml",
	"compassconnection.md": "compass.kyma-project.io_compassconnections.yaml",
	"compassissuer.md":     "compass.kyma-project.io_compassissuers.yaml",
}

func TestTheReferenceHoldsEveryFieldAndColumn(t *testing.T) {
	for page, file := range pages {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(kubetest.CRDs(), file))
			if err != nil {
				t.Fatal(err)
			}
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := yaml.UnmarshalStrict(text, crd); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(docs, "reference", page)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := string(before)
			version := crd.Spec.Versions[0]
			for name, table := range map[string]string{
				"spec":    fieldTable(version.Schema.OpenAPIV3Schema.Properties, "spec"),
				"status":  fieldTable(version.Schema.OpenAPIV3Schema.Properties, "status"),
				"columns": columnTable(version.AdditionalPrinterColumns),
			} {
				want = between(t, want, name, table)
			}
			if *update {
				if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, string(before)); diff != "" {
				t.Errorf("the page is not of this definition; run \"go test ./api -run Reference -update\":\n%s", diff)
			}
		})
	}
}

// between puts a table between the marks of its name.
func between(t *testing.T, page, name, table string) string {
	t.Helper()
	start, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	head, rest, ok := strings.Cut(page, start)
	_, tail, also := strings.Cut(rest, end)
	if !ok || !also {
		t.Fatalf("the page has no place for the table %q", name)
	}
	return head + start + table + end + tail
}

func fieldTable(properties map[string]apiextensionsv1.JSONSchemaProps, root string) string {
	var b strings.Builder
	b.WriteString("| Field | Type | Required | Meaning |\n|---|---|---|---|\n")
	fieldRows(&b, properties[root], root)
	return b.String()
}

func fieldRows(b *strings.Builder, schema apiextensionsv1.JSONSchemaProps, path string) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		field := schema.Properties[name]
		field.Description = strings.Join(strings.Fields(field.Description), " ")
		required := ""
		if slices.Contains(schema.Required, name) {
			required = "yes"
		}
		fmt.Fprintf(b, "| `%s.%s` | %s | %s | %s |\n", path, name, typeName(field), required, strings.ReplaceAll(field.Description, "|", `\|`))
		switch {
		case name == "conditions": // their fields are those of every resource
		case field.Items != nil:
			fieldRows(b, *field.Items.Schema, path+"."+name+"[]")
		default:
			fieldRows(b, field, path+"."+name)
		}
	}
}

func typeName(field apiextensionsv1.JSONSchemaProps) string {
	name := field.Type
	switch {
	case field.Items != nil:
		name = "list of " + field.Items.Schema.Type
	case field.AdditionalProperties != nil:
		name = "map of " + field.AdditionalProperties.Schema.Type
	case field.Format == "date-time":
		name = "time"
	}
	var limits []string
	if field.Nullable {
		limits = append(limits, "or null")
	}
	if field.Default != nil {
		limits = append(limits, "default "+string(field.Default.Raw))
	}
	var values []string
	for _, value := range field.Enum {
		values = append(values, strings.Trim(string(value.Raw), `"`))
	}
	if len(values) > 0 {
		limits = append(limits, strings.Join(values, " or "))
	}
	if field.MaxLength != nil {
		limits = append(limits, fmt.Sprintf("at most %d characters", *field.MaxLength))
	}
	if field.MaxItems != nil {
		limits = append(limits, fmt.Sprintf("at most %d", *field.MaxItems))
	}
	if field.Pattern != "" {
		limits = append(limits, "`"+strings.ReplaceAll(field.Pattern, "|", `\|`)+"`")
	}
	return strings.Join(append([]string{name}, limits...), ", ")
}

func columnTable(columns []apiextensionsv1.CustomResourceColumnDefinition) string {
	var b strings.Builder
	b.WriteString("| Column | From | Shown |\n|---|---|---|\n")
	for _, column := range columns {
		shown := "always"
		if column.Priority > 0 {
			shown = "with `-o wide`"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", column.Name, column.JSONPath, shown)
	}
	return b.String()
}

// Examples of a resource are files, which TestEveryExampleIsStoredAsItIsWritten runs; its page names each of them.
func TestTheReferenceNamesEveryExampleAndNoOther(t *testing.T) {
	link := regexp.MustCompile(`\(\.\./examples/([^)]+)\)`)
	for page := range pages {
		text, err := os.ReadFile(filepath.Join(docs, "reference", page))
		if err != nil {
			t.Fatal(err)
		}
		var named []string
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			named = append(named, match[1])
		}
		var there []string
		matches, err := filepath.Glob(filepath.Join(docs, "examples", strings.TrimSuffix(page, ".md")+"*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range matches {
			there = append(there, filepath.Base(match))
		}
		slices.Sort(named)
		if diff := cmp.Diff(there, named); diff != "" || len(there) == 0 {
			t.Errorf("%s: files (-), links (+):\n%s", page, diff)
		}
	}
}

// Conditions and states are constants of the two packages; a page holds those and no other.
func TestTheReferenceHoldsEveryConditionAndState(t *testing.T) {
	for page, want := range map[string][]string{
		"application.md": {
			applicationv1alpha1.ConditionCredentialsReady, applicationv1alpha1.ConditionRoutesReady, applicationv1alpha1.ConditionSynchronized,
		},
		"compassconnection.md": constants(t, "compass/v1alpha1/compassconnection.go", "Condition", "ConnectionState"),
	} {
		text, err := os.ReadFile(filepath.Join(docs, "reference", page))
		if err != nil {
			t.Fatal(err)
		}
		var rows []string
		for _, match := range regexp.MustCompile("(?m)^\\| `([A-Z][A-Za-z]+)` \\|").FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains([]string{"Basic", "OAuth", "OAuthWithCert", "CertificateGen"}, match[1]) {
				rows = append(rows, match[1])
			}
		}
		slices.Sort(rows)
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), slices.Compact(rows)); diff != "" {
			t.Errorf("%s: constants (-), rows (+):\n%s", page, diff)
		}
	}
}

// constants gives the values of the text constants of a file whose name starts with prefix, or whose type is kind.
func constants(t *testing.T, file, prefix, kind string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		of, _ := spec.Type.(*ast.Ident)
		value, isText := spec.Values[0].(*ast.BasicLit)
		if isText && (strings.HasPrefix(spec.Names[0].Name, prefix) || of != nil && of.Name == kind) {
			values = append(values, strings.Trim(value.Value, `"`))
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("%s has no such constants", file)
	}
	return values
}
