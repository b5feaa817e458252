package graphql

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what is kept of a server's errors.
const (
	maxErrors       = 32
	maxMessageBytes = 512
	maxPathParts    = 32
)

// answer is a GraphQL response: https://spec.graphql.org/October2021/#sec-Response-Format
type answer struct {
	Data   data        `json:"data"`
	Errors []wireError `json:"errors"`
}

// data decodes into the target of the operation, and keeps what went wrong for later: errors of the server come first.
type data struct {
	target  any
	present bool
	err     error
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *data) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	d.present = true
	if d.target != nil {
		d.err = json.Unmarshal(b, d.target)
	}
	return nil
}

// wireError is an error as Director and Connector write it. Parts of other types than expected are left out, not an
// error: they describe a failure that stays one.
type wireError struct {
	Message    json.RawMessage   `json:"message"`
	Path       []json.RawMessage `json:"path"`
	Extensions json.RawMessage   `json:"extensions"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (w *wireError) UnmarshalJSON(b []byte) error {
	type plain wireError
	var p plain
	if json.Unmarshal(b, &p) == nil {
		*w = wireError(p)
		return nil
	}
	// Some part has another type: take what has the right one.
	var parts map[string]json.RawMessage
	if json.Unmarshal(b, &parts) == nil {
		w.Message, w.Extensions = parts["message"], parts["extensions"]
		_ = json.Unmarshal(parts["path"], &w.Path)
	}
	return nil
}

// name is what error names and path elements look like. Anything else is not repeated in an error's text.
var name = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

func (w wireError) serverError(secrets []string) ServerError {
	var out ServerError
	if json.Unmarshal(w.Message, &out.Message) == nil {
		out.Message = bounded(redacted(out.Message, secrets))
	}
	var parts []string
	for i, raw := range w.Path {
		if i == maxPathParts {
			break
		}
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw) // an index
		}
		if !name.MatchString(text) || redacted(text, secrets) != text {
			text = "?"
		}
		parts = append(parts, text)
	}
	out.Path = strings.Join(parts, ".")
	var extensions map[string]json.RawMessage
	_ = json.Unmarshal(w.Extensions, &extensions)
	_ = json.Unmarshal(extensions["error_code"], &out.Code)
	for _, key := range []string{"error", "code"} {
		var text string
		if out.Name == "" && json.Unmarshal(extensions[key], &text) == nil && name.MatchString(text) &&
			redacted(text, secrets) == text {
			out.Name = text
		}
	}
	return out
}

// bounded cuts a text, never within a character, and takes control characters out of it.
func bounded(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxMessageBytes {
		return s
	}
	s = s[:maxMessageBytes]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + "…"
}

func redacted(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "[redacted]")
	}
	return s
}

// serverErrors converts the errors of an answer.
func (a *answer) serverErrors(secrets []string) []ServerError {
	var out []ServerError
	for i, w := range a.Errors {
		if i == maxErrors {
			break
		}
		out = append(out, w.serverError(secrets))
	}
	return out
}

// Codes of Director's errors, extensions.error_code.
const (
	codeInternal            = 10
	codeUnknown             = 11
	codeNotFound            = 20
	codeInsufficientScopes  = 23
	codeTenantRequired      = 24
	codeTenantNotFound      = 25
	codeUnauthorized        = 26
	codeOperationTimeout    = 28
	codeConcurrentOperation = 32
	codeConcurrentUpdate    = 35
	codeOperationInProgress = 38
)

// kindOfStatus says what an answer means that is a failure: by its status, its GraphQL errors and whether it is empty.
func kindOfStatus(status int, errs []ServerError, empty bool) Kind {
	switch {
	case status == http.StatusTooManyRequests:
		return Throttled
	case status >= 500, status == http.StatusRequestTimeout:
		return Server
	case status == http.StatusUnprocessableEntity:
		return Invalid
	}
	// What weighs most for the caller wins when several errors come together: who we are before what we may, that
	// before trouble on the other side, and a plain no last.
	weight := map[Kind]int{Refused: 6, Ambiguous: 5, ScopeMissing: 4, Server: 3, Invalid: 2, Rejected: 1}
	var kind Kind
	for _, e := range errs {
		if k := kindOfError(e); weight[k] > weight[kind] {
			kind = k
		}
	}
	success := status >= 200 && status < 300
	switch {
	case success || kind == Refused || kind == Ambiguous || kind == ScopeMissing:
		return kind
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Refused
	case status == http.StatusBadRequest && empty:
		return Ambiguous
	}
	return Invalid
}

func kindOfError(e ServerError) Kind {
	switch e.Code {
	case codeInsufficientScopes:
		// Only the text tells a caller without any scope, which Compass could not identify, from one with too few.
		if strings.Contains(e.Message, "[actual=;") {
			return Ambiguous
		}
		return ScopeMissing
	case codeTenantRequired, codeTenantNotFound, codeUnauthorized:
		return Refused
	case codeInternal, codeUnknown, codeOperationTimeout, codeConcurrentOperation, codeConcurrentUpdate, codeOperationInProgress:
		return Server
	}
	if strings.HasPrefix(e.Name, "GRAPHQL_") {
		return Invalid
	}
	return Rejected
}

// maxRetryAfter bounds what a server can ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header of that name, RFC 9110, 10.2.3: seconds or a date. What is neither, or past, is 0.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	var wait time.Duration
	if digits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

func digits(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}
