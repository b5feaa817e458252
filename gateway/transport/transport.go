// Package transport keeps the connections to targets and token endpoints: one pool for each host and TLS identity, so
// that a connection made with one client certificate, or without verification, never carries another's call. It knows
// nothing of credentials but the certificate, and nothing of what is sent.
package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/application-connector/application-connector/gateway/credentials"
)

const (
	pools           = 4096 // kept at once; the least recently used gives up its idle connections
	idlePerHost     = 128
	idleTimeout     = 90 * time.Second
	dialTimeout     = 30 * time.Second
	keepAlive       = 30 * time.Second
	handshake       = 10 * time.Second
	continueTimeout = time.Second
	headerLimit     = 1 << 20 // bytes of a response's header
	// writeBuffer has room for a request's header and for a small body behind it. Only what goes out in one write is sent anew
	// on another connection when a kept one turns out dead: net/http takes a later write that fails for a body that can't be read.
	writeBuffer = 8 << 10
)

// Target says which pool a call takes.
type Target struct {
	// Host is host[:port], with the scheme before it if that matters to the caller.
	Host string
	// Identity is presented whenever the peer asks for a client certificate, whatever authorities it names.
	Identity *credentials.Identity
	// Trust says which certificates of the peer are believed.
	Trust credentials.Trust
	// Connect bounds the connection, and once more its TLS handshake; zero for the defaults.
	Connect time.Duration
	// Direct ignores HTTP_PROXY and HTTPS_PROXY, as calls for tokens always did.
	Direct bool
}

type key struct {
	host     string
	identity credentials.Version
	trust    credentials.Trust
	connect  time.Duration
	direct   bool
}

// Pool keeps transports. It is safe for concurrent use.
type Pool struct {
	options    Options
	transports *lru.Cache[key, *Transport]
}

// Options of a Pool.
type Options struct {
	// Roots are trusted; nil means the system's.
	Roots *x509.CertPool
	// Guard refuses addresses; nil refuses none.
	Guard *Guard
	// Shaken is told how each TLS handshake came out. May be nil.
	Shaken func(Outcome)
}

// New returns an empty Pool.
func New(o Options) *Pool {
	transports, err := lru.NewWithEvict(pools, func(_ key, t *Transport) { t.CloseIdleConnections() })
	if err != nil {
		panic(err) // only for a size below one
	}
	return &Pool{options: o, transports: transports}
}

// Roots returns the system's roots together with those in a PEM file.
func Roots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's root certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return roots, nil
}

func (t Target) key() key {
	k := key{host: t.Host, trust: t.Trust, connect: t.Connect, direct: t.Direct}
	if t.Identity != nil {
		k.identity = t.Identity.Version
	}
	return k
}

// For returns the transport for a target. Keep it for one call only: the pool decides how long it lives.
func (p *Pool) For(t Target) *Transport {
	k := t.key()
	if found, ok := p.transports.Get(k); ok {
		return found
	}
	fresh := p.make(t)
	fresh.retire = func() { p.transports.Remove(k) }
	if found, ok, _ := p.transports.PeekOrAdd(k, fresh); ok {
		return found
	}
	return fresh
}

// NotAfter is when the certificate ends that a target showed last; false if it showed none yet, or a long time ago.
func (p *Pool) NotAfter(t Target) (time.Time, bool) {
	found, ok := p.transports.Peek(t.key())
	if !ok || found.notAfter.Load() == nil {
		return time.Time{}, false
	}
	return *found.notAfter.Load(), true
}

// CloseIdleConnections gives up every connection that carries no call.
func (p *Pool) CloseIdleConnections() {
	for _, t := range p.transports.Values() {
		t.CloseIdleConnections()
	}
}

// dial connects for a transport; through a proxy, address is the proxy's.
func (p *Pool) dial(timeout time.Duration, t *Transport) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: timeout, KeepAlive: keepAlive}
		if p.options.Guard == nil {
			return dialer.DialContext(ctx, network, address)
		}
		conn, allowed, err := p.options.Guard.dial(ctx, dialer, network, address)
		if err == nil && !allowed {
			to := peer(conn)
			t.judged.Store(&to)
		}
		return conn, err
	}
}

// roots are those of the process, and more of a target's own. A bundle that holds no certificate, which package settings
// refuses, leaves nothing out and adds nothing.
func (p *Pool) roots(more string) *x509.CertPool {
	if more == "" {
		return p.options.Roots
	}
	roots := p.options.Roots
	if roots != nil {
		roots = roots.Clone()
	} else if system, err := x509.SystemCertPool(); err == nil {
		roots = system
	} else {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM([]byte(more))
	return roots
}

func (p *Pool) make(t Target) *Transport {
	made := &Transport{shaken: p.options.Shaken, guard: p.options.Guard}
	config := &tls.Config{RootCAs: p.roots(t.Trust.CA.PEM()), MinVersion: t.Trust.MinVersion, InsecureSkipVerify: t.Trust.SkipVerify} //nolint:gosec // spec.skipVerify, which a condition and a log line name
	config.VerifyConnection = made.verified
	if t.Identity != nil {
		certificate := t.Identity.Certificate
		// Not config.Certificates: that sends nothing to a server whose list of authorities leaves out the issuer, and
		// then nobody can say why the server refuses.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	}
	made.Transport = &http.Transport{
		DialContext:            p.dial(cmp.Or(t.Connect, dialTimeout), made),
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    cmp.Or(t.Connect, handshake),
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: headerLimit,
		WriteBufferSize:        writeBuffer,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // what the target sends is what the caller gets
	}
	if !t.Direct {
		made.Proxy = http.ProxyFromEnvironment
	}
	return made
}
