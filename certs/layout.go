package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
)

// Keys of the client Secret and of the CA Secret. The first three and CACert are what existing clusters have.
const (
	// ClientKey holds the private key, PEM.
	ClientKey = "key"
	// ClientCertificate holds the client certificate, PEM.
	ClientCertificate = "crt"
	// ClientChain holds the client certificate and what signed it, leaf first, PEM.
	ClientChain = "crtChain"
	// TLSKey holds the same as ClientKey, under the name of the Secret type kubernetes.io/tls.
	TLSKey = "tls.key"
	// TLSCertificate holds the same as ClientChain, under the name of the Secret type kubernetes.io/tls.
	TLSCertificate = "tls.crt"
	// ClientCA holds the authorities, so that the CA Secret can be restored without another issuance.
	ClientCA = "ca.crt"
	// CACert holds the authorities in the CA Secret: Istio's ingress trusts client certificates that they signed.
	CACert = "cacert"
)

// EncodeClient gives the data of the client Secret.
func EncodeClient(c Credential) (map[string][]byte, error) {
	if len(c.Chain) == 0 || len(c.CA) == 0 {
		return nil, errors.New("client Secret: a certificate and its authorities are needed")
	}
	key, err := EncodeKey(c.Key)
	if err != nil {
		return nil, err
	}
	chain := encode(c.Chain)
	return map[string][]byte{
		ClientKey: key, ClientCertificate: encode(c.Chain[:1]), ClientChain: chain,
		TLSKey: key, TLSCertificate: chain, ClientCA: encode(c.CA),
	}, nil
}

// EncodeCA gives the data of the CA Secret.
func EncodeCA(authorities []*x509.Certificate) (map[string][]byte, error) {
	if len(authorities) == 0 {
		return nil, errors.New("CA Secret: an authority is needed")
	}
	return map[string][]byte{CACert: encode(authorities)}, nil
}

// DecodeClient reads the data of the client Secret, also as agents before this one wrote it: without the tls.* keys and
// without the authorities. Then CA holds what stands above the client certificate in its chain. The error says which key
// of the Secret is wrong, and never holds key material. Whether the certificate is still valid is not looked at.
func DecodeClient(data map[string][]byte) (Credential, error) {
	keyPEM, err := need(data, ClientKey)
	if err != nil {
		return Credential{}, err
	}
	leafPEM, err := need(data, ClientCertificate)
	if err != nil {
		return Credential{}, err
	}
	chainPEM, err := need(data, ClientChain)
	if err != nil {
		return Credential{}, err
	}
	var c Credential
	if c.Key, err = DecodeKey(keyPEM); err != nil {
		return Credential{}, fmt.Errorf("data[%q]: %w", ClientKey, err)
	}
	leaf, err := decode(ClientCertificate, leafPEM)
	if err != nil {
		return Credential{}, err
	}
	if err := checkKey(c.Key, leaf[0]); err != nil {
		return Credential{}, fmt.Errorf("data[%q]: %w", ClientCertificate, err)
	}
	chain, err := decode(ClientChain, chainPEM)
	if err != nil {
		return Credential{}, err
	}
	if !slices.ContainsFunc(chain, leaf[0].Equal) {
		return Credential{}, fmt.Errorf("data[%q]: the certificate of data[%q] is not in it", ClientChain, ClientCertificate)
	}
	if pem := data[ClientCA]; len(pem) > 0 {
		if c.CA, err = decode(ClientCA, pem); err != nil {
			return Credential{}, err
		}
	}
	c.Chain = order(leaf[0], append(chain, c.CA...))
	if len(c.CA) == 0 {
		c.CA = c.Chain[1:]
	}
	return c, nil
}

// DecodeCA reads the data of the CA Secret.
func DecodeCA(data map[string][]byte) ([]*x509.Certificate, error) {
	pem, err := need(data, CACert)
	if err != nil {
		return nil, err
	}
	return decode(CACert, pem)
}

func need(data map[string][]byte, key string) ([]byte, error) {
	if len(data[key]) == 0 {
		return nil, fmt.Errorf("data[%q] is missing", key)
	}
	return data[key], nil
}

func decode(key string, text []byte) ([]*x509.Certificate, error) {
	certs, err := pki.DecodeX509CertificateSetBytes(text)
	if err != nil {
		return nil, fmt.Errorf("data[%q]: %w", key, err)
	}
	return certs, nil
}

func encode(certs []*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, c := range certs {
		// Writing to a buffer cannot fail.
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return text.Bytes()
}
