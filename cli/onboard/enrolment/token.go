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

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

// Connected reports whether the agent is connected by what the configuration Secret holds. What an earlier runtime left in
// the status does not count.
func Connected(c *compassv1alpha1.CompassConnection, configuration *corev1.Secret) bool {
	if c == nil || configuration == nil || !meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return false
	}
	return len(configuration.Data[keyToken]) == 0 || Tried(c, configuration)
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
	return token.ExpiresAt, c.write(ctx, id, token)
}

func (c *Cluster) write(ctx context.Context, id string, token director.OneTimeToken) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.Configuration.Namespace}}
	if err := c.Kube.Get(ctx, types.NamespacedName{Name: namespace.Name}, namespace); apierrors.IsNotFound(err) {
		err = c.Kube.Create(ctx, namespace)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return failed(err, "creating namespace %s", namespace.Name)
		}
	} else if err != nil {
		return failed(err, "reading namespace %s", namespace.Name)
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeOpaque),
		"metadata": map[string]any{
			"namespace": c.Configuration.Namespace, "name": c.Configuration.Name,
			"annotations": map[string]any{AnnotationExpires: token.ExpiresAt.UTC().Format(time.RFC3339)},
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
