package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/template"

	"pgregory.net/rapid"
)

func TestAMergedTextIsThatOfEachBuildUnderItsCondition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 12)
		base, other := text.Draw(t, "base"), text.Draw(t, "other")
		value := rapid.SampledFrom([]string{".Values.x", "not .Values.x"}).Draw(t, "value")
		hunks := difference(base, other)
		for i := range hunks {
			hunks[i].value = value
		}
		merged, err := merge(base, hunks)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []bool{false, true} {
			want := base
			if x == (value == ".Values.x") {
				want = other
			}
			if got := execute(t, merged, map[string]bool{"x": x}); !slices.Equal(got, want) {
				t.Fatalf("with x=%v the template\n%s\ngives %q, not %q", x, strings.Join(merged, "\n"), got, want)
			}
		}
	})
}

func TestTwoFeaturesMayInsertAtOnePlaceAndNotChangeOneLine(t *testing.T) {
	base := []string{"args:", "- a", "image: i"}
	hunks := func(other, value string) []hunk {
		found := difference(base, strings.Split(other, "\n"))
		for i := range found {
			found[i].value = value
		}
		return found
	}
	merged, err := merge(base, append(hunks("args:\n- a\n- b\nimage: i", ".Values.b"), hunks("args:\n- a\n- c\nimage: i", ".Values.c")...))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(execute(t, merged, map[string]bool{"b": true, "c": true})); got != "[args: - a - b - c image: i]" {
		t.Errorf("both inserted give %s", got)
	}
	_, err = merge(base, append(hunks("args:\n- a\nimage: j", ".Values.b"), hunks("args:\n- a\nimage: k", ".Values.c")...))
	if err == nil || err.Error() != `line "image: i" is changed by .Values.c and by another feature` {
		t.Errorf("two changes of one line give %v", err)
	}
}

// execute gives the lines of a template. Those of texts are never empty.
func execute(t interface{ Fatal(args ...any) }, lines []string, values map[string]bool) []string {
	parsed, err := template.New("").Parse("begin\n" + strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := parsed.Execute(&out, map[string]any{"Values": values}); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")[1:]
}
