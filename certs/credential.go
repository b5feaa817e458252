package certs

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// Credential is a client certificate with its key and what it hangs on. Verify and DecodeClient make them; treat them as
// immutable.
type Credential struct {
	// Key of the certificate.
	Key crypto.Signer
	// Chain starts with the client certificate; each certificate is signed by the next.
	Chain []*x509.Certificate
	// CA holds the authorities whose client certificates are trusted. It may be empty when the credential was read from
	// a Secret that does not hold them.
	CA []*x509.Certificate
}

// Leaf is the client certificate.
func (c Credential) Leaf() *x509.Certificate { return c.Chain[0] }

// TLS is the credential as crypto/tls takes it, with the whole chain: peers may lack the intermediates.
func (c Credential) TLS() *tls.Certificate {
	t := &tls.Certificate{PrivateKey: c.Key, Leaf: c.Leaf()}
	for _, cert := range c.Chain {
		t.Certificate = append(t.Certificate, cert.Raw)
	}
	return t
}

// Fingerprint is the SHA-256 of the client certificate in hex. Serial numbers do not tell the Connector's certificates
// apart: they are all 2.
func (c Credential) Fingerprint() string { return Fingerprint(c.Leaf()) }

// LogValue implements slog.LogValuer: never the key.
func (c Credential) LogValue() slog.Value {
	if len(c.Chain) == 0 {
		return slog.StringValue("none")
	}
	return slog.GroupValue(slog.String("fingerprint", c.Fingerprint()), slog.Time("notAfter", c.Leaf().NotAfter))
}

// String implements fmt.Stringer: never the key.
func (c Credential) String() string {
	if len(c.Chain) == 0 {
		return "no certificate"
	}
	return "certificate " + c.Fingerprint()
}

// GoString implements fmt.GoStringer: never the key.
func (c Credential) GoString() string { return c.String() }

// Fingerprint is the SHA-256 of a certificate in hex.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// ValidAt reports whether the client certificate can be used at a time.
func (c Credential) ValidAt(now time.Time) bool {
	return !now.Before(c.Leaf().NotBefore.Add(-clockSkew)) && now.Before(c.Leaf().NotAfter)
}

// MergeCA gives the authorities to trust while one set takes the place of another: all of next, and those of current that
// have not ended, so that nobody is locked out before their own certificate can be renewed.
func MergeCA(current, next []*x509.Certificate, now time.Time) []*x509.Certificate {
	merged := unique(next)
	for _, cert := range current {
		if now.Before(cert.NotAfter) {
			merged = append(merged, cert)
		}
	}
	return unique(merged)
}

func unique(certs []*x509.Certificate) []*x509.Certificate {
	var kept []*x509.Certificate
	for _, cert := range certs {
		if !slices.ContainsFunc(kept, cert.Equal) {
			kept = append(kept, cert)
		}
	}
	return kept
}

// order follows signatures from leaf upwards through the candidates. It gives the path, leaf first, without what does not
// belong to it.
func order(leaf *x509.Certificate, candidates []*x509.Certificate) []*x509.Certificate {
	path := []*x509.Certificate{leaf}
	for rest := unique(candidates); ; {
		last := path[len(path)-1]
		next := slices.IndexFunc(rest, func(c *x509.Certificate) bool {
			return !slices.ContainsFunc(path, c.Equal) && last.CheckSignatureFrom(c) == nil
		})
		if next < 0 {
			return path
		}
		path = append(path, rest[next])
	}
}

func checkKey(key crypto.Signer, leaf *x509.Certificate) error {
	if key == nil {
		return errors.New("private key: missing")
	}
	same, err := pki.PublicKeyMatchesCertificate(key.Public(), leaf)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	if !same {
		return errors.New("the certificate is for another key")
	}
	return nil
}
