// Package edge is a local mTLS edge that behaves as Istio's ingress gateway and the application's sidecar do together: it
// terminates TLS with the certificate of one Secret, verifies clients against the authorities of another, both followed
// live, tells the application who the client is by X-Forwarded-Client-Cert under Envoy's rules, and forwards the paths of
// the VirtualService. It knows nothing of Applications: who may do what is the application's to decide.
package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
	"github.com/application-connector/application-connector/simulator/listener"
)

// Options say where to listen, what to read and where to forward.
type Options struct {
	// Address is the host:port of the TLS listener; port 0 takes any free port. Required.
	Address string
	// Upstream is the application's base URL, http://host:port. Required.
	Upstream string
	// Config reaches the API server that holds the Secrets. Required.
	Config *rest.Config
	// Namespace of the Secrets; empty means istio-system.
	Namespace string
	// Credential is the Gateway's credentialName, which is the Secret with the server's certificate; the one with the
	// clients' authorities has "-cacert" appended. Empty means kyma-gateway-certs.
	Credential string
	// Host, when set, is the only host name that is served, as the Gateway's hosts say; others get 404.
	Host string
	// Ingress is what the ingress does with X-Forwarded-Client-Cert; empty means SANITIZE_SET, Istio's default.
	Ingress envoy.Mode
	// Sidecar is what the application's sidecar does; empty means APPEND_FORWARD, Istio's default.
	Sidecar envoy.Mode
	// NoSidecar leaves the sidecar out, as a Pod that was not injected does.
	NoSidecar bool
	// WorkloadID is the SPIFFE ID of the application; empty means that of the validator.
	WorkloadID string
	// Clock decides whether certificates are valid; nil means the real clock.
	Clock clock.PassiveClock
	// Log receives one line per change of the Secrets; nil discards.
	Log *slog.Logger
}

// IngressID is the SPIFFE ID of Istio's ingress gateway, which the last element of the header names.
const IngressID = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"

// DefaultWorkloadID is the SPIFFE ID of the validator.
const DefaultWorkloadID = "spiffe://cluster.local/ns/kyma-system/sa/central-application-connectivity-validator"

// Complete fills in the defaults.
func (o *Options) Complete() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&o.Namespace, "istio-system")
	set(&o.Credential, "kyma-gateway-certs")
	set(&o.WorkloadID, DefaultWorkloadID)
	if o.Ingress == "" {
		o.Ingress = envoy.SanitizeSet
	}
	if o.Sidecar == "" {
		o.Sidecar = envoy.AppendForward
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Validate names every option that is wrong. Complete comes first.
func (o *Options) Validate() error {
	var errs []error
	if u, err := url.Parse(o.Upstream); err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		errs = append(errs, fmt.Errorf("Upstream is %q, must be http://host:port", o.Upstream))
	}
	if o.Config == nil {
		errs = append(errs, errors.New("Config is missing: the edge reads its certificates from Secrets"))
	}
	for _, m := range []struct {
		option string
		mode   envoy.Mode
	}{{"Ingress", o.Ingress}, {"Sidecar", o.Sidecar}} {
		if !m.mode.Valid() {
			errs = append(errs, fmt.Errorf("%s is %q, must be SANITIZE, FORWARD_ONLY, ALWAYS_FORWARD_ONLY, APPEND_FORWARD or SANITIZE_SET", m.option, m.mode))
		}
	}
	return errors.Join(errs...)
}

// Server is a running edge. Its methods may be called concurrently.
type Server struct {
	o        Options
	url      string
	upstream *url.URL
	proxy    *httputil.ReverseProxy
	mesh     *x509.Certificate // the ingress gateway's own identity
	by       *x509.Certificate // the application's
	current  atomic.Pointer[credentials]

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of current

	http      *listener.HTTP
	transport *http.Transport
	unwatch   func()
	close     sync.Once
	closeErr  error
}

// Start starts the edge; it runs until Close, or until ctx is done. The Secrets may come later: until then no handshake
// succeeds (see WaitReady). When the port is taken the error is a *listener.Error.
func Start(ctx context.Context, o Options) (*Server, error) {
	o.Complete()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	l, err := listener.Listen(ctx, "Address", o.Address)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	s := &Server{o: o, url: "https://" + listener.HostPort(l), changed: make(chan struct{})}
	s.current.Store(&credentials{err: errors.New("secrets are not read yet")})
	if err := s.start(ctx, l); err != nil {
		return nil, errors.Join(fmt.Errorf("edge: %w", err), l.Close())
	}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	return s, nil
}

func (s *Server) start(ctx context.Context, l net.Listener) error {
	var err error
	if s.upstream, err = url.Parse(s.o.Upstream); err != nil {
		return err
	}
	if s.mesh, s.by, err = meshIdentities(s.o.WorkloadID); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(s.o.Config)
	if err != nil {
		return fmt.Errorf("reaching the API server: %w", err)
	}
	// The watch outlives ctx until Close, which ctx triggers, so that it ends after the listener.
	if s.unwatch, err = watch(context.WithoutCancel(ctx), client, s.o.Namespace, s.o.Credential, s.update); err != nil {
		return err
	}
	s.transport = &http.Transport{
		MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute, DisableCompression: true,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	}
	s.proxy = &httputil.ReverseProxy{
		Transport: s.transport,
		Rewrite:   s.rewrite,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			s.o.Log.Warn("application not reached", "upstream", s.o.Upstream, "error", err)
			http.Error(w, "upstream connect error or disconnect/reset before headers", http.StatusServiceUnavailable)
		},
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn),
	}
	s.http = listener.Serve(l, s, &tls.Config{
		MinVersion: tls.VersionTLS12, GetConfigForClient: s.handshake, NextProtos: []string{"h2", "http/1.1"},
	}, s.o.Log)
	return nil
}

