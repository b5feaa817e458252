package compass

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// caValidity of the Connector's CA outlives any test that lets years pass.
	caValidity = 20 * 365 * 24 * time.Hour
	// caBackdate lets clocks of clients be late.
	caBackdate = 24 * time.Hour
)

// The servers' own certificates are valid at any time that a test may invent:
// the clock of Compass and that of a client need not be the same.
var (
	serverNotBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	serverNotAfter  = time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC)
)

// authority is a CA with the certificates it trusts: its own and, after a
// change, older ones that stay valid.
type authority struct {
	key  crypto.Signer
	cert *x509.Certificate
	// trusted starts with cert.
	trusted []*x509.Certificate
}

func newAuthority(subject pkix.Name, key crypto.Signer, notBefore, notAfter time.Time) (*authority, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create CA %s: %w", subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{key: key, cert: cert, trusted: []*x509.Certificate{cert}}, nil
}

// newClientCA makes the Connector's CA. Its key is RSA as the real one's is:
// that is why the Connector refuses requests with any other kind of key.
func newClientCA(now time.Time) (*authority, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return newAuthority(pkix.Name{CommonName: "compass-connector-ca", Organization: []string{"Org"}, Country: []string{"DE"}}, key, now.Add(-caBackdate), now.Add(caValidity))
}

// newServerCA makes the CA of the servers' own certificates.
func newServerCA() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return newAuthority(pkix.Name{CommonName: "compass-edge-ca", Organization: []string{"Edge"}}, key, serverNotBefore, serverNotAfter)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range a.trusted {
		pool.AddCert(c)
	}
	return pool
}

func (a *authority) certPEM() []byte { return encodePEM("CERTIFICATE", a.cert.Raw) }

// serverCertificate signs a certificate for host and the loopback names.
func (a *authority) serverCertificate(host string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host},
		NotBefore: serverNotBefore, NotAfter: serverNotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else if !slices.Contains(template.DNSNames, host) {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("create server certificate for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

// marshal writes the key and then the certificates, all in PEM.
func (a *authority) marshal() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	out := encodePEM("PRIVATE KEY", key)
	for _, c := range a.trusted {
		out = append(out, encodePEM("CERTIFICATE", c.Raw)...)
	}
	return out, nil
}

func parseAuthority(raw []byte) (*authority, error) {
	a := &authority{}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parse CA key: %w", err)
			}
			signer, ok := key.(crypto.Signer)
			if !ok {
				return nil, fmt.Errorf("CA key of type %T cannot sign", key)
			}
			a.key = signer
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parse CA certificate: %w", err)
			}
			a.trusted = append(a.trusted, c)
		}
	}
	if a.key == nil || len(a.trusted) == 0 {
		return nil, errors.New("want a private key and at least one certificate in PEM")
	}
	a.cert = a.trusted[0]
	return a, nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certificateHash(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// lazyAuthority is a CA that is made in the background: an RSA key takes a
// while, and nobody needs it before the first handshake or signature.
type lazyAuthority struct {
	ready chan struct{}
	mu    sync.Mutex
	ca    *authority
	err   error
}

func startAuthority(create func() (*authority, error)) *lazyAuthority {
	l := &lazyAuthority{ready: make(chan struct{})}
	go func() {
		defer close(l.ready)
		ca, err := create()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ca, l.err = ca, err
	}()
	return l
}

// get waits until the CA is there.
func (l *lazyAuthority) get() (*authority, error) {
	<-l.ready
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ca, l.err
}

func (l *lazyAuthority) set(ca *authority) {
	<-l.ready
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ca, l.err = ca, nil
}
