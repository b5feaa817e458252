package certs

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// DefaultKeySize is the size of new keys, in bits.
const DefaultKeySize = 4096

// KeySizes are the sizes of RSA keys, in bits, that GenerateKey makes. The Connector signs nothing but RSA: it copies the
// signature algorithm of the request into a certificate that its own RSA key signs.
var KeySizes = []int{2048, 3072, 4096}

// GenerateKey makes a new RSA key of one of KeySizes.
func GenerateKey(bits int) (*rsa.PrivateKey, error) {
	if !slices.Contains(KeySizes, bits) {
		return nil, fmt.Errorf("key size %d: the Connector signs RSA keys only, use one of %v bits", bits, KeySizes)
	}
	return pki.GenerateRSAPrivateKey(bits)
}

// EncodeKey writes a private key as PEM: RSA as "RSA PRIVATE KEY" (PKCS#1, RFC 8017), which is what every reader of the
// client Secret understands, and other kinds as "PRIVATE KEY" (PKCS#8).
func EncodeKey(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case nil:
		return nil, errors.New("private key: missing")
	case *rsa.PrivateKey:
		return pki.EncodePKCS1PrivateKey(k), nil
	default:
		return pki.EncodePKCS8PrivateKey(k)
	}
}

// DecodeKey reads a private key from PEM: PKCS#1, PKCS#8 (RFC 5208) or SEC 1 (RFC 5915). Errors do not hold key material.
func DecodeKey(pem []byte) (crypto.Signer, error) {
	key, err := pki.DecodePrivateKeyBytes(pem)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return key, nil
}
