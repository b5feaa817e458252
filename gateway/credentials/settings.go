package credentials

import (
	"fmt"
	"maps"
	"slices"
	"time"
	"unique"
)

// Trust says which peers are believed, of an API and of the endpoints that its credentials come from. It is comparable.
type Trust struct {
	// SkipVerify switches off the verification of certificates.
	SkipVerify bool
	// MinVersion is the oldest version of TLS that is spoken, as in crypto/tls; zero for the library's.
	MinVersion uint16
	// CA are trusted besides those of the process.
	CA Authorities
}

// Authorities are certificates in PEM form. They are equal where their text is, but neither comparing nor hashing them reads it:
// each call looks up connections by them. The zero value is none.
type Authorities struct{ text unique.Handle[string] }

// NewAuthorities are those of a PEM text, which it does not check.
func NewAuthorities(text string) Authorities {
	if text == "" {
		return Authorities{}
	}
	return Authorities{unique.Make(text)}
}

// Equal is ==, for what compares by methods.
func (a Authorities) Equal(b Authorities) bool { return a == b }

// PEM is their text; empty for none.
func (a Authorities) PEM() string {
	if a == (Authorities{}) {
		return ""
	}
	return a.text.Value()
}

// OAuth says how tokens are asked for. Its zero value is how they always were.
type OAuth struct {
	// OnlyBody and OnlyHeader say where the client's id and secret stand; both places if neither is set.
	OnlyBody, OnlyHeader bool
	// Form are more fields of the request's form, by name. They are not secret.
	Form map[string]string
	// CertificateBound presents the client certificate to the API too (RFC 8705, section 3).
	CertificateBound bool
}

// version is empty for the zero value, so that credentials without settings keep theirs.
func (o OAuth) version() []string {
	if !o.OnlyBody && !o.OnlyHeader && len(o.Form) == 0 && !o.CertificateBound {
		return nil
	}
	fields := []string{fmt.Sprint(o.OnlyBody, o.OnlyHeader, o.CertificateBound)}
	for _, name := range slices.Sorted(maps.Keys(o.Form)) {
		fields = append(fields, name, o.Form[name])
	}
	return fields
}

// CSRF says how CSRF tokens are asked for. Its zero value is how they always were. It is comparable.
type CSRF struct {
	// Method is GET or HEAD; empty for GET, and HEAD where that is refused.
	Method string
	// RequestHeader and ResponseHeader are names of header fields in canonical form; empty for HeaderCSRF.
	RequestHeader, ResponseHeader string
	// Lifetime is how long a token is used at most; zero for the default.
	Lifetime time.Duration
}

// HeaderCSRF is the header field that carries a CSRF token unless settings say otherwise.
const HeaderCSRF = "X-Csrf-Token"

// Carries is the header field in which a token goes out.
func (c CSRF) Carries() string {
	if c.RequestHeader == "" {
		return HeaderCSRF
	}
	return c.RequestHeader
}

// Holds is the header field of an answer that holds the token.
func (c CSRF) Holds() string {
	if c.ResponseHeader == "" {
		return c.Carries()
	}
	return c.ResponseHeader
}
