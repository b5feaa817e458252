package names

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kind says why a name was refused.
type Kind string

const (
	// Malformed text does not follow RFC 4514.
	Malformed Kind = "malformed"
	// SlashForm is OpenSSL's one-line form "/C=DE/CN=shop". A slash in a value is not escaped there, so that one text
	// stands for several names; it is recognised, and never an identity.
	SlashForm Kind = "slash_form"
)

// Error says what is wrong with a name and where. It does not repeat the name.
type Error struct {
	Kind Kind
	// Offset is the byte at which reading stopped.
	Offset int
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("distinguished name, byte %d: %s", e.Offset, e.Reason)
}

// Parse reads the string form of RFC 4514. The empty string is the empty name. It accepts what OpenSSL prints under
// "-nameopt rfc2253" and what pkix.Name prints. It refuses what RFC 4514 removed from older grammars (spaces around
// separators, ";" between RDNs, quoted values), since a writer that meant them as text would be misread.
func Parse(s string) (Name, error) {
	if s == "" {
		return nil, nil
	}
	if s[0] == '/' {
		return nil, &Error{Kind: SlashForm, Reason: `the form "/C=…/CN=…" is ambiguous; print the subject in RFC 2253 form`}
	}
	p := parser{s: s}
	name := Name{RDN{}}
	for {
		a, err := p.attribute()
		if err != nil {
			return nil, err
		}
		last := len(name) - 1
		name[last] = append(name[last], a)
		switch {
		case p.i == len(s):
			return name, nil
		case s[p.i] == ',':
			name = append(name, RDN{})
		case s[p.i] != '+':
			return nil, p.fail("expected \",\" or \"+\" after a value")
		}
		p.i++
	}
}

type parser struct {
	s string
	i int
}

func (p *parser) fail(format string, args ...any) error {
	return &Error{Kind: Malformed, Offset: p.i, Reason: fmt.Sprintf(format, args...)}
}

func (p *parser) attribute() (Attribute, error) {
	attributeType, err := p.attributeType()
	if err != nil {
		return Attribute{}, err
	}
	if p.i == len(p.s) || p.s[p.i] != '=' {
		return Attribute{}, p.fail(`expected "=" after an attribute type`)
	}
	p.i++
	if p.i < len(p.s) && p.s[p.i] == '#' {
		return p.hexValue(attributeType)
	}
	value, err := p.text()
	return Attribute{Type: attributeType, Value: value}, err
}

func (p *parser) attributeType() (string, error) {
	start := p.i
	for p.i < len(p.s) && (alpha(p.s[p.i]) || digit(p.s[p.i]) || p.s[p.i] == '-' || p.s[p.i] == '.') {
		p.i++
	}
	t := p.s[start:p.i]
	switch {
	case t == "":
		return "", p.fail("expected an attribute type")
	case digit(t[0]):
		if !validOID(t) {
			p.i = start
			return "", p.fail("an attribute type that starts with a digit must be a dotted object identifier")
		}
		return t, nil
	case !alpha(t[0]) || strings.Contains(t, "."):
		p.i = start
		return "", p.fail("an attribute type is a keyword of letters, digits and hyphens, or a dotted object identifier")
	}
	t = strings.ToUpper(t)
	if oid, ok := oidOf[t]; ok {
		return oid, nil
	}
	return t, nil
}

func validOID(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) < 2 {
		return false
	}
	for _, part := range parts {
		if part == "" || len(part) > 1 && part[0] == '0' {
			return false
		}
		for i := range len(part) {
			if !digit(part[i]) {
				return false
			}
		}
	}
	return true
}

// hexValue reads "#" and the DER encoding in hex pairs.
func (p *parser) hexValue(attributeType string) (Attribute, error) {
	p.i++
	start := p.i
	for p.i < len(p.s) && isHex(p.s[p.i]) {
		p.i++
	}
	der, err := hex.DecodeString(p.s[start:p.i])
	if err != nil || len(der) == 0 {
		return Attribute{}, p.fail(`"#" is followed by an even number of hex digits, or written "\#"`)
	}
	a, reason := decodeValue(attributeType, der)
	if reason != "" {
		return Attribute{}, p.fail("%s", reason)
	}
	return a, nil
}

// text reads a value up to an unescaped "," or "+" or the end.
func (p *parser) text() (string, error) {
	var b strings.Builder
	start, spaceAtEnd := p.i, false
	for p.i < len(p.s) && p.s[p.i] != ',' && p.s[p.i] != '+' {
		c := p.s[p.i]
		spaceAtEnd = c == ' '
		switch {
		case c == '\\':
			if err := p.escaped(&b); err != nil {
				return "", err
			}
			continue
		case c == '"' || c == ';' || c == '<' || c == '>' || c == 0:
			return "", p.fail("%q must be escaped in a value", string(rune(c)))
		case c == ' ' && p.i == start:
			return "", p.fail("a space at the start of a value must be escaped")
		}
		b.WriteByte(c)
		p.i++
	}
	if spaceAtEnd {
		return "", p.fail("a space at the end of a value must be escaped")
	}
	if !utf8.ValidString(b.String()) {
		return "", p.fail("the value is not UTF-8")
	}
	return b.String(), nil
}

// escaped reads a backslash and either a special character or a hex pair.
func (p *parser) escaped(b *strings.Builder) error {
	rest := p.s[p.i+1:]
	switch {
	case rest != "" && strings.IndexByte(`"+,;<>\ #=`, rest[0]) >= 0:
		b.WriteByte(rest[0])
		p.i += 2
	case len(rest) >= 2 && isHex(rest[0]) && isHex(rest[1]):
		b.WriteByte(unhex(rest[0])<<4 | unhex(rest[1]))
		p.i += 3
	default:
		return p.fail("a backslash is followed by a special character or two hex digits")
	}
	return nil
}

func alpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool { return '0' <= c && c <= '9' }
func isHex(c byte) bool { return digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if digit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
