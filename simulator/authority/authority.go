// Package authority is a small certificate authority for the simulators and for tests: it signs server and client
// certificates with whatever subject and validity is asked for, odd ones included. Nothing that serves a real cluster may
// trust it.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"k8s.io/utils/clock"
)

const (
	// caLife and leafLife are long enough that no one meets their end by accident.
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// skew is how far notBefore lies back, for peers whose clock is behind.
	skew = time.Minute
)

// Authority signs certificates. Its methods may be called concurrently.
type Authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	clock clock.PassiveClock
}

// New makes an authority whose subject is CN=name. A nil clock means the real one.
func New(name string, c clock.PassiveClock) (*Authority, error) {
	if c == nil {
		c = clock.RealClock{}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("creating the key of %s: %w", name, err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := c.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("creating the certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("creating the certificate of %s: %w", name, err)
	}
	return &Authority{cert: cert, key: key, clock: c}, nil
}

// Open gives the authority that is kept in dir/name.crt and dir/name.key, and makes it when neither file is there. The
// folder is created when needed. An empty dir keeps nothing.
func Open(dir, name string, c clock.PassiveClock) (*Authority, error) {
	if dir == "" {
		return New(name, c)
	}
	if c == nil {
		c = clock.RealClock{}
	}
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	certText, certErr := os.ReadFile(certFile)
	keyText, keyErr := os.ReadFile(keyFile)
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		return create(dir, name, certFile, keyFile, c)
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("reading the authority %s (remove both files to have a new one): %w", name, errors.Join(certErr, keyErr))
	}
	a := &Authority{clock: c}
	var err error
	if a.cert, err = parse(certText); err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	block, _ := pem.Decode(keyText)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM block", keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(a.cert.PublicKey) {
		return nil, fmt.Errorf("%s: not the key of %s", keyFile, certFile)
	}
	a.key = ec
	return a, nil
}

func create(dir, name, certFile, keyFile string, c clock.PassiveClock) (*Authority, error) {
	a, err := New(name, c)
	if err != nil {
		return nil, err
	}
	key, err := keyPEM(a.key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeping the authority %s: %w", name, err)
	}
	// The key first: a certificate without its key would be trusted by peers and yet be of no use.
	if err := errors.Join(os.WriteFile(keyFile, key, 0o600), os.WriteFile(certFile, a.CA(), 0o600)); err != nil {
		return nil, fmt.Errorf("keeping the authority %s: %w", name, err)
	}
	return a, nil
}

// CA is the authority's own certificate, PEM.
func (a *Authority) CA() []byte { return certPEM(a.cert.Raw) }

// Pool is a new pool that holds the authority's own certificate.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Request says what to sign.
type Request struct {
	// Subject is the name of the certificate; RawSubject, when set, is used instead: the DER of an X.501 Name.
	Subject    pkix.Name
	RawSubject []byte
	// Hosts are DNS names and IP addresses of a server, URIs other identities.
	Hosts []string
	URIs  []string
	// Extensions are added as they are, and go before what would be made of Hosts and URIs.
	Extensions []pkix.Extension
	// NotBefore and NotAfter default to a minute ago and a year ahead.
	NotBefore, NotAfter time.Time
	// Server asks for a server's certificate; else it is a client's.
	Server bool
}

// Issue makes a key and signs a certificate for it. Both come as PEM, the key as PKCS #8.
func (a *Authority) Issue(r Request) (cert, key []byte, err error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, nil, err
	}
	now := a.clock.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: r.Subject, RawSubject: r.RawSubject,
		NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: r.Extensions,
	}
	if !r.NotBefore.IsZero() {
		template.NotBefore = r.NotBefore
	}
	if !r.NotAfter.IsZero() {
		template.NotAfter = r.NotAfter
	}
	if r.Server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	for _, text := range r.URIs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, nil, fmt.Errorf("URI of the certificate: %w", err)
		}
		template.URIs = append(template.URIs, u)
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("creating a key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, leaf.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: %w", err)
	}
	key, err = keyPEM(leaf)
	return certPEM(der), key, err
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("creating a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
