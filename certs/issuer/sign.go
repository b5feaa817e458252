package issuer

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cert-manager/issuer-lib/api/v1alpha1"
	"github.com/cert-manager/issuer-lib/controllers/signer"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql/connector"
)

// waitForCredential is how often a request looks for a token or a certificate to be signed by, while there is none.
const waitForCredential = 5 * time.Second

// keepTimeout bounds the writing of what cannot be had again.
const keepTimeout = 10 * time.Second

// Sign has a request signed. See Outcomes for what becomes of errors.
func (i *Issuer) Sign(ctx context.Context, cr signer.CertificateRequestObject, object v1alpha1.Issuer) (signer.PEMBundle, error) {
	spec, err := specOf(object)
	if err != nil {
		return signer.PEMBundle{}, signer.PermanentError{Err: err}
	}
	r, err := readRequest(cr)
	if err != nil {
		return signer.PEMBundle{}, signer.PermanentError{Err: err}
	}
	namespace := object.GetNamespace()
	if namespace == "" {
		namespace = i.Namespace
	}
	p, err := i.pairing(ctx, types.NamespacedName{Namespace: namespace, Name: spec.PairingSecretName})
	if err != nil {
		return signer.PEMBundle{}, err
	}
	if p.request != "" && p.request == r.hash {
		return signer.PEMBundle{ChainPEM: p.certificate, CAPEM: p.ca}, nil // signed before, and the answer did not arrive
	}
	if p.token != "" {
		return i.byToken(ctx, r, p)
	}
	return i.byCertificate(ctx, r, types.NamespacedName{Namespace: namespace, Name: spec.ClientSecretName}, spec.ConnectorURL)
}

// attempt calls Compass, unless the last call failed so short ago that it is to be left alone.
func (i *Issuer) attempt(call func() (connector.Issued, certs.Subject, error)) (connector.Issued, certs.Subject, error) {
	if now := i.Clock.Now(); now.Before(i.quiet) {
		return connector.Issued{}, certs.Subject{}, signer.PendingError{
			Err:          fmt.Errorf("the last call to Compass failed; the next is not before %s", i.quiet.UTC().Format(time.RFC3339)),
			RequeueAfter: i.quiet.Sub(now) + time.Millisecond,
		}
	}
	issued, subject, err := call()
	if err == nil {
		return issued, subject, nil
	}
	typed := outcome(err, i.Floor)
	wait := i.Floor
	var pending signer.PendingError
	if errors.As(typed, &pending) {
		wait = max(wait, pending.RequeueAfter)
	}
	i.quiet = i.Clock.Now().Add(wait)
	return issued, subject, typed
}

// byToken spends the second token on a request, after it is certain that nothing about the request is wrong.
func (i *Issuer) byToken(ctx context.Context, r request, p pairing) (signer.PEMBundle, error) {
	subject, err := certs.ParseSubject(p.subject)
	if err != nil {
		return signer.PEMBundle{}, signer.PermanentError{Err: fmt.Errorf("Secret %s, key %s: %w", p.object.Name, KeySubject, err)}
	}
	if p.tokenURL == "" {
		return signer.PEMBundle{}, signer.PermanentError{Err: fmt.Errorf("Secret %s has a %s and no %s", p.object.Name, KeyToken, KeyTokenURL)}
	}
	if err := r.check(subject); err != nil {
		return signer.PEMBundle{}, signer.PermanentError{Err: err}
	}
	var bundle signer.PEMBundle
	var final bool
	_, _, err = i.attempt(func() (connector.Issued, certs.Subject, error) {
		issued, err := i.Compass.TokenConnector(p.tokenURL).Sign(ctx, p.token, r.pem)
		if err != nil {
			final = spends(err)
			return issued, subject, err
		}
		if bundle, err = i.verify(r, subject, issued); err != nil {
			final = true
		}
		return issued, subject, err
	})
	bought := map[string][]byte{KeyIssuedRequest: []byte(r.hash), KeyIssuedCertificate: bundle.ChainPEM, KeyIssuedCA: bundle.CAPEM}
	if err != nil {
		if !final {
			return signer.PEMBundle{}, err
		}
		bought = nil
	}
	// The token is gone, and what it bought cannot be had again: that the process is told to end must not keep it from being
	// written down.
	kept, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	if lost := i.spent(kept, p, bought); lost != nil {
		log.FromContext(ctx).Error(lost, "the pairing Secret still has a token that is spent")
	}
	return bundle, err
}

