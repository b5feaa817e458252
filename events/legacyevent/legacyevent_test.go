package legacyevent_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/events/legacyevent"
)

const id = "31109198-4d69-4ae0-972d-76117f3748c8"

func TestWithID(t *testing.T) {
	const own = `"event-id":"` + id + `"`
	for what, tc := range map[string]struct{ in, want string }{
		"no id":                       {`{ "event-type":"a", "data":{"event-id":"x"}}`, `{` + own + `, "event-type":"a", "data":{"event-id":"x"}}`},
		"an id":                       {`{"event-id":"x","event-type":"a"}`, `{"event-id":"x","event-type":"a"}`},
		"an id in other case":         {`{"event-type":"a","Event-ID":"x"}`, `{"event-type":"a","Event-ID":"x"}`},
		"a type in other case":        {`{"Event-Type":"a"}`, `{` + own + `,"Event-Type":"a"}`},
		"an escaped name":             {`{"event-type":"a","event\u002did":"x"}`, `{"event-type":"a","event\u002did":"x"}`},
		"an empty id":                 {`{"event-type":"a", "event-id": "" ,"b":2}`, `{"event-type":"a", "event-id": "` + id + `" ,"b":2}`},
		"null":                        {`{"event-id":null,"event-type":"a"}`, `{` + own + `,"event-type":"a"}`},
		"two empty ones":              {`{"event-type":"a","event-id":"","EVENT-ID":null}`, `{"event-type":"a",` + own + `,"EVENT-ID":"` + id + `"}`},
		"an id that is no string":     {`{"event-type":"a","event-id":7}`, `{"event-type":"a","event-id":7}`},
		"something that is no event":  {`{"title":"order","event-id":""}`, `{"title":"order","event-id":""}`},
		"an empty object":             {`{}`, `{}`},
		"no object":                   {`["event-id"]`, `["event-id"]`},
		"nothing":                     {``, ``},
		"an id and then an empty one": {`{"event-type":"a","event-id":"x","event-id":""}`, `{"event-type":"a","event-id":"x",` + own + `}`},
		"an empty id and then one":    {`{"event-type":"a","event-id":"","event-id":"x"}`, `{"event-type":"a","event-id":"","event-id":"x"}`},
		"an id and then null":         {`{"event-type":"a","event-id":"x","event-id":null}`, `{"event-type":"a","event-id":"x","event-id":null}`},
		"broken":                      {`{"event-type":"a"`, `{"event-type":"a"`},
		"broken within":               {`{"event-type":"a",]}`, `{"event-type":"a",]}`},
		"something behind":            {`{"event-type":"a"} x`, `{` + own + `,"event-type":"a"} x`},
	} {
		if got := string(legacyevent.WithID([]byte(tc.in), id)); got != tc.want {
			t.Errorf("%s: got %s, want %s", what, got, tc.want)
		}
	}
}

// FuzzWithID checks that an event stays the same but for its id, and that the second time changes nothing.
func FuzzWithID(f *testing.F) {
	for _, seed := range []string{`{"event-type":"a"}`, `{"event-id":"","event-type":"a"}`, `{"event-id":"x"}`, `{"Event-Id":null,"data":{"a":[1]},"Event-Type":"a"}`, `[]`, `{"event-type":1`, ` { "event-type" : "\u0000" } `, ``} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got := string(legacyevent.WithID([]byte(body), id))
		if again := string(legacyevent.WithID([]byte(got), id)); again != got {
			t.Fatalf("%q became %q, then %q", body, got, again)
		}
		if got == body {
			return
		}
		type event struct {
			ID string `json:"event-id"`
		}
		var before, after event
		if err := json.NewDecoder(strings.NewReader(body)).Decode(&before); err != nil || before.ID != "" {
			t.Fatalf("%q was changed: %q, %v", body, before.ID, err)
		}
		if err := json.NewDecoder(strings.NewReader(got)).Decode(&after); err != nil || after.ID != id {
			t.Fatalf("%q became %q: %v", body, got, err)
		}
	})
}
