// Package graphql carries GraphQL requests to Compass: one verified, bounded HTTP transport with a client certificate
// that can be exchanged while it is in use, and errors that say what can be done about them (Kind).
//
// It owns how bytes travel and what an answer means. It knows nothing of documents and fields (packages connector and
// director do), keeps no key on disk, and never repeats a request by itself: a one-time token is burnt by the first
// try, so only the caller knows whether a second one makes sense.
package graphql

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	genqlient "github.com/Khan/genqlient/graphql"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"k8s.io/utils/clock"
)

// Defaults of Options.
const (
	// DefaultTimeout is for one request, from dialling to the last byte of the answer.
	DefaultTimeout = 30 * time.Second
	// DefaultMaxResponseBytes of one answer. A full page of 100 applications of ordinary size has less than 1 MiB.
	DefaultMaxResponseBytes = 32 << 20
	// DefaultUserAgent is sent unless Options say otherwise.
	DefaultUserAgent = "application-connector"
)

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 90 * time.Second
)

// Options of a Transport. The zero value verifies servers against the system's roots and has the defaults above.
type Options struct {
	// RootCAs verify servers; nil means those of the system. Roots makes a pool of these and more.
	RootCAs *x509.CertPool
	// InsecureSkipVerify accepts any server, and warns about it once.
	InsecureSkipVerify bool
	// Timeout of one request; 0 means DefaultTimeout.
	Timeout time.Duration
	// MaxResponseBytes of one answer, after decompression; 0 means DefaultMaxResponseBytes.
	MaxResponseBytes int64
	// UserAgent header; empty means DefaultUserAgent.
	UserAgent string
	// Proxy chooses a proxy per request; nil means the environment (HTTPS_PROXY, NO_PROXY).
	Proxy func(*http.Request) (*url.URL, error)
	// Clock reads a Retry-After that is a date; nil means the real one.
	Clock clock.PassiveClock
	// Log gets a debug line per request; nil discards.
	Log *slog.Logger
}

// Roots gives the roots of the system and those of a PEM bundle. It refuses a bundle without any certificate, because
// whoever configured one relies on it.
func Roots(bundle []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // no system store on this platform or image: the bundle alone decides
	}
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, errors.New("CA bundle: no certificate in it, want at least one PEM block CERTIFICATE")
	}
	return pool, nil
}

// RootsFromFile is Roots of a file.
func RootsFromFile(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	const limit = 4 << 20 // the bundle of all public authorities has about 250 kB
	bundle, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if len(bundle) > limit {
		return nil, errors.New("CA bundle: larger than 4 MiB")
	}
	return Roots(bundle)
}

// Transport carries the requests of one process. It is safe for concurrent use.
type Transport struct {
	options Options
	http    *http.Client

	swap    sync.Mutex // orders SetCertificate
	current atomic.Pointer[session]
}

// session is the connections that were made with one client certificate. A connection keeps the certificate of its
// handshake for life, and HTTP/2 puts new requests on connections in use, so a new certificate needs connections of
// its own: else requests would go on with the old one, which may be revoked next.
type session struct {
	http        *http.Transport
	certificate *tls.Certificate
}

// closeIdle closes the connections that carry no request, and those a moment later whose last request just ended: HTTP/2 counts
// a stream for a while after its answer was read.
func (s *session) closeIdle() {
	s.http.CloseIdleConnections()
	time.AfterFunc(time.Second, s.http.CloseIdleConnections)
}

// NewTransport makes a Transport without a client certificate.
func NewTransport(o Options) *Transport {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.MaxResponseBytes = cmp.Or(o.MaxResponseBytes, DefaultMaxResponseBytes)
	o.UserAgent = cmp.Or(o.UserAgent, DefaultUserAgent)
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.InsecureSkipVerify {
		o.Log.Warn("the certificates of Compass are NOT verified: whoever is on the way can read and change everything")
	}
	t := &Transport{options: o}
	t.http = &http.Client{
		Transport: otelhttp.NewTransport(t.roundTripper(), otelhttp.WithPropagators(propagation.TraceContext{})),
		// A redirect would carry the token to another place, and turns POST into GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.SetCertificate(nil)
	return t
}

// SetCertificate makes all requests that start from now on use this client certificate; nil means none. Requests in
// flight finish with the old one, whose connections are then closed.
func (t *Transport) SetCertificate(c *tls.Certificate) {
	t.swap.Lock()
	defer t.swap.Unlock()
	t.replace(c)
}

// redial makes the requests from now on use new connections. HTTP/2 keeps using a connection that fell silent (a NAT that forgot
// it, a peer that lost power), and every request on it would time out.
func (t *Transport) redial() {
	t.swap.Lock()
	defer t.swap.Unlock()
	t.replace(t.current.Load().certificate)
}

func (t *Transport) replace(c *tls.Certificate) {
	next := &session{certificate: c, http: &http.Transport{
		Proxy:                  t.options.Proxy,
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    handshakeTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    4,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            t.options.RootCAs,
			InsecureSkipVerify: t.options.InsecureSkipVerify, //nolint:gosec // loud, see NewTransport
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if c == nil {
					return new(tls.Certificate), nil // sends none, and lets the server decide
				}
				// Given even if the server does not list its issuer: the server's alert says more than silence.
				return c, nil
			},
		},
	}}
	if old := t.current.Swap(next); old != nil {
		old.closeIdle()
	}
}

// HTTP is what carries requests now, for programs that look at how connections are made. Who sends by it misses what the
// clients do: bounds, and errors that say what can be done.
func (t *Transport) HTTP() *http.Transport { return t.current.Load().http }

// CloseIdleConnections closes the connections that carry no request.
func (t *Transport) CloseIdleConnections() { t.current.Load().http.CloseIdleConnections() }

// Client gives a client of one endpoint, an https URL, for generated code. The header is added to every request;
// values of Connector-Token and Authorization are kept out of errors.
func (t *Transport) Client(endpoint string, header http.Header) genqlient.Client {
	return &client{transport: t, endpoint: endpoint, header: header.Clone()}
}

// roundTripper sends each request over the session of its start.
func (t *Transport) roundTripper() http.RoundTripper {
	return roundTripperFunc(func(r *http.Request) (*http.Response, error) {
		s := t.current.Load()
		resp, err := s.http.RoundTrip(r)
		if err != nil {
			t.retire(s)
			return nil, err
		}
		resp.Body = &retiringBody{ReadCloser: resp.Body, retire: func() { t.retire(s) }}
		return resp, nil
	})
}

// retire closes what a finished request leaves idle, if its session was replaced meanwhile.
func (t *Transport) retire(s *session) {
	if t.current.Load() != s {
		s.closeIdle()
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type retiringBody struct {
	io.ReadCloser
	retire func()
}

func (b *retiringBody) Close() error {
	err := b.ReadCloser.Close()
	b.retire()
	return err
}
