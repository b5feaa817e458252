package compass

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The kinds of faults. docs/reference/simulator-compass.md has the same table.
const (
	FaultStatus            FaultKind = "Status"
	FaultGraphQLError      FaultKind = "GraphQLError"
	FaultStatusWithData    FaultKind = "StatusWithData"
	FaultNullData          FaultKind = "NullData"
	FaultFieldError        FaultKind = "FieldError"
	FaultFieldNull         FaultKind = "FieldNull"
	FaultScopeLost         FaultKind = "ScopeLost"
	FaultSlow              FaultKind = "Slow"
	FaultHang              FaultKind = "Hang"
	FaultReset             FaultKind = "Reset"
	FaultTruncated         FaultKind = "Truncated"
	FaultOversized         FaultKind = "Oversized"
	FaultShortPage         FaultKind = "ShortPage"
	FaultWrongCount        FaultKind = "WrongCount"
	FaultEndlessPages      FaultKind = "EndlessPages"
	FaultRateLimited       FaultKind = "RateLimited"
	FaultOtherURLs         FaultKind = "OtherURLs"
	FaultCertificateTimes  FaultKind = "CertificateTimes"
	FaultDirectorDown      FaultKind = "DirectorDown"
	FaultConnectorDown     FaultKind = "ConnectorDown"
	FaultGatewayDown       FaultKind = "GatewayDown"
	FaultHydratorDown      FaultKind = "HydratorDown"
	FaultDatabaseDown      FaultKind = "DatabaseDown"
	defaultOversizedBytes            = 64 << 20
	defaultGraphQLErrorMsg           = "simulated error"
)

// faultKinds says what each kind does and which settings it takes beside
// Operation, Skip and Count.
var faultKinds = []struct {
	Kind     FaultKind
	Settings []string
	Required []string
	Effect   string
}{
	{FaultStatus, []string{"status", "body", "contentType", "retryAfter", "executed"}, []string{"status"}, "The answer is status with body, which may be empty or no JSON."},
	{FaultGraphQLError, []string{"status", "message", "error", "code", "retryAfter", "executed"}, nil, "The answer is data: null and one GraphQL error at the operation, with extensions if code is set."},
	{FaultStatusWithData, []string{"status"}, []string{"status"}, "The request is executed, and its body is sent with another status."},
	{FaultNullData, nil, nil, "The request is executed, and the answer is data: null without an error."},
	{FaultFieldError, []string{"field", "message", "error", "code"}, []string{"field"}, "Each field of that name is null, with an error: partial data."},
	{FaultFieldNull, []string{"field"}, []string{"field"}, "Each field of that name is null, without an error."},
	{FaultScopeLost, []string{"scope"}, []string{"scope"}, "The caller is without a scope: errors at fields that need it, silent nulls at sanitized fields."},
	{FaultSlow, []string{"delay"}, []string{"delay"}, "The answer comes after a delay."},
	{FaultHang, nil, nil, "There is no answer until the client goes away or the fault is cleared."},
	{FaultReset, []string{"executed"}, nil, "The connection is cut without an answer."},
	{FaultTruncated, []string{"bytes"}, nil, "The connection is cut after bytes of the body (default: half of it)."},
	{FaultOversized, []string{"bytes"}, nil, "The body is followed by bytes of white space (default 64 MiB): valid JSON, but large."},
	{FaultShortPage, []string{"field", "by"}, []string{"field", "by"}, "Pages of that list lose their last items; counts and cursors stay."},
	{FaultWrongCount, []string{"field", "by"}, []string{"field", "by"}, "totalCount of that list is wrong by so many, up or down."},
	{FaultEndlessPages, []string{"field"}, []string{"field"}, "Pages of that list always say that another one follows, at the cursor they began with."},
	{FaultRateLimited, []string{"retryAfter"}, nil, "429 local_rate_limited, with Retry-After only if retryAfter is set (the real one sends none)."},
	{FaultOtherURLs, []string{"directorURL", "connectorURL"}, nil, "configuration answers other URLs."},
	{FaultCertificateTimes, []string{"shift", "validity"}, nil, "Issued certificates begin so much later (or earlier), or are valid for another time."},
	{FaultDirectorDown, nil, nil, "Director: 502, empty. Connector: 400, empty; the token is not used up."},
	{FaultConnectorDown, nil, nil, "Connector: 502, empty; the token is used up. Director works."},
	{FaultGatewayDown, nil, nil, "502, empty, without a Content-Type; the token is used up."},
	{FaultHydratorDown, nil, nil, "500 with a body that is no GraphQL; the token is not used up."},
	{FaultDatabaseDown, nil, nil, "Nobody is known: Director 200 InsufficientScopes with empty actual=, Connector 400, empty; the token is not used up."},
}

