package secret_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/secret"
)

type holder struct{ password secret.Value }

func (holder) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

func TestAStructThatRedactsItselfPrintsNothingElse(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		if got := fmt.Sprintf(verb, holder{"canary"}); got != secret.Redacted {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

// fmt prints what stands in an unexported field without asking it.
func TestEveryStructWithASecretInAnUnexportedFieldRedactsItself(t *testing.T) {
	holders, formatters := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && d.Name.Name == "Format" {
					if name, ok := d.Recv.List[0].Type.(*ast.Ident); ok {
						formatters[filepath.Dir(path)+"."+name.Name] = true
					}
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if named, ok := spec.(*ast.TypeSpec); ok && hides(named) {
						holders[filepath.Dir(path)+"."+named.Name.Name] = true
					}
				}
			}
		}
		return nil
	})
	if err != nil || len(holders) == 0 {
		t.Fatalf("%d found; %v", len(holders), err)
	}
	for name := range holders {
		if !formatters[name] {
			t.Errorf("%s has no method Format", name)
		}
	}
}

// hides says whether a struct has a secret in an unexported field, other than behind a pointer, which fmt does not follow.
func hides(named *ast.TypeSpec) (found bool) {
	structure, ok := named.Type.(*ast.StructType)
	if !ok {
		return false
	}
	for _, field := range structure.Fields.List {
		if len(field.Names) == 0 || field.Names[0].IsExported() {
			continue
		}
		ast.Inspect(field.Type, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				x, ok := s.X.(*ast.Ident)
				found = found || ok && x.Name == "secret" && s.Sel.Name == "Value"
			}
			_, pointer := n.(*ast.StarExpr)
			return !pointer
		})
	}
	return found
}
