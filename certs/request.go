package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// NewRequest makes a certificate request (PKCS#10, RFC 2986) for key with exactly the given subject, and gives it as PEM
// "CERTIFICATE REQUEST". It asks for nothing else: the Connector drops extensions.
func NewRequest(key crypto.Signer, subject Subject) ([]byte, error) {
	der, err := subject.der()
	if err != nil {
		return nil, err
	}
	csr, err := pki.EncodeCSR(&x509.CertificateRequest{RawSubject: der}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), nil
}
