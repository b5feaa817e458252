package terminal_test

import (
	"testing"

	"github.com/application-connector/application-connector/cli/terminal"
)

func TestLine(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain text stays", "Größe: 3 µm, 日本", "Größe: 3 µm, 日本"},
		{"line breaks and tabs become one blank", "a:\r\n\tb\n", "a: b"},
		{"escape sequences lose their escape", "\x1b[2Jx\a\u009b1m", "\ufffd[2Jx\ufffd\ufffd1m"},
		{"reversed writing is undone", "exe.\u202egnp", "exe.\ufffdgnp"},
		{"broken UTF-8 becomes U+FFFD", "a\xffb", "a\ufffdb"},
		{"empty stays empty", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := terminal.Line(tc.in); got != tc.want {
				t.Errorf("Line(%q) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}
