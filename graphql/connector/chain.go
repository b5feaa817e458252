package connector

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// Bounds of what the Connector sends: a chain of three certificates with 4096-bit keys has about 8 kB as base64.
const (
	maxEncodedChain = 256 << 10
	maxCertificates = 16
)

// issued decodes the three values of a CertificationResult.
func issued(client, chain, ca string) (Issued, error) {
	leaf, err := decodeChain(client)
	if err != nil {
		return Issued{}, fmt.Errorf("clientCertificate: %w", err)
	}
	if len(leaf) != 1 {
		return Issued{}, fmt.Errorf("clientCertificate: %d certificates, want one", len(leaf))
	}
	out := Issued{Certificate: leaf[0]}
	if out.Chain, err = decodeChain(chain); err != nil {
		return Issued{}, fmt.Errorf("certificateChain: %w", err)
	}
	if !out.Chain[0].Equal(out.Certificate) {
		return Issued{}, errors.New("certificateChain: does not start with clientCertificate")
	}
	if out.CA, err = decodeChain(ca); err != nil {
		return Issued{}, fmt.Errorf("caCertificate: %w", err)
	}
	for _, c := range out.CA {
		if !c.IsCA {
			return Issued{}, errors.New("caCertificate: holds a certificate that is no authority")
		}
	}
	return out, nil
}

// decodeChain decodes base64 of PEM into at least one certificate. Anything between or after the blocks is refused:
// a chain that was cut or mixed up must not pass for a short one.
func decodeChain(encoded string) ([]*x509.Certificate, error) {
	if len(encoded) > maxEncodedChain {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(encoded), maxEncodedChain)
	}
	rest, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("no base64")
	}
	var out []*x509.Certificate
	for !blank(rest) {
		if !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("-----BEGIN ")) {
			return nil, errors.New("something else than PEM blocks")
		}
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("a PEM block that is cut or broken")
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("a PEM block of another type than CERTIFICATE")
		}
		if len(out) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate")
	}
	return out, nil
}

func blank(b []byte) bool { return len(bytes.TrimSpace(b)) == 0 }

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
