package graphql

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// section gives the table rows of a section, each as its cells.
func section(t *testing.T, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/reference/compass-client.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("no section %s", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var rows [][]string
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 2 {
		t.Fatalf("section %s has no table", heading)
	}
	return rows[1:] // without the head
}

func TestTheReferenceHasEveryKindAndItsCodes(t *testing.T) {
	var want, got []string
	for _, k := range Kinds() {
		want = append(want, fmt.Sprintf("%s %v", k, k.Transient()))
	}
	code := regexp.MustCompile(`\b\d\d\b`)
	for _, row := range section(t, "Kinds of errors") {
		kind := Kind(strings.Trim(row[0], "`"))
		got = append(got, fmt.Sprintf("%s %v", kind, row[2] == "yes"))
		// Director's codes stand behind these words.
		if _, codes, ok := strings.Cut(row[1], "Director's code"); ok {
			for _, c := range code.FindAllString(codes, -1) {
				var n int
				_, _ = fmt.Sscan(c, &n)
				e := ServerError{Code: n}
				if kind == Ambiguous {
					e.Message = "insufficient scopes provided [actual=; required=x]"
				}
				if k := kindOfError(e); k != kind {
					t.Errorf("code %d is %s, the reference says %s", n, k, kind)
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds (-code +reference):\n%s", diff)
	}
}

func TestTheReferenceHasTheLimits(t *testing.T) {
	want := map[string]string{
		"Time for one request":                       fmt.Sprintf("`%v`", DefaultTimeout),
		"Size of one answer, decompressed":           fmt.Sprintf("`%d MiB`", DefaultMaxResponseBytes>>20),
		"Time to connect, and for the TLS handshake": fmt.Sprintf("`%v` each", max(dialTimeout, handshakeTimeout)),
		"Idle connections are closed after":          fmt.Sprintf("`%v`", idleTimeout),
		"`Retry-After` is believed up to":            fmt.Sprintf("`%v`", maxRetryAfter),
		"GraphQL errors kept of one answer":          fmt.Sprintf("`%d`", maxErrors),
		"Bytes kept of one message":                  fmt.Sprintf("`%d`", maxMessageBytes),
	}
	got := map[string]string{}
	for _, row := range section(t, "Limits") {
		got[row[0]] = row[1]
	}
	// These are compared in the packages that have them.
	for _, elsewhere := range []string{"Items per page", "Pages per list", "Certificates in one chain", "Bytes of one chain, as base64"} {
		delete(got, elsewhere)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("limits (-code +reference):\n%s", diff)
	}
}

func TestTheReferenceHasTheHeaders(t *testing.T) {
	want := map[string]string{"Accept": mediaType, "Content-Type": mediaType}
	names := map[string]bool{}
	for _, row := range section(t, "Requests") {
		name := strings.Trim(row[0], "`")
		names[name] = true
		if value := want[name]; value != "" && row[1] != "`"+value+"`" {
			t.Errorf("%s is %q, the reference says %s", name, value, row[1])
		}
	}
	// What a request with a token and a trace carries is fixed in TestARequestIsWhatCompassExpects; net/http adds the rest.
	for _, name := range []string{"Accept", "Content-Type", "User-Agent", "X-Request-Id", "Traceparent", "Connector-Token", "Tenant"} {
		if !names[name] {
			t.Errorf("the reference lacks %s", name)
		}
		delete(names, name)
	}
	for name := range names {
		t.Errorf("the reference has %s, which is not sent", name)
	}
}
