package agent

import (
	"context"
	"crypto/tls"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/application-connector/application-connector/agent/certmanager"
	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
)

// issuance are the kinds that must be served before the agent can leave its certificate to cert-manager, by what installs them.
var issuance = []struct {
	kinds []schema.GroupVersionKind
	by    string
}{
	{[]schema.GroupVersionKind{cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind), cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateRequestKind)}, "cert-manager 1.21 or later"},
	{[]schema.GroupVersionKind{compassv1alpha1.GroupVersion.WithKind("CompassIssuer"), compassv1alpha1.GroupVersion.WithKind("CompassClusterIssuer")}, "the resource definitions of this agent"},
}

// installed says what has to be installed. Without that the controllers would wait for it in silence.
func installed(mapper meta.RESTMapper) error {
	for _, of := range issuance {
		for _, kind := range of.kinds {
			if _, err := mapper.RESTMapping(kind.GroupKind(), kind.Version); meta.IsNoMatchError(err) {
				return fmt.Errorf("environment variable APP_CERT_MANAGER: the cluster has no %s of %s: install %s, or leave the variable out", kind.Kind, kind.GroupVersion(), of.by)
			} else if err != nil {
				return fmt.Errorf("environment variable APP_CERT_MANAGER: looking for %s of %s: %w", kind.Kind, kind.GroupVersion(), err)
			}
		}
	}
	return nil
}

// certManager makes cert-manager the owner of the client certificate, and adds the issuer that signs it to the manager.
func (o Options) certManager(ctx context.Context, mgr manager.Manager, c *compass, r *connection.Reconciler) error {
	if err := installed(mgr.GetRESTMapper()); err != nil {
		return err
	}
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
