package onboard_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/application-connector/application-connector/cli/onboard"
)

func TestThePageHasEveryFlagWithItsDefault(t *testing.T) {
	page, err := os.ReadFile("../../docs/onboarding.md")
	if err != nil {
		t.Fatal(err)
	}
	kubectl := pflag.NewFlagSet("", pflag.ContinueOnError)
	genericclioptions.NewConfigFlags(true).AddFlags(kubectl)
	rows := 0
	onboard.NewCommand(genericiooptions.IOStreams{}).Flags().VisitAll(func(f *pflag.Flag) {
		if kubectl.Lookup(f.Name) != nil {
			return
		}
		rows++
		value := ""
		if f.DefValue != "" {
			value = "`" + f.DefValue + "` "
		}
		if row := fmt.Sprintf("| `--%s` | %s| %s |\n", f.Name, value, f.Usage); !strings.Contains(string(page), row) {
			t.Errorf("the page lacks %s", row)
		}
	})
	if found := strings.Count(string(page), "\n| `--"); found != rows {
		t.Errorf("the page has %d flags, the command %d", found, rows)
	}
}
