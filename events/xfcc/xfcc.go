// Package xfcc reads the header X-Forwarded-Client-Cert by the grammar that Envoy documents and writes: elements
// separated by ",", in each element pairs separated by ";", a key, "=", and a value that may stand in double quotes.
//
// It is total: any bytes give a Header or an *Error. It only reads: it trusts nothing, decides nothing, and knows
// nothing of Applications.
package xfcc

import (
	"fmt"
	"strings"
)

// HeaderName is the header in its canonical spelling.
const HeaderName = "X-Forwarded-Client-Cert"

// Keys that Envoy writes, in lower case: keys are compared without regard to case.
const (
	KeyBy      = "by"
	KeyHash    = "hash"
	KeyCert    = "cert"
	KeyChain   = "chain"
	KeySubject = "subject"
	KeyURI     = "uri"
	KeyDNS     = "dns"
)

// Pair is one key and value of an element.
type Pair struct {
	// Key in lower case.
	Key string
	// Raw is the value as it stands in the header, without the quotes around it. Backslashes are kept: Envoy writes a
	// subject between quotes without a layer of escaping of its own, so that each backslash belongs to the subject
	// (RFC 2253); By, URI and DNS it writes without quotes and without escaping at all.
	Raw string
	// Quoted says that the value stood in double quotes.
	Quoted bool
}

// Text is the value with Envoy's own escape for a double quote taken away; for values other than a subject.
func (p Pair) Text() string { return strings.ReplaceAll(p.Raw, `\"`, `"`) }

// Element is what one proxy wrote of the client that connected to it, in the order written.
type Element []Pair

// Values returns the values of every pair with the key, in order.
func (e Element) Values(key string) []Pair {
	var pairs []Pair
	for _, p := range e {
		if p.Key == key {
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// Header is all elements. Each proxy appends at the end: the last element was written by the nearest one.
type Header []Element

// Error says what is wrong and where. It does not repeat the header.
type Error struct {
	// Offset is the byte at which reading stopped.
	Offset int
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s, byte %d: %s", HeaderName, e.Offset, e.Reason)
}

// Parse reads the value of one header line. A header without any element is an error, and so is an empty element.
//
// A key without "=" is an error; a key with an empty value is not (Envoy writes "URI=" for a certificate without one).
func Parse(s string) (Header, error) {
	p := parser{s: s}
	header := Header{Element{}}
	for {
		pair, err := p.pair()
		if err != nil {
			return nil, err
		}
		last := len(header) - 1
		header[last] = append(header[last], pair)
		if p.i == len(s) {
			return header, nil
		}
		if s[p.i] == ',' {
			header = append(header, Element{})
		}
		p.i++
	}
}

type parser struct {
	s string
	i int
}

func (p *parser) fail(reason string) error { return &Error{Offset: p.i, Reason: reason} }

// pair reads one pair and stops at the "," or ";" behind it, or at the end.
func (p *parser) pair() (Pair, error) {
	p.skipSpace()
	start := p.i
	for p.i < len(p.s) && keyByte(p.s[p.i]) {
		p.i++
	}
	pair := Pair{Key: strings.ToLower(p.s[start:p.i])}
	if pair.Key == "" {
		return Pair{}, p.fail("expected a key of letters, digits, \"-\" or \"_\"")
	}
	if p.i == len(p.s) || p.s[p.i] != '=' {
		return Pair{}, p.fail(`expected "=" after a key`)
	}
	p.i++
	if p.i < len(p.s) && p.s[p.i] == '"' {
		return p.quoted(pair)
	}
	start = p.i
	for p.i < len(p.s) && p.s[p.i] != ',' && p.s[p.i] != ';' {
		if c := p.s[p.i]; c == '"' || control(c) {
			return Pair{}, p.fail("a value with quotes or control characters must stand in quotes")
		}
		p.i++
	}
	pair.Raw = strings.TrimRight(p.s[start:p.i], " ")
	return pair, nil
}

func (p *parser) quoted(pair Pair) (Pair, error) {
	p.i++
	pair.Quoted = true
	start := p.i
	for ; p.i < len(p.s) && p.s[p.i] != '"'; p.i++ {
		if control(p.s[p.i]) {
			return Pair{}, p.fail("control character in a value")
		}
		// A backslash takes the next character with it, so that neither an escaped quote ends the value nor an escaped
		// backslash lets the quote behind it pass as escaped.
		if p.s[p.i] == '\\' {
			p.i++
		}
	}
	if p.i >= len(p.s) {
		p.i = len(p.s)
		return Pair{}, p.fail("the quotes around a value are not closed")
	}
	pair.Raw = p.s[start:p.i]
	p.i++
	p.skipSpace()
	if p.i < len(p.s) && p.s[p.i] != ',' && p.s[p.i] != ';' {
		return Pair{}, p.fail(`expected "," or ";" after a quoted value`)
	}
	return pair, nil
}

func (p *parser) skipSpace() {
	for p.i < len(p.s) && p.s[p.i] == ' ' {
		p.i++
	}
}

func keyByte(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func control(c byte) bool { return c < 0x20 || c == 0x7f }
