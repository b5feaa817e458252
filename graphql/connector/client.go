package connector

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector/internal/query"
	"github.com/application-connector/application-connector/secret"
)

// TokenHeader is the HTTP header of a one-time token.
const TokenHeader = "Connector-Token"

// maxURL bounds the URLs that the Connector names, in bytes: they are stored and told.
const maxURL = 2048

// Client of one Connector endpoint: the token endpoint for calls with a token, the one secured by certificates for
// calls without. It is safe for concurrent use. All errors are of type *graphql.Error.
type Client struct {
	transport *graphql.Transport
	endpoint  string
}

// New makes a client of the endpoint, an https URL.
func New(t *graphql.Transport, endpoint string) *Client {
	return &Client{transport: t, endpoint: endpoint}
}

// Configuration asks what a certificate request must look like. With a token it burns that token, whether or not it
// succeeds, and gives a second one for Sign; with an empty one the client certificate of the transport says who asks.
// A part that the Connector leaves out is an error of kind Malformed that names it.
func (c *Client) Configuration(ctx context.Context, token secret.Value) (Configuration, error) {
	const pairing, renewal = "PairingConfiguration", "Configuration"
	if token == "" {
		resp, err := query.Configuration(ctx, c.transport.Client(c.endpoint, nil))
		if err != nil {
			return Configuration{}, err
		}
		out, err := configuration(resp.Configuration.Plane)
		return out, malformed(renewal, err)
	}
	resp, err := query.PairingConfiguration(ctx, c.transport.Client(c.endpoint, tokenHeader(token)))
	if err != nil {
		return Configuration{}, err
	}
	if t := resp.Configuration.Token; t == nil || t.Token == "" {
		return Configuration{}, malformed(pairing, errors.New("configuration.token is missing: no token to sign with"))
	}
	out, err := configuration(resp.Configuration.Plane)
	out.Token = secret.Value(resp.Configuration.Token.Token)
	return out, malformed(pairing, err)
}

func configuration(p query.Plane) (Configuration, error) {
	info, plane := p.CertificateSigningRequestInfo, p.ManagementPlaneInfo
	switch {
	case info == nil:
		return Configuration{}, errors.New("configuration.certificateSigningRequestInfo is missing")
	case info.Subject == "":
		return Configuration{}, errors.New("configuration.certificateSigningRequestInfo.subject is missing")
	case plane == nil:
		return Configuration{}, errors.New("configuration.managementPlaneInfo is missing")
	}
	out := Configuration{Subject: info.Subject, KeyAlgorithm: info.KeyAlgorithm}
	for _, f := range []struct {
		name  string
		value *string
		to    *string
	}{
		{"directorURL", plane.DirectorURL, &out.DirectorURL},
		{"certificateSecuredConnectorURL", plane.CertificateSecuredConnectorURL, &out.ConnectorURL},
	} {
		if f.value == nil || *f.value == "" {
			return Configuration{}, fmt.Errorf("configuration.managementPlaneInfo.%s is missing", f.name)
		}
		u, err := url.Parse(*f.value)
		switch {
		case len(*f.value) > maxURL:
			return Configuration{}, fmt.Errorf("configuration.managementPlaneInfo.%s has %d bytes, want at most %d", f.name, len(*f.value), maxURL)
		case err != nil || u.Scheme != "https" || u.Host == "":
			return Configuration{}, fmt.Errorf("configuration.managementPlaneInfo.%s is no https URL", f.name)
		case u.User != nil: // whoever reads the CompassConnection would read it
			return Configuration{}, fmt.Errorf("configuration.managementPlaneInfo.%s holds a user name or a password, want none", f.name)
		}
		*f.to = *f.value
	}
	return out, nil
}

// Sign has a certificate request signed: PEM with one block CERTIFICATE REQUEST. An empty token means over mTLS, with
// the client certificate of the transport; a token is burnt whether or not it succeeds. The answer is checked to be
// whole and for the key of the request; whom to trust is the caller's to decide.
func (c *Client) Sign(ctx context.Context, token secret.Value, csrPEM []byte) (Issued, error) {
	const operation = "SignCertificateSigningRequest"
	request, err := parseRequest(csrPEM)
	if err != nil {
		// Found here, before it costs the token.
		return Issued{}, &graphql.Error{Kind: graphql.Rejected, Operation: operation, Err: err}
	}
	resp, err := query.SignCertificateSigningRequest(ctx, c.transport.Client(c.endpoint, tokenHeader(token)),
		base64.StdEncoding.EncodeToString(csrPEM))
	if err != nil {
		return Issued{}, err
	}
	result := resp.SignCertificateSigningRequest
	out, err := issued(result.ClientCertificate, result.CertificateChain, result.CaCertificate)
	if err != nil {
		return Issued{}, malformed(operation, err)
	}
	if !sameKey(out.Certificate.PublicKey, request.PublicKey) {
		return Issued{}, malformed(operation, errors.New("clientCertificate is for another key than the request"))
	}
	return out, nil
}

// Revoke revokes the client certificate of the transport, for good.
func (c *Client) Revoke(ctx context.Context) error {
	resp, err := query.RevokeCertificate(ctx, c.transport.Client(c.endpoint, nil))
	if err != nil {
		return err
	}
	if !resp.RevokeCertificate {
		return &graphql.Error{Kind: graphql.Rejected, Operation: "RevokeCertificate",
			Err: errors.New("the Connector answered false: the certificate is not revoked")}
	}
	return nil
}

func tokenHeader(token secret.Value) http.Header {
	h := http.Header{}
	if token != "" {
		h.Set(TokenHeader, token.Reveal())
	}
	return h
}

func malformed(operation string, err error) error {
	if err == nil {
		return nil
	}
	return &graphql.Error{Kind: graphql.Malformed, Operation: operation, Err: err}
}

func parseRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || !blank(rest) {
		return nil, errors.New("the certificate request must be one PEM block CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate request: %w", err)
	}
	return request, nil
}