// Fault is something that goes wrong for requests that match.
type Fault struct {
	// ID names a fault that is set; SetFault makes one if it is empty.
	ID   string    `json:"id,omitempty"`
	Kind FaultKind `json:"kind"`
	// Operation is the root field of the requests that the fault is for, for
	// example applicationsForRuntime or configuration; empty is every request.
	Operation string `json:"operation,omitempty"`
	// Skip lets so many matching requests pass first.
	Skip int `json:"skip,omitempty"`
	// Count is for how many requests the fault stands; 0 is until cleared.
	Count int `json:"count,omitempty"`

	Status      int    `json:"status,omitempty"`
	Body        string `json:"body,omitempty"`
	ContentType string `json:"contentType,omitempty"`
	// RetryAfter is the value of the header: seconds, or a date.
	RetryAfter string `json:"retryAfter,omitempty"`
	// Executed lets the request have its effect before the answer is
	// replaced or lost; a token is then used up.
	Executed bool `json:"executed,omitempty"`
	// Message, Error and Code of a GraphQL error.
	Message string `json:"message,omitempty"`
	Error   string `json:"error,omitempty"`
	Code    int    `json:"code,omitempty"`
	// Field is the name of a field or list, for example bundles.
	Field string `json:"field,omitempty"`
	Scope string `json:"scope,omitempty"`
	// By is a number of items.
	By           int      `json:"by,omitempty"`
	Bytes        int      `json:"bytes,omitempty"`
	Delay        Duration `json:"delay,omitempty"`
	Shift        Duration `json:"shift,omitempty"`
	Validity     Duration `json:"validity,omitempty"`
	DirectorURL  string   `json:"directorURL,omitempty"`
	ConnectorURL string   `json:"connectorURL,omitempty"`
}

// Duration is a time.Duration that JSON and YAML hold as text, such as "1m30s".
type Duration time.Duration

// MarshalText writes the form that time.ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Operations are the root fields that a Fault can be for, and under which
// requests are counted.
func Operations() []string { return slices.Clone(operations) }

// FaultKinds are all kinds of faults, in the order of the reference.
func FaultKinds() []FaultKind {
	kinds := make([]FaultKind, 0, len(faultKinds))
	for _, kind := range faultKinds {
		kinds = append(kinds, kind.Kind)
	}
	return kinds
}

// pagedFields are the lists that have pages.
var pagedFields = []string{
	"applicationsForRuntime", "applications", "runtimes", "bundles", "apiDefinitions", "eventDefinitions", "documents",
}

func (f Fault) set() map[string]bool {
	return map[string]bool{
		"status": f.Status != 0, "body": f.Body != "", "contentType": f.ContentType != "", "retryAfter": f.RetryAfter != "",
		"executed": f.Executed, "message": f.Message != "", "error": f.Error != "", "code": f.Code != 0,
		"field": f.Field != "", "scope": f.Scope != "", "by": f.By != 0, "bytes": f.Bytes != 0, "delay": f.Delay != 0,
		"shift": f.Shift != 0, "validity": f.Validity != 0, "directorURL": f.DirectorURL != "", "connectorURL": f.ConnectorURL != "",
	}
}

func (f Fault) validate() error {
	var p problems
	if f.Operation != "" && !slices.Contains(operations, f.Operation) {
		p.add("operation", "%q is none of %s", f.Operation, strings.Join(operations, ", "))
	}
	for _, number := range []struct {
		field string
		n     int
	}{{"skip", f.Skip}, {"count", f.Count}, {"bytes", f.Bytes}} {
		if number.n < 0 {
			p.add(number.field, "%d: want 0 or more", number.n)
		}
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		p.add("status", "%d: want 200 to 599", f.Status)
	}
	known := false
	for _, kind := range faultKinds {
		if kind.Kind != f.Kind {
			continue
		}
		known = true
		settings := f.set()
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			switch set := settings[name]; {
			case set && !slices.Contains(kind.Settings, name):
				p.add(name, "means nothing to a fault of kind %s", f.Kind)
			case !set && slices.Contains(kind.Required, name):
				p.add(name, "is required for a fault of kind %s", f.Kind)
			}
		}
	}
	if !known {
		p.add("kind", "%q is not known", f.Kind)
	}
	switch f.Kind {
	case FaultShortPage, FaultWrongCount, FaultEndlessPages:
		if f.Field != "" && !slices.Contains(pagedFields, f.Field) {
			p.add("field", "%q is none of the lists %s", f.Field, strings.Join(pagedFields, ", "))
		}
	}
	if err := p.err(); err != nil {
		return fmt.Errorf("fault: %w", err)
	}
	return nil
}
