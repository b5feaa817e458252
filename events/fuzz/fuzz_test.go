// Package fuzz_test runs the fuzz targets of the event path for long.
package fuzz_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestSoakFuzzEventPath runs every fuzz target below events for ten million executions, or as many as
// APPCONN_FUZZ_EXECUTIONS says. One after the other they take hours, so only with APPCONN_SOAK.
func TestSoakFuzzEventPath(t *testing.T) {
	executions := os.Getenv("APPCONN_FUZZ_EXECUTIONS")
	if executions == "" {
		executions = "10000000"
	}
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			found++
			dir, name := filepath.Dir(file), string(m[1])
			t.Run(filepath.Base(dir)+"/"+name, func(t *testing.T) {
				if os.Getenv("APPCONN_SOAK") == "" {
					t.Skip("takes long: make soak runs it")
				}
				c := exec.CommandContext(t.Context(), "go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", executions+"x", ".")
				c.Dir = dir
				out, err := c.CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				t.Logf("%s", out[max(0, len(out)-200):])
			})
		}
	}
	if found == 0 {
		t.Error("no fuzz targets found")
	}
}
