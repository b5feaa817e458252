package director

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestTheReferenceHasTheLimitsOfPages(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/compass-client.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		fmt.Sprintf("| Items per page | `%d` |", pageSize),
		fmt.Sprintf("| Pages per list | `%d` |", maxPages),
	} {
		if !strings.Contains(string(text), "\n"+row+"\n") {
			t.Errorf("the reference lacks %s", row)
		}
	}
}
