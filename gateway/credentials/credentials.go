// Package credentials turns what an Application says of an API's credentials, and the Secret they lie in, into a value:
// the header fields, query fields, cookies and TLS identity that a call carries, with a version that changes when any of
// them does. It knows nothing of HTTP requests, of Kubernetes, and of how a call is sent.
package credentials

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/secret"
)

// Keys of a credential Secret.
const (
	KeyUsername     = "username"
	KeyPassword     = "password"
	KeyClientID     = "clientId"
	KeyClientSecret = "clientSecret"
	KeyCertificate  = "crt"
	KeyPrivateKey   = "key"
	KeyHeaders      = "headers"
	KeyQuery        = "queryParameters"
)

// Version identifies the content of a credential: equal versions mean equal content. It is safe as a map key, never to
// be printed.
type Version [sha256.Size]byte

// VersionOf hashes fields, each with its length before it, so that no two different lists of fields meet in one version.
func VersionOf(fields ...string) Version {
	h := sha256.New()
	var length [8]byte
	for _, f := range fields {
		binary.BigEndian.PutUint64(length[:], uint64(len(f)))
		h.Write(length[:])
		h.Write([]byte(f))
	}
	return Version(h.Sum(nil))
}

// Field is a named secret: one header field, or one query parameter.
type Field struct {
	Name  string
	Value secret.Value
}

// Identity is a client certificate with its key, to be presented in TLS handshakes.
type Identity struct {
	Certificate tls.Certificate
	Version     Version
}

// TokenRequest is what a token endpoint is asked with: RFC 6749, section 4.4, and for an Identity RFC 8705, section 2.
type TokenRequest struct {
	Kind         string // CredentialsTypeOAuth or CredentialsTypeOAuthWithCert
	URL          string
	ClientID     string
	ClientSecret secret.Value // only for CredentialsTypeOAuth
	Identity     *Identity    // only for CredentialsTypeOAuthWithCert
	Parameters   *Parameters  // more header fields and query parameters of the token request
	OAuth        OAuth
	Version      Version // of everything above
	Trust        Trust
	Timeout      time.Duration // of the request, zero for the default
}

// Credentials are one API's credentials, checked and parsed. They are immutable.
type Credentials struct {
	// Kind is one of the CredentialsType constants of the API; what is spelt NoAuth or left out is CredentialsTypeNone.
	Kind string
	// Header are the fields that are known without a call to anybody.
	Header []Field
	// Identity is presented to the target, if the target asks.
	Identity *Identity
	// Token is how a bearer token is obtained; nil when none is needed.
	Token *TokenRequest
	// Version of all of it.
	Version Version
	// Principal is who calls by them: a new password, secret or key leaves it as it is, another user, client, token endpoint
	// or subject of a certificate does not.
	Principal Version
}

// Reason classifies what is wrong with credentials, in one word for conditions.
type Reason string

// Reasons why credentials cannot be used.
const (
	ReasonTypeUnknown        Reason = "TypeUnknown"
	ReasonKeyMissing         Reason = "KeyMissing"
	ReasonCertificateInvalid Reason = "CertificateInvalid"
	ReasonParametersInvalid  Reason = "ParametersInvalid"
)

