// Package names reads and compares X.501 distinguished names: the string form of RFC 4514 (of which RFC 2253, as
// OpenSSL and Envoy print it, is the older edition) and the DER form that certificates hold.
//
// It is total: any bytes give a Name or an *Error. It knows nothing of headers, certificates' validity or Applications,
// and it never guesses: a form that can be read in two ways is an error.
package names

import (
	"encoding/hex"
	"strings"
)

// Attribute types that decisions look at (X.520).
const (
	OIDCommonName         = "2.5.4.3"
	OIDOrganization       = "2.5.4.10"
	OIDOrganizationalUnit = "2.5.4.11"
)

// Attribute is one type and value, as "CN=shop".
type Attribute struct {
	// Type is the dotted object identifier, or, where the printed keyword is not in our table, that keyword in upper case.
	Type string
	// Value is the text, after all escapes, in UTF-8.
	Value string
	// DER is the encoded value where it is not a character string; then Value is empty.
	DER string
}

// RDN is a relative distinguished name: one attribute, or several joined by "+". Their order has no meaning (X.501), and
// OpenSSL prints them in reverse.
type RDN []Attribute

// Name is a distinguished name in the order of the string form: the most specific RDN first, which is the reverse of
// the order in a certificate.
type Name []RDN

// Values returns the values of every attribute of a type, in order. An attribute whose value is no character string
// counts with an empty value, so that it can't hide a repeat.
func (n Name) Values(oid string) []string {
	var values []string
	for _, rdn := range n {
		for _, a := range rdn {
			if a.Type == oid {
				values = append(values, a.Value)
			}
		}
	}
	return values
}

// Equal says whether two names have the same RDNs in the same order, and each RDN the same set of attributes. Values
// are compared byte by byte: no case folding and no folding of spaces, for an identity must not match by likeness.
func (n Name) Equal(other Name) bool {
	if len(n) != len(other) {
		return false
	}
	for i := range n {
		if !n[i].equal(other[i]) {
			return false
		}
	}
	return true
}

func (r RDN) equal(other RDN) bool {
	if len(r) != len(other) {
		return false
	}
	used := make([]bool, len(other))
next:
	for _, a := range r {
		for i, b := range other {
			if !used[i] && a == b {
				used[i] = true
				continue next
			}
		}
		return false
	}
	return true
}

// String prints the name by RFC 4514, with every byte outside printable ASCII as a hex pair, as OpenSSL does.
func (n Name) String() string {
	var b strings.Builder
	for i, rdn := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, a := range rdn {
			if j > 0 {
				b.WriteByte('+')
			}
			b.WriteString(keyword(a.Type))
			b.WriteByte('=')
			if a.DER != "" {
				b.WriteByte('#')
				b.WriteString(strings.ToUpper(hex.EncodeToString([]byte(a.DER))))
				continue
			}
			escape(&b, a.Value)
		}
	}
	return b.String()
}

func escape(b *strings.Builder, value string) {
	const digits = "0123456789ABCDEF"
	for i := range len(value) {
		c := value[i]
		switch {
		case strings.IndexByte(`,+"\<>;`, c) >= 0,
			c == '#' && i == 0,
			c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c >= 0x7f:
			b.WriteByte('\\')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		default:
			b.WriteByte(c)
		}
	}
}

// keywords are the names that OpenSSL, BoringSSL and Go print for attribute types; the first of each type is the one we
// print. Lookup ignores case (RFC 4514, section 3).
var keywords = []struct{ keyword, oid string }{
	{"CN", OIDCommonName},
	{"C", "2.5.4.6"},
	{"L", "2.5.4.7"},
	{"ST", "2.5.4.8"},
	{"S", "2.5.4.8"},
	{"O", OIDOrganization},
	{"OU", OIDOrganizationalUnit},
	{"DC", "0.9.2342.19200300.100.1.25"},
	{"UID", "0.9.2342.19200300.100.1.1"},
	{"emailAddress", "1.2.840.113549.1.9.1"},
	{"E", "1.2.840.113549.1.9.1"},
	{"unstructuredName", "1.2.840.113549.1.9.2"},
	{"unstructuredAddress", "1.2.840.113549.1.9.8"},
	{"SN", "2.5.4.4"},
	{"surname", "2.5.4.4"},
	{"serialNumber", "2.5.4.5"},
	{"street", "2.5.4.9"},
	{"title", "2.5.4.12"},
	{"description", "2.5.4.13"},
	{"businessCategory", "2.5.4.15"},
	{"postalAddress", "2.5.4.16"},
	{"postalCode", "2.5.4.17"},
	{"postOfficeBox", "2.5.4.18"},
	{"telephoneNumber", "2.5.4.20"},
	{"name", "2.5.4.41"},
	{"GN", "2.5.4.42"},
	{"givenName", "2.5.4.42"},
	{"initials", "2.5.4.43"},
	{"generationQualifier", "2.5.4.44"},
	{"x500UniqueIdentifier", "2.5.4.45"},
	{"dnQualifier", "2.5.4.46"},
	{"pseudonym", "2.5.4.65"},
	{"role", "2.5.4.72"},
	{"organizationIdentifier", "2.5.4.97"},
	{"jurisdictionL", "1.3.6.1.4.1.311.60.2.1.1"},
	{"jurisdictionST", "1.3.6.1.4.1.311.60.2.1.2"},
	{"jurisdictionC", "1.3.6.1.4.1.311.60.2.1.3"},
}

var oidOf, keywordOf = func() (map[string]string, map[string]string) {
	byKeyword, byOID := map[string]string{}, map[string]string{}
	for _, k := range keywords {
		byKeyword[strings.ToUpper(k.keyword)] = k.oid
		if _, ok := byOID[k.oid]; !ok {
			byOID[k.oid] = k.keyword
		}
	}
	return byKeyword, byOID
}()

func keyword(attributeType string) string {
	if k, ok := keywordOf[attributeType]; ok {
		return k
	}
	return attributeType
}
