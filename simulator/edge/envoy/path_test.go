package envoy_test

import (
	"strings"
	"testing"

	"github.com/application-connector/application-connector/simulator/edge/envoy"
)

func FuzzNormalise(f *testing.F) {
	for _, path := range []string{"/", "/a/../b", "/%2e%2E/x", `/a\..\b`, "//a", "/a/./.", "/..%2f..", "x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := envoy.Normalise(path)
		for segment := range strings.SplitSeq(strings.ReplaceAll(got, `\`, "/"), "/") {
			switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
			case ".", "..":
				t.Fatalf("%q became %q, which still climbs", path, got)
			}
		}
		if strings.HasPrefix(path, "/") && !strings.HasPrefix(got, "/") {
			t.Fatalf("%q became %q, which has no root", path, got)
		}
		if again := envoy.Normalise(got); again != got {
			t.Fatalf("%q became %q, and then %q", path, got, again)
		}
	})
}
