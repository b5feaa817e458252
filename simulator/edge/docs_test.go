package edge_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/simulator/edge"
)

func TestTheReferencePageListsExactlyTheRoutes(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/simulator-edge.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\^[^`]+)` \\|$").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, strings.ReplaceAll(row[1], `\|`, "|"))
	}
	if d := cmp.Diff(edge.Routes(), documented); d != "" {
		t.Errorf("routes (-code +page):\n%s", d)
	}
}
