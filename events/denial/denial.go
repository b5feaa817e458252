// Package denial reads an operator's list of client certificates that are no longer to be believed, and looks identities
// up in it. It does not know where the list is kept, nor what a denied client wanted.
package denial

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/names"
)

// Reason says why a certificate is not believed. It is stable: metrics and the audit log carry it.
type Reason string

// Reasons.
const (
	DeniedCertificate Reason = "denied_certificate"
	// DenialUnknown is a client of which we know too little to say that it is not on the list.
	DenialUnknown Reason = "denial_unknown"
)

// Error is the refusal.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return string(e.Reason) }

// List is a set of denied certificates. Nil and the zero List deny none. It is never changed.
type List struct {
	hashes  map[string]bool
	serials map[string][]names.Name // issuers by serial number in hex
	n       int
}

// LineError is a line that could not be read. It denies nothing.
type LineError struct {
	Key string
	// Line is counted from 1.
	Line   int
	Reason string
}

func (e *LineError) Error() string {
	return fmt.Sprintf("key %s, line %d: %s", e.Key, e.Line, e.Reason)
}

// Parse reads the data of a ConfigMap: in the value of each key, whatever its name, one certificate a line, as
//
//	sha256 HASH           # SHA-256 of the certificate's DER, in hex
//	serial NUMBER ISSUER  # serial number in hex, issuer by RFC 4514
//
// where colons in hex numbers, empty lines, and what stands behind "#" at the begin of a line or after a space are
// ignored. Lines that can't be read come back as errors, in order; all others hold. A serial number alone says nothing:
// authorities count each for itself, and some give every certificate the same.
func Parse(data map[string]string) (*List, []*LineError) {
	l := &List{hashes: map[string]bool{}, serials: map[string][]names.Name{}}
	var errs []*LineError
	for _, key := range slices.Sorted(maps.Keys(data)) {
		for i, line := range strings.Split(data[key], "\n") {
			if comment := strings.Index(" "+line, " #"); comment >= 0 {
				line = line[:comment]
			}
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if reason := l.add(line); reason != "" {
				errs = append(errs, &LineError{key, i + 1, reason})
			} else {
				l.n++
			}
		}
	}
	return l, errs
}

// add reads one line and says what is wrong with it.
func (l *List) add(line string) string {
	kind, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch kind {
	case "sha256":
		sum, err := hex.DecodeString(strings.ReplaceAll(rest, ":", ""))
		if err != nil || len(sum) != sha256.Size {
			return "after sha256 there must be 64 hex digits"
		}
		l.hashes[hex.EncodeToString(sum)] = true
		return ""
	case "serial":
		number, issuer, _ := strings.Cut(rest, " ")
		serial, ok := new(big.Int).SetString(strings.ReplaceAll(number, ":", ""), 16)
		if !ok || serial.Sign() < 0 {
			return "after serial there must be a number in hex, and then the issuer"
		}
		name, err := names.Parse(strings.TrimSpace(issuer))
		if err != nil || len(name) == 0 {
			return "after the serial number there must be the issuer's name by RFC 4514, as CN=ca,O=org"
		}
		l.serials[serial.Text(16)] = append(l.serials[serial.Text(16)], name)
		return ""
	}
	return `must begin with "sha256 " or "serial "`
}

// Len is the number of certificates that are named.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return l.n
}

// Check returns nil if the client's certificate is not on the list, else an *Error. It fails closed: when the list names
// hashes and the client's is not known, or serial numbers and the certificate is not, the answer is DenialUnknown.
func (l *List) Check(client identity.Identity) error {
	if l == nil {
		return nil
	}
	if len(l.hashes) > 0 {
		switch {
		case client.Hash == "":
			return &Error{DenialUnknown}
		case l.hashes[client.Hash]:
			return &Error{DeniedCertificate}
		}
	}
	if len(l.serials) == 0 {
		return nil
	}
	if client.Certificate == nil {
		return &Error{DenialUnknown}
	}
	issuers := l.serials[client.Certificate.SerialNumber.Text(16)]
	if len(issuers) == 0 {
		return nil
	}
	issuer, err := names.FromDER(client.Certificate.RawIssuer)
	if err != nil {
		return &Error{DenialUnknown}
	}
	if slices.ContainsFunc(issuers, issuer.Equal) {
		return &Error{DeniedCertificate}
	}
	return nil
}
