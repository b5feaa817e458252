package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/utils/clock"
)

// ForbiddenError says that a connection was not made because of the address that a name resolved to, or that a URL holds.
type ForbiddenError struct {
	Address netip.AddrPort
	// Kind is what the address is, in a few words.
	Kind string
}

// Error implements error.
func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("no connection to %s: it is %s, which -allowedTargets does not allow", e.Address, e.Kind)
}

// Kinds of addresses to which no connection is made unless they are allowed.
const (
	kindLoopback    = "a loopback address"
	kindUnspecified = "an unspecified address"
	kindLinkLocal   = "a link-local address"
	kindMulticast   = "a multicast address"
	kindMetadata    = "an address of cloud metadata"
	kindAPIServer   = "the Kubernetes API server"
)

// metadata serve instance metadata, with credentials, at addresses that are not link-local (AWS by IPv6, Alibaba Cloud).
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")}

// thisNetwork is what reaches the host itself on many systems, besides 0.0.0.0 (RFC 1122, 3.2.1.3).
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

// nat64 holds IPv4 addresses in its last four bytes (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Allowed are addresses, and names of hosts, that are exempt from a Guard.
type Allowed struct {
	prefixes []netip.Prefix
	hosts    map[string]bool
}

// ParseAllowed reads a list that is separated by commas, of IP addresses, ranges (CIDR) and host names. A name stands for
// whatever it resolves to.
func ParseAllowed(list string) (Allowed, error) {
	a := Allowed{hosts: map[string]bool{}}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if prefix, err := netip.ParsePrefix(item); err == nil {
			a.prefixes = append(a.prefixes, prefix.Masked())
		} else if address, err := netip.ParseAddr(strings.Trim(item, "[]")); err == nil {
			a.prefixes = append(a.prefixes, netip.PrefixFrom(address.WithZone(""), address.BitLen()))
		} else if strings.ContainsAny(item, "/:*?@ ") || strings.Trim(item, "0123456789.") == "" {
			return Allowed{}, fmt.Errorf("%q is none of: an IP address such as 10.0.0.1, a range such as 10.0.0.0/8, a host name without a port", item)
		} else {
			a.hosts[canonicalHost(item)] = true
		}
	}
	return a, nil
}

func (a Allowed) address(ip netip.Addr) bool {
	for _, p := range a.prefixes {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func canonicalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// lookupPause is how long the addresses that the API server's name resolved to are used.
const (
	lookupPause   = 30 * time.Second
	lookupTimeout = 5 * time.Second
)

// Guard decides, for each connection, after names are resolved, whether it may be made: not to this host, not to what is
// link-local, and not to the Kubernetes API server. Private addresses, as services of a cluster have, are allowed. It is
// safe for concurrent use.
type Guard struct {
	allowed  Allowed
	api      string // host of the API server
	apiPort  string
	resolver resolver
	clock    clock.PassiveClock

	mu       sync.Mutex
	apiAddrs []netip.Addr
	looked   time.Time
}

type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// NewGuard returns a Guard. apiServer is host:port of the API server; empty for none.
func NewGuard(allowed Allowed, apiServer string, c clock.PassiveClock) (*Guard, error) {
	g := &Guard{allowed: allowed, resolver: net.DefaultResolver, clock: c}
	if apiServer == "" {
		return g, nil
	}
	host, port, err := net.SplitHostPort(apiServer)
	if err != nil {
		return nil, err
	}
	g.api, g.apiPort = canonicalHost(host), port
	return g, nil
}

// dial connects to host:port, by any address of the host that is not forbidden.
func (g *Guard) dial(ctx context.Context, dialer net.Dialer, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if !g.allowed.hosts[canonicalHost(host)] {
		api := g.apiServer(ctx)
		dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return g.check(address, api)
		}
	}
	return dialer.DialContext(ctx, network, address)
}

// check judges an address as it is about to be connected to.
func (g *Guard) check(address string, api []netip.Addr) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address %q cannot be judged: %w", address, err)
	}
	ip := plain(to.Addr())
	if g.allowed.address(ip) {
		return nil
	}
	kind := kindOf(ip)
	if kind == "" && fmt.Sprint(to.Port()) == g.apiPort {
		for _, a := range api {
			if plain(a) == ip {
				kind = kindAPIServer
			}
		}
	}
	if kind == "" {
		return nil
	}
	return &ForbiddenError{Address: netip.AddrPortFrom(ip, to.Port()), Kind: kind}
}

// plain is the IPv4 address within an IPv6 one, if there is one, and has no zone.
func plain(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return ip
}

func kindOf(ip netip.Addr) string {
	switch {
	case ip.IsLoopback():
		return kindLoopback
	case ip.IsUnspecified(), thisNetwork.Contains(ip):
		return kindUnspecified
	case ip.IsLinkLocalUnicast():
		return kindLinkLocal
	case ip.IsMulticast():
		return kindMulticast
	}
	for _, m := range metadata {
		if ip == m {
			return kindMetadata
		}
	}
	return ""
}

// apiServer is where the API server is. When its name cannot be resolved, what it resolved to before stands.
func (g *Guard) apiServer(ctx context.Context) []netip.Addr {
	if g.api == "" {
		return nil
	}
	if ip, err := netip.ParseAddr(g.api); err == nil {
		return []netip.Addr{ip}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.clock.Now(); g.looked.IsZero() || now.Sub(g.looked) >= lookupPause {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		if addresses, err := g.resolver.LookupNetIP(ctx, "ip", g.api); err == nil {
			g.apiAddrs = addresses
		}
		g.looked = now
	}
	return g.apiAddrs
}

// Forbidden finds a *ForbiddenError in err; nil if there is none.
func Forbidden(err error) *ForbiddenError {
	var f *ForbiddenError
	if errors.As(err, &f) {
		return f
	}
	return nil
}
