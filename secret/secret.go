// Package secret holds the one type for text that must never be printed. It knows nothing of where secrets come from
// or go to.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what stands where a secret would be printed.
const Redacted = "[redacted]"

// Value is text that is used but not printed: fmt, slog and encoding/json see Redacted. Reveal gives the text.
//
// fmt calls no methods of what stands in an unexported field. A struct that holds a Value in one, however deep, must not
// be printed as a whole, unless it has a method Format, which calls Redact.
type Value string

// Reveal gives the text itself. Each call is a place to look at in a review.
func (v Value) Reveal() string { return string(v) }

// String implements fmt.Stringer.
func (v Value) String() string { return Redacted }

// GoString implements fmt.GoStringer, for %#v.
func (v Value) GoString() string { return Redacted }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler, so that YAML and map keys are redacted too.
func (v Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// Redact prints Redacted, whatever the verb: for the method Format (fmt.Formatter) of a struct that holds secrets.
func Redact(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }
