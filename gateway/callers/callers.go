// Package callers knows which workload of the mesh a call comes from, and who may call an API. It believes only what the
// mesh's own proxy wrote. It knows nothing of Applications, and sends nothing.
package callers

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/application-connector/application-connector/events/xfcc"
)

// Identity is a workload by the service account it runs as.
type Identity struct{ Namespace, ServiceAccount string }

// String is namespace/name.
func (i Identity) String() string { return i.Namespace + "/" + i.ServiceAccount }

// Allowed are workloads that may call. It is immutable.
type Allowed struct {
	namespaces map[string]bool
	accounts   map[Identity]bool
}

// NewAllowed takes namespaces, and service accounts as namespace/name. What it returns with an error allows nobody.
func NewAllowed(namespaces, serviceAccounts []string) (*Allowed, error) {
	a := &Allowed{namespaces: map[string]bool{}, accounts: map[Identity]bool{}}
	for _, namespace := range namespaces {
		if !plainName(namespace) {
			return &Allowed{}, fmt.Errorf("namespaces: %q is not the name of a namespace", namespace)
		}
		a.namespaces[namespace] = true
	}
	for _, account := range serviceAccounts {
		namespace, name, found := strings.Cut(account, "/")
		if !found || !plainName(namespace) || !plainName(name) {
			return &Allowed{}, fmt.Errorf("serviceAccounts: %q is not of the form namespace/name", account)
		}
		a.accounts[Identity{namespace, name}] = true
	}
	if len(namespaces)+len(serviceAccounts) == 0 {
		return a, errors.New("name a namespace or a service account, or leave it out to allow everybody")
	}
	return a, nil
}

// plainName says whether a text can be the name of a namespace or of a service account.
func plainName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}

// Allows says whether a workload may call.
func (a *Allowed) Allows(i Identity) bool { return a.namespaces[i.Namespace] || a.accounts[i] }

// Mesh reads identities that the mesh's proxies wrote.
type Mesh struct {
	// Proxies are the addresses from which connections of the mesh's proxy come: in a sidecar's case, this host's own.
	Proxies []netip.Prefix
}

// ParseProxies reads a list of addresses and ranges (CIDR), separated by commas.
func ParseProxies(list string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if prefix, err := netip.ParsePrefix(item); err == nil {
			prefixes = append(prefixes, prefix.Masked())
		} else if address, err := netip.ParseAddr(item); err == nil {
			prefixes = append(prefixes, netip.PrefixFrom(address.WithZone(""), address.BitLen()))
		} else {
			return nil, fmt.Errorf("%q is neither an IP address such as 127.0.0.1 nor a range such as 127.0.0.0/8", item)
		}
	}
	return prefixes, nil
}

// Of says which workload a request comes from, by the last element of X-Forwarded-Client-Cert: each proxy appends at the
// end, so that everything before it may be the caller's own words. The proxy in front of this process wrote its own
// identity there as By, and the caller must be of the same trust domain. Without mutual TLS the proxy removes the header.
// An error says why the workload is not known; it repeats nothing of the header.
func (m Mesh) Of(remote string, h http.Header) (Identity, error) {
	lines := h[xfcc.HeaderName]
	switch {
	case len(lines) == 0:
		return Identity{}, errors.New("the call came without mutual TLS of the mesh: there is no " + xfcc.HeaderName)
	case len(lines) > 1:
		return Identity{}, errors.New("there is more than one " + xfcc.HeaderName)
	case !m.proxy(remote):
		return Identity{}, errors.New("the call did not come through the mesh's proxy of the gateway, see -meshProxies")
	}
	elements, err := xfcc.Parse(lines[0])
	if err != nil {
		return Identity{}, err
	}
	last := elements[len(elements)-1]
	own, _, err := spiffe(last.Values(xfcc.KeyBy))
	if err != nil {
		return Identity{}, fmt.Errorf("By in %s: %w", xfcc.HeaderName, err)
	}
	domain, id, err := spiffe(last.Values(xfcc.KeyURI))
	if err != nil {
		return Identity{}, fmt.Errorf("URI in %s: %w", xfcc.HeaderName, err)
	}
	if domain != own {
		return Identity{}, errors.New("the caller is of another trust domain than the gateway")
	}
	return id, nil
}

func (m Mesh) proxy(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range m.Proxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// spiffe reads spiffe://domain/ns/namespace/sa/name, the form that Istio gives to identities.
func spiffe(pairs []xfcc.Pair) (domain string, id Identity, err error) {
	if len(pairs) != 1 {
		return "", Identity{}, fmt.Errorf("there are %d, not one", len(pairs))
	}
	rest, ok := strings.CutPrefix(pairs[0].Text(), "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 5 || parts[0] == "" || parts[1] != "ns" || parts[3] != "sa" || !plainName(parts[2]) || !plainName(parts[4]) {
		return "", Identity{}, errors.New("it is not of the form spiffe://domain/ns/namespace/sa/name")
	}
	return parts[0], Identity{parts[2], parts[4]}, nil
}
