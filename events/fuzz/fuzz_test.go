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
// APPCONN_FUZZ_EXECUTIONS says, one folder after the other. They take long, so only with APPCONN_SOAK.
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
	count := regexp.MustCompile(`(?m)^fuzzed\t\S+ (Fuzz\w+): (\d+) executions`)
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	targets := map[string][]string{} // by folder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			folder := filepath.Base(filepath.Dir(file))
			targets[folder] = append(targets[folder], string(m[1]))
		}
	}
	if len(targets) == 0 {
		t.Error("no fuzz targets found")
	}
	for folder, names := range targets {
		t.Run(folder, func(t *testing.T) {
			if os.Getenv("APPCONN_SOAK") == "" {
				t.Skip("takes long: make soak runs it")
			}
			out, err := exec.CommandContext(t.Context(), "../../build/fuzz", executions+"x", "events/"+folder).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			counts := map[string]int{}
			for _, m := range count.FindAllSubmatch(out, -1) {
				if counts[string(m[1])], err = strconv.Atoi(string(m[2])); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range names {
				if counts[name] < want {
					t.Errorf("%s: %d executions, want %d\n%s", name, counts[name], want, out)
				}
				t.Logf("%s: %d executions", name, counts[name])
			}
		})
	}
}
