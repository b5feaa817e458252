package certs_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/application-connector/application-connector/certs"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const subject = "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=2f6c0a1e-0000-4000-8000-000000000001"

// keys are made once: an RSA key takes long.
var keys = [3]func() *rsa.PrivateKey{newKey(), newKey(), newKey()}

func newKey() func() *rsa.PrivateKey {
	return sync.OnceValue(func() *rsa.PrivateKey {
		k, err := certs.GenerateKey(2048)
		if err != nil {
			panic(err)
		}
		return k
	})
}

// authority signs as the Connector does: serial number 2, the subject of the request, no back-dating.
type authority struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

func newAuthority(t *testing.T, name string, key *rsa.PrivateKey, parent *authority) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signer := authority{cert: template, key: key}
	if parent != nil {
		signer = *parent
	}
	return authority{cert: sign(t, template, signer.cert, key.Public(), signer.key), key: key}
}

func (a authority) issue(t *testing.T, csrPEM []byte, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(csrPEM)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: csr.Subject, NotBefore: now, NotAfter: now.AddDate(0, 0, 90),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if edit != nil {
		edit(template)
	}
	return sign(t, template, a.cert, csr.PublicKey, a.key)
}

func sign(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func mustSubject(t *testing.T, text string) certs.Subject {
	t.Helper()
	s, err := certs.ParseSubject(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustRequest(t *testing.T, key crypto.Signer, text string) []byte {
	t.Helper()
	csr, err := certs.NewRequest(key, mustSubject(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
