// Package enrolment has the steps by which a cluster is taken into Compass: it is registered as a runtime, and is given a
// one-time token that its agent pairs with. Each step looks first at what is there, so that it can be done again after any
// failure. It owns what is written into the cluster and asked of the Director; when which step is taken is up to others: a
// command for one cluster, a controller for many. It never sees a cluster's private key.
package enrolment

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

const (
	// Label is the label of a runtime in Director with the UID of the cluster's namespace kube-system: by it a cluster is
	// found again, whatever its name.
	Label = "application_connector_cluster"
	// FieldOwner owns what is written into the configuration Secret.
	FieldOwner = "application-connector-onboard"
	// AnnotationExpires, on the configuration Secret, is when the token in it ends, by RFC 3339.
	AnnotationExpires = "application-connector.kyma-project.io/token-expires"
	// AnnotationReplaces, on the configuration Secret, is the identity of the client certificate that the cluster had when the
	// token was given; absent if it had none. Once it has another one it is paired by the token.
	AnnotationReplaces = "application-connector.kyma-project.io/replaces-identity"
)

// Keys of the configuration Secret.
const (
	keyConnectorURL = "CONNECTOR_URL"
	keyRuntimeID    = "RUNTIME_ID"
	keyTenant       = "TENANT"
	keyToken        = "TOKEN"
)

// Director is what the steps ask of Compass, for one tenant. Errors are those of package director.
type Director interface {
	RuntimesWithLabel(ctx context.Context, key, value string) ([]director.RegisteredRuntime, error)
	RegisterRuntime(ctx context.Context, name, description string, labels map[string]string) (string, error)
	UnregisterRuntime(ctx context.Context, id string) error
	RuntimeAuths(ctx context.Context, id string) ([]string, error)
	RuntimeLabels(ctx context.Context, id string) (map[string]any, error)
	DeleteRuntimeAuth(ctx context.Context, id string) error
	RequestOneTimeTokenForRuntime(ctx context.Context, id string) (director.OneTimeToken, error)
}

// Cluster is one that is taken into Compass. It is safe for concurrent use; its steps are not meant to be taken at the same time.
type Cluster struct {
	Kube     client.Client
	Director Director
	// Configuration names the Secret that the agent is configured by, Certificate the one with its client certificate.
	Configuration, Certificate types.NamespacedName
	// Tenant is that of the Director, by its id outside of Compass.
	Tenant string
}

// StepError is a step that failed, of any cause: what a cluster answered, or a *graphql.Error.
type StepError struct {
	// Step says what was being done.
	Step string
	Err  error
}

// Error implements error. It has Compass's own words, if there are any.
func (e *StepError) Error() string {
	if g, ok := errors.AsType[*graphql.Error](e.Err); ok && g.Detail() != "" {
		return fmt.Sprintf("%s: %v: %s", e.Step, e.Err, g.Detail())
	}
	return fmt.Sprintf("%s: %v", e.Step, e.Err)
}

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.Err }

// failed makes a StepError, but of nil.
func failed(err error, step string, args ...any) error {
	if err == nil {
		return nil
	}
	return &StepError{Step: fmt.Sprintf(step, args...), Err: err}
}

// clusterUID is what API servers give; Director takes it as the text of a label.
var clusterUID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// UID is what tells this cluster from all others for as long as it lives.
func (c *Cluster) UID(ctx context.Context) (string, error) {
	var namespace corev1.Namespace
	if err := c.Kube.Get(ctx, types.NamespacedName{Name: metav1.NamespaceSystem}, &namespace); err != nil {
		return "", failed(err, "reading namespace %s of the cluster", metav1.NamespaceSystem)
	}
	if !clusterUID.MatchString(string(namespace.UID)) {
		return "", failed(errors.New("its metadata.uid is none"), "reading namespace %s of the cluster", metav1.NamespaceSystem)
	}
	return string(namespace.UID), nil
}

// Connection is the CompassConnection; nil if there is none, or none is known to the cluster.
func (c *Cluster) Connection(ctx context.Context) (*compassv1alpha1.CompassConnection, error) {
	found := &compassv1alpha1.CompassConnection{}
	err := c.Kube.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, found)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(err, "reading the CompassConnection")
	}
	return found, nil
}

