package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"
)

// alertWait is how long a server is waited for that asked for a client certificate in TLS 1.3: it says only after the
// handshake what it makes of it. Servers of HTTP/2 speak at once if they accept it; others are silent.
const alertWait = 2 * time.Second

// link is how far a connection came.
type link struct {
	// host and address (host:port) are what was to be reached, and target where: its URL.
	host, address string
	target        *url.URL
	// proxy is the proxy that requests would take from here; then nothing else was looked at.
	proxy string
	// addresses are what the name stands for; none for an address.
	addresses []net.IP
	// dialled is why there was no connection.
	dialled error
	// shaken is why there was no handshake, or why the other side ended the connection after it.
	shaken error
	// state of the connection; nil if there was no handshake.
	state *tls.ConnectionState
	// asked: the server asked for a client certificate. sent is the one that it got; nil if it got none.
	// authorities are those whose certificates it wants, as far as it says.
	asked       bool
	sent        *x509.Certificate
	authorities []string
	// unverified: the server's certificate was not verified.
	unverified bool
}

// unresolved is why the name stands for nothing; nil if it does, or if something else was in the way.
func (l *link) unresolved() *net.DNSError {
	if failed, ok := errors.AsType[*net.DNSError](l.dialled); ok {
		return failed
	}
	return nil
}

// connect opens a connection the way that a transport opens its own (same dialler, same TLS configuration), as far as it
// comes, sends no request over it and closes it.
func connect(ctx context.Context, t *http.Transport, target *url.URL) *link {
	l := &link{host: target.Hostname(), address: hostPort(target), target: target}
	if t.Proxy != nil {
		if proxy, err := t.Proxy(&http.Request{URL: target}); err == nil && proxy != nil {
			l.proxy = proxy.Host
			return l
		}
	}
	conn, err := t.DialContext(l.trace(ctx), "tcp", l.address)
	if err != nil {
		l.dialled = err
		return l
	}
	defer conn.Close()
	if target.Scheme == "https" {
		l.shake(ctx, conn, t)
	}
	return l
}

// trace has the addresses of the name noted. A dialler may look up other names besides.
func (l *link) trace(ctx context.Context) context.Context {
	var mu sync.Mutex
	asked := ""
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart: func(info httptrace.DNSStartInfo) {
			mu.Lock()
			defer mu.Unlock()
			asked = info.Host
		},
		DNSDone: func(info httptrace.DNSDoneInfo) {
			mu.Lock()
			defer mu.Unlock()
			if asked != l.host {
				return
			}
			for _, a := range info.Addrs {
				l.addresses = append(l.addresses, a.IP)
			}
		},
	})
}

// shake makes the handshake, and sees what the server makes of the client certificate.
func (l *link) shake(ctx context.Context, conn net.Conn, t *http.Transport) {
	config := t.TLSClientConfig.Clone()
	config.ServerName, config.NextProtos = l.host, []string{"h2", "http/1.1"}
	l.unverified = config.InsecureSkipVerify
	present := config.GetClientCertificate
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		l.asked = true
		for _, der := range info.AcceptableCAs {
			var name pkix.RDNSequence
			if _, err := asn1.Unmarshal(der, &name); err == nil {
				l.authorities = append(l.authorities, name.String())
			}
		}
		certificate := new(tls.Certificate) // none
		if present != nil {
			var err error
			if certificate, err = present(info); err != nil {
				return nil, err
			}
		}
		l.sent = certificate.Leaf
		return certificate, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.TLSHandshakeTimeout)
	defer cancel()
	secured := tls.Client(conn, config)
	if l.shaken = secured.HandshakeContext(ctx); l.shaken != nil {
		return
	}
	state := secured.ConnectionState()
	l.state = &state
	if !l.asked || state.Version < tls.VersionTLS13 {
		return
	}
	if err := secured.SetReadDeadline(time.Now().Add(alertWait)); err != nil {
		l.shaken = err
		return
	}
	var silent net.Error
	if _, err := secured.Read(make([]byte, 1)); err != nil && !(errors.As(err, &silent) && silent.Timeout()) {
		l.shaken = err
	}
}

// judge gives what is wrong or unknown about a connection as a whole; nil if nothing is. adjust may judge names and connections
// otherwise.
func (p peer) judge(ctx context.Context, l *link, adjust func(outcome, *link) outcome) *outcome {
	for _, judge := range []func() outcome{
		func() outcome { return adjust(p.dns(l), l) }, func() outcome { return adjust(p.tcp(l), l) }, func() outcome { return p.tls(ctx, l) },
	} {
		if o := judge(); o.state == Wrong || o.state == Unknown {
			return &o
		}
	}
	return nil
}

// hostPort is where the connection goes.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
