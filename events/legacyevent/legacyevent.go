// Package legacyevent gives an event of the old format (a JSON object with the members event-type, event-type-version,
// event-id, event-time and data) an id where it has none. It does not check the event: that is the publisher's to do.
package legacyevent

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Members that we look at. The publisher reads their names without regard to case, and takes the last of several.
const (
	memberID   = "event-id"
	memberType = "event-type"
)

// WithID returns the body of an event with the id, unless it names one already, has no type, or is no JSON object: then
// it returns the body as it is. Nothing but the id changes, not even space. Without an id of the sender's the publisher would make up
// one for each attempt, and a repeat would be a second event. The id must be a UUID, as the publisher wants it.
func WithID(body []byte, id string) []byte {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return body
	}
	value := []byte(strconv.Quote(id))
	first := int(decoder.InputOffset())
	out, copied, found, typed, named := []byte(nil), 0, false, false, false
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return body
		}
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return body
		}
		name, _ := token.(string)
		typed = typed || strings.EqualFold(name, memberType)
		if !strings.EqualFold(name, memberID) {
			continue
		}
		switch string(raw) {
		case "null": // leaves what stood before it
		case `""`:
			named = false
		default:
			named = true
			continue
		}
		found = true
		end := int(decoder.InputOffset())
		out = append(append(out, body[copied:end-len(raw)]...), value...)
		copied = end
	}
	if token, err := decoder.Token(); err != nil || token != json.Delim('}') || !typed {
		return body
	}
	if named {
		return body
	}
	if found {
		return append(out, body[copied:]...)
	}
	member := slices.Concat([]byte(strconv.Quote(memberID)+":"), value, []byte(","))
	return slices.Concat(body[:first], member, body[first:])
}
