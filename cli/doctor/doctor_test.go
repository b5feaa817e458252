package doctor_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, want and got (-,+):\n%s", path, diff)
	}
}

func TestWhereAllIsWellEveryStepIsOK(t *testing.T) {
	w := newWorld(t)
	for name, args := range map[string][]string{
		"healthy.txt":            {},
		"healthy-shop.txt":       {w.application},
		"healthy.json":           {w.application + "/sales/sales", "-o", "json"},
		"healthy-standalone.txt": {w.application + "/prices", "--standalone"},
		"healthy-no-calls.txt":   {w.application + "/Warehouse", "--no-calls"},
	} {
		t.Run(name, func(t *testing.T) {
			out := w.examine(args...)
			if out.code != 0 || out.line != "" || out.stderr != "" {
				t.Errorf("exit code %d: %s%s", out.code, out.line, out.stderr)
			}
			golden(t, name, out.stdout)
		})
	}
}
