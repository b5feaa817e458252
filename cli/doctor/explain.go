package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/application-connector/application-connector/gateway/transport"
	"github.com/application-connector/application-connector/graphql"
)

// peer is whom a connection leads to, in words.
type peer struct {
	// what it is, and source, the field that its URL comes from.
	what, source string
	// trust is what to do if its authority is not known, certificate what to do if it does not accept ours.
	trust, certificate string
	// now is the time.
	now time.Time
}

// dns judges the name.
func (p peer) dns(l *link) outcome {
	failed := l.unresolved()
	switch {
	case l.proxy != "":
		return left("requests to %s go through the proxy %s from here, which looks up the name", l.host, l.proxy)
	case failed == nil && len(l.addresses) == 0:
		if _, err := netip.ParseAddr(l.host); err == nil {
			return fine("%s is an address", l.host)
		}
		return fine("%s is a name", l.host)
	case failed == nil:
		return fine("%s is %s", l.host, addresses(l.addresses))
	case failed.IsNotFound:
		return wrong(fmt.Sprintf("correct %s, or the DNS", p.source), "the name %s, of %s, does not exist", l.host, p.what)
	default:
		return unknown("look at the DNS server of this machine, and run it again", "the DNS server gives no answer for %s, the name of %s", l.host, p.what)
	}
}

// tcp judges the connection, after the name.
func (p peer) tcp(l *link) outcome {
	if l.proxy != "" {
		return left("requests to %s go through the proxy %s from here, which connects", l.address, l.proxy)
	}
	if l.dialled == nil {
		return fine("%s accepts connections", l.address)
	}
	if forbidden := transport.Forbidden(l.dialled); forbidden != nil {
		return wrong(fmt.Sprintf("correct %s or, if that address is meant, set -allowedTargets of the gateway, and --allowed-targets here", p.source),
			"the gateway makes no connection to %s at %s: that is %s", p.what, l.address, forbidden.Kind)
	}
	remedy := fmt.Sprintf("look whether %s runs, whether %s is right, and at what may be on the way: firewalls, proxies, NetworkPolicies", p.what, p.source)
	var slow net.Error
	switch {
	case errors.Is(l.dialled, syscall.ECONNREFUSED):
		return wrong(remedy, "%s at %s refuses connections", p.what, l.address)
	case errors.As(l.dialled, &slow) && slow.Timeout():
		return wrong(remedy, "%s at %s does not accept connections in time", p.what, l.address)
	}
	return wrong(remedy, "%s at %s cannot be reached: %s", p.what, l.address, cause(l.dialled))
}

// tls judges the handshake, after the connection.
func (p peer) tls(ctx context.Context, l *link) outcome {
	switch {
	case l.proxy != "":
		return left("requests to %s go through the proxy %s from here, and only they show the handshake", l.address, l.proxy)
	case l.target.Scheme != "https":
		return fine("no TLS: whoever is on the way can read and change what is sent")
	case l.shaken == nil:
		return fine("%s", l.handshake())
	}
	if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](l.shaken); ok {
		return p.untrusted(l, untrusted)
	}
	if _, plain := errors.AsType[tls.RecordHeaderError](l.shaken); plain {
		return wrong(fmt.Sprintf("correct the port or the scheme in %s", p.source), "%s at %s does not speak TLS", p.what, l.address)
	}
	switch kind := graphql.KindOfTransport(ctx, l.shaken); {
	case kind == graphql.CertificateExpired, kind == graphql.CertificateRefused:
		return p.refused(l)
	case kind == graphql.TLS:
		return wrong(fmt.Sprintf("compare the versions of TLS and the ciphers of %s with what is spoken here: TLS 1.2 and newer", p.what), "%s refuses the handshake: %s", p.what, alert(l.shaken))
	case kind == graphql.Timeout:
		return wrong(fmt.Sprintf("look whether %s is well, and at what may be on the way", p.what), "%s does not finish the handshake in time", p.what)
	case l.state != nil: // it ended the connection after the client certificate
		return wrong(p.certificate, "%s closes the connection after it asked for a client certificate and got %s, without an alert", p.what, l.presented())
	}
	return wrong(fmt.Sprintf("look whether %s is well, and at what may be on the way", p.what), "%s breaks off the handshake: %s", p.what, cause(l.shaken))
}

