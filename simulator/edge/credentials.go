package edge

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// credentials are what one handshake needs. They never change; a new Secret makes new ones.
type credentials struct {
	server *tls.Certificate
	// clients holds the certificate authorities of clients, from is the Secret that they come from.
	clients *x509.CertPool
	from    string
	// err says why no one gets in; it names the Secret and what is missing.
	err error
}

// newCredentials reads the server's Secret and the CA Secret as Istio does: tls.crt and tls.key or else cert and key;
// cacert or else ca.crt; the server's Secret for the latter only when there is no CA Secret at all. nil means that a Secret
// does not exist.
func newCredentials(name string, server, ca *corev1.Secret) *credentials {
	c := &credentials{}
	var serverErr, caErr error
	c.server, serverErr = keyPair(name, server)
	switch {
	case ca != nil:
		c.from = name + caSuffix
		c.clients, caErr = authorities(c.from, ca)
	case server != nil:
		c.from = name
		c.clients, caErr = authorities(c.from, server)
		if caErr != nil {
			caErr = fmt.Errorf("secret %s does not exist, and %w", name+caSuffix, caErr)
		}
	default:
		caErr = fmt.Errorf("secret %s does not exist", name+caSuffix)
	}
	c.err = errors.Join(serverErr, caErr)
	return c
}

// caSuffix turns the name of a Gateway's credential into that of the Secret with its clients' authorities.
const caSuffix = "-cacert"

func keyPair(name string, s *corev1.Secret) (*tls.Certificate, error) {
	if s == nil {
		return nil, fmt.Errorf("secret %s does not exist", name)
	}
	for _, keys := range [][2]string{{corev1.TLSCertKey, corev1.TLSPrivateKeyKey}, {"cert", "key"}} {
		cert, key := s.Data[keys[0]], s.Data[keys[1]]
		if len(cert) == 0 || len(key) == 0 {
			continue
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %s and %s: %w", name, keys[0], keys[1], err)
		}
		return &pair, nil
	}
	return nil, fmt.Errorf("secret %s has neither tls.crt and tls.key nor cert and key", name)
}

func authorities(name string, s *corev1.Secret) (*x509.CertPool, error) {
	for _, key := range []string{"cacert", "ca.crt"} {
		rest := s.Data[key]
		if len(rest) == 0 {
			continue
		}
		pool, n := x509.NewCertPool(), 0
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("secret %s: %s: certificate %d: %w", name, key, n+1, err)
			}
			pool.AddCert(cert)
			n++
		}
		if n == 0 {
			return nil, fmt.Errorf("secret %s: %s holds no PEM certificate", name, key)
		}
		return pool, nil
	}
	return nil, fmt.Errorf("secret %s has neither cacert nor ca.crt", name)
}
