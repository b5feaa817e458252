package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"golang.org/x/net/http2"
)

// otherwise is said of whatever has no cause that is known. What came is not said: it may have been a token, or a cookie.
const otherwise = "the connection failed, or what came was no HTTP"

// Cause is why a call failed, as it may stand in logs and in answers: net/http quotes what it cannot read as HTTP, whatever
// the peer sent. errors.Is and errors.As find the error itself.
func Cause(err error) error { return &cause{printable(err), err} }

type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// printable is the text of the innermost cause whose texts are known to quote nothing but addresses and names.
func printable(err error) string {
	var asked *url.Error // says of itself whether it is a time-out, not of what is further within
	if errors.As(err, &asked) {
		err = asked.Err
	}
	var through *net.OpError // also holds what went wrong on a connection, so this is looked at first
	var forbidden *ForbiddenError
	var name *net.DNSError
	var untrusted *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var stream http2.StreamError
	var number syscall.Errno
	var slow net.Error
	switch {
	case errors.As(err, &forbidden):
		return forbidden.Error()
	case errors.As(err, &through) && through.Op == "proxyconnect":
		return "through the proxy: " + printable(through.Err)
	case through != nil: // its cause is the system's, a name that was not found, or an alert
		return through.Error()
	case errors.As(err, &name):
		return name.Error()
	case errors.As(err, &untrusted):
		return untrusted.Error()
	case errors.As(err, &record):
		return record.Error()
	case errors.As(err, &alert):
		return alert.Error()
	case errors.As(err, &stream): // its own cause may quote a field
		return fmt.Sprintf("the HTTP/2 stream ended by %s", stream.Code)
	case errors.As(err, &number):
		return number.Error()
	}
	for _, known := range []error{
		context.Canceled, context.DeadlineExceeded, http.ErrSchemeMismatch, io.ErrUnexpectedEOF, io.EOF, io.ErrClosedPipe, net.ErrClosed,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if errors.As(err, &slow) && slow.Timeout() {
		return "it took too long"
	}
	return otherwise
}
