// Package identity finds the one client that a request stands for, from what trusted proxies say of it, or refuses.
//
// Trust is by position, never by content: each proxy appends its element at the end of X-Forwarded-Client-Cert, so only
// the last elements were written by proxies that we run, and the identity is the element right before them. Whatever
// stands further to the front came from outside, and makes the header one that our proxies do not produce: refused.
//
// The package does not know which Application an identity belongs to (package binding does).
package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/application-connector/application-connector/events/names"
	"github.com/application-connector/application-connector/events/xfcc"
)

// Identity is one verified client.
type Identity struct {
	// CommonName is the only common name of the subject.
	CommonName string
	// Subject is the whole subject.
	Subject names.Name
	// Hash is the SHA-256 of the certificate's DER in lower-case hex; empty if the proxies told neither hash nor certificate.
	Hash string
	// Certificate is nil if the proxies do not forward it.
	Certificate *x509.Certificate
}

// Serial is the certificate's serial number in hex, or empty if it is unknown.
func (i Identity) Serial() string {
	if i.Certificate == nil {
		return ""
	}
	return i.Certificate.SerialNumber.Text(16)
}

// Reason says why no identity was found. It is stable: metrics and the audit log carry it.
type Reason string

// Reasons.
const (
	NoHeader         Reason = "no_header"
	SeveralHeaders   Reason = "several_headers"
	MalformedHeader  Reason = "malformed_header"
	WrongHops        Reason = "wrong_hops"
	UntrustedHop     Reason = "untrusted_hop"
	UnknownKey       Reason = "unknown_key"
	RepeatedKey      Reason = "repeated_key"
	BadCertificate   Reason = "bad_certificate"
	ChainMismatch    Reason = "chain_mismatch"
	BadHash          Reason = "bad_hash"
	HashMismatch     Reason = "hash_mismatch"
	NoSubject        Reason = "no_subject"
	SlashForm        Reason = "slash_form"
	MalformedName    Reason = "malformed_name"
	SubjectMismatch  Reason = "subject_mismatch"
	NotOneCommonName Reason = "not_one_common_name"
)

// Error says why no identity was found. It holds nothing of the header's text.
type Error struct {
	Reason Reason
	Detail string
	// Surplus says that a header came through the ingress gateway with more elements than our proxies add: the gateway
	// forwards what it should replace.
	Surplus bool
	Err     error
}