// Error says why credentials cannot be used. It names Secret keys, never their values.
type Error struct {
	Reason  Reason
	Message string
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Open says whether credentials of this spec need no Secret.
func Open(spec v1alpha1.Credentials) bool {
	switch spec.Type {
	case v1alpha1.CredentialsTypeNone, v1alpha1.CredentialsTypeNoAuth:
		return true
	case "":
		return spec.SecretName == "" && spec.AuthenticationURL == "" && spec.CSRFInfo == nil
	}
	return false
}

// Known says whether a type is one that the gateway can serve.
func Known(kind string) bool {
	switch kind {
	case v1alpha1.CredentialsTypeBasic, v1alpha1.CredentialsTypeOAuth, v1alpha1.CredentialsTypeOAuthWithCert, v1alpha1.CredentialsTypeCertificateGen:
		return true
	}
	return false
}

// Memo remembers credentials by the version of their input, so that a key pair is parsed once.
type Memo map[Version]*Credentials

// Parse checks spec and the data of its Secret, and adds what settings say of tokens. What was parsed before is taken from previous; what is returned is put
// into next. Both may be nil. A failure is an *Error.
func Parse(spec v1alpha1.Credentials, data map[string][]byte, o OAuth, previous, next Memo) (*Credentials, error) {
	if Open(spec) {
		nobody := VersionOf(v1alpha1.CredentialsTypeNone)
		return &Credentials{Kind: v1alpha1.CredentialsTypeNone, Version: nobody, Principal: nobody}, nil
	}
	if !Known(spec.Type) {
		return nil, &Error{ReasonTypeUnknown, fmt.Sprintf("credentials.type %q is not known: use None, NoAuth, Basic, OAuth, OAuthWithCert or CertificateGen", spec.Type)}
	}
	version := inputVersion(spec, data, o)
	c, ok := previous[version]
	if !ok {
		var err error
		if c, err = parse(spec, data, o); err != nil {
			return nil, err
		}
		c.Kind, c.Version, c.Principal = spec.Type, version, c.principal(spec.Type, data)
		if c.Token != nil {
			c.Token.Version = version
		}
	}
	if next != nil {
		next[version] = c
	}
	return c, nil
}

// inputVersion covers exactly the fields that parse reads, so that an unrelated key does not retire tokens.
func inputVersion(spec v1alpha1.Credentials, data map[string][]byte, o OAuth) Version {
	fields := []string{spec.Type}
	if spec.Type == v1alpha1.CredentialsTypeOAuth || spec.Type == v1alpha1.CredentialsTypeOAuthWithCert {
		fields = append(append(fields, spec.AuthenticationURL), o.version()...)
	}
	for _, key := range []string{KeyUsername, KeyPassword, KeyClientID, KeyClientSecret, KeyCertificate, KeyPrivateKey, KeyHeaders, KeyQuery} {
		value, ok := data[key]
		fields = append(fields, fmt.Sprint(ok), string(value))
	}
	return VersionOf(fields...)
}

func parse(spec v1alpha1.Credentials, data map[string][]byte, o OAuth) (*Credentials, error) {
	switch spec.Type {
	case v1alpha1.CredentialsTypeBasic:
		if err := need(data, KeyUsername, KeyPassword); err != nil {
			return nil, err
		}
		if len(data[KeyUsername])+len(data[KeyPassword]) == 0 {
			return nil, &Error{ReasonKeyMissing, "keys username and password are both empty"}
		}
		return &Credentials{Header: []Field{{"Authorization", basic(string(data[KeyUsername]), string(data[KeyPassword]))}}}, nil
	case v1alpha1.CredentialsTypeCertificateGen:
		identity, err := parseIdentity(data)
		if err != nil {
			return nil, err
		}
		return &Credentials{Identity: identity}, nil
	default:
		token, err := parseToken(spec, data)
		if err != nil {
			return nil, err
		}
		token.OAuth = o
		c := &Credentials{Token: token}
		if o.CertificateBound {
			c.Identity = token.Identity
		}
		return c, nil
	}
}

// principal is that of credentials of a kind that were parsed from data.
func (c *Credentials) principal(kind string, data map[string][]byte) Version {
	fields := []string{kind}
	identity := c.Identity
	switch {
	case c.Token != nil:
		fields = append(fields, c.Token.URL, c.Token.ClientID)
		identity = c.Token.Identity
	case identity == nil:
		fields = append(fields, string(data[KeyUsername]))
	}
	if identity != nil {
		leaf := identity.Certificate.Leaf
		fields = append(fields, string(leaf.RawSubject), fmt.Sprint(leaf.DNSNames, leaf.EmailAddresses, leaf.IPAddresses, leaf.URIs))
	}
	return VersionOf(fields...)
}

func parseToken(spec v1alpha1.Credentials, data map[string][]byte) (*TokenRequest, error) {
	t := &TokenRequest{Kind: spec.Type, URL: spec.AuthenticationURL, ClientID: string(data[KeyClientID])}
	if err := need(data, KeyClientID); err != nil {
		return nil, err
	}
	if t.ClientID == "" {
		return nil, &Error{ReasonKeyMissing, "key clientId is empty"}
	}
	var err error
	if spec.Type == v1alpha1.CredentialsTypeOAuth {
		if err = need(data, KeyClientSecret); err != nil {
			return nil, err
		}
		t.ClientSecret = secret.Value(data[KeyClientSecret])
	} else if t.Identity, err = parseIdentity(data); err != nil {
		return nil, err
	}
	if t.Parameters, err = ParseParameters(data); err != nil {
		return nil, err
	}
	return t, nil
}

func need(data map[string][]byte, keys ...string) error {
	for _, key := range keys {
		if _, ok := data[key]; !ok {
			return &Error{ReasonKeyMissing, "key " + key + " is missing"}
		}
	}
	return nil
}

// parseIdentity takes a PEM chain, leaf first, and an unencrypted key. Text before the first PEM block is ignored, as
// "openssl x509" writes it.
func parseIdentity(data map[string][]byte) (*Identity, error) {
	if err := need(data, KeyCertificate, KeyPrivateKey); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(data[KeyCertificate], data[KeyPrivateKey])
	if err != nil {
		return nil, &Error{ReasonCertificateInvalid, "keys crt and key: " + err.Error()}
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, &Error{ReasonCertificateInvalid, "key crt: " + err.Error()}
		}
	}
	return &Identity{Certificate: pair, Version: VersionOf(string(data[KeyCertificate]), string(data[KeyPrivateKey]))}, nil
}

// basic is RFC 7617, section 2. The values are used byte for byte.
func basic(user, password string) secret.Value {
	return secret.Value("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

// Basic is the value of an Authorization field for a user, or for an OAuth client.
func Basic(user string, password secret.Value) secret.Value { return basic(user, password.Reveal()) }

// Bearer is the value of an Authorization field for a token (RFC 6750, section 2.1).
func Bearer(token secret.Value) secret.Value { return "Bearer " + token }

// ValidHeaderValue says whether a secret can stand in a header field.
func ValidHeaderValue(v secret.Value) bool { return httpguts.ValidHeaderFieldValue(v.Reveal()) }
