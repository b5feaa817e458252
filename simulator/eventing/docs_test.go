package eventing_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/simulator/eventing"
)

func TestTheReferencePageListsExactlyTheEndpoints(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/simulator-eventing.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []eventing.Route
	for _, row := range regexp.MustCompile("(?m)^\\| ([A-Za-z]+) \\| `([^`]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		method := row[1]
		if method == "any" {
			method = ""
		}
		documented = append(documented, eventing.Route{Method: method, Path: row[2]})
	}
	if d := cmp.Diff(start(t, eventing.Options{}).Routes(), documented); d != "" {
		t.Errorf("routes (-code +page):\n%s", d)
	}
}
