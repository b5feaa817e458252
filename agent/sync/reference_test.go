package sync

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/agent/sync/apply"
)

func TestTheReferenceHoldsTheBoundsOfListsAndTheFieldOwner(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/sync.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(text)), " ")
	for _, text := range []string{
		fmt.Sprintf("the first %d do", apply.MaxFailures),
		fmt.Sprintf("each for the first %d by id", apply.MaxFailures),
		"`" + apply.FieldOwner + "`",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not say %q", text)
		}
	}
}