// meshIdentities makes certificates for the two ends of the mesh's own mTLS. As Istio's, they have an empty subject and a
// SPIFFE ID.
func meshIdentities(workload string) (ingress, application *x509.Certificate, err error) {
	ca, err := authority.New("mesh", nil)
	if err != nil {
		return nil, nil, err
	}
	var certs [2]*x509.Certificate
	for i, id := range []string{IngressID, workload} {
		cert, key, err := ca.Issue(authority.Request{URIs: []string{id}})
		if err != nil {
			return nil, nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, nil, err
		}
		certs[i] = pair.Leaf
	}
	return certs[0], certs[1], nil
}

func (s *Server) update(server, ca *corev1.Secret) {
	c := newCredentials(s.o.Credential, server, ca)
	if c.err != nil {
		s.o.Log.Warn("nobody gets in", "namespace", s.o.Namespace, "error", c.err)
	} else {
		s.o.Log.Info("certificates loaded", "namespace", s.o.Namespace, "server", s.o.Credential, "clientAuthorities", c.from, "notAfter", c.server.Leaf.NotAfter)
		if c.from == s.o.Credential {
			s.o.Log.Warn("clients are verified against ca.crt of the server's secret, since there is no secret "+s.o.Credential+caSuffix, "namespace", s.o.Namespace)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(c)
	close(s.changed)
	s.changed = make(chan struct{})
}

// WaitReady waits until both Secrets are there and usable, or ctx is done; the error then says what is missing.
func (s *Server) WaitReady(ctx context.Context) error {
	for {
		s.mu.Lock()
		c, changed := s.current.Load(), s.changed
		s.mu.Unlock()
		if c.err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("edge: nobody gets in, in namespace %s: %w", s.o.Namespace, errors.Join(c.err, ctx.Err()))
		}
	}
}

// handshake gives the configuration of one handshake. Sessions are not resumed: a resumed one would be taken without a
// look at the authorities that hold now.
func (s *Server) handshake(*tls.ClientHelloInfo) (*tls.Config, error) {
	c := s.current.Load()
	if c.err != nil {
		return nil, c.err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{*c.server},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              c.clients,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		Time:                   s.o.Clock.Now,
	}, nil
}

// ServeHTTP routes one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := envoy.Normalise(r.URL.EscapedPath())
	if !routePattern.MatchString(path) || s.o.Host != "" && !strings.EqualFold(hostname(r.Host), s.o.Host) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.URL.Path, r.URL.RawPath = decoded, path
	local := s.current.Load()
	if local.server == nil { // it went away after this connection was made
		local = &credentials{server: &tls.Certificate{Leaf: &x509.Certificate{}}}
	}
	err = s.o.Ingress.Apply(r.Header, func() (string, error) {
		return envoy.Element(local.server.Leaf, r.TLS.PeerCertificates[0], true)
	})
	if err == nil && !s.o.NoSidecar {
		err = s.o.Sidecar.Apply(r.Header, func() (string, error) { return envoy.Element(s.by, s.mesh, false) })
	}
	if err != nil {
		s.o.Log.Warn("refused a request", "error", err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.proxy.ServeHTTP(w, r)
}

// rewrite makes the request to the application: what Envoy sets at an edge, and the rest as it came.
func (s *Server) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = s.upstream.Scheme, s.upstream.Host
	p.Out.URL.RawQuery = p.In.URL.RawQuery // Envoy does not look at it
	p.Out.Host = p.In.Host
	client, _, _ := net.SplitHostPort(p.In.RemoteAddr)
	forwarded := client
	if came := p.In.Header.Values("X-Forwarded-For"); len(came) > 0 {
		forwarded = strings.Join(came, ",") + "," + client
	}
	p.Out.Header.Set("X-Forwarded-For", forwarded)
	p.Out.Header.Set("X-Forwarded-Proto", "https")
	id := p.In.Header.Get("X-Request-Id")
	if address, err := netip.ParseAddr(client); id == "" || err != nil || !address.IsLoopback() && !address.IsPrivate() {
		id = uuid.NewString() // only a client of the internal network may choose it
	}
	p.Out.Header.Set("X-Request-Id", id)
	// Again from In, since a client could have named the field in Connection, which drops it from Out.
	if identity := p.In.Header.Values(envoy.Header); len(identity) > 0 {
		p.Out.Header[envoy.Header] = identity
	}
	if _, ok := p.In.Header["User-Agent"]; !ok {
		p.Out.Header.Set("User-Agent", "") // else the transport adds its own
	}
}

func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// URL is https://host:port of the listener.
func (s *Server) URL() string { return s.url }

// Close ends the listener, then the watch. Later calls return what the first returned.
func (s *Server) Close() error {
	s.close.Do(func() {
		s.closeErr = s.http.Close()
		s.transport.CloseIdleConnections()
		s.unwatch()
	})
	return s.closeErr
}
