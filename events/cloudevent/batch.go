package cloudevent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// StructuredType is the media type of one event in structured mode.
const StructuredType = structuredType

// IsBatch tells by the header whether a request holds a batch of events (CloudEvents 1.0, JSON Batch Format).
func IsBatch(header http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && mediaType == batchType
}

// BatchEvent is one event of a batch.
type BatchEvent struct {
	Event
	// Body is the event in structured mode, byte for byte as it was sent. It shares the memory of the batch's body.
	Body []byte
}

// ReadBatch returns the events of a batch in their order, or an *Error that names the first that can't be taken. An empty
// batch is one, as the format says. Two events with the same source and id are refused: they would be taken for one, and
// the second be lost.
func ReadBatch(header http.Header, body []byte) ([]BatchEvent, error) {
	types := header.Values("Content-Type")
	if len(types) != 1 {
		return nil, invalid("several Content-Type lines")
	}
	_, parameters, err := mime.ParseMediaType(types[0])
	if err != nil {
		return nil, unsupported("Content-Type is no media type")
	}
	if err := utf8Only(batchType, parameters); err != nil {
		return nil, err
	}
	raw, err := elements(body)
	if err != nil {
		return nil, err
	}
	single := http.Header{"Content-Type": {structuredType}}
	events := make([]BatchEvent, 0, len(raw))
	type key struct{ source, id string }
	first := map[key]int{}
	for i, text := range raw {
		event, err := Read(single, text)
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, &Error{Status: e.Status, Reason: fmt.Sprintf("event %d of the batch (counted from 0): %s", i, e.Reason)}
		}
		if err != nil {
			return nil, err
		}
		k := key{event.Source, event.ID}
		if before, ok := first[k]; ok {
			return nil, invalid("events %d and %d of the batch (counted from 0) have the same source and id", before, i)
		}
		first[k] = i
		events = append(events, BatchEvent{event, text})
	}
	return events, nil
}

// elements returns the elements of a JSON array as they were sent.
func elements(body []byte) ([]json.RawMessage, error) {
	broken := invalid("the body must be one JSON array of events")
	decoder := json.NewDecoder(bytes.NewReader(body))
	if token, err := decoder.Token(); err != nil || token != json.Delim('[') {
		return nil, broken
	}
	var all []json.RawMessage
	for decoder.More() {
		var element json.RawMessage
		if err := decoder.Decode(&element); err != nil {
			return nil, broken
		}
		all = append(all, element)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, broken
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, broken
	}
	return all, nil
}
