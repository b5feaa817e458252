package up

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/compass"
	"github.com/application-connector/application-connector/simulator/systems"
)

// keyBits of the external systems' keys. The Connector signs nothing but RSA.
const keyBits = 2048

// values fill the templates: where the external systems are, and what they ask for.
type values struct {
	Tenant, RuntimeID                                            string
	None, Basic, OAuth, OAuthMTLS, Certificate, CSRF, Parameters string
	Token, MTLSToken, CSRFToken                                  string
	Username, Password, ClientID, ClientSecret                   string
	Headers, Query                                               map[string][]string
	// ClientPEM is a client certificate and its key in one text, as some systems give it to Compass.
	ClientPEM, ClientCertificate, ClientKey string
}

// startSystems starts the external systems.
func (w *world) startSystems(ctx context.Context) error {
	log, err := w.logger("systems")
	if err != nil {
		return err
	}
	w.systems, err = systems.Start(context.WithoutCancel(ctx), systems.Options{
		Address: address(w.ports.SystemsHTTP), TLSAddress: address(w.ports.SystemsHTTPS),
		MTLSAddress: address(w.ports.SystemsMTLS), ExpiredAddress: address(w.ports.SystemsExpired),
		StateDir: w.path("systems"), Log: log,
	})
	if err != nil {
		return err
	}
	return writeFile(w.path("systems-ca.crt"), w.systems.CA())
}

func (w *world) values() (values, error) {
	certificate, key, err := w.systems.ClientCertificate("this-cluster")
	if err != nil {
		return values{}, err
	}
	c := w.systems.Credentials()
	v := values{
		Tenant: simulatedTenant, RuntimeID: simulatedRuntime,
		Username: c.Username, Password: c.Password.Reveal(), ClientID: c.ClientID, ClientSecret: c.ClientSecret.Reveal(),
		Headers: map[string][]string{"X-Api-Key": {c.APIKey.Reveal()}}, Query: map[string][]string{"region": {c.Region}},
		ClientPEM: string(certificate) + string(key), ClientCertificate: string(certificate), ClientKey: string(key),
	}
	for _, api := range w.systems.APIs() {
		switch api.Name {
		case "none":
			v.None = api.URL
		case "basic":
			v.Basic = api.URL
		case "oauth":
			v.OAuth, v.Token = api.URL, api.TokenURL
		case "oauth-mtls":
			v.OAuthMTLS, v.MTLSToken = api.URL, api.TokenURL
		case "certificate":
			v.Certificate = api.URL
		case "csrf":
			v.CSRF, v.CSRFToken = api.URL, api.CSRFTokenURL
		case "parameters":
			v.Parameters = api.URL
		}
	}
	return v, nil
}

// startCompass starts the simulated Compass, and writes its authority to a file for the agent.
func (w *world) startCompass(ctx context.Context) error {
	values, err := w.values()
	if err != nil {
		return err
	}
	text, err := render(seedTemplate, values)
	if err != nil {
		return err
	}
	seed, err := compass.ParseSeed(bytes.NewReader(text))
	if err != nil {
		return err
	}
	log, err := w.logger("compass")
	if err != nil {
		return err
	}
	w.compass, err = compass.Start(context.WithoutCancel(ctx), compass.Options{
		TokenAddress: address(w.ports.CompassToken), MTLSAddress: address(w.ports.CompassMTLS), AdminAddress: address(w.ports.CompassAdm),
		Seed: seed, StateDir: w.path("compass"), Log: log,
	})
	if err != nil {
		return err
	}
	return writeFile(w.path("compass-ca.crt"), w.compass.ServerCA())
}

// runtimeToken asks the simulated Compass, as its administrator does, for a one-time token for this cluster.
func (w *world) runtimeToken(runtimeID string) (string, secret.Value, error) {
	t, err := w.compass.Admin().RuntimeToken(runtimeID)
	return t.ConnectorURL, secret.Value(t.Token), err
}

