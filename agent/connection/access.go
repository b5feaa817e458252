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
	"github.com/application-connector/application-connector/secret"
)

// Access is what a program besides the agent needs to ask Director as this cluster.
type Access struct {
	// Certificate is the client certificate with its key.
	Certificate *tls.Certificate
	// DirectorURL, Tenant (may be empty) and RuntimeID say what to ask, and where.
	DirectorURL, Tenant, RuntimeID string
	// Unsettled says why the agent would delete no Application by what Director answers now; empty if it would.
	Unsettled string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (Access) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// ReadAccess reads it from the cluster, and writes nothing. The error says what is missing where, and holds no secret.
func ReadAccess(ctx context.Context, reader client.Reader, names Names, now time.Time) (Access, error) {
	s := store{reader: reader, names: names}
	config, configured, err := s.configuration(ctx)
	if err != nil {
		return Access{}, err
	}
	if missing := config.missing(configured, names.Configuration); missing != "" {
		return Access{}, errors.New(missing)
	}
	own, err := s.client(ctx)
	if err != nil {
		return Access{}, err
	}
	switch {
	case own.damaged != "":
		return Access{}, fmt.Errorf("Secret %s cannot be used: %s", names.Client, own.damaged)
	case own.data == nil:
		return Access{}, fmt.Errorf("Secret %s is missing: the cluster is not paired with Compass", names.Client)
	case !own.credential.ValidAt(now):
		return Access{}, fmt.Errorf("the client certificate in Secret %s is not valid now: it is from %s to %s", names.Client,
			formatTime(own.credential.Leaf().NotBefore), formatTime(own.credential.Leaf().NotAfter))
	case own.contradicts(config.identity()):
		return Access{}, fmt.Errorf("the client certificate in Secret %s belongs to another runtime or tenant than Secret %s names", names.Client, names.Configuration)
	}
	connection := &compassv1alpha1.CompassConnection{}
	if err := reader.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, connection); err != nil && !apierrors.IsNotFound(err) {
		return Access{}, fmt.Errorf("reading the CompassConnection: %w", err)
	}
	a := Access{Certificate: own.credential.TLS(), DirectorURL: connection.Spec.ManagementInfo.DirectorURL, Tenant: config.tenant, RuntimeID: config.runtimeID}
	if a.DirectorURL == "" {
		a.DirectorURL = own.directorURL
	}
	if a.DirectorURL == "" {
		return Access{}, fmt.Errorf("neither CompassConnection %s nor Secret %s says where Director is", compassv1alpha1.ConnectionName, names.Client)
	}
	if own.applied != config.identity().String() {
		a.Unsettled = fmt.Sprintf("the cluster is paired as runtime %s only now, and the agent deletes nothing before further answers", config.identity())
	}
	return a, nil
}
