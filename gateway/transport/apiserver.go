package transport

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// APIServer says how the Kubernetes API server is recognised, wherever it is.
type APIServer struct {
	// Addresses are those it is known by, as host:port.
	Addresses []string
	// Authorities sign its certificate; nil if they are not known.
	Authorities *x509.CertPool
}

// APIServerOf is the API server by its configured address, by the one that Kubernetes tells each container by environment
// variables, and by its certificate.
func APIServerOf(config *rest.Config, env func(string) string) (APIServer, error) {
	u, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return APIServer{}, fmt.Errorf("the API server's address %q: %w", config.Host, err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	api := APIServer{Addresses: []string{net.JoinHostPort(u.Hostname(), port)}}
	if host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT"); host != "" && port != "" {
		api.Addresses = append(api.Addresses, net.JoinHostPort(host, port))
	}
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return APIServer{}, fmt.Errorf("the API server's certificates: %w", err)
	}
	if tls != nil {
		api.Authorities = tls.RootCAs
	}
	return api, nil
}

// apiServerNames are in the certificate of each API server, besides the names that it has outside of its cluster.
var apiServerNames = []string{"kubernetes.default.svc", "kubernetes.default", "kubernetes"}

// shownBy says whether a peer's certificates are the API server's: its endpoints, and load balancers before it, have addresses
// that no setting names.
func (a APIServer) shownBy(certificates []*x509.Certificate) bool {
	if a.Authorities == nil || len(certificates) == 0 {
		return false
	}
	leaf, more := certificates[0], x509.NewCertPool()
	for _, c := range certificates[1:] {
		more.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Authorities, Intermediates: more, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return false
	}
	for _, name := range apiServerNames {
		if leaf.VerifyHostname(name) == nil {
			return true
		}
	}
	for _, address := range a.Addresses {
		if host, _, err := net.SplitHostPort(address); err == nil && leaf.VerifyHostname(host) == nil {
			return true
		}
	}
	return false
}

const (
	lookupPause   = 30 * time.Second // how long the addresses that a name resolved to are used
	lookupAgain   = time.Second      // after a failure, while there are none
	lookupTimeout = 5 * time.Second
)

// endpoint is one address of the API server, by name or number. It is safe for concurrent use.
type endpoint struct {
	host     string
	port     uint16
	fixed    []netip.AddrPort // if host is a number
	resolver resolver
	clock    clock.PassiveClock

	known   atomic.Pointer[resolved] // nil before the first look-up
	lookups singleflight.Group
}

// resolved is what a name resolved to, or why it did not.
type resolved struct {
	addresses []netip.AddrPort
	err       error
	until     time.Time
}

type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

func newEndpoint(address string, r resolver, c clock.PassiveClock) (*endpoint, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("the port of %s is none: use a number from 0 to 65535", address)
	}
	e := &endpoint{host: canonicalHost(host), port: uint16(port), resolver: r, clock: c}
	if ip, err := netip.ParseAddr(e.host); err == nil {
		e.fixed = []netip.AddrPort{netip.AddrPortFrom(plain(ip), e.port)}
	}
	return e, nil
}

// addresses are where the name leads. Only the first call waits for a look-up; later ones get what is known while it is looked
// up anew, and that stands when its name cannot be resolved any more.
func (e *endpoint) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	if e.fixed != nil {
		return e.fixed, nil
	}
	known := e.known.Load()
	if known != nil && e.clock.Now().Before(known.until) {
		return known.addresses, known.err
	}
	result := e.lookups.DoChan("", e.look)
	if known != nil && known.err == nil {
		return known.addresses, nil
	}
	select {
	case r := <-result:
		known = r.Val.(*resolved)
		return known.addresses, known.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// look is for lookups. It returns a *resolved and no error.
func (e *endpoint) look() (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	addresses, err := e.resolver.LookupNetIP(ctx, "ip", e.host)
	now := e.clock.Now()
	fresh := &resolved{until: now.Add(lookupPause)}
	switch before := e.known.Load(); {
	case err == nil:
		for _, a := range addresses {
			fresh.addresses = append(fresh.addresses, netip.AddrPortFrom(plain(a), e.port))
		}
	case before != nil && before.err == nil:
		fresh.addresses = before.addresses
	default:
		fresh.err = fmt.Errorf("it is not known where the Kubernetes API server is, which must not be called: %w", err)
		fresh.until = now.Add(lookupAgain)
	}
	e.known.Store(fresh)
	return fresh, nil
}
