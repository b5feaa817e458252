package certs

import (
	"crypto/x509"
	"fmt"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// DecodeTLS reads a credential by the keys of the Secret type kubernetes.io/tls, as cert-manager writes them: tls.key,
// tls.crt (the certificate first) and ca.crt. The error says which key is wrong, and never holds key material. Whether the
// certificate is still valid is not looked at.
func DecodeTLS(data map[string][]byte) (Credential, error) {
	keyPEM, err := need(data, TLSKey)
	if err != nil {
		return Credential{}, err
	}
	chainPEM, err := need(data, TLSCertificate)
	if err != nil {
		return Credential{}, err
	}
	var c Credential
	if c.Key, err = DecodeKey(keyPEM); err != nil {
		return Credential{}, fmt.Errorf("data[%q]: %w", TLSKey, err)
	}
	chain, err := decode(TLSCertificate, chainPEM)
	if err != nil {
		return Credential{}, err
	}
	if err := checkKey(c.Key, chain[0]); err != nil {
		return Credential{}, fmt.Errorf("data[%q]: %w", TLSCertificate, err)
	}
	if pem := data[ClientCA]; len(pem) > 0 {
		if c.CA, err = decode(ClientCA, pem); err != nil {
			return Credential{}, err
		}
	}
	var above []*x509.Certificate
	c.Chain = order(chain[0], append(append(above, chain[1:]...), c.CA...))
	if len(c.CA) == 0 {
		c.CA = c.Chain[1:]
	}
	return c, nil
}

// DecodeChain reads certificates from PEM, at least one.
func DecodeChain(text []byte) ([]*x509.Certificate, error) {
	return pki.DecodeX509CertificateSetBytes(text)
}

// EncodeChain writes certificates as PEM, one block each.
func EncodeChain(chain []*x509.Certificate) []byte { return encode(chain) }
