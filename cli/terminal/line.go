// Package terminal makes text that others wrote safe to be printed to a person. It knows nothing of what the text says.
package terminal

import (
	"strings"
	"unicode"
)

// Line makes one line of s: runs of white space become one blank, and what could tell the terminal to do things (control
// characters, and those that reverse the direction of writing) becomes U+FFFD.
func Line(s string) string {
	clean := func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}
	return strings.Map(clean, strings.Join(strings.Fields(s), " "))
}
