// Package systems plays the external systems whose APIs workloads call through the gateway: one API per kind of
// credential, each answering with what it saw, the endpoints that the gateway's conformance cases were written for, and
// odd ones (redirects, status codes, streams, slow and large bodies). It knows nothing of the gateway or of Kubernetes.
package systems

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/listener"
)

// Options say where to listen and what to accept. The zero value of each but the addresses is usable.
type Options struct {
	// Address is the host:port of the plain HTTP listener; port 0 takes any free port. Required, as the next three.
	Address string
	// TLSAddress is that of the HTTPS listener, MTLSAddress that of the HTTPS listener that requires a client
	// certificate, ExpiredAddress that of a second one of this kind whose own certificate has expired.
	TLSAddress, MTLSAddress, ExpiredAddress string
	// AdminAddress is that of the admin API; empty means none.
	AdminAddress string
	// Hosts are further names of this machine for the server certificates, besides localhost, 127.0.0.1 and ::1.
	Hosts []string
	// Credentials are what the APIs accept at the start; empty fields get defaults.
	Credentials Credentials
	// TokenLifetime is how long an OAuth token is good, and what expires_in says; 0 means 5 minutes.
	TokenLifetime time.Duration
	// SessionLifetime is how long a CSRF session is good; 0 means 30 minutes.
	SessionLifetime time.Duration
	// ExternalRedirect is where /v1/api/redirect/external leads; empty means the gateway's health endpoint in a cluster.
	ExternalRedirect string
	// StateDir keeps the keys of the certificate authorities, so that certificates are still good after a restart. Empty
	// keeps nothing.
	StateDir string
	// Clock tells the age of tokens, sessions and certificates and times slow answers; nil means the real clock.
	Clock clock.Clock
	// Log receives one line per request at debug level; nil discards.
	Log *slog.Logger
	// OnSecret is told each OAuth token, CSRF token and session's cookie that is handed out, with what it is; nil means
	// nobody. Tests look whether one was leaked.
	OnSecret func(name, text string)
}

// Credentials are what the APIs accept.
type Credentials struct {
	// Username and Password are for Basic authentication.
	Username string       `json:"username"`
	Password secret.Value `json:"password"`
	// ClientID and ClientSecret are for the token endpoints.
	ClientID     string       `json:"clientId"`
	ClientSecret secret.Value `json:"clientSecret"`
	// APIKey is the header field X-Api-Key, Region the query parameter region of the API with extra parameters.
	APIKey secret.Value `json:"apiKey"`
	Region string       `json:"region"`
}

// withDefaults takes empty fields from d.
func (c Credentials) withDefaults(d Credentials) Credentials {
	for field, def := range map[*string]string{&c.Username: d.Username, &c.ClientID: d.ClientID, &c.Region: d.Region} {
		if *field == "" {
			*field = def
		}
	}
	for field, def := range map[*secret.Value]secret.Value{&c.Password: d.Password, &c.ClientSecret: d.ClientSecret, &c.APIKey: d.APIKey} {
		if *field == "" {
			*field = def
		}
	}
	return c
}

// defaults are the credentials that the conformance cases know, which are no secrets.
var defaults = Credentials{
	Username: "user", Password: "passwd", ClientID: "clientID", ClientSecret: "clientSecret", APIKey: "key-1", Region: "eu",
}

// Complete fills in the defaults.
func (o *Options) Complete() {
	o.Credentials = o.Credentials.withDefaults(defaults)
	if o.TokenLifetime == 0 {
		o.TokenLifetime = 5 * time.Minute
	}
	if o.SessionLifetime == 0 {
		o.SessionLifetime = 30 * time.Minute
	}
	if o.ExternalRedirect == "" {
		o.ExternalRedirect = "http://central-application-gateway.kyma-system:8081/v1/health"
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnSecret == nil {
		o.OnSecret = func(string, string) {}
	}
}

// Validate names every option that is wrong. Complete comes first.
func (o *Options) Validate() error {
	var errs []error
	if o.TokenLifetime < time.Second {
		errs = append(errs, fmt.Errorf("TokenLifetime is %s, must be at least 1s, since expires_in counts seconds", o.TokenLifetime))
	}
	if o.SessionLifetime <= 0 {
		errs = append(errs, fmt.Errorf("SessionLifetime is %s, must be positive", o.SessionLifetime))
	}
	return errors.Join(errs...)
}

// Server is a running set of systems. Its methods may be called concurrently.
type Server struct {
	o       Options
	state   *state
	servers *authority.Authority
	clients *authority.Authority
	urls    map[Listener]string
	http    []*listener.HTTP
	sockets sync.WaitGroup // WebSocket handlers, which an HTTP server does not wait for

	close    sync.Once
	closeErr error
}

// Start starts the systems; they run until Close, or until ctx is done. When a port is taken the error is a
// *listener.Error that names the option.
func Start(ctx context.Context, o Options) (*Server, error) {
	o.Complete()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("systems: %w", err)
	}
	s := &Server{o: o, state: newState(o), urls: map[Listener]string{}}
	var opened []net.Listener
	err := s.start(ctx, &opened)
	if err != nil {
		errs := []error{fmt.Errorf("systems: %w", err)}
		for _, l := range opened {
			errs = append(errs, l.Close())
		}
		return nil, errors.Join(errs...)
	}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	o.Log.Info("external systems are ready", "http", s.HTTPURL(), "https", s.HTTPSURL(), "mtls", s.MTLSURL())
	return s, nil
}

