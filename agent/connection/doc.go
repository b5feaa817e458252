// Package connection keeps the cluster connected to Compass: it pairs, keeps the certificate and its Secrets, renews,
// and decides when Compass is called at all, be it for a certificate or for the Applications. Every attempt at Compass of
// the whole agent is decided in one table (Table) and timed by one Schedule.
//
// It knows nothing of how requests travel (package graphql does), and nothing of what becomes of a snapshot (package sync
// does).
package connection

import (
	"context"
	"crypto/tls"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// FieldOwner owns, by server-side apply, what this package writes.
const FieldOwner = "compass-runtime-agent"

// Compass gives clients of Compass. Errors of the clients are of type *graphql.Error.
type Compass interface {
	// TokenConnector is the Connector at an endpoint that is secured by tokens.
	TokenConnector(endpoint string) Connector
	// Connector is the Connector at an endpoint that is secured by the certificate in use.
	Connector(endpoint string) Connector
	// Director is the Director at an endpoint, called with the certificate in use.
	Director(endpoint, tenant string) Director
	// Use makes every call that starts from now on use this certificate.
	Use(*tls.Certificate)
	// Try gives the Director, called with another certificate than that in use, and a function that ends its connections.
	Try(certificate *tls.Certificate, endpoint, tenant string) (Director, func())
}

// Connector signs certificates. An empty token means that the certificate in use proves who calls.
type Connector interface {
	Configuration(ctx context.Context, token secret.Value) (connector.Configuration, error)
	Sign(ctx context.Context, token secret.Value, csrPEM []byte) (connector.Issued, error)
	// Revoke revokes the certificate in use, for good.
	Revoke(ctx context.Context) error
}

// Director knows the inventory.
type Director interface {
	// Viewer gives the id of the runtime that the certificate belongs to.
	Viewer(ctx context.Context) (string, error)
	Snapshot(ctx context.Context, runtimeID string) (director.Snapshot, error)
	// SetRuntimeLabel sets a label to any value that JSON can hold.
	SetRuntimeLabel(ctx context.Context, runtimeID, key string, value any) error
}

// Cleaner deletes what a Syncer brought into place.
type Cleaner interface {
	Clean(ctx context.Context) error
}

// Syncer brings a snapshot into place. An error says that it could not be done as a whole; single Applications that fail
// are in the result.
type Syncer interface {
	Sync(ctx context.Context, snapshot director.Snapshot) (Result, error)
}

// Result is what a Syncer did.
type Result struct {
	// Total, Synced, Failed and PendingDeletion count Applications; Ready those of Synced that have all credentials.
	Total, Synced, Ready, Failed, PendingDeletion int
	// Failures names those that failed, NotReady those of Synced that are not of Ready.
	Failures, NotReady []compassv1alpha1.FailedApplication
	// Missing tells of Applications that are kept until further snapshots confirm their absence.
	Missing []compassv1alpha1.MissingApplications
	// PruneBlocked says why Applications, or credentials, were kept that the snapshot does not name; empty if none were.
	PruneBlocked string
}
