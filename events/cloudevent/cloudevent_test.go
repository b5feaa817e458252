package cloudevent_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/application-connector/application-connector/events/cloudevent"
)

func binary(change ...string) http.Header {
	h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"7"}, "Ce-Source": {"shop"}, "Ce-Type": {"order.created.v1"}, "Content-Type": {"application/json"}}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == "" {
			h.Del(change[i])
			continue
		}
		h.Add(change[i], change[i+1])
	}
	return h
}

func without(h http.Header, name, value string) http.Header {
	h.Set(name, value)
	return h
}

func structured(contentType ...string) http.Header { return http.Header{"Content-Type": contentType} }

const (
	jsonType = "application/cloudevents+json"
	whole    = `{"specversion":"1.0","id":"7","source":"shop","type":"order.created.v1","data":{"a":1}}`
)

func TestRead(t *testing.T) {
	for what, tc := range map[string]struct {
		header http.Header
		body   string
		want   cloudevent.Event
	}{
		"binary":                       {binary(), `{"a":1}`, cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1"}},
		"binary without data":          {binary("Content-Type", ""), "", cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1"}},
		"binary with extensions":       {binary("Ce-Time", "2026-01-02T03:04:05Z", "Ce-Subject", "x", "Ce-Myext", "y"), "x", cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1"}},
		"structured":                   {structured(jsonType), whole, cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1", Structured: true}},
		"structured with a charset":    {structured(jsonType + "; charset=UTF-8"), whole, cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1", Structured: true}},
		"structured in other case":     {structured("Application/CloudEvents+JSON"), whole, cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1", Structured: true}},
		"structured with base64 data":  {structured(jsonType), `{"specversion":"1.0","id":"7","source":"shop","type":"t","data_base64":"YQ=="}`, cloudevent.Event{ID: "7", Source: "shop", Type: "t", Structured: true}},
		"structured wins over headers": {without(binary(), "Content-Type", jsonType), strings.Replace(whole, "shop", "body", 1), cloudevent.Event{ID: "7", Source: "body", Type: "order.created.v1", Structured: true}},
		"a source by escapes":          {structured(jsonType), strings.Replace(whole, "source", `sou\u0072ce`, 1), cloudevent.Event{ID: "7", Source: "shop", Type: "order.created.v1", Structured: true}},
	} {
		t.Run(what, func(t *testing.T) {
			before := tc.header.Clone()
			got, err := cloudevent.Read(tc.header, []byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got, cmpopts.IgnoreUnexported(cloudevent.Event{})); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if d := cmp.Diff(before, tc.header); d != "" {
				t.Errorf("the header was changed: %s", d)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	for what, tc := range map[string]struct {
		header http.Header
		body   string
		status int
		reason string
	}{
		"no event at all":                {structured("application/json"), "{}", 415, "no CloudEvent"},
		"no header at all":               {http.Header{}, "", 415, "no CloudEvent"},
		"a batch":                        {structured("application/cloudevents-batch+json"), "[]", 415, "application/cloudevents-batch+json is not supported"},
		"another structured format":      {structured("application/cloudevents+avro"), "", 415, "application/cloudevents+avro is not supported"},
		"another charset":                {structured(jsonType + "; charset=utf-16"), whole, 415, "charset"},
		"a content type that is none":    {binary("Content-Type", "", "Content-Type", ";"), "", 415, "no media type"},
		"two content types":              {structured(jsonType, "text/plain"), whole, 400, "several Content-Type lines"},
		"another version":                {without(binary(), "Ce-Specversion", "0.3"), "", 400, "ce-specversion must be 1.0"},
		"an unknown version":             {without(binary(), "Ce-Specversion", "2"), "", 400, "ce-specversion must be 1.0"},
		"no id":                          {binary("Ce-Id", ""), "", 400, "id: MUST be a non-empty string"},
		"no source":                      {binary("Ce-Source", ""), "", 400, "source: REQUIRED"},
		"no type":                        {binary("Ce-Type", ""), "", 400, "type: MUST be a non-empty string"},
		"neither id nor type":            {binary("Ce-Type", "", "Ce-Id", ""), "", 400, "id: MUST be a non-empty string; type: MUST be a non-empty string"},
		"two sources":                    {binary("Ce-Source", "victim"), "", 400, "several ce-source lines"},
		"a time that is none":            {binary("Ce-Time", "noon"), "", 400, "not a CloudEvent"},
		"an extension with a hyphen":     {binary("Ce-My-Ext", "x"), "", 400, "not a CloudEvent"},
		"structured: no JSON":            {structured(jsonType), "hello", 400, "the body must be one JSON object"},
		"structured: nothing":            {structured(jsonType), "", 400, "the body must be one JSON object"},
		"structured: an array":           {structured(jsonType), "[" + whole + "]", 400, "the body must be one JSON object"},
		"structured: not closed":         {structured(jsonType), whole[:len(whole)-1], 400, "the body must be one JSON object"},
		"structured: two objects":        {structured(jsonType), whole + whole, 400, "the body must be one JSON object"},
		"structured: a broken value":     {structured(jsonType), `{"id":}`, 400, "the body must be one JSON object"},
		"structured: two sources":        {structured(jsonType), strings.Replace(whole, "{", `{"source":"victim",`, 1), 400, "member source is repeated"},
		"structured: a source by case":   {structured(jsonType), strings.Replace(whole, "{", `{"Source":"victim",`, 1), 400, "lower-case"},
		"structured: a source by escape": {structured(jsonType), strings.Replace(whole, "{", `{"sou\u0072ce":"victim",`, 1), 400, "member source is repeated"},
		"structured: a nameless member":  {structured(jsonType), strings.Replace(whole, "{", `{"":1,`, 1), 400, "lower-case"},
		"structured: no version":         {structured(jsonType), `{"id":"7","source":"shop","type":"t"}`, 400, "specversion"},
		"structured: another version":    {structured(jsonType), strings.Replace(whole, "1.0", "0.3", 1), 400, "specversion must be 1.0"},
		"structured: no id":              {structured(jsonType), strings.Replace(whole, `"id":"7",`, "", 1), 400, "id: MUST be a non-empty string"},
		"structured: a number as source": {structured(jsonType), strings.Replace(whole, `"shop"`, "7", 1), 400, "not a CloudEvent"},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := cloudevent.Read(tc.header, []byte(tc.body))
			e := (*cloudevent.Error)(nil)
			if !errors.As(err, &e) {
				t.Fatalf("got %+v and %v", got, err)
			}
			if e.Status != tc.status || !strings.Contains(e.Reason, tc.reason) || strings.Contains(e.Reason, "\n") || len(e.Reason) > 400 {
				t.Errorf("got %+v, want %d and a line with %q", *e, tc.status, tc.reason)
			}
		})
	}
}

func TestWithSource(t *testing.T) {
	h := binary()
	e, err := cloudevent.Read(h, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(e.WithSource(h, []byte("x"), "other")); got != "x" {
		t.Error(got)
	}
	if d := cmp.Diff(without(binary(), "Ce-Source", "other"), h); d != "" {
		t.Error(d)
	}

	body := []byte("{ \"data\" : {\"b\": 1.0, \"a\" : [ 1 ]}, \"specversion\":\"1.0\",\n\"source\":\"shop\",\"id\":\"7\",\"type\":\"<t>\"}")
	e, err = cloudevent.Read(structured(jsonType), body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"data":{"b": 1.0, "a" : [ 1 ]},"specversion":"1.0","source":"other","id":"7","type":"<t>"}`
	if got := string(e.WithSource(structured(jsonType), body, "other")); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestDropAttributes(t *testing.T) {
	h := binary("Content-Type", "", "Cexyz", "kept")
	cloudevent.DropAttributes(h)
	if d := cmp.Diff(http.Header{"Cexyz": {"kept"}}, h); d != "" {
		t.Error(d)
	}
}

// FuzzRead sees that whatever is taken for an event has the attributes that the specification requires, and that another
// source changes the source alone.
func FuzzRead(f *testing.F) {
	f.Add(jsonType, "", "", []byte(whole))
	f.Add("application/json", "1.0", "shop", []byte("x"))
	f.Add(jsonType, "", "", []byte(`{"source":"a","source":"b"}`))
	f.Add("application/cloudevents-batch+json", "1.0", "", []byte("[]"))
	f.Fuzz(func(t *testing.T, contentType, version, source string, body []byte) {
		h := http.Header{"Content-Type": {contentType}, "Ce-Specversion": {version}, "Ce-Source": {source}, "Ce-Id": {"7"}, "Ce-Type": {"t"}}
		e, err := cloudevent.Read(h, body)
		if err != nil {
			if x := (*cloudevent.Error)(nil); !errors.As(err, &x) || x.Status != 400 && x.Status != 415 {
				t.Fatal(err)
			}
			return
		}
		if e.ID == "" || e.Source == "" || e.Type == "" {
			t.Fatalf("taken: %+v", e)
		}
		again, err := cloudevent.Read(h, e.WithSource(h, body, "other-shop"))
		if err != nil {
			t.Fatalf("with another source: %v", err)
		}
		if again.Source != "other-shop" || again.ID != e.ID || again.Type != e.Type {
			t.Fatalf("%+v became %+v", e, again)
		}
		if e.Structured && !json.Valid(body) {
			t.Fatal("taken without being JSON")
		}
	})
}
