// Package fuzz_test runs the fuzz targets of the event path for long.
package fuzz_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// TestSoakFuzzEventPath runs every fuzz target below events for ten million executions, or as many as
// APPCONN_FUZZ_EXECUTIONS says. One after the other they take hours, so only with APPCONN_SOAK.
func TestSoakFuzzEventPath(t *testing.T) {
	executions := os.Getenv("APPCONN_FUZZ_EXECUTIONS")
	if executions == "" {
		executions = "10000000"
	}
	want, err := strconv.Atoi(executions)
	if err != nil {
		t.Fatalf("APPCONN_FUZZ_EXECUTIONS=%q: use a number", executions)
	}
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	count := regexp.MustCompile(`execs: (\d+)`)
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
					t.Fatalf("%v\n%s", err, out)
				}
				// The last count is of all.
				counts := count.FindAllSubmatch(out, -1)
				if len(counts) == 0 {
					t.Fatalf("nothing was executed:\n%s", out)
				}
				if n, err := strconv.Atoi(string(counts[len(counts)-1][1])); err != nil || n < want {
					t.Errorf("%d executions, want %d; %v\n%s", n, want, err, out)
				}
				t.Logf("%s executions", counts[len(counts)-1][1])
			})
		}
	}
	if found == 0 {
		t.Error("no fuzz targets found")
	}
}