// refused is for an alert about the client certificate.
func (p peer) refused(l *link) outcome {
	if l.sent == nil {
		wanted := ""
		if len(l.authorities) > 0 {
			wanted = " of " + strings.Join(l.authorities[:min(len(l.authorities), 3)], " or ")
		}
		return wrong(p.certificate, "%s demands a client certificate%s and got none: %s", p.what, wanted, alert(l.shaken))
	}
	return wrong(p.certificate, "%s does not accept the client certificate %s: %s", p.what, l.presented(), alert(l.shaken))
}

// untrusted is for a certificate of the server that does not verify.
func (p peer) untrusted(l *link, err *tls.CertificateVerificationError) outcome {
	chain := err.UnverifiedCertificates
	if name, ok := errors.AsType[x509.HostnameError](err.Err); ok {
		return wrong(fmt.Sprintf("correct the name in %s, or have %s get a certificate for it", p.source, p.what),
			"the certificate of %s is for %s, not for %s", p.what, names(name.Certificate), name.Host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err.Err); ok && invalid.Reason == x509.Expired {
		if p.now.Before(invalid.Cert.NotBefore) {
			return wrong("compare the clocks", "the certificate %s of %s is valid from %s only", invalid.Cert.Subject, p.what, stamp(invalid.Cert.NotBefore))
		}
		return wrong(fmt.Sprintf("whoever runs %s must renew it", p.what), "the certificate %s of %s ended at %s", invalid.Cert.Subject, p.what, stamp(invalid.Cert.NotAfter))
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err.Err); ok {
		return wrong(p.trust, "the certificate of %s is of an authority that is not trusted; the chain that it sent: %s", p.what, written(chain))
	}
	return wrong(p.trust, "the certificate of %s is not trusted: %s; the chain that it sent: %s", p.what, err.Err, written(chain))
}

// handshake describes one that succeeded.
func (l *link) handshake() string {
	leaf := l.state.PeerCertificates[0]
	text := fmt.Sprintf("%s with %s, issued by %s, valid until %s", tls.VersionName(l.state.Version), leaf.Subject, leaf.Issuer, stamp(leaf.NotAfter))
	if l.unverified {
		text += "; the certificate is NOT verified: whoever is on the way can read and change what is sent"
	}
	if l.asked {
		text += "; asked for a client certificate, got " + l.presented()
	}
	return text
}

func (l *link) presented() string {
	if l.sent == nil {
		return "none"
	}
	return fmt.Sprintf("%s, issued by %s", l.sent.Subject, l.sent.Issuer)
}

// alert names the alert that the other side sent.
func alert(err error) string {
	number, ok := graphql.Alert(err)
	if !ok {
		return cause(err)
	}
	text := ""
	if op, ok := errors.AsType[*net.OpError](err); ok {
		text = strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	return fmt.Sprintf("TLS alert %d (%s)", number, text)
}

// cause is an error without the addresses of this machine, which net puts before it.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}

// written names the certificates of a chain, each with its issuer.
func written(chain []*x509.Certificate) string {
	var parts []string
	for i, c := range chain {
		if i == 5 {
			parts = append(parts, fmt.Sprintf("%d more", len(chain)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%s, issued by %s", c.Subject, c.Issuer))
	}
	return strings.Join(parts, "; ")
}

// names are those that a certificate is for.
func names(c *x509.Certificate) string {
	all := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name"
	}
	if len(all) > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:5], ", "), len(all)-5)
	}
	return strings.Join(all, ", ")
}

func addresses(ips []net.IP) string {
	var all []string
	for _, ip := range ips {
		all = append(all, ip.String())
	}
	return strings.Join(all[:min(len(all), 5)], ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// clusterName says whether a name may be one of the cluster's DNS, or of another network's own: it has no dot, or ends in
// what nobody can register.
func clusterName(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" {
		return false
	}
	suffix, registered := publicsuffix.PublicSuffix(host)
	return !registered && !strings.Contains(suffix, ".")
}

// private says whether a connection was to be made within a private network, in which the same address may be somebody else
// than in the cluster.
func private(l *link) bool {
	for _, ip := range l.addresses {
		if ip.IsPrivate() {
			return true
		}
	}
	ip := net.ParseIP(l.host)
	return ip != nil && ip.IsPrivate()
}
