package compass

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/application-connector/application-connector/simulator/compass/connectorapi"
)

// connectorResolvers answer the Connector's fields.
type connectorResolvers struct{ server *Server }

func (r connectorResolvers) Query() connectorapi.QueryResolver       { return r }
func (r connectorResolvers) Mutation() connectorapi.MutationResolver { return r }

// Configuration always makes another one-time token, over mTLS too.
func (r connectorResolvers) Configuration(ctx context.Context) (*connectorapi.Configuration, error) {
	s, c := r.server, callOf(ctx)
	if c.foreignTenant {
		return nil, errors.New("Failed to get one-time token during fetching configuration process: could not get one time token: Failed to authenticate request, tenant not found: cannot read TenantKey key from context")
	}
	token, ok := s.identities.newToken(c.consumer.authID, s.now(), s.tokenValidity())
	if !ok {
		return nil, fmt.Errorf("Failed to get one-time token during fetching configuration process: system auth %s is gone", c.consumer.authID)
	}
	if err := s.saveIdentities(); err != nil {
		return nil, err
	}
	directorURL, connectorURL := s.DirectorURL(), s.MTLSConnectorURL()
	if f, ok := c.faults.find(FaultOtherURLs); ok {
		directorURL, connectorURL = replaced(directorURL, f.DirectorURL), replaced(connectorURL, f.ConnectorURL)
	}
	return &connectorapi.Configuration{
		Token: &connectorapi.Token{Token: token},
		CertificateSigningRequestInfo: &connectorapi.CertificateSigningRequestInfo{
			Subject: subjectFor(c.consumer.authID), KeyAlgorithm: keyAlgorithm,
		},
		ManagementPlaneInfo: &connectorapi.ManagementPlaneInfo{
			DirectorURL: &directorURL, CertificateSecuredConnectorURL: &connectorURL,
		},
	}, nil
}

func replaced(value, with string) string {
	if with != "" {
		return with
	}
	return value
}

// SignCertificateSigningRequest signs for whoever calls; the certificates
// issued before stay valid.
func (r connectorResolvers) SignCertificateSigningRequest(ctx context.Context, encoded string) (*connectorapi.CertificationResult, error) {
	s, c := r.server, callOf(ctx)
	raw, err := decodeCSR(encoded)
	if err != nil {
		return nil, err
	}
	csr, err := checkCSR(raw, c.consumer.authID)
	if err != nil {
		return nil, signingError(err)
	}
	ca, err := s.clientCA.get()
	if err != nil {
		return nil, signingError(err)
	}
	notBefore, validity := s.now(), s.certificateValidity()
	if f, ok := c.faults.find(FaultCertificateTimes); ok {
		notBefore = notBefore.Add(time.Duration(f.Shift))
		if f.Validity != 0 {
			validity = time.Duration(f.Validity)
		}
	}
	der, err := ca.sign(csr, notBefore, notBefore.Add(validity))
	if err != nil {
		return nil, signingError(err)
	}
	sum := sha256.Sum256(der)
	hash := hex.EncodeToString(sum[:])
	s.identities.addCertificate(c.consumer.authID, IssuedCertificate{Hash: hash, NotBefore: notBefore, NotAfter: notBefore.Add(validity)})
	if err := s.saveIdentities(); err != nil {
		return nil, err
	}
	s.log.Info("certificate issued", "systemAuth", c.consumer.authID, "hash", hash, "notAfter", notBefore.Add(validity))
	leaf, issuer := encodePEM("CERTIFICATE", der), ca.certPEM()
	return &connectorapi.CertificationResult{
		CertificateChain:  base64.StdEncoding.EncodeToString(append(leaf[:len(leaf):len(leaf)], issuer...)),
		CaCertificate:     base64.StdEncoding.EncodeToString(issuer),
		ClientCertificate: base64.StdEncoding.EncodeToString(leaf),
	}, nil
}

func signingError(err error) error {
	return fmt.Errorf("Error while signing Certificate Signing Request: %w", err)
}

// RevokeCertificate revokes the very certificate that the call was made with.
func (r connectorResolvers) RevokeCertificate(ctx context.Context) (bool, error) {
	s, c := r.server, callOf(ctx)
	if c.consumer.certificateHash == "" {
		return false, errors.New("Failed to authenticate with certificate: Failed to authenticate with Certificate. Invalid subject.")
	}
	s.identities.revoke(c.consumer.certificateHash)
	if err := s.saveIdentities(); err != nil {
		return false, err
	}
	s.log.Info("certificate revoked", "systemAuth", c.consumer.authID, "hash", c.consumer.certificateHash)
	return true, nil
}
