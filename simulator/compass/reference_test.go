package compass

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// table returns the rows under the header row of the reference.
func table(t *testing.T, header string) []string {
	t.Helper()
	raw, err := os.ReadFile("../../docs/reference/simulator-compass.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(raw), header+"\n")
	if !found {
		t.Fatalf("the reference has no table %q", header)
	}
	var rows []string
	for _, line := range strings.Split(rest, "\n")[1:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		rows = append(rows, line)
	}
	return rows
}

func TestTheReferenceHasEveryFault(t *testing.T) {
	var want []string
	for _, kind := range faultKinds {
		settings := mapped(kind.Settings, func(name string) string {
			if slices.Contains(kind.Required, name) {
				return "**`" + name + "`**"
			}
			return "`" + name + "`"
		})
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", kind.Kind, strings.Join(settings, ", "), kind.Effect))
	}
	if diff := cmp.Diff(want, table(t, "| Kind | Settings | Effect |")); diff != "" {
		t.Errorf("code and reference differ (-code +reference):\n%s", diff)
	}
}

func TestTheReferenceHasEveryCallOfTheAdministrator(t *testing.T) {
	var want []string
	for _, route := range adminRoutes {
		want = append(want, fmt.Sprintf("| `%s %s` | %s |", route.Method, route.Path, route.Effect))
	}
	if diff := cmp.Diff(want, table(t, "| Call | Effect |")); diff != "" {
		t.Errorf("code and reference differ (-code +reference):\n%s", diff)
	}
}