// ConfigurationSecret is the Secret that the agent is configured by; nil if there is none.
func (c *Cluster) ConfigurationSecret(ctx context.Context) (*corev1.Secret, error) {
	return c.secret(ctx, c.Configuration)
}

func (c *Cluster) secret(ctx context.Context, name types.NamespacedName) (*corev1.Secret, error) {
	found := &corev1.Secret{}
	err := c.Kube.Get(ctx, name, found)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(err, "reading Secret %s", name)
	}
	return found, nil
}

// Find gives the runtime of the cluster with this UID; nil if it is not registered.
func (c *Cluster) Find(ctx context.Context, uid string) (*director.RegisteredRuntime, error) {
	found, err := c.Director.RuntimesWithLabel(ctx, Label, uid)
	switch {
	case err != nil:
		return nil, failed(err, "looking for the runtime of this cluster")
	case len(found) == 0:
		return nil, nil
	case len(found) > 1:
		var ids []string
		for _, r := range found {
			ids = append(ids, r.ID)
		}
		return nil, fmt.Errorf("the tenant has several runtimes of this cluster: unregister all of %s but one", strings.Join(ids, ", "))
	}
	return &found[0], nil
}

// Exists reports whether the tenant has a runtime with this id, as a configuration Secret names it. What is no id is none.
func (c *Cluster) Exists(ctx context.Context, id string) (bool, error) {
	if uuid.Validate(id) != nil {
		return false, nil //nolint:nilerr // see above
	}
	_, err := c.Director.RuntimeLabels(ctx, id)
	if errors.Is(err, director.ErrUnknownRuntime) || graphql.IsNotFound(err) {
		return false, nil
	}
	return err == nil, failed(err, "looking for runtime %s", id)
}

// Register makes a runtime of the cluster with this UID, and gives its id. Find has to have found none. The labels are what it
// gets besides Label.
func (c *Cluster) Register(ctx context.Context, uid, name, description string, labels map[string]string) (string, error) {
	all := map[string]string{}
	for key, value := range labels {
		all[key] = value
	}
	all[Label] = uid
	id, err := c.Director.RegisterRuntime(ctx, name, description, all)
	return id, failed(err, "registering runtime %s", name)
}

// Unregister removes a runtime, so that its certificate stops working. It may be gone already.
func (c *Cluster) Unregister(ctx context.Context, id string) error {
	err := c.Director.UnregisterRuntime(ctx, id)
	if graphql.IsNotFound(err) {
		return nil
	}
	return failed(err, "unregistering runtime %s", id)
}

// DeleteConfiguration deletes the Secret that the agent is configured by. It may be gone already.
func (c *Cluster) DeleteConfiguration(ctx context.Context) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.Configuration.Namespace, Name: c.Configuration.Name}}
	return failed(client.IgnoreNotFound(c.Kube.Delete(ctx, secret)), "deleting Secret %s", c.Configuration)
}

// Identities are those of a runtime in Director.
type Identities struct {
	// Current is the id of the one by which the cluster has its client certificate; empty if there is none.
	Current string
	// Others are the ids of those that earlier tokens left.
	Others []string
	// Certificate is the common name of the client certificate that the cluster has, whoever's it is; empty if it has none.
	Certificate string
}

// Identities reads those of a runtime.
func (c *Cluster) Identities(ctx context.Context, id string) (Identities, error) {
	certificate, err := c.secret(ctx, c.Certificate)
	if err != nil {
		return Identities{}, err
	}
	all, err := c.Director.RuntimeAuths(ctx, id)
	if err != nil {
		return Identities{}, failed(err, "reading the identities of runtime %s", id)
	}
	name := commonName(certificate)
	found := Identities{Certificate: name}
	for _, each := range all {
		if each == name {
			found.Current = each
		} else {
			found.Others = append(found.Others, each)
		}
	}
	return found, nil
}

// commonName is that of the client certificate, which is the id of its identity in Director; empty if there is none that
// can be read.
func commonName(secret *corev1.Secret) string {
	if secret == nil {
		return ""
	}
	block, _ := pem.Decode(secret.Data["crt"])
	if block == nil {
		return ""
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return certificate.Subject.CommonName
}
