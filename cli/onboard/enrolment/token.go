package enrolment

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

// Standing is how far an agent is with what the configuration Secret holds.
type Standing struct {
	// Paired: the cluster has a client certificate by it, and the agent does not ask for a token. Connected: and its last call to
	// Compass succeeded.
	Paired, Connected bool
}

// Standing reads it off what the agent says. What an earlier runtime left in the status does not count. An agent that is not of
// this project says no more than a state, and not by which token it got there: with it the cluster is paired if its certificate is
// another one than when the token was given, or if the Secret is another's, who did not say.
func (c *Cluster) Standing(ctx context.Context, connection *compassv1alpha1.CompassConnection, configuration *corev1.Secret) (Standing, error) {
	if connection == nil || configuration == nil {
		return Standing{}, nil
	}
	conditions := connection.Status.Conditions
	if len(conditions) == 0 && connection.Status.TokenFingerprint == "" {
		return c.foreign(ctx, connection.Status.State, configuration)
	}
	if len(configuration.Data[keyToken]) > 0 && !Tried(connection, configuration) {
		return Standing{}, nil
	}
	connected := meta.FindStatusCondition(conditions, compassv1alpha1.ConditionConnected)
	if connected == nil {
		return Standing{}, nil
	}
	if connected.Status == metav1.ConditionTrue {
		return Standing{Paired: true, Connected: true}, nil
	}
	stalled := meta.FindStatusCondition(conditions, compassv1alpha1.ConditionStalled)
	needs := stalled != nil && stalled.Status == metav1.ConditionTrue && stalled.Reason == status.ReasonTokenNeeded
	return Standing{Paired: !needs && connected.Reason == status.ReasonCallFailed}, nil
}

// foreign is the standing of an agent that is not of this project.
func (c *Cluster) foreign(ctx context.Context, state compassv1alpha1.ConnectionState, configuration *corev1.Secret) (Standing, error) {
	if state == "" || state == compassv1alpha1.ConnectionFailed {
		return Standing{}, nil
	}
	certificate, err := c.secret(ctx, c.Certificate)
	if err != nil {
		return Standing{}, err
	}
	name := commonName(certificate)
	if name == "" || name == configuration.Annotations[AnnotationReplaces] {
		return Standing{}, nil
	}
	return Standing{Paired: true, Connected: state != compassv1alpha1.ConnectionMaintenanceFailed}, nil
}

// Tried reports whether the agent has tried the token of the configuration Secret, however that ended.
func Tried(c *compassv1alpha1.CompassConnection, configuration *corev1.Secret) bool {
	if c == nil || configuration == nil || len(configuration.Data[keyToken]) == 0 {
		return false
	}
	sum := sha256.Sum256(configuration.Data[keyToken])
	return c.Status.TokenFingerprint == hex.EncodeToString(sum[:])
}

// Expires is when the token of the configuration Secret ends; zero if there is none, or if it is not known.
func Expires(configuration *corev1.Secret) time.Time {
	if configuration == nil || len(configuration.Data[keyToken]) == 0 {
		return time.Time{}
	}
	expires, err := time.Parse(time.RFC3339, configuration.Annotations[AnnotationExpires])
	if err != nil {
		return time.Time{}
	}
	return expires
}

// Tenant is the tenant that the configuration Secret names; empty if there is none.
func Tenant(configuration *corev1.Secret) string {
	if configuration == nil {
		return ""
	}
	return string(configuration.Data[keyTenant])
}

// RuntimeID is the id of the runtime that the configuration Secret names; empty if there is none.
func RuntimeID(configuration *corev1.Secret) string {
	if configuration == nil {
		return ""
	}
	return string(configuration.Data[keyRuntimeID])
}

// GiveToken asks for a token and writes it into the cluster. It gives the time when the token ends. Every token that is asked
// for leaves an identity in Director, so those of earlier tokens are deleted first: all but the one of the certificate that
// the cluster has.
func (c *Cluster) GiveToken(ctx context.Context, id string, identities Identities) (time.Time, error) {
	for _, each := range identities.Others {
		if err := c.Director.DeleteRuntimeAuth(ctx, each); err != nil && !graphql.IsNotFound(err) {
			return time.Time{}, failed(err, "deleting the identity of an earlier token")
		}
	}
	token, err := c.Director.RequestOneTimeTokenForRuntime(ctx, id)
	if err != nil {
		return time.Time{}, failed(err, "requesting a one-time token")
	}
	if u, err := url.Parse(token.ConnectorURL); err != nil || u.Scheme != "https" || u.Host == "" {
		return time.Time{}, errors.New("Director names a Connector that has no https URL: the token is not given to the cluster")
	}
	return token.ExpiresAt, c.write(ctx, id, token, identities.Certificate)
}

func (c *Cluster) write(ctx context.Context, id string, token director.OneTimeToken, replaces string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.Configuration.Namespace}}
	if err := c.Kube.Get(ctx, types.NamespacedName{Name: namespace.Name}, namespace); apierrors.IsNotFound(err) {
		err = c.Kube.Create(ctx, namespace)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return failed(err, "creating namespace %s", namespace.Name)
		}
	} else if err != nil {
		return failed(err, "reading namespace %s", namespace.Name)
	}
	annotations := map[string]any{AnnotationExpires: token.ExpiresAt.UTC().Format(time.RFC3339)}
	if replaces != "" {
		annotations[AnnotationReplaces] = replaces
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeOpaque),
		"metadata": map[string]any{
			"namespace": c.Configuration.Namespace, "name": c.Configuration.Name,
			"annotations": annotations,
		},
		"data": map[string]any{
			keyConnectorURL: encoded(token.ConnectorURL), keyRuntimeID: encoded(id), keyTenant: encoded(c.Tenant), keyToken: encoded(token.Token.Reveal()),
		},
	}}
	err := c.Kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(FieldOwner), client.ForceOwnership)
	return failed(err, "writing Secret %s", c.Configuration)
}

// encoded is how a Secret's data stands in JSON.
func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
