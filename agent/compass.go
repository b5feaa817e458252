package agent

import (
	"context"
	"crypto/tls"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/status"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// compass gives clients over two transports: one that never presents a certificate, and one that presents the current one.
// Every call is counted.
type compass struct {
	options        graphql.Options
	plain, secured *graphql.Transport
	metrics        *status.Metrics
}

var _ connection.Compass = (*compass)(nil)

func newCompass(o graphql.Options, m *status.Metrics) *compass {
	c := &compass{options: o, metrics: m, secured: graphql.NewTransport(o)}
	c.options.Log = nil // the warning about skipped verification is worth one line, not three
	c.plain = graphql.NewTransport(c.options)
	c.options.Log = o.Log
	return c
}

func (c *compass) TokenConnector(endpoint string) connection.Connector {
	return countedConnector{connector.New(c.plain, endpoint), c.metrics}
}

func (c *compass) Connector(endpoint string) connection.Connector {
	return countedConnector{connector.New(c.secured, endpoint), c.metrics}
}

func (c *compass) Director(endpoint, tenant string) connection.Director {
	return countedDirector{director.New(c.secured, endpoint, tenant), c.metrics}
}

func (c *compass) Use(certificate *tls.Certificate) { c.secured.SetCertificate(certificate) }

func (c *compass) Try(certificate *tls.Certificate, endpoint, tenant string) (connection.Director, func()) {
	trial := graphql.NewTransport(c.options)
	trial.SetCertificate(certificate)
	return countedDirector{director.New(trial, endpoint, tenant), c.metrics}, trial.CloseIdleConnections
}

func (c *compass) close() {
	c.plain.CloseIdleConnections()
	c.secured.CloseIdleConnections()
}

type countedConnector struct {
	connection.Connector
	metrics *status.Metrics
}

func (c countedConnector) Configuration(ctx context.Context, token secret.Value) (connector.Configuration, error) {
	answer, err := c.Connector.Configuration(ctx, token)
	c.metrics.Request("configuration", string(graphql.KindOf(err)))
	return answer, err
}

func (c countedConnector) Sign(ctx context.Context, token secret.Value, csrPEM []byte) (connector.Issued, error) {
	answer, err := c.Connector.Sign(ctx, token, csrPEM)
	c.metrics.Request("signCertificateSigningRequest", string(graphql.KindOf(err)))
	return answer, err
}

func (c countedConnector) Revoke(ctx context.Context) error {
	err := c.Connector.Revoke(ctx)
	c.metrics.Request("revokeCertificate", string(graphql.KindOf(err)))
	return err
}

type countedDirector struct {
	connection.Director
	metrics *status.Metrics
}

func (d countedDirector) Viewer(ctx context.Context) (string, error) {
	id, err := d.Director.Viewer(ctx)
	d.metrics.Request("viewer", string(graphql.KindOf(err)))
	return id, err
}

func (d countedDirector) Snapshot(ctx context.Context, runtimeID string) (director.Snapshot, error) {
	answer, err := d.Director.Snapshot(ctx, runtimeID)
	d.metrics.Request("snapshot", string(graphql.KindOf(err)))
	return answer, err
}

func (d countedDirector) SetRuntimeLabel(ctx context.Context, runtimeID, key string, value any) error {
	err := d.Director.SetRuntimeLabel(ctx, runtimeID, key, value)
	d.metrics.Request("setRuntimeLabel", string(graphql.KindOf(err)))
	return err
}
