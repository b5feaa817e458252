package agent

import (
	"context"
	"crypto/tls"
	"fmt"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/application-connector/application-connector/agent/certmanager"
	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
)

// certManager makes cert-manager the owner of the client certificate, and adds the issuer that signs it to the manager.
func (o Options) certManager(ctx context.Context, mgr manager.Manager, c *compass, r *connection.Reconciler) error {
	r.Delegate = &certmanager.Owner{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Secret: o.ClientSecret, Pairing: r.Secrets.Pending(),
		KeySize: o.KeySize, Threshold: o.RenewalThreshold, Clock: clock.RealClock{},
	}
	i := &issuer.Issuer{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Compass: issuing{c}, Namespace: o.ClientSecret.Namespace,
		Floor: o.MinimalSyncTime, MinValidity: r.Renewal.Floor, Clock: clock.RealClock{},
	}
	if err := i.SetupWithManager(ctx, mgr); err != nil {
		return fmt.Errorf("environment variable APP_CERT_MANAGER: %w", err)
	}
	return nil
}

// issuing gives package issuer what it needs of Compass.
type issuing struct{ *compass }

func (c issuing) TokenConnector(endpoint string) issuer.Connector {
	return c.compass.TokenConnector(endpoint)
}

func (c issuing) ConnectorWith(certificate *tls.Certificate, endpoint string) (issuer.Connector, func()) {
	t := graphql.NewTransport(c.options)
	t.SetCertificate(certificate)
	return countedConnector{connector.New(t, endpoint), c.metrics}, t.CloseIdleConnections
}
