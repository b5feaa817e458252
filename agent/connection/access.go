package connection

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/secret"
)

// Access is what a program besides the agent needs to ask Director as this cluster.
type Access struct {
	// Certificate is the client certificate with its key.
	Certificate *tls.Certificate
	// DirectorURL, Tenant (may be empty) and RuntimeID say what to ask, and where.
	DirectorURL, Tenant, RuntimeID string
	// Unsettled says why the agent would delete no Application by what Director answers at the next attempt; empty if it would.
	Unsettled string
	// Missing are the Applications that the agent keeps until further answers confirm their absence, as its last sync told, and
	// NextAttempt is when it asks next; zero if that is not known.
	Missing     []compassv1alpha1.MissingApplications
	NextAttempt time.Time
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (Access) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// Configuration is what the configuration Secret says, but for the token itself.
type Configuration struct {
	// Found: the Secret is there. Missing says what a sync lacks in it; empty if it has all.
	Found   bool
	Missing string
	// ConnectorURL is where the token is for. RuntimeID and Tenant (may be empty) say who the cluster is.
	ConnectorURL, RuntimeID, Tenant string
	// TokenFingerprint is the SHA-256 of the one-time token in hex; empty without a token.
	TokenFingerprint string
	// Annotations of the Secret. Some of them may hold secrets: kubectl apply keeps there what it wrote.
	Annotations map[string]string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (Configuration) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// ReadConfiguration reads the configuration Secret, and writes nothing. The error holds no secret.
func ReadConfiguration(ctx context.Context, reader client.Reader, names Names) (Configuration, error) {
	c, found, err := store{reader: reader, names: names}.configuration(ctx)
	if err != nil {
		return Configuration{}, err
	}
	return Configuration{
		Found: found, Missing: c.missing(found, names.Configuration), ConnectorURL: c.connectorURL, RuntimeID: c.runtimeID, Tenant: c.tenant,
		TokenFingerprint: c.fingerprint(), Annotations: c.annotations,
	}, nil
}

func (c Configuration) identity() identity { return identity{c.RuntimeID, c.Tenant} }

// Client is what the client Secret says.
type Client struct {
	// Found: there is something in the Secret. Left: the cluster left Compass, and nothing is in it but a note of that.
	Found, Left bool
	// Damaged says why it cannot be used; empty if it can.
	Damaged string
	// Credential is what is in use, of an undamaged Secret. Whether it is valid now is not looked at.
	Credential certs.Credential
	// RuntimeID and Tenant are for whom the certificate was issued; empty if that is not known.
	RuntimeID, Tenant string
	// DirectorURL and ConnectorURL are for the certificate; the CompassConnection has them too, and counts first.
	DirectorURL, ConnectorURL string

	applied string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (Client) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// ReadClient reads the client Secret, and writes nothing. The error holds no secret.
func ReadClient(ctx context.Context, reader client.Reader, names Names) (Client, error) {
	c, err := store{reader: reader, names: names}.client(ctx, nil)
	if err != nil {
		return Client{}, err
	}
	return Client{
		Found: c.data != nil, Left: c.left, Damaged: c.damaged, Credential: c.credential, RuntimeID: c.runtimeID, Tenant: c.tenant,
		DirectorURL: c.directorURL, ConnectorURL: c.connectorURL, applied: c.applied,
	}, nil
}

// Foreign says whether the certificate belongs to another runtime or tenant than a configuration names.
func (c Client) Foreign(configured Configuration) bool {
	return identity{c.RuntimeID, c.Tenant}.contradicts(configured.identity())
}

// ReadAccess reads it from the cluster, and writes nothing. The error says what is missing where, and holds no secret.
func ReadAccess(ctx context.Context, reader client.Reader, names Names, now time.Time) (Access, error) {
	config, err := ReadConfiguration(ctx, reader, names)
	if err != nil {
		return Access{}, err
	}
	if config.Missing != "" {
		return Access{}, errors.New(config.Missing)
	}
	own, err := ReadClient(ctx, reader, names)
	if err != nil {
		return Access{}, err
	}
	switch {
	case own.Damaged != "":
		return Access{}, fmt.Errorf("Secret %s cannot be used: %s", names.Client, own.Damaged)
	case !own.Found:
		return Access{}, fmt.Errorf("Secret %s is missing: the cluster is not paired with Compass", names.Client)
	case !own.Credential.ValidAt(now):
		return Access{}, fmt.Errorf("the client certificate in Secret %s is not valid now: it is from %s to %s", names.Client,
			formatTime(own.Credential.Leaf().NotBefore), formatTime(own.Credential.Leaf().NotAfter))
	case own.Foreign(config):
		return Access{}, fmt.Errorf("the client certificate in Secret %s belongs to another runtime or tenant than Secret %s names", names.Client, names.Configuration)
	}
	connection := &compassv1alpha1.CompassConnection{}
	if err := reader.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, connection); err != nil && !apierrors.IsNotFound(err) {
		return Access{}, fmt.Errorf("reading the CompassConnection: %w", err)
	}
	a := Access{
		Certificate: own.Credential.TLS(), DirectorURL: connection.Spec.ManagementInfo.DirectorURL, Tenant: config.Tenant, RuntimeID: config.RuntimeID,
		Missing: connection.Status.MissingApplications,
	}
	if next := connection.Status.NextAttempt; next != nil {
		a.NextAttempt = next.Time
	}
	if a.DirectorURL == "" {
		a.DirectorURL = own.DirectorURL
	}
	if a.DirectorURL == "" {
		return Access{}, fmt.Errorf("neither CompassConnection %s nor Secret %s says where Director is", compassv1alpha1.ConnectionName, names.Client)
	}
	answers, at := settlingOf(connection.Status), now
	if a.NextAttempt.After(at) {
		at = a.NextAttempt
	}
	if runtime := config.identity().String(); own.applied != runtime && !answers.settled(runtime, at) {
		a.Unsettled = fmt.Sprintf("the cluster is paired as runtime %s only now, and the agent deletes nothing before further answers", config.identity())
	}
	return a, nil
}
