package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"syscall"
	"testing"

	"golang.org/x/net/http2"

	"github.com/application-connector/application-connector/gateway/transport"
)

// slow is an error of a library's that says by a method that it is a time-out.
type slow struct{}

func (slow) Error() string   { return "canary" }
func (slow) Timeout() bool   { return true }
func (slow) Temporary() bool { return true }

func TestACauseQuotesNothingThatThePeerSent(t *testing.T) {
	const other = "the connection failed, or what came was no HTTP"
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("canary"), other},
		{textproto.ProtocolError("malformed MIME header: canary"), other},
		{errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug="canary"`), other},
		{http2.StreamError{StreamID: 3, Code: http2.ErrCodeInternal, Cause: errors.New("canary")}, "the HTTP/2 stream ended by INTERNAL_ERROR"},
		{&net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: syscall.ECONNREFUSED}, "dial tcp 192.0.2.1:80: connection refused"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}}, "dial tcp: lookup h: no such host"},
		{&net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: &transport.ForbiddenError{Address: netip.MustParseAddrPort("127.0.0.1:80"), Kind: "a loopback address"}}, "no connection to 127.0.0.1:80: it is a loopback address, which -allowedTargets does not allow"},
		{&net.OpError{Op: "proxyconnect", Net: "tcp", Err: errors.New("canary")}, "through the proxy: " + other},
		{&net.OpError{Op: "proxyconnect", Net: "tcp", Err: &net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: syscall.ECONNREFUSED}}, "through the proxy: dial tcp 192.0.2.1:80: connection refused"},
		{&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}, "lookup h: no such host"},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{tls.AlertError(42), "tls: bad certificate"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "tls: first record does not look like a TLS handshake"},
		{syscall.EPIPE, "broken pipe"},
		{io.ErrUnexpectedEOF, "unexpected EOF"},
		{io.EOF, "EOF"},
		{http.ErrSchemeMismatch, "http: server gave HTTP response to HTTPS client"},
		{context.Canceled, "context canceled"},
		{context.DeadlineExceeded, "context deadline exceeded"},
		{slow{}, "it took too long"},
	} {
		for _, err := range []error{c.err, &url.Error{Op: "Get", URL: "https://h/?canary", Err: fmt.Errorf("canary: %w", c.err)}} {
			cause := transport.Cause(err)
			if cause.Error() != c.want || !errors.Is(cause, c.err) {
				t.Errorf("%T: %q, want %q", c.err, cause, c.want)
			}
		}
	}
}
