package identity

import (
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/application-connector/application-connector/events/xfcc"
)

// ClientCertHeader is the header of RFC 9440 that carries the client's certificate: DER in base64 between colons, a byte
// sequence of RFC 8941. The proxy that terminates TLS sets it and must remove what a client sent under its name.
const ClientCertHeader = "Client-Cert"

// clientCert reads Client-Cert. The header has no word of who wrote it, so if there are trusted hops
// X-Forwarded-Client-Cert must say that the request came through the ingress gateway; nothing else is read there.
func (v Verifier) clientCert(header http.Header) (Identity, error) {
	lines := header.Values(ClientCertHeader)
	switch {
	case len(lines) == 0 || len(lines) == 1 && strings.TrimSpace(lines[0]) == "":
		return Identity{}, refuse(NoHeader, "")
	case len(lines) > 1:
		return Identity{}, refuse(SeveralHeaders, "our proxy writes one header line")
	}
	if v.TrustedHops > 0 {
		if err := v.ingress(header.Values(xfcc.HeaderName)); err != nil {
			return Identity{}, err
		}
	}
	text, opened := strings.CutPrefix(strings.Trim(lines[0], " "), ":")
	text, closed := strings.CutSuffix(text, ":")
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if !opened || !closed || err != nil || strings.ContainsAny(text, "\r\n") {
		return Identity{}, refuse(MalformedHeader, ClientCertHeader+" must be base64 between colons")
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return Identity{}, refuse(BadCertificate, ClientCertHeader+" is not a certificate that can be read")
	}
	return v.complete(Identity{Certificate: certificate}, "", "")
}

// ingress checks that the nearest proxy had the ingress gateway as its peer.
func (v Verifier) ingress(lines []string) error {
	if len(lines) != 1 {
		return untrusted
	}
	elements, err := xfcc.Parse(lines[0])
	if err != nil {
		return &Error{Reason: MalformedHeader, Err: err}
	}
	if !v.fromIngress(elements) {
		return untrusted
	}
	return nil
}
