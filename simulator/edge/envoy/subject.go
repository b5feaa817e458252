package envoy

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// attribute is one AttributeTypeAndValue of an X.501 name, its value undecoded.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributeSET is a relative distinguished name; encoding/asn1 reads the suffix as "a SET OF".
type attributeSET []attribute

// shortNames are the names that OpenSSL and BoringSSL print; every other type is printed as its number.
var shortNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description",
	"2.5.4.15": "businessCategory", "2.5.4.17": "postalCode", "2.5.4.41": "name", "2.5.4.42": "GN",
	"2.5.4.43": "initials", "2.5.4.44": "generationQualifier", "2.5.4.46": "dnQualifier", "2.5.4.65": "pseudonym",
	"1.2.840.113549.1.9.1": "emailAddress", "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC",
}

// PrintSubject prints the DER of an X.501 name as Envoy does in X-Forwarded-Client-Cert, that is as OpenSSL's
// X509_NAME_print_ex does with XN_FLAG_RFC2253: last attribute first, "," between and "+" within relative names, "\"
// before special characters, control characters and every byte above 0x7E as "\XX", "=" as it is, types without a name as
// number and "#" with the DER of the value.
func PrintSubject(der []byte) (string, error) {
	var names []attributeSET
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("subject is not an X.501 name (%d bytes left over): %w", len(rest), err)
	}
	var b strings.Builder
	for i, set := range slices.Backward(names) {
		if i < len(names)-1 {
			b.WriteByte(',')
		}
		for j, a := range slices.Backward(set) {
			if j < len(set)-1 {
				b.WriteByte('+')
			}
			name, known := shortNames[a.Type.String()]
			if !known {
				fmt.Fprintf(&b, "%s=#%s", a.Type, strings.ToUpper(hex.EncodeToString(a.Value.FullBytes)))
				continue
			}
			text, err := decode(a.Value)
			if err != nil {
				return "", fmt.Errorf("subject: %s: %w", name, err)
			}
			b.WriteString(name + "=")
			escape(&b, text)
		}
	}
	return b.String(), nil
}

// decode gives a string value as UTF-8.
func decode(v asn1.RawValue) (string, error) {
	switch v.Tag {
	case asn1.TagUTF8String:
		if !utf8.Valid(v.Bytes) {
			return "", fmt.Errorf("not UTF-8")
		}
		return string(v.Bytes), nil
	case asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString, asn1.TagT61String: // one byte, one character
		runes := make([]rune, len(v.Bytes))
		for i, c := range v.Bytes {
			runes[i] = rune(c)
		}
		return string(runes), nil
	case asn1.TagBMPString:
		if len(v.Bytes)%2 != 0 {
			return "", fmt.Errorf("BMPString of odd length")
		}
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = uint16(v.Bytes[2*i])<<8 | uint16(v.Bytes[2*i+1])
		}
		return string(utf16.Decode(units)), nil
	}
	return "", fmt.Errorf("ASN.1 type %d is no string that TLS libraries accept in a name", v.Tag)
}

func escape(b *strings.Builder, text string) {
	for i := range len(text) {
		c := text[i]
		switch {
		case c < ' ' || c > '~':
			fmt.Fprintf(b, `\%02X`, c)
			continue
		case strings.IndexByte(`,+"\<>;`, c) >= 0, i == 0 && (c == '#' || c == ' '), i == len(text)-1 && c == ' ':
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
}

// digest is the Hash of an element: SHA-256 of the certificate's DER in lower-case hex.
func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
