package leaktest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// starts are what starts one of our programs, or what makes up one, by the package that has it, below the module's path.
var starts = map[string][]string{
	"agent":                  {"Run", "Main", "Preview"},
	"certs/issuer":           {"Issuer"},
	"cli":                    {"Run"},
	"cli/diff":               {"NewCommand", "NewOptions"},
	"cli/doctor":             {"NewCommand", "NewOptions"},
	"cli/onboard":            {"NewCommand", "NewOptions"},
	"cli/onboard/controller": {"NewCommand", "NewOptions"},
	"cli/revoke":             {"NewCommand", "NewOptions"},
	"cli/status":             {"NewCommand", "NewOptions"},
	"events":                 {"Start", "Execute"},
	"gateway":                {"New", "Main"},
	"gateway/proxy":          {"New"},
}

// programs are the variables that name programs of ours that were built.
var programs = []string{"APPCONN", "GATEWAY"}

// exempt are packages that start something and are not watched, with why.
var exempt = map[string]string{
	"agent/connection": "it plays years of one worker in memory, without a cluster or a program; what might leak is planted there",
	"e2e/resources":    "it only measures",
}

const module = "github.com/application-connector/application-connector/"

// source is what a package's tests are made of: its test files, or all of it if it is a harness for others.
type source struct {
	starts  []string // what it starts
	watches bool
}

func TestEveryPackageThatStartsAProgramOfOursLooksForSecrets(t *testing.T) {
	found := map[string]*source{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") && name != ".." && path != "../.." {
				return filepath.SkipDir
			}
			return nil
		}
		folder, _ := filepath.Rel("../..", filepath.Dir(path))
		folder = filepath.ToSlash(folder)
		test := strings.HasSuffix(path, "_test.go")
		if !strings.HasSuffix(path, ".go") || !test && !strings.HasPrefix(folder, "e2e/") || folder == "e2e/leaktest" {
			return nil
		}
		if found[folder] == nil {
			found[folder] = &source{}
		}
		return found[folder].read(path, folder)
	})
	if err != nil {
		t.Fatal(err)
	}
	var watched []string
	for folder, s := range found {
		if len(s.starts) == 0 {
			continue
		}
		if watched = append(watched, folder); !s.watches && exempt[folder] == "" {
			t.Errorf("%s starts %s, and gives leaktest nothing of it", folder, strings.Join(s.starts, ", "))
		}
	}
	slices.Sort(watched)
	for folder := range exempt {
		if s := found[folder]; s == nil || len(s.starts) == 0 || s.watches {
			t.Errorf("%s is exempt for nothing", folder)
		}
	}
	// The search finds what is known to be there: were it to find nothing, nothing would be looked at.
	for _, known := range []string{"agent", "certs/issuer", "cli/doctor", "cli/onboard", "e2e", "e2e/agenttest", "e2e/certmanager", "e2e/deploy", "e2e/fleet", "e2e/rotation", "e2e/scaling", "e2e/upgrade", "events", "gateway"} {
		if !slices.Contains(watched, known) {
			t.Errorf("%s starts programs, and is not among %v", known, watched)
		}
	}
}

// read looks for what a file of a package starts, and whether it gives that to a Watch.
func (s *source) read(path, folder string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return err
	}
	s.add(file, folder)
	return nil
}

func (s *source) add(file *ast.File, folder string) {
	names := map[string]string{} // of packages, in this file
	for _, i := range file.Imports {
		if imported, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ours {
			name := imported[strings.LastIndex(imported, "/")+1:]
			if i.Name != nil {
				name = i.Name.Name
			}
			names[name] = imported
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			of, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			imported := names[of.Name]
			if slices.Contains(starts[imported], n.Sel.Name) {
				s.starts = append(s.starts, imported+"."+n.Sel.Name)
			}
			if imported == "e2e/leaktest" && n.Sel.Name == "Of" || imported == "e2e/agenttest" && (n.Sel.Name == "New" || n.Sel.Name == "Run") {
				s.watches = true
			}
		case *ast.CallExpr:
			// Tests of a package that are part of it.
			if called, ok := n.Fun.(*ast.Ident); ok && slices.Contains(starts[folder], called.Name) && !strings.HasSuffix(file.Name.Name, "_test") {
				s.starts = append(s.starts, called.Name)
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && slices.Contains(programs, strings.Trim(n.Value, `"`)) {
				s.starts = append(s.starts, "the program of "+n.Value)
			}
		}
		return true
	})
}

func TestTheSearchKnowsWhoStartsAProgramAndWhoLooks(t *testing.T) {
	const head, leak = "package x_test\nimport (\n\"" + module + "agent\"\nrun \"" + module + "gateway\"\n", "\"" + module + "e2e/leaktest\"\n"
	for name, test := range map[string]struct {
		text, folder string
		want         source
	}{
		"neither":                         {head + ")\nvar _ = agent.Options{}", "x", source{}},
		"an agent":                        {head + ")\nvar _ = agent.Run", "x", source{starts: []string{"agent.Run"}}},
		"a gateway by another name":       {head + ")\nfunc f() { run.New() }", "x", source{starts: []string{"gateway.New"}}},
		"another package's gateway":       {"package x\nfunc f() { gateway.New() }", "x", source{}},
		"a program":                       {"package x\nimport \"os\"\nvar _ = os.Getenv(\"APPCONN\")", "x", source{starts: []string{`the program of "APPCONN"`}}},
		"its own":                         {"package revoke\nvar _ = NewOptions()", "cli/revoke", source{starts: []string{"NewOptions"}}},
		"an agent that is looked at":      {head + leak + ")\nvar _, _ = agent.Run, leaktest.Of", "x", source{starts: []string{"agent.Run"}, watches: true}},
		"only a log that nobody looks at": {head + leak + ")\nvar _, _ = agent.Run, leaktest.Log{}", "x", source{starts: []string{"agent.Run"}}},
		"an agent on a stage":             {"package x\nimport \"" + module + "e2e/agenttest\"\nvar _ = agenttest.New", "x", source{watches: true}},
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x_test.go", test.text, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got source
		got.add(file, test.folder)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(source{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
