package graphql

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzAnswer(f *testing.F) {
	raw, err := os.ReadFile("testdata/failures.json")
	if err != nil {
		f.Fatal(err)
	}
	var recorded []struct {
		Status int
		Body   json.RawMessage
	}
	if err := json.Unmarshal(raw, &recorded); err != nil {
		f.Fatal(err)
	}
	for _, r := range recorded {
		f.Add(r.Status, []byte(r.Body))
	}
	f.Add(200, []byte(`{"errors":[{"message":1,"path":[{},null,"`+strings.Repeat("x", 100)+`"],"extensions":{"error_code":"x"}},null,[]]}`))
	f.Add(200, []byte(`{"data":{"a":1},"errors":[{"message":"canary canary"}]}`))
	const canary = "canary"
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var target struct{ A int }
		a := answer{Data: data{target: &target}}
		if json.Unmarshal(body, &a) != nil {
			return
		}
		errs := a.serverErrors([]string{canary})
		if len(errs) > maxErrors || (len(a.Errors) > 0) != (len(errs) > 0) {
			t.Fatalf("%d of %d errors are kept", len(errs), len(a.Errors))
		}
		e := &Error{Kind: kindOfStatus(status, errs, len(body) == 0), Operation: "Op", Status: status, Errors: errs}
		if len(errs) > 0 && e.Kind == "" {
			t.Fatal("errors without a kind")
		}
		for _, s := range errs {
			if len(s.Message) > maxMessageBytes+len("…") || utf8.ValidString(s.Message) != true {
				t.Fatalf("message of %d bytes: %q", len(s.Message), s.Message)
			}
		}
		if printed := e.Error() + e.Detail(); strings.Contains(printed, canary) || strings.ContainsAny(printed, "\r\n") {
			t.Fatalf("printed: %q", printed)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "99999999999999999999", "1e3", "٣"} {
		f.Add(s)
	}
	now := time.Date(2015, 10, 21, 7, 27, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		got := retryAfter(value, now)
		if got < 0 || got > maxRetryAfter {
			t.Fatalf("%v", got)
		}
		if at, err := http.ParseTime(strings.TrimSpace(value)); err == nil && at.Before(now) && got != 0 {
			t.Fatalf("%v for a date that is past", got)
		}
	})
}