func (s *Server) start(ctx context.Context, opened *[]net.Listener) error {
	type socket struct {
		kind            Listener
		option, address string
		config          *tls.Config
	}
	sockets := []socket{
		{kind: Plain, option: "Address", address: s.o.Address},
		{kind: TLS, option: "TLSAddress", address: s.o.TLSAddress},
		{kind: MTLS, option: "MTLSAddress", address: s.o.MTLSAddress},
		{kind: Expired, option: "ExpiredAddress", address: s.o.ExpiredAddress},
	}
	if s.o.AdminAddress != "" {
		sockets = append(sockets, socket{kind: Admin, option: "AdminAddress", address: s.o.AdminAddress})
	}
	// All ports first: what is wrong with one should not leave keys behind.
	for _, x := range sockets {
		l, err := listener.Listen(ctx, x.option, x.address)
		if err != nil {
			return err
		}
		*opened = append(*opened, l)
	}
	var err error
	if s.servers, err = authority.Open(s.o.StateDir, "systems-servers", s.o.Clock); err != nil {
		return err
	}
	if s.clients, err = authority.Open(s.o.StateDir, "systems-clients", s.o.Clock); err != nil {
		return err
	}
	for i, x := range sockets {
		scheme := "https"
		switch x.kind {
		case Plain, Admin:
			scheme = "http"
		default:
			if sockets[i].config, err = s.tlsConfig(x.kind); err != nil {
				return err
			}
		}
		s.urls[x.kind] = scheme + "://" + listener.HostPort((*opened)[i])
	}
	for i, x := range sockets {
		s.http = append(s.http, listener.Serve((*opened)[i], s.handler(x.kind), x.config, s.o.Log))
	}
	return nil
}

func (s *Server) tlsConfig(kind Listener) (*tls.Config, error) {
	request := authority.Request{
		Subject: pkix.Name{CommonName: "external systems"}, Server: true,
		Hosts: append([]string{"localhost", "127.0.0.1", "::1"}, s.o.Hosts...),
	}
	if kind == Expired {
		request.NotAfter = s.o.Clock.Now().Add(-24 * time.Hour)
		request.NotBefore = request.NotAfter.Add(-24 * time.Hour)
	}
	cert, key, err := s.servers.Issue(request)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}, Time: s.o.Clock.Now}
	if kind != TLS {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = s.clients.Pool()
		config.SessionTicketsDisabled = true // a resumed session would not see a revocation
		config.VerifyConnection = func(c tls.ConnectionState) error { return s.state.checkRevoked(c.PeerCertificates[0]) }
	}
	return config, nil
}

// HTTPURL is the base URL of the listener without TLS. No base URL has a trailing slash.
func (s *Server) HTTPURL() string { return s.urls[Plain] }

// HTTPSURL is the base URL of the listener with a certificate of CA.
func (s *Server) HTTPSURL() string { return s.urls[TLS] }

// MTLSURL is the base URL of the listener that requires a client certificate.
func (s *Server) MTLSURL() string { return s.urls[MTLS] }

// ExpiredURL is the base URL of the listener whose certificate has expired.
func (s *Server) ExpiredURL() string { return s.urls[Expired] }

// AdminURL is the base URL of the admin API, or empty.
func (s *Server) AdminURL() string { return s.urls[Admin] }

// CA is the authority of the server certificates, PEM.
func (s *Server) CA() []byte { return s.servers.CA() }

// ClientCertificate makes a key and a certificate for CN=cn that the systems accept, PEM both.
func (s *Server) ClientCertificate(cn string) (certPEM, keyPEM []byte, err error) {
	return s.IssueClientCertificate(authority.Request{Subject: pkix.Name{CommonName: cn}})
}

// IssueClientCertificate makes one with another subject or validity.
func (s *Server) IssueClientCertificate(r authority.Request) (certPEM, keyPEM []byte, err error) {
	r.Server = false
	if certPEM, keyPEM, err = s.clients.Issue(r); err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("reading back a certificate: %w", err)
	}
	s.state.issued(pair.Leaf)
	return certPEM, keyPEM, nil
}

// Close ends all listeners. Later calls return what the first returned.
func (s *Server) Close() error {
	s.close.Do(func() {
		var wg sync.WaitGroup
		errs := make([]error, len(s.http))
		for i, h := range s.http {
			wg.Go(func() { errs[i] = h.Close() })
		}
		wg.Wait()
		s.sockets.Wait()
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// subject is how a certificate is named in answers.
func subject(c *x509.Certificate) string { return c.Subject.String() }
