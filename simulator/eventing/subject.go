package eventing

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

// originalType is the extension in which the publisher keeps the type that the event came with.
const originalType = "originaltype"

// errEmptySegments says that a source or type has nothing left where the subject needs a segment.
var errEmptySegments = errors.New("event type cannot have empty segments after cleaning")

// clean drops what a NATS subject cannot hold: white space and > * / \, and in a source also the dot.
func clean(s string, dot bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '>', r == '*', r == '/', r == '\\', r == '.' && !dot, r <= unicode.MaxASCII && unicode.IsSpace(r):
			return -1
		}
		return r
	}, s)
}

// subject is where an event is stored: kyma.<source>.<type>, cleaned.
func subject(source, typ string) (string, error) {
	s := subjectPrefix + "." + clean(source, false) + "." + clean(typ, true)
	for segment := range strings.SplitSeq(s, ".") {
		if segment == "" {
			return "", fmt.Errorf("%w: %s", errEmptySegments, s)
		}
	}
	return s, nil
}

// prepared gives the event as the publisher stores it: the type is the subject, and the type it came with an extension.
func prepared(e cloudevents.Event) (cloudevents.Event, error) {
	s, err := subject(e.Source(), e.Type())
	if err != nil {
		return e, err
	}
	out := e.Clone()
	out.SetExtension(originalType, e.Type())
	out.SetType(s)
	return out, out.Validate()
}

// restored undoes prepared, as Eventing does before it delivers an event to a subscriber.
func restored(e cloudevents.Event) cloudevents.Event {
	if typ, ok := e.Extensions()[originalType].(string); ok {
		e.SetType(typ)
		e.SetExtension(originalType, nil)
	}
	return e
}
