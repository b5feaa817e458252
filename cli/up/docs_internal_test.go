package up

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestTheReferenceListsEveryFlagAndEveryPort(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/appconn-up.md")
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SortFlags = false
	(&Options{}).BindFlags(fs)
	fs.VisitAll(func(f *pflag.Flag) { flags = append(flags, f.Name) })
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\|").FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	if diff := cmp.Diff(flags, documented); diff != "" {
		t.Errorf("flags, as declared and as documented (-,+):\n%s", diff)
	}

	want, got := map[string]string{}, map[string]string{}
	all := documentedPorts
	for _, p := range all.named() {
		want[p.name] = strconv.Itoa(*p.port)
	}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| (.*) \|$`).FindAllSubmatch(text, -1) {
		got[string(m[2])] = string(m[1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ports, as used and as documented (-,+):\n%s", diff)
	}
}

func TestEveryCommandOfTheREADMEIsOneOfTheTour(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	id := regexp.MustCompile(`"id":"[0-9a-f-]{36}"`)
	known := map[string]bool{}
	for _, c := range (&world{ports: documentedPorts}).tour() {
		for _, s := range c.stops {
			known[id.ReplaceAllString(s.command, "id")] = true
		}
	}
	commands := regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllSubmatch(text, -1)
	if len(commands) < 10 {
		t.Fatalf("only %d commands in the README", len(commands))
	}
	for _, m := range commands {
		if command := id.ReplaceAllString(string(m[1]), "id"); !known[command] {
			t.Errorf("not in the tour: %s", m[1])
		}
	}
}
