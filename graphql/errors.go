package graphql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// Error is what every failed request returns. Its text names operation, endpoint, status, codes and request id, and
// never a token, a header or anything that the server wrote; Detail has the server's words.
type Error struct {
	// Kind says what can be done.
	Kind Kind
	// Operation is the name of the GraphQL operation.
	Operation string
	// Endpoint is host and path of the URL.
	Endpoint string
	// Status is the HTTP status; 0 if there was no answer.
	Status int
	// Errors are the GraphQL errors of the answer, at most 32.
	Errors []ServerError
	// RetryAfter is how long the server wants to be left alone; 0 if it did not say.
	RetryAfter time.Duration
	// RequestID is the x-request-id that was sent: Compass has it in its logs.
	RequestID string
	// Err is the cause, if there is one beside what the server said.
	Err error
}

// ServerError is one GraphQL error.
type ServerError struct {
	// Message is the server's text, cut to 512 bytes, the request's token redacted. It is for people.
	Message string
	// Path of the field, such as "applicationsForRuntime.data.3.bundles"; empty for the whole request.
	Path string
	// Name is extensions.error of Director ("InsufficientScopes") or extensions.code of Connector
	// ("GRAPHQL_VALIDATION_FAILED"); Connector's own errors have none.
	Name string
	// Code is extensions.error_code of Director (23); 0 if there is none.
	Code int
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Operation, e.Kind)
	var facts []string
	if e.Status != 0 {
		facts = append(facts, fmt.Sprintf("HTTP %d", e.Status))
	}
	for i, s := range e.Errors {
		if i == 3 {
			facts = append(facts, fmt.Sprintf("%d more errors", len(e.Errors)-i))
			break
		}
		facts = append(facts, s.describe())
	}
	if e.Endpoint != "" {
		facts = append(facts, e.Endpoint)
	}
	if e.RequestID != "" {
		facts = append(facts, "request "+e.RequestID)
	}
	if len(facts) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(facts, ", "))
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (s ServerError) describe() string {
	what := "error without code"
	switch {
	case s.Name != "" && s.Code != 0:
		what = fmt.Sprintf("%s %d", s.Name, s.Code)
	case s.Name != "":
		what = s.Name
	case s.Code != 0:
		what = fmt.Sprintf("error %d", s.Code)
	}
	if s.Path != "" {
		what += " at " + s.Path
	}
	return what
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Detail gives the server's own words, at most three of them, for a status that people read. They come from outside:
// show them, do not decide by them.
func (e *Error) Detail() string {
	var words []string
	for _, s := range e.Errors {
		if s.Message != "" && len(words) < 3 {
			words = append(words, s.Message)
		}
	}
	return strings.Join(words, "; ")
}

// KindOf gives the Kind of an error of this package, or "" for any other.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

// IsNotFound reports whether Director said that what an operation is about is not there, and nothing else.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && len(e.Errors) == 1 && e.Errors[0].Code == codeNotFound
}

// Alert gives the TLS alert that the other side sent (RFC 8446, 6). crypto/tls has it as a number of a type that is
// not exported, within a net.OpError.
func Alert(err error) (uint8, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
		return uint8(v.Uint()), true
	}
	return 0, false
}

// Alerts about a client certificate, RFC 8446, 6.2.
const (
	alertBadCertificate         = 42
	alertUnsupportedCertificate = 43
	alertCertificateRevoked     = 44
	alertCertificateExpired     = 45
	alertCertificateUnknown     = 46
	alertUnknownCA              = 48
	alertAccessDenied           = 49
	alertCertificateRequired    = 116
)

// KindOfTransport says what an error means that came instead of an answer, or in the middle of one. ctx is the caller's: only
// it can say that the caller gave up.
func KindOfTransport(ctx context.Context, err error) Kind {
	if alert, ok := Alert(err); ok {
		switch alert {
		case alertCertificateExpired:
			return CertificateExpired
		case alertBadCertificate, alertUnsupportedCertificate, alertCertificateRevoked, alertCertificateUnknown,
			alertUnknownCA, alertAccessDenied, alertCertificateRequired:
			return CertificateRefused
		}
		return TLS
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return ServerUntrusted
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return TLS
	}
	// Only the caller's own context can say that the caller gave up.
	if errors.Is(ctx.Err(), context.Canceled) {
		return Canceled
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return Unreachable
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	return Unreachable
}

// withoutURL drops what net/http puts around an error: the whole URL, whose query may hold a token.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
