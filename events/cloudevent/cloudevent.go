// Package cloudevent checks that an HTTP request holds one CloudEvent 1.0, in binary or structured (JSON) mode, or a batch
// of them (JSON), and can give an event another source. It reads with the CloudEvents SDK, as the publisher does, and refuses beforehand what two
// readers could read in two ways. It knows nothing of Applications and sends nothing.
package cloudevent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

const (
	structuredType = "application/cloudevents+json"
	batchType      = "application/cloudevents-batch+json"
	typePrefix     = "application/cloudevents"
	headerPrefix   = "Ce-"
	headerSource   = "Ce-Source"
	headerVersion  = "Ce-Specversion"
	version        = "1.0"
)

// Error says why a request holds no event that can be taken. Reason is for the sender and may repeat attribute names and
// values, so it does not belong into a log.
type Error struct {
	// Status is 415 for a form of event that is not taken, 400 for a broken event.
	Status int
	Reason string
}

func (e *Error) Error() string { return e.Reason }

func invalid(format string, args ...any) error {
	return &Error{Status: http.StatusBadRequest, Reason: fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &Error{Status: http.StatusUnsupportedMediaType, Reason: fmt.Sprintf(format, args...)}
}

// Event is what was read of an event. It shares the body with the caller.
type Event struct {
	ID, Source, Type string
	// Structured says that the body holds the whole event; else the attributes are in the header.
	Structured bool

	members []member
}

// member is one member of a structured event, with its value as sent.
type member struct {
	name  string
	value json.RawMessage
}

// Read returns the event that a request's header and whole body hold, or an *Error. It changes neither.
func Read(header http.Header, body []byte) (Event, error) {
	structured, err := mode(header)
	if err != nil {
		return Event{}, err
	}
	e := Event{Structured: structured}
	if structured {
		if e.members, err = members(body); err != nil {
			return Event{}, err
		}
	}
	message := cehttp.NewMessage(header, io.NopCloser(bytes.NewReader(body)))
	read, err := binding.ToEvent(context.Background(), message)
	if err != nil {
		return Event{}, invalid("not a CloudEvent: %s", describe(err))
	}
	if err := read.Validate(); err != nil {
		return Event{}, invalid("not a CloudEvent: %s", describe(err))
	}
	if read.SpecVersion() != version {
		return Event{}, invalid("specversion must be %s", version)
	}
	e.ID, e.Source, e.Type = read.ID(), read.Source(), read.Type()
	return e, nil
}

// mode finds out in which mode the event comes.
func mode(header http.Header) (structured bool, err error) {
	types := header.Values("Content-Type")
	if len(types) > 1 {
		return false, invalid("several Content-Type lines")
	}
	for name, values := range header {
		if strings.HasPrefix(name, headerPrefix) && len(values) > 1 {
			return false, invalid("several %s lines", strings.ToLower(name))
		}
	}
	var mediaType string
	var parameters map[string]string
	if len(types) == 1 {
		if mediaType, parameters, err = mime.ParseMediaType(types[0]); err != nil {
			return false, unsupported("Content-Type is no media type")
		}
	}
	if mediaType == structuredType {
		return true, utf8Only(structuredType, parameters)
	}
	if strings.HasPrefix(mediaType, typePrefix) {
		return false, unsupported("%s is not supported: send one event in binary mode, as %s, or several as %s", mediaType, structuredType, batchType)
	}
	switch header.Get(headerVersion) {
	case version:
		return false, nil
	case "":
		return false, unsupported("no CloudEvent: send the header ce-specversion (binary mode) or Content-Type %s (structured mode)", structuredType)
	default:
		return false, invalid("ce-specversion must be %s", version)
	}
}

func utf8Only(mediaType string, parameters map[string]string) error {
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported("charset of %s must be utf-8", mediaType)
	}
	return nil
}

// members reads the members of a structured event in order. A repeated member would let two readers see two events, and
// so would a name that differs only by case.
func members(body []byte) ([]member, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	broken := invalid("the body must be one JSON object")
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, broken
	}
	var all []member
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, broken
		}
		name, _ := token.(string)
		if !attributeName(name) {
			return nil, invalid("a member's name must be of lower-case letters and digits")
		}
		if seen[name] {
			return nil, invalid("member %s is repeated", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, broken
		}
		all = append(all, member{name, value})
	}
	if _, err := decoder.Token(); err != nil {
		return nil, broken
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, broken
	}
	return all, nil
}

func attributeName(name string) bool {
	if name == "data_base64" {
		return true
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// WithSource gives the event another source: it changes the header of a binary event, and returns the body to send,
// which is a new one for a structured event. Everything else stays as it was sent. The source must be a name of letters,
// digits, "-" and ".", as Kubernetes objects have.
func (e Event) WithSource(header http.Header, body []byte, source string) []byte {
	if !e.Structured {
		header.Set(headerSource, source)
		return body
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range e.members {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", m.name)
		if m.name == "source" {
			fmt.Fprintf(&b, "%q", source)
			continue
		}
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// DropAttributes removes attributes from the header, where a structured event has no need of them and another reader
// could take them for the event.
func DropAttributes(header http.Header) {
	for name := range header {
		if strings.HasPrefix(name, headerPrefix) {
			header.Del(name)
		}
	}
}

// describe prints an error of the SDK on one line, in the same order each time, and not beyond a bound.
func describe(err error) string {
	text := err.Error()
	if fields := (event.ValidationError)(nil); errors.As(err, &fields) {
		var lines []string
		for name, e := range fields {
			lines = append(lines, name+": "+e.Error())
		}
		slices.Sort(lines)
		text = strings.Join(lines, "; ")
	}
	const limit = 300
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}