// byCertificate has a request signed over mTLS by the certificate that there is.
func (i *Issuer) byCertificate(ctx context.Context, r request, name types.NamespacedName, endpoint string) (signer.PEMBundle, error) {
	credential, connectorURL, err := i.current(ctx, name)
	if err != nil {
		return signer.PEMBundle{}, err
	}
	if endpoint == "" {
		endpoint = connectorURL
	}
	if endpoint == "" {
		return signer.PEMBundle{}, signer.PendingError{RequeueAfter: waitForCredential, Err: fmt.Errorf(
			"nothing says where the Connector is: neither spec.connectorURL of the issuer, nor annotation %s of Secret %s", AnnotationConnectorURL, name)}
	}
	client, end := i.Compass.ConnectorWith(credential, endpoint)
	defer end()
	var wrong error
	issued, subject, err := i.attempt(func() (connector.Issued, certs.Subject, error) {
		configuration, err := client.Configuration(ctx, "")
		if err != nil {
			return connector.Issued{}, certs.Subject{}, err
		}
		subject, err := certs.ParseSubject(configuration.Subject)
		if err != nil {
			return connector.Issued{}, subject, fmt.Errorf("the Connector's answer: %w", err)
		}
		if wrong = r.check(subject); wrong != nil {
			return connector.Issued{}, subject, nil //nolint:nilerr // wrong is told by itself
		}
		issued, err := client.Sign(ctx, "", r.pem)
		return issued, subject, err
	})
	if wrong != nil {
		return signer.PEMBundle{}, signer.PermanentError{Err: wrong}
	}
	if err != nil {
		return signer.PEMBundle{}, err
	}
	bundle, err := i.verify(r, subject, issued)
	if err != nil {
		return signer.PEMBundle{}, signer.PermanentError{Err: err}
	}
	return bundle, nil
}

// current gives the client certificate of a Secret, and where the Connector is called with it: by the keys of the agent, which
// hold what Compass is known to accept, or else by those of cert-manager.
func (i *Issuer) current(ctx context.Context, name types.NamespacedName) (*tls.Certificate, string, error) {
	found, err := i.get(ctx, name)
	if err != nil {
		return nil, "", err
	}
	if found == nil {
		return nil, "", signer.PendingError{RequeueAfter: waitForCredential, Err: fmt.Errorf("there is no one-time token, and no Secret %s with a certificate to be signed by", name)}
	}
	now := i.Clock.Now()
	var why []error
	for _, decode := range []func(map[string][]byte) (certs.Credential, error){certs.DecodeClient, certs.DecodeTLS} {
		credential, err := decode(found.Data)
		switch {
		case err != nil:
			why = append(why, err)
		case !credential.ValidAt(now):
			why = append(why, fmt.Errorf("the certificate is valid from %s to %s", credential.Leaf().NotBefore.UTC().Format(time.RFC3339), credential.Leaf().NotAfter.UTC().Format(time.RFC3339)))
		default:
			return credential.TLS(), found.Annotations[AnnotationConnectorURL], nil
		}
	}
	return nil, "", signer.PendingError{RequeueAfter: waitForCredential, Err: fmt.Errorf("there is no one-time token, and Secret %s has no certificate to be signed by: %w", name, why[0])}
}

// verify checks what the Connector issued, as the agent does, and gives it as cert-manager takes it.
func (i *Issuer) verify(r request, subject certs.Subject, issued connector.Issued) (signer.PEMBundle, error) {
	credential, err := certs.Verify(certs.Issuance{
		Key: publicKey{r.csr.PublicKey}, Subject: subject, Certificate: issued.Certificate, Chain: issued.Chain, CA: issued.CA,
		Now: i.Clock.Now(), MinValidity: i.MinValidity,
	})
	if err != nil {
		return signer.PEMBundle{}, err
	}
	return signer.PEMBundle{ChainPEM: certs.EncodeChain(credential.Chain), CAPEM: certs.EncodeChain(credential.CA)}, nil
}

// publicKey is a key of which the private part is elsewhere.
type publicKey struct{ crypto.PublicKey }

// Public implements crypto.Signer.
func (k publicKey) Public() crypto.PublicKey { return k.PublicKey }

// Sign implements crypto.Signer.
func (publicKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the private key is not here")
}

// request is a certificate request that was read and is well formed.
type request struct {
	pem  []byte
	csr  *x509.CertificateRequest
	hash string
}

// readRequest reads a request and refuses what the Connector would, or what it would sign and nobody could use.
func readRequest(cr signer.CertificateRequestObject) (request, error) {
	details, err := cr.GetCertificateDetails()
	if err != nil {
		return request{}, fmt.Errorf("spec.usages: %w", err)
	}
	if details.IsCA {
		return request{}, errors.New("spec.isCA: the Connector signs client certificates only, no authorities")
	}
	block, _ := pem.Decode(details.CSR)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return request{}, errors.New("spec.request: want one PEM block CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return request{}, fmt.Errorf("spec.request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return request{}, fmt.Errorf("spec.request: its signature is not by its key: %w", err)
	}
	sum := sha256.Sum256(block.Bytes)
	return request{pem: pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), csr: csr, hash: hex.EncodeToString(sum[:])}, nil
}

// check refuses what the Connector would not sign: it signs RSA keys only, and for one subject.
func (r request) check(subject certs.Subject) error {
	key, ok := r.csr.PublicKey.(*rsa.PublicKey)
	if !ok || !slices.Contains(certs.KeySizes, key.N.BitLen()) {
		kind := r.csr.PublicKeyAlgorithm.String()
		if ok {
			kind = fmt.Sprintf("%s with %d bits", kind, key.N.BitLen())
		}
		return fmt.Errorf("the key of the request is %s: the Connector signs RSA keys only, set privateKey.algorithm of the Certificate to RSA and privateKey.size to one of %v", kind, certs.KeySizes)
	}
	if subject.Check(&x509.Certificate{RawSubject: r.csr.RawSubject, Subject: r.csr.Subject}) != nil {
		return fmt.Errorf("the subject of the request is %q, and the Connector signs %q only: set literalSubject of the Certificate to that", r.csr.Subject.String(), subject.String())
	}
	return nil
}
