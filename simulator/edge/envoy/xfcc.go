// Package envoy does to requests what Envoy does, as far as an edge needs it: the X-Forwarded-Client-Cert header field in
// every mode, subjects as it prints them, paths as Istio has it normalise them. It is text in, text out.
package envoy

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Header is the header field that tells an application who the client is.
const Header = "X-Forwarded-Client-Cert"

// Mode is what a proxy does with X-Forwarded-Client-Cert on a connection with client certificate, by the names of
// Envoy's forward_client_cert_details, which are also those of Istio's gatewayTopology.forwardClientCertDetails.
type Mode string

// The modes of Envoy.
const (
	// Sanitize removes the field.
	Sanitize Mode = "SANITIZE"
	// ForwardOnly and AlwaysForwardOnly pass on what came.
	ForwardOnly       Mode = "FORWARD_ONLY"
	AlwaysForwardOnly Mode = "ALWAYS_FORWARD_ONLY"
	// AppendForward adds an element to what came.
	AppendForward Mode = "APPEND_FORWARD"
	// SanitizeSet replaces what came by one element.
	SanitizeSet Mode = "SANITIZE_SET"
)

// Valid says whether m is one of the modes.
func (m Mode) Valid() bool {
	switch m {
	case Sanitize, ForwardOnly, AlwaysForwardOnly, AppendForward, SanitizeSet:
		return true
	}
	return false
}

// Apply does to the field what a proxy in this mode does; element writes what it adds, where the mode adds something.
func (m Mode) Apply(h http.Header, element func() (string, error)) error {
	switch m {
	case Sanitize:
		h.Del(Header)
		return nil
	case ForwardOnly, AlwaysForwardOnly:
		return nil
	}
	text, err := element()
	if err != nil {
		return err
	}
	if came := h.Values(Header); m == AppendForward && len(came) > 0 {
		text = strings.Join(came, ",") + "," + text
	}
	h.Set(Header, text)
	return nil
}

// Element writes one element in Envoy's order: By, Hash, Cert, Subject, URI, DNS. By, URI and DNS are neither quoted nor
// escaped, URI stands there even when empty. local is the proxy's own certificate, peer the client's.
func Element(local, peer *x509.Certificate, withCert bool) (string, error) {
	var pairs []string
	for _, u := range local.URIs {
		pairs = append(pairs, "By="+u.String())
	}
	pairs = append(pairs, "Hash="+digest(peer.Raw))
	if withCert {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: peer.Raw})
		// PathEscape would keep + and =, QueryEscape writes a space as +, of which PEM has those of BEGIN and END only.
		pairs = append(pairs, `Cert="`+strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20")+`"`)
	}
	subject, err := PrintSubject(peer.RawSubject)
	if err != nil {
		return "", fmt.Errorf("client certificate: %w", err)
	}
	pairs = append(pairs, `Subject="`+subject+`"`)
	if len(peer.URIs) == 0 {
		pairs = append(pairs, "URI=")
	}
	for _, u := range peer.URIs {
		pairs = append(pairs, "URI="+u.String())
	}
	for _, name := range peer.DNSNames {
		pairs = append(pairs, "DNS="+name)
	}
	return strings.Join(pairs, ";"), nil
}
