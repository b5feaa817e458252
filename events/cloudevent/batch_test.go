package cloudevent_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/cloudevent"
)

const batchType = "application/cloudevents-batch+json"

func batched(contentType ...string) http.Header { return http.Header{"Content-Type": contentType} }

func one(id string) string {
	return `{"specversion":"1.0","id":"` + id + `","source":"shop","type":"t", "data":{"n":1}}`
}

func TestReadBatch(t *testing.T) {
	got, err := cloudevent.ReadBatch(batched(batchType+"; charset=UTF-8"), []byte(` [ `+one("a")+` , `+one("b")+`]`))
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, e := range got {
		seen = append(seen, e.ID+" "+e.Source+" "+e.Type+" "+string(e.Body))
	}
	if d := cmp.Diff([]string{"a shop t " + one("a"), "b shop t " + one("b")}, seen); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got, err := cloudevent.ReadBatch(batched(batchType), []byte("[]")); err != nil || len(got) != 0 {
		t.Errorf("an empty batch: %v, %v", got, err)
	}
	if changed := got[1].WithSource(http.Header{}, got[1].Body, "till"); !bytes.Contains(changed, []byte(`"source":"till"`)) || !bytes.Contains(changed, []byte(`"id":"b"`)) {
		t.Errorf("another source: %s", changed)
	}
}

func TestReadBatchRefuses(t *testing.T) {
	for what, tc := range map[string]struct {
		header http.Header
		body   string
		status int
		want   string
	}{
		"no array":          {batched(batchType), one("a"), 400, "one JSON array"},
		"nothing":           {batched(batchType), ``, 400, "one JSON array"},
		"an open array":     {batched(batchType), `[` + one("a"), 400, "one JSON array"},
		"something behind":  {batched(batchType), `[` + one("a") + `] []`, 400, "one JSON array"},
		"a broken event":    {batched(batchType), `[` + one("a") + `,{"id":"b"}]`, 400, "event 1 of the batch (counted from 0): "},
		"no object":         {batched(batchType), `[1]`, 400, "event 0 of the batch (counted from 0): the body must be one JSON object"},
		"an event repeated": {batched(batchType), `[` + one("a") + `,` + one("b") + `,` + one("a") + `]`, 400, "events 0 and 2 of the batch (counted from 0) have the same source and id"},
		"another charset":   {batched(batchType + ";charset=latin1"), `[]`, 415, "charset"},
		"two types":         {batched(batchType, batchType), `[]`, 400, "several Content-Type lines"},
	} {
		_, err := cloudevent.ReadBatch(tc.header, []byte(tc.body))
		e := (*cloudevent.Error)(nil)
		if !errors.As(err, &e) || e.Status != tc.status || !strings.Contains(e.Reason, tc.want) {
			t.Errorf("%s: got %v, want %d %q", what, err, tc.status, tc.want)
		}
	}
}

func TestIsBatch(t *testing.T) {
	for contentType, want := range map[string]bool{
		batchType: true, "Application/CloudEvents-Batch+JSON; charset=utf-8": true, "application/cloudevents+json": false,
		"application/cloudevents-batch": false, "application/json": false, "": false, ";": false,
	} {
		if got := cloudevent.IsBatch(batched(contentType)); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
}

// FuzzReadBatch checks that each event of a batch is one that is taken alone too, with the same meaning.
func FuzzReadBatch(f *testing.F) {
	for _, seed := range []string{`[]`, `[` + one("a") + `]`, `[` + one("a") + `,` + one("b") + `]`, `[{}]`, `[[` + one("a") + `]]`, `[`, `{}`, `[null]`, `[` + one("a") + `,]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		events, err := cloudevent.ReadBatch(batched(batchType), []byte(body))
		if err != nil {
			if e := (*cloudevent.Error)(nil); !errors.As(err, &e) || len(events) != 0 {
				t.Fatalf("%d events and %v", len(events), err)
			}
			return
		}
		for _, e := range events {
			alone, err := cloudevent.Read(batched(cloudevent.StructuredType), e.Body)
			if err != nil || alone.ID != e.ID || alone.Source != e.Source || alone.Type != e.Type || !strings.Contains(body, string(e.Body)) {
				t.Fatalf("%q: %v, %v", e.Body, alone, err)
			}
		}
	})
}
