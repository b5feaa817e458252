package connector

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestTheReferenceHasTheLimitsOfChains(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/compass-client.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		fmt.Sprintf("| Certificates in one chain | `%d` |", maxCertificates),
		fmt.Sprintf("| Bytes of one chain, as base64 | `%d` |", maxEncodedChain),
	} {
		if !strings.Contains(string(text), "\n"+row+"\n") {
			t.Errorf("the reference lacks %s", row)
		}
	}
}