// issueCertificates gets a client certificate for each external system, in the way in which the system gets it by
// itself: against a one-time token, from the Connector. A certificate of an authority that nobody knows comes on top.
func (w *world) issueCertificates(ctx context.Context) error {
	for name, id := range map[string]string{"shop": shopID, "crm": crmID} {
		if w.kept(name) {
			continue
		}
		token, err := w.compass.Admin().ApplicationToken(id)
		if err != nil {
			return err
		}
		chain, key, err := w.pairSystem(ctx, token.ConnectorURL, secret.Value(token.Token))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := errors.Join(writeFile(w.path(name+".crt"), chain), writeFile(w.path(name+".key"), key)); err != nil {
			return err
		}
	}
	chain, key, err := strangersCertificate(w.path("shop.crt"))
	if err != nil {
		return err
	}
	if err := errors.Join(writeFile(w.path("stranger.crt"), chain), writeFile(w.path("stranger.key"), key)); err != nil {
		return err
	}
	return w.waitKnown(ctx)
}

// kept says whether a certificate of an earlier run is there and still good for a day.
func (w *world) kept(name string) bool {
	text, err := os.ReadFile(w.path(name + ".crt"))
	if err != nil {
		return false
	}
	if _, err := os.Stat(w.path(name + ".key")); err != nil {
		return false
	}
	cert, err := firstCertificate(text)
	return err == nil && time.Until(cert.NotAfter) > 24*time.Hour
}

func firstCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

// pairSystem does what an external system does with its one-time token. It returns chain and key as PEM.
func (w *world) pairSystem(ctx context.Context, url string, token secret.Value) (chain, key []byte, err error) {
	roots, err := graphql.Roots(w.compass.ServerCA())
	if err != nil {
		return nil, nil, err
	}
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	defer transport.CloseIdleConnections()
	c := connector.New(transport, url)
	configuration, err := c.Configuration(ctx, token)
	if err != nil {
		return nil, nil, err
	}
	subject, err := certs.ParseSubject(configuration.Subject)
	if err != nil {
		return nil, nil, err
	}
	private, err := certs.GenerateKey(keyBits)
	if err != nil {
		return nil, nil, err
	}
	request, err := certs.NewRequest(private, subject)
	if err != nil {
		return nil, nil, err
	}
	issued, err := c.Sign(ctx, configuration.Token, request)
	if err != nil {
		return nil, nil, err
	}
	for _, cert := range issued.Chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	key, err = certs.EncodeKey(private)
	return chain, key, err
}

// strangersCertificate is a certificate with the very subject of another one, signed by an authority that nobody trusts.
func strangersCertificate(like string) (chain, key []byte, err error) {
	text, err := os.ReadFile(like)
	if err != nil {
		return nil, nil, err
	}
	original, err := firstCertificate(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", like, err)
	}
	nobody, err := authority.New("Nobody's authority", nil)
	if err != nil {
		return nil, nil, err
	}
	return nobody.Issue(authority.Request{RawSubject: original.RawSubject})
}

// waitKnown waits until the Applications name the certificates of their systems, as the agent's next sync brings it
// about.
func (w *world) waitKnown(ctx context.Context) error {
	c := &compassv1alpha1.CompassConnection{}
	if err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		return err
	}
	if err := w.askForSync(ctx, c); err != nil {
		return err
	}
	for file, name := range map[string]string{"shop.crt": "mp-shop", "crm.crt": "mp-crm"} {
		text, err := os.ReadFile(w.path(file))
		if err != nil {
			return err
		}
		cert, err := firstCertificate(text)
		if err != nil {
			return err
		}
		if err := until(ctx, func() error {
			a := &appv1alpha1.Application{}
			if err := w.cluster.Get(ctx, client.ObjectKey{Name: name}, a); err != nil {
				return w.orFailed(err)
			}
			if m := a.Spec.CompassMetadata; m == nil || !slices.Contains(m.Authentication.ClientIDs, cert.Subject.CommonName) {
				return w.orFailed(fmt.Errorf("the Application %s does not name the certificate of its system yet", name))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
