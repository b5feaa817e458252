package edge_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"github.com/application-connector/application-connector/simulator/authority"
)

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type nameSET []attribute

func text(tag int, s string, oid ...int) attribute {
	return attribute{oid, asn1.RawValue{Tag: tag, Bytes: []byte(s)}}
}

func org(tag int, s string) nameSET {
	return nameSET{text(tag, s, 2, 5, 4, 10)}
}

func name(t testing.TB, sets ...nameSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(sets)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// issue makes a certificate for a TLS client or server.
func issue(t *testing.T, a *authority.Authority, r authority.Request) tls.Certificate {
	t.Helper()
	cert, key, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func newAuthority(t *testing.T, name string) *authority.Authority {
	t.Helper()
	a, err := authority.New(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pool(cas ...*authority.Authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range cas {
		p.AppendCertsFromPEM(a.CA())
	}
	return p
}