func (e *Error) Error() string {
	text := string(e.Reason)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

func refuse(reason Reason, detail string) error { return &Error{Reason: reason, Detail: detail} }

// Verifier knows which proxies stand before us. The zero value trusts that the direct peer wrote the whole header.
type Verifier struct {
	// TrustedHops is the number of elements that our own proxies add behind the client's: 1 with an ingress gateway and a
	// sidecar (the sidecar describes the gateway).
	TrustedHops int
	// IngressIdentity is the URI that the last element must carry if there are trusted hops.
	IngressIdentity string
	// Compatible accepts what tests of the older validator send: a header with the client's element alone, and a Cert or
	// Hash that is none. Both let whoever reaches the port choose an identity; not for production.
	Compatible bool
	// Header is the header that tells the client: xfcc.HeaderName, which an empty one means too, or ClientCertHeader.
	Header string
}

// Of returns the client that a request's header names, or an *Error.
func (v Verifier) Of(header http.Header) (Identity, error) {
	if v.Header == ClientCertHeader {
		return v.clientCert(header)
	}
	return v.Identify(header.Values(xfcc.HeaderName))
}

// Identify returns the client that the header lines of X-Forwarded-Client-Cert name, or an *Error.
func (v Verifier) Identify(lines []string) (Identity, error) {
	switch {
	case len(lines) == 0 || len(lines) == 1 && strings.TrimSpace(lines[0]) == "":
		return Identity{}, refuse(NoHeader, "")
	case len(lines) > 1:
		return Identity{}, refuse(SeveralHeaders, "our proxies write one header line")
	}
	header, err := xfcc.Parse(lines[0])
	if err != nil {
		return Identity{}, &Error{Reason: MalformedHeader, Err: err}
	}
	switch alone := v.Compatible && len(header) == 1; {
	case alone:
	case len(header) != v.TrustedHops+1:
		return Identity{}, &Error{
			Reason: WrongHops, Detail: "the elements must be the client's and one for each trusted hop",
			Surplus: len(header) > v.TrustedHops+1 && v.fromIngress(header),
		}
	case !v.fromIngress(header):
		return Identity{}, untrusted
	}
	for _, element := range header {
		if err := known(element); err != nil {
			return Identity{}, err
		}
	}
	return v.client(header[0])
}

var untrusted = &Error{Reason: UntrustedHop, Detail: "the last element must carry the ingress gateway's URI and no other"}

// fromIngress says whether the nearest proxy names the ingress gateway as its peer, where there must be one.
func (v Verifier) fromIngress(header xfcc.Header) bool {
	if v.TrustedHops == 0 {
		return true
	}
	uris := header[len(header)-1].Values(xfcc.KeyURI)
	return len(uris) == 1 && uris[0].Text() == v.IngressIdentity
}

// known refuses keys that Envoy does not write and repeats of those that it writes once: which one counts would be a guess.
func known(element xfcc.Element) error {
	seen := map[string]bool{}
	for _, p := range element {
		switch p.Key {
		case xfcc.KeyBy, xfcc.KeyURI, xfcc.KeyDNS:
			continue
		case xfcc.KeyHash, xfcc.KeyCert, xfcc.KeyChain, xfcc.KeySubject:
		default:
			return refuse(UnknownKey, "an element may hold By, Hash, Cert, Chain, Subject, URI and DNS")
		}
		if seen[p.Key] {
			return refuse(RepeatedKey, p.Key)
		}
		seen[p.Key] = true
	}
	return nil
}

func (v Verifier) client(element xfcc.Element) (Identity, error) {
	var id Identity
	var err error
	if id.Certificate, err = v.certificate(element); err != nil {
		return Identity{}, err
	}
	return v.complete(id, value(element, xfcc.KeyHash).Text(), value(element, xfcc.KeySubject).Raw)
}

// complete takes hash and subject as they are printed beside the certificate, if there is one.
func (v Verifier) complete(id Identity, printedHash, printedSubject string) (Identity, error) {
	if err := v.hash(&id, printedHash); err != nil {
		return Identity{}, err
	}
	if err := subject(&id, printedSubject); err != nil {
		return Identity{}, err
	}
	common := id.Subject.Values(names.OIDCommonName)
	if len(common) != 1 || common[0] == "" {
		return Identity{}, refuse(NotOneCommonName, "the subject must hold one common name")
	}
	id.CommonName = common[0]
	return id, nil
}

func value(element xfcc.Element, key string) xfcc.Pair {
	for _, p := range element.Values(key) {
		return p
	}
	return xfcc.Pair{}
}

// hash takes the hash from the certificate itself where we have it; what is printed beside must then agree.
func (v Verifier) hash(id *Identity, printed string) error {
	if id.Certificate != nil {
		sum := sha256.Sum256(id.Certificate.Raw)
		id.Hash = hex.EncodeToString(sum[:])
		if printed != "" && !strings.EqualFold(printed, id.Hash) {
			return refuse(HashMismatch, "Hash is not that of Cert")
		}
		return nil
	}
	if printed == "" {
		return nil
	}
	if sum, err := hex.DecodeString(printed); err != nil || len(sum) != sha256.Size {
		if v.Compatible {
			return nil
		}
		return refuse(BadHash, "Hash must be a SHA-256 in hex")
	}
	id.Hash = strings.ToLower(printed)
	return nil
}

// subject takes the subject from the certificate itself where we have it; what is printed beside must then agree.
func subject(id *Identity, printed string) error {
	var err error
	if id.Certificate != nil {
		if id.Subject, err = names.FromDER(id.Certificate.RawSubject); err != nil {
			return &Error{Reason: MalformedName, Err: err}
		}
		if printed == "" {
			return nil
		}
	}
	if printed == "" {
		return refuse(NoSubject, "the client's element holds neither Subject nor Cert")
	}
	name, err := names.Parse(printed)
	if err != nil {
		reason := MalformedName
		if e := (*names.Error)(nil); errors.As(err, &e) && e.Kind == names.SlashForm {
			reason = SlashForm
		}
		return &Error{Reason: reason, Err: err}
	}
	if id.Certificate != nil && !name.Equal(id.Subject) {
		return refuse(SubjectMismatch, "Subject is not that of Cert")
	}
	id.Subject = name
	return nil
}

// certificate returns the client's certificate from Cert, or else the first of Chain, or nil if neither is there. If both
// are, Chain must begin with Cert.
func (v Verifier) certificate(element xfcc.Element) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	if cert := value(element, xfcc.KeyCert).Text(); cert != "" {
		all, err := decode(cert)
		switch {
		case err == nil && len(all) == 1:
			leaf = all[0]
		case v.Compatible:
			return nil, nil
		case err != nil:
			return nil, &Error{Reason: BadCertificate, Detail: xfcc.KeyCert, Err: err}
		default:
			return nil, refuse(BadCertificate, "the value of Cert must be one certificate in PEM")
		}
	}
	chain := value(element, xfcc.KeyChain).Text()
	if chain == "" {
		return leaf, nil
	}
	all, err := decode(chain)
	switch {
	case err != nil && v.Compatible:
		return leaf, nil
	case err != nil:
		return nil, &Error{Reason: BadCertificate, Detail: xfcc.KeyChain, Err: err}
	case leaf != nil && !leaf.Equal(all[0]):
		return nil, refuse(ChainMismatch, "Chain does not begin with Cert")
	}
	return all[0], nil
}

// decode reads certificates as Envoy forwards them: PEM, percent-encoded. There is at least one.
func decode(encoded string) ([]*x509.Certificate, error) {
	text, err := url.PathUnescape(encoded)
	if err != nil {
		return nil, errors.New("the value is not percent-encoded")
	}
	var all []*x509.Certificate
	for rest := text; strings.TrimSpace(rest) != ""; {
		if !strings.HasPrefix(strings.TrimLeft(rest, "\r\n"), "-----BEGIN ") {
			return nil, errNotPEM
		}
		block, after := pem.Decode([]byte(rest))
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errNotPEM
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("the value holds a certificate that can't be read")
		}
		all, rest = append(all, certificate), string(after)
	}
	if len(all) == 0 {
		return nil, errNotPEM
	}
	return all, nil
}

var errNotPEM = errors.New("the value must be certificates in PEM and nothing else")
