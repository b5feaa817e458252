package agent

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/sync"
	"github.com/application-connector/application-connector/agent/sync/plan"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

// Preview computes what the next sync of an agent with these options would do. It asks Director itself, with the client
// certificate of the cluster, and writes nothing, neither there nor in the cluster. Of o, Kubernetes must be set. By how many
// answers Applications were missed before is taken from the status, as an agent that starts does.
func Preview(ctx context.Context, o Options) (plan.Plan, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return plan.Plan{}, err
		}
	}
	reader, err := client.New(o.Kubernetes, client.Options{Scheme: scheme})
	if err != nil {
		return plan.Plan{}, fmt.Errorf("the Kubernetes cluster at %s: %w", o.Kubernetes.Host, err)
	}
	now := time.Now()
	names := connection.Names{Configuration: o.ConfigurationSecret, Client: o.ClientSecret, CA: o.CASecret}
	access, err := connection.ReadAccess(ctx, reader, names, now)
	if err != nil {
		return plan.Plan{}, err
	}
	options := graphql.Options{InsecureSkipVerify: o.SkipCompassTLSVerify, UserAgent: "appconn"}
	if o.CompassCAFile != "" {
		if options.RootCAs, err = graphql.RootsFromFile(o.CompassCAFile); err != nil {
			return plan.Plan{}, fmt.Errorf("environment variable APP_COMPASS_CA_FILE: %w", err)
		}
	}
	transport := graphql.NewTransport(options)
	defer transport.CloseIdleConnections()
	transport.SetCertificate(access.Certificate)
	snapshot, err := director.New(transport, access.DirectorURL, access.Tenant).Snapshot(ctx, access.RuntimeID)
	if err != nil {
		return plan.Plan{}, fmt.Errorf("Director gave no snapshot: %w", err)
	}
	if access.Unsettled != "" && snapshot.Complete {
		snapshot.Complete, snapshot.Incomplete = false, access.Unsettled
	}
	syncer := &sync.Syncer{Reader: reader, Namespace: o.IntegrationNamespace, GatewayURL: o.GatewayURL, SkipVerify: o.SkipAppsTLSVerify, Guard: o.Guard, Clock: moment{now}}
	if access.NextAttempt.After(now) {
		syncer.Clock = moment{access.NextAttempt}
	}
	syncer.Recall(access.Missing)
	return syncer.Plan(ctx, snapshot)
}

// moment is a clock that stands: it is when the next sync will be.
type moment struct{ at time.Time }

// Now implements clock.PassiveClock.
func (m moment) Now() time.Time { return m.at }

// Since implements clock.PassiveClock.
func (m moment) Since(t time.Time) time.Duration { return m.at.Sub(t) }
