package issuer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/cert-manager/issuer-lib/api/v1alpha1"
	"github.com/cert-manager/issuer-lib/controllers"
	"github.com/cert-manager/issuer-lib/controllers/signer"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
)

// FieldOwner owns what this package writes to requests, issuers and pairing Secrets.
const FieldOwner = "compass-issuer"

// MaxRetryDuration is for how long after its creation a request is tried again. After that it has failed, and cert-manager
// makes another one in its own time. It is as long as a one-time token lives, by Compass's default.
const MaxRetryDuration = time.Hour

// maxBackoff bounds the time between two tries of one request.
const maxBackoff = 5 * time.Minute

// Connector signs certificates. An empty token means that the client certificate proves who calls.
type Connector interface {
	Configuration(ctx context.Context, token secret.Value) (connector.Configuration, error)
	Sign(ctx context.Context, token secret.Value, csrPEM []byte) (connector.Issued, error)
}

// Compass gives clients of the Connector. Errors of the clients are of type *graphql.Error.
type Compass interface {
	// TokenConnector is the Connector at an endpoint that is secured by tokens.
	TokenConnector(endpoint string) Connector
	// ConnectorWith is the Connector at an endpoint, called with a certificate, and a function that ends its connections.
	ConnectorWith(certificate *tls.Certificate, endpoint string) (Connector, func())
}

// Issuer checks issuers and signs requests. Set it up with a manager whose scheme has the types of this project.
type Issuer struct {
	// Client writes; Reader reads Secrets from the API server, not from a cache: what a cache remembers of a one-time token
	// could be spent already.
	Client client.Client
	Reader client.Reader
	// Compass is called.
	Compass Compass
	// Namespace is where the Secrets of a CompassClusterIssuer are.
	Namespace string
	// Floor is the least time between two tries after one that failed.
	Floor time.Duration
	// MinValidity is the least time that an issued certificate must last.
	MinValidity time.Duration
	// MaxRetryDuration of requests; 0 means the constant of that name.
	MaxRetryDuration time.Duration
	// Clock is the time.
	Clock clock.PassiveClock

	quiet time.Time // until when Compass is not called; one worker signs
}

// SetupWithManager adds the controllers of issuers and of requests to mgr. An error says that a resource definition is
// missing, this project's or cert-manager's.
func (i *Issuer) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	retry := i.MaxRetryDuration
	if retry == 0 {
		retry = MaxRetryDuration
	}
	c := &controllers.CombinedController{
		IssuerTypes:        []v1alpha1.Issuer{&compassv1alpha1.CompassIssuer{}},
		ClusterIssuerTypes: []v1alpha1.Issuer{&compassv1alpha1.CompassClusterIssuer{}},
		FieldOwner:         FieldOwner,
		MaxRetryDuration:   retry,
		Check:              Check,
		Sign:               i.Sign,
		EventRecorder:      mgr.GetEventRecorder(FieldOwner),
		Clock:              i.Clock,
		// Clients of the system in use today have the authorities of the client certificate from Compass too.
		SetCAOnCertificateRequest:      true, //nolint:staticcheck // deprecated for new issuers
		DisableKubernetesCSRController: true,
		// Not by ControllerOptions: v0.11.0 does not give these to the controller of requests.
		PreSetupWithManager: func(_ context.Context, _ schema.GroupVersionKind, _ ctrl.Manager, b *builder.Builder) error {
			b.WithOptions(controller.Options{
				MaxConcurrentReconciles: 1, SkipNameValidation: ptr.To(true),
				RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](max(i.Floor, 100*time.Millisecond), maxBackoff),
			})
			return nil
		},
	}
	if err := c.SetupWithManager(ctx, mgr); err != nil {
		return fmt.Errorf("the issuer for cert-manager, whose resource definitions and this project's must be installed: %w", err)
	}
	return nil
}

// Check says whether the spec of an issuer can be used. It calls nobody: that the Connector can be reached now says nothing
// about when a certificate is due, and each call to Compass is one.
func Check(_ context.Context, object v1alpha1.Issuer) error {
	spec, err := specOf(object)
	if err == nil {
		err = validate(spec)
	}
	if err != nil {
		return signer.PermanentError{Err: err}
	}
	return nil
}

func validate(spec compassv1alpha1.CompassIssuerSpec) error {
	var errs []error
	for _, f := range []struct{ field, value string }{{"spec.clientSecretName", spec.ClientSecretName}, {"spec.pairingSecretName", spec.PairingSecretName}} {
		if f.value == "" && f.field == "spec.pairingSecretName" {
			continue
		}
		if problems := validation.IsDNS1123Subdomain(f.value); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("%s %q is no name of a Secret: %s", f.field, f.value, problems[0]))
		}
	}
	if spec.ConnectorURL != "" {
		if u, err := url.Parse(spec.ConnectorURL); err != nil || u.Scheme != "https" || u.Host == "" {
			errs = append(errs, errors.New("spec.connectorURL is no https URL"))
		}
	}
	return errors.Join(errs...)
}

func specOf(object v1alpha1.Issuer) (compassv1alpha1.CompassIssuerSpec, error) {
	switch o := object.(type) {
	case *compassv1alpha1.CompassIssuer:
		return o.Spec, nil
	case *compassv1alpha1.CompassClusterIssuer:
		return o.Spec, nil
	}
	return compassv1alpha1.CompassIssuerSpec{}, fmt.Errorf("%T is no issuer of this group", object)
}
