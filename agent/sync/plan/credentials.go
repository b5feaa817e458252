package plan

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// Keys of the Secrets, as the gateway reads them.
const (
	keyUsername     = "username"
	keyPassword     = "password"
	keyClientID     = "clientId"
	keyClientSecret = "clientSecret"
	keyCertificate  = "crt"
	keyPrivateKey   = "key"
	keyHeaders      = "headers"
	keyQuery        = "queryParameters"
)

// typePending and typeUnknown are types that no gateway knows: it refuses to call the API.
const (
	typePending = "Pending"
	typeUnknown = "Unknown"
)

// access is how the APIs of one bundle are to be called. Data is nil where there is nothing to store; an entry that
// names a Secret without data makes the gateway refuse the call, which is meant.
type access struct {
	entry      v1alpha1.Credentials
	data       map[string]secret.Value
	parameters map[string]secret.Value
	// meant is what the annotation of both Secrets says.
	meant string
	// kept says that the credentials now in the cluster stay as they are.
	kept bool
	// reason and message are empty if the credentials are fit for use.
	reason, message string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (access) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// bundleAccess maps what Director says about a bundle's credentials. Was is what the cluster holds; it matters only for what
// Director does not tell, or is not believed to tell.
func bundleAccess(application string, bundle director.Bundle, was past) access {
	switch {
	case slices.Contains(was.withheld, bundle.ID):
		return formerAccess(application, bundle.ID, was).unfit(ReasonPendingRemoval, removalPending)
	case bundle.AuthPending:
		return formerAccess(application, bundle.ID, was)
	}
	if bundle.Auth == nil {
		return access{}
	}
	a := credentialAccess(bundle.Auth.Credential)
	if a.entry.Type != "" {
		if a.entry.SecretName == "" && a.reason != ReasonUnknownCredentials {
			a.entry.SecretName = credentialsSecretName(application, bundle.ID)
		}
		if bundle.Auth.CSRF != nil {
			a.entry.CSRFInfo = &v1alpha1.CSRFInfo{TokenEndpointURL: bundle.Auth.CSRF.TokenEndpointURL}
		}
	}
	a.parameters = parameters(bundle.Auth)
	a.record()
	return a
}

func credentialAccess(credential director.Credential) access {
	switch c := credential.(type) {
	case nil:
		return access{}
	case director.Basic:
		a := access{entry: v1alpha1.Credentials{Type: v1alpha1.CredentialsTypeBasic}}
		if c.Username == "" || c.Password == "" {
			return a.unfit(ReasonEmptyCredentials, "the user name or the password is empty in Compass")
		}
		a.data = map[string]secret.Value{keyUsername: secret.Value(c.Username), keyPassword: c.Password}
		return a
	case director.OAuth:
		a := access{entry: v1alpha1.Credentials{Type: v1alpha1.CredentialsTypeOAuth, AuthenticationURL: c.URL}}
		if c.ClientID == "" || c.ClientSecret == "" || c.URL == "" {
			return a.unfit(ReasonEmptyCredentials, "the client id, the client secret or the URL of the token endpoint is empty in Compass")
		}
		a.data = map[string]secret.Value{keyClientID: secret.Value(c.ClientID), keyClientSecret: c.ClientSecret}
		return a
	case director.CertificateOAuth:
		return certificateAccess(c)
	case director.Unknown:
		return unknownAccess(c.Typename)
	default:
		return unknownAccess(fmt.Sprintf("%T", c))
	}
}

func certificateAccess(c director.CertificateOAuth) access {
	a := access{entry: v1alpha1.Credentials{Type: v1alpha1.CredentialsTypeOAuthWithCert, AuthenticationURL: c.URL}}
	if c.ClientID == "" || c.Certificate == "" || c.URL == "" {
		return a.unfit(ReasonEmptyCredentials, "the client id, the certificate or the URL of the token endpoint is empty in Compass")
	}
	chain, key := splitPEM(c.Certificate.Reveal())
	a.data = map[string]secret.Value{keyClientID: secret.Value(c.ClientID), keyCertificate: secret.Value(chain)}
	if key == "" {
		return a.unfit(ReasonPrivateKeyMissing, "Compass sent a client certificate without its private key; the key must stand in the same PEM text")
	}
	a.data[keyPrivateKey] = secret.Value(key)
	if _, err := tls.X509KeyPair([]byte(chain), []byte(key)); err != nil {
		// The error is of the parser and could repeat what it read: it is not passed on.
		return a.unfit(ReasonInvalidCertificate, "certificate and private key do not make a pair of PEM texts")
	}
	return a
}

// splitPEM divides a PEM text into certificates and the first private key. A text without certificate is returned as
// it is, so that whoever looks at the Secret sees what Compass sent.
func splitPEM(text string) (chain, key string) {
	var certificates strings.Builder
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE":
			certificates.Write(pem.EncodeToMemory(block))
		case strings.HasSuffix(block.Type, "PRIVATE KEY") && key == "":
			key = string(pem.EncodeToMemory(block))
		}
	}
	if certificates.Len() == 0 {
		return text, key
	}
	return certificates.String(), key
}

// unknownAccess keeps the name of the type, unless a gateway would take it for one that it knows.
func unknownAccess(typename string) access {
	name := typename
	switch name {
	case "", v1alpha1.CredentialsTypeNone, v1alpha1.CredentialsTypeNoAuth, v1alpha1.CredentialsTypeBasic, v1alpha1.CredentialsTypeOAuth,
		v1alpha1.CredentialsTypeOAuthWithCert, v1alpha1.CredentialsTypeCertificateGen:
		name = typeUnknown
	}
	a := access{entry: v1alpha1.Credentials{Type: name}}
	return a.unfit(ReasonUnknownCredentials, fmt.Sprintf("credentials of type %q are not supported", typename))
}

func (a access) unfit(reason, message string) access {
	a.reason, a.message = reason, message
	return a
}

// parameters are the headers and query fields that every call gets, as JSON; nil if there are none.
func parameters(auth *director.Auth) map[string]secret.Value {
	data := map[string]secret.Value{}
	for key, fields := range map[string]map[string][]string{keyHeaders: auth.Headers, keyQuery: auth.Query} {
		if len(fields) == 0 {
			continue
		}
		text, err := json.Marshal(fields)
		if err != nil {
			panic(err) // text can always be encoded
		}
		data[key] = secret.Value(text)
	}
	if len(data) == 0 {
		return nil
	}
	return data
}
