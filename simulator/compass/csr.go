package compass

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// The subject that the Connector asks for and insists on.
const (
	subjectOrganization = "Org"
	subjectUnit         = "OrgUnit"
	subjectLocality     = "locality"
	subjectProvince     = "province"
	subjectCountry      = "DE"
	keyAlgorithm        = "rsa2048"
)

// signedSerial is the serial number of every certificate, as the real
// Connector has it.
const signedSerial = 2

func subjectFor(commonName string) string {
	return fmt.Sprintf("O=%s,OU=%s,L=%s,ST=%s,C=%s,CN=%s",
		subjectOrganization, subjectUnit, subjectLocality, subjectProvince, subjectCountry, commonName)
}

// hasConnectorSubject says whether all but the common name is as the Connector
// signs it.
func hasConnectorSubject(c *x509.Certificate) bool {
	for _, part := range subjectParts(c.Subject.Country, c.Subject.Organization, c.Subject.OrganizationalUnit, c.Subject.Locality, c.Subject.Province) {
		if len(part.got) == 0 || part.got[0] != part.want {
			return false
		}
	}
	return true
}

type subjectPart struct {
	name string
	got  []string
	want string
}

func subjectParts(country, organization, unit, locality, province []string) []subjectPart {
	return []subjectPart{
		{"country", country, subjectCountry},
		{"organization", organization, subjectOrganization},
		{"organizational unit", unit, subjectUnit},
		{"locality", locality, subjectLocality},
		{"province", province, subjectProvince},
	}
}

// decodeCSR undoes the base64 around the PEM text.
func decodeCSR(encoded string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("Error while decoding Certificate Signing Request: Error while parsing base64 content. Incorrect value provided.")
	}
	return raw, nil
}

// checkCSR returns the request if the Connector would sign it for commonName.
// Only the first value of each part of the subject is looked at.
func checkCSR(raw []byte, commonName string) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("Error while decoding pem block.")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("Error while parsing CSR: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("CSR signature invalid: %w", err)
	}
	if csr.Subject.CommonName != commonName {
		return nil, errors.New("CSR: Invalid common name provided.")
	}
	s := csr.Subject
	for _, part := range subjectParts(s.Country, s.Organization, s.OrganizationalUnit, s.Locality, s.Province) {
		switch {
		case len(part.got) == 0:
			return nil, fmt.Errorf("CSR: No %s provided.", part.name)
		case part.got[0] != part.want:
			return nil, fmt.Errorf("CSR: Invalid %s provided.", part.name)
		}
	}
	return csr, nil
}

// sign makes a client certificate. It takes over the request's signature
// algorithm, which is why only RSA keys work: the CA has one.
func (a *authority) sign(csr *x509.CertificateRequest, notBefore, notAfter time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(signedSerial), Subject: csr.Subject,
		NotBefore: notBefore, NotAfter: notAfter,
		SignatureAlgorithm: csr.SignatureAlgorithm,
		KeyUsage:           x509.KeyUsageDigitalSignature,
		ExtKeyUsage:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("Error while creating certificate: %w", err)
	}
	return der, nil
}
