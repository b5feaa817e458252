package names

import (
	"encoding/asn1"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// ASN.1 tags of character strings that encoding/asn1 does not name.
const (
	tagVisibleString   = 26
	tagUniversalString = 28
)

// FromDER reads a Name as a certificate holds it (RFC 5280, section 4.1.2.4), for example x509.Certificate.RawSubject.
func FromDER(der []byte) (Name, error) {
	malformed := func(reason string) error { return &Error{Kind: Malformed, Reason: reason} }
	var sets []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &sets); err != nil || len(rest) > 0 {
		return nil, malformed("not a DER sequence of relative names")
	}
	var name Name
	for _, set := range sets {
		if set.Class != asn1.ClassUniversal || set.Tag != asn1.TagSet || !set.IsCompound || len(set.Bytes) == 0 {
			return nil, malformed("a relative name must be a set of at least one attribute")
		}
		var rdn RDN
		for rest := set.Bytes; len(rest) > 0; {
			var pair struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &pair); err != nil {
				return nil, malformed("an attribute must be a type and a value")
			}
			a, reason := decodeValue(pair.Type.String(), pair.Value.FullBytes)
			if reason != "" {
				return nil, malformed(reason)
			}
			rdn = append(rdn, a)
		}
		name = append(name, rdn)
	}
	slices.Reverse(name)
	return name, nil
}

// decodeValue turns one DER value into text if it is a character string, and keeps its encoding otherwise. Reason is
// empty on success.
func decodeValue(attributeType string, der []byte) (a Attribute, reason string) {
	var v asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) > 0 {
		return Attribute{}, "a value must be one DER element"
	}
	a.Type = attributeType
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		a.DER = string(der)
		return a, ""
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString, tagVisibleString:
		if !utf8.Valid(v.Bytes) {
			return Attribute{}, "a character string is not UTF-8"
		}
		a.Value = string(v.Bytes)
	case asn1.TagT61String: // read as Latin-1, as OpenSSL does and certificates mean
		runes := make([]rune, len(v.Bytes))
		for i, c := range v.Bytes {
			runes[i] = rune(c)
		}
		a.Value = string(runes)
	case asn1.TagBMPString:
		if len(v.Bytes)%2 != 0 {
			return Attribute{}, "a BMPString has an odd length"
		}
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = uint16(v.Bytes[2*i])<<8 | uint16(v.Bytes[2*i+1])
			if utf16.IsSurrogate(rune(units[i])) {
				return Attribute{}, "a BMPString holds a surrogate"
			}
		}
		a.Value = string(utf16.Decode(units))
	case tagUniversalString:
		if len(v.Bytes)%4 != 0 {
			return Attribute{}, "a UniversalString's length is no multiple of 4"
		}
		for b := v.Bytes; len(b) > 0; b = b[4:] {
			r := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			if r > utf8.MaxRune || !utf8.ValidRune(rune(r)) {
				return Attribute{}, "a UniversalString holds no Unicode character"
			}
			a.Value += string(rune(r))
		}
	default:
		a.DER = string(der)
	}
	return a, ""
}
