package certs

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cert-manager/cert-manager/pkg/util/pki"
	"github.com/go-ldap/ldap/v3"
)

// maxSubject bounds the text of a subject, in bytes. X.520 allows 64 characters to most attributes.
const maxSubject = 4096

// attributeTypes are the names of RFC 4514, section 3, and of X.520 that certificates carry. Names are compared without
// regard to case; every other attribute is written as a dotted-decimal object identifier.
var attributeTypes = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8},
	"STREET": {2, 5, 4, 9}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "POSTALCODE": {2, 5, 4, 17},
	"DC": {0, 9, 2342, 19200300, 100, 1, 25}, "UID": {0, 9, 2342, 19200300, 100, 1, 1},
}

// Subject is the distinguished name that the Connector demands of a certificate request. Its zero value is empty.
type Subject struct{ rdns pkix.RDNSequence }

// ParseSubject reads the string that the Connector sends, for example "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=id",
// by the grammar of RFC 4514: escapes, hexadecimal values, relative names of several attributes, repeated attributes.
// The order is kept as written, not reversed as RFC 4514 says: the Connector writes its names first to last, and of
// several values it compares the first one encoded.
func ParseSubject(text string) (Subject, error) {
	fail := func(err error) (Subject, error) {
		return Subject{}, fmt.Errorf("subject %q: %w; want attributes such as O=Org,CN=name, special characters escaped as RFC 4514 says", clip(text), err)
	}
	if len(text) > maxSubject {
		return fail(fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxSubject))
	}
	if strings.TrimSpace(text) == "" {
		return fail(errors.New("it is empty"))
	}
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return fail(err)
	}
	var s Subject
	for _, rdn := range dn.RDNs {
		var set pkix.RelativeDistinguishedNameSET
		for _, a := range rdn.Attributes {
			oid, err := attributeType(a.Type)
			if err != nil {
				return fail(err)
			}
			switch {
			case a.Value == "":
				return fail(fmt.Errorf("attribute %s has no value", a.Type))
			case !utf8.ValidString(a.Value):
				return fail(fmt.Errorf("the value of attribute %s is not UTF-8", a.Type))
			}
			set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: a.Value})
		}
		s.rdns = append(s.rdns, set)
	}
	if _, err := asn1.Marshal(s.rdns); err != nil {
		return fail(err)
	}
	if s.CommonName() == "" {
		return fail(errors.New("attribute CN is missing"))
	}
	return s, nil
}

func attributeType(name string) (asn1.ObjectIdentifier, error) {
	if oid, ok := attributeTypes[strings.ToUpper(name)]; ok {
		return oid, nil
	}
	oid, err := pki.ParseObjectIdentifier(name)
	if err != nil || len(oid) < 2 {
		return nil, fmt.Errorf("attribute %q is unknown", clip(name))
	}
	return oid, nil
}

// CommonName is the first CN: the id under which Compass knows the holder of the certificate.
func (s Subject) CommonName() string { return pki.ExtractCommonNameFromRDNSequence(s.rdns) }

// String writes the subject as RFC 4514 does: the last relative name first.
func (s Subject) String() string { return s.rdns.String() }

// Check reports how the subject of a certificate differs from s. Authorities group and reorder attributes as they like
// (Go's own crypto/x509 does), so attributes are compared as a set with multiplicity.
func (s Subject) Check(cert *x509.Certificate) error {
	got, err := pki.UnmarshalRawDerBytesToRDNSequence(cert.RawSubject)
	if err != nil {
		return fmt.Errorf("subject of the certificate: %w", err)
	}
	if want, have := attributes(s.rdns), attributes(got); !slices.Equal(want, have) {
		return fmt.Errorf("the certificate is for %q, asked for was %q", cert.Subject.String(), s.String())
	}
	return nil
}

// attributes lists type and value of every attribute, sorted. Each is a pair, so that no separator can be forged.
func attributes(rdns pkix.RDNSequence) [][2]string {
	var all [][2]string
	for _, set := range rdns {
		for _, a := range set {
			all = append(all, [2]string{a.Type.String(), fmt.Sprint(a.Value)})
		}
	}
	slices.SortFunc(all, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	return all
}

func (s Subject) der() ([]byte, error) {
	if len(s.rdns) == 0 {
		return nil, errors.New("subject: it is empty")
	}
	return pki.MarshalRDNSequenceToRawDERBytes(s.rdns)
}

func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
}
