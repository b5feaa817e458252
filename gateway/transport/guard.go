package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

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

// metadata serve instance metadata, or credentials, at addresses that are not link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd00:ec2::23"), // AWS: instances, and Pod identities of EKS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
}

// thisNetwork is what reaches the host itself on many systems, besides 0.0.0.0 (RFC 1122, 3.2.1.3).
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

// nat64 holds IPv4 addresses in its last four bytes (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// localNAT64 holds prefixes of 48 to 96 bits (RFC 8215), which a network chooses.
var localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")

// within are the IPv4 addresses that an address of localNAT64 can stand for, by RFC 6052, section 2.2, which skips the ninth byte.
func within(ip netip.Addr) []netip.Addr {
	b := ip.As16()
	return []netip.Addr{
		netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]}), netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]}),
		netip.AddrFrom4([4]byte(b[9:13])), netip.AddrFrom4([4]byte(b[12:])),
	}
}

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

// Guard decides, for each connection, after names are resolved, whether it may be made: not to this host, not to what is
// link-local, and not to the Kubernetes API server. Private addresses, as services of a cluster have, are allowed. It is
// safe for concurrent use.
type Guard struct {
	allowed   Allowed
	api       APIServer
	endpoints []*endpoint // of the API server
	kind      func(netip.Addr) string
}

// NewGuard returns a Guard.
func NewGuard(allowed Allowed, api APIServer, c clock.PassiveClock) (*Guard, error) {
	g := &Guard{allowed: allowed, api: api, kind: kindOf}
	for _, address := range api.Addresses {
		e, err := newEndpoint(address, net.DefaultResolver, c)
		if err != nil {
			return nil, err
		}
		g.endpoints = append(g.endpoints, e)
	}
	return g, nil
}

// dial connects to host:port, by any address of the host that is not forbidden. It says whether that is one that settings allow:
// others have yet to show who they are.
func (g *Guard) dial(ctx context.Context, dialer net.Dialer, network, address string) (conn net.Conn, allowed bool, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, false, err
	}
	if g.allowed.hosts[canonicalHost(host)] {
		conn, err = dialer.DialContext(ctx, network, address)
		return conn, true, err
	}
	api, err := g.apiServer(ctx)
	if err != nil {
		return nil, false, err
	}
	dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		return g.check(address, api)
	}
	if conn, err = dialer.DialContext(ctx, network, address); err != nil {
		return nil, false, err
	}
	return conn, g.allowed.address(plain(peer(conn).Addr())), nil
}

// peer is the address at the other end of a connection.
func peer(conn net.Conn) netip.AddrPort {
	address, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.AddrPort{} // cannot be: it is TCP
	}
	return netip.AddrPortFrom(plain(address.Addr()), address.Port())
}

// apiServer is where the API server is.
func (g *Guard) apiServer(ctx context.Context) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, e := range g.endpoints {
		some, err := e.addresses(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// check judges an address as it is about to be connected to.
func (g *Guard) check(address string, api []netip.AddrPort) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address %q cannot be judged: %w", address, err)
	}
	ip := plain(to.Addr())
	if g.allowed.address(ip) {
		return nil
	}
	kind := g.kind(ip)
	if kind == "" && slices.Contains(api, netip.AddrPortFrom(ip, to.Port())) {
		kind = kindAPIServer
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

// SpecialAddress says what an address is that leads to the host itself, to many, or to what a cloud tells a machine of itself, in a
// few words; empty if it does not. An IPv4 address is also seen within an IPv6 one.
func SpecialAddress(ip netip.Addr) string { return kindOf(plain(ip)) }

func kindOf(ip netip.Addr) string {
	if localNAT64.Contains(ip) {
		for _, candidate := range within(ip) {
			// Zeros say nothing: they are what prefix and suffix are filled with.
			if kind := kindOf(candidate); kind != "" && kind != kindUnspecified {
				return kind
			}
		}
		return ""
	}
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

// Forbidden finds a *ForbiddenError in err; nil if there is none.
func Forbidden(err error) *ForbiddenError {
	var f *ForbiddenError
	if errors.As(err, &f) {
		return f
	}
	return nil
}
