// Package connector gets client certificates signed by Compass. It knows nothing of Kubernetes and keeps no key; whether
// an issued certificate can be trusted and used (chain, subject, dates) is for package certs to say.
package connector

import (
	"crypto/x509"

	"github.com/application-connector/application-connector/secret"
)

// Configuration is what the Connector tells a cluster before it signs.
type Configuration struct {
	// Token is a second one-time token, good for one Sign on the token endpoint. Empty if it was asked over mTLS.
	Token secret.Value
	// Subject that the certificate request must have, for example "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=<id>".
	Subject string
	// KeyAlgorithm that the Connector suggests, for example "rsa2048".
	KeyAlgorithm string
	// DirectorURL and ConnectorURL are the endpoints that are secured by the client certificate: https URLs.
	DirectorURL  string
	ConnectorURL string
}

// Issued is a signed certificate with its chains, decoded.
type Issued struct {
	// Certificate is the client certificate. Its key is the one of the request.
	Certificate *x509.Certificate
	// Chain holds the client certificate and what signed it, in the order in which the Connector sent them.
	Chain []*x509.Certificate
	// CA holds the authorities that sign clients.
	CA []*x509.Certificate
}
