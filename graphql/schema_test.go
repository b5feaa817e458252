package graphql_test

import (
	"os"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

func TestEveryTypeAndFieldOfTheSchemasIsDescribed(t *testing.T) {
	for _, file := range []string{"connector/schema.graphql", "director/schema.graphql"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		schema, err := gqlparser.LoadSchema(&ast.Source{Name: file, Input: string(text)})
		if err != nil {
			t.Fatal(err)
		}
		for name, definition := range schema.Types {
			if definition.BuiltIn {
				continue
			}
			if definition.Description == "" {
				t.Errorf("%s: %s has no description", file, name)
			}
			for _, field := range definition.Fields {
				if field.Description == "" && !strings.HasPrefix(field.Name, "__") {
					t.Errorf("%s: %s.%s has no description", file, name, field.Name)
				}
			}
			for _, value := range definition.EnumValues {
				if value.Description == "" {
					t.Errorf("%s: %s.%s has no description", file, name, value.Name)
				}
			}
		}
	}
}
