package onboard

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
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

// Keys of the configuration Secret.
const (
	keyConnectorURL = "CONNECTOR_URL"
	keyRuntimeID    = "RUNTIME_ID"
	keyTenant       = "TENANT"
	keyToken        = "TOKEN"
)

// Onboard registers the cluster, gives it a token, and waits until the agent has connected it.
func (o *Options) Onboard(ctx context.Context) error {
	s, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	id, err := s.register(ctx)
	if err != nil {
		return err
	}
	connection, err := s.connection(ctx)
	if err != nil {
		return err
	}
	secret, err := s.secret(ctx, s.configuration)
	if err != nil {
		return err
	}
	same := secret != nil && id != "" && string(secret.Data[keyRuntimeID]) == id
	switch {
	case same && connected(connection, secret):
		s.say("the cluster is connected: nothing to do")
		return nil
	case same && s.unspent(secret, connection):
		s.say("Secret %s has a token that was not used yet, good until %s", s.configuration, secret.Annotations[AnnotationExpires])
	default:
		if err := s.giveToken(ctx, id); err != nil {
			return err
		}
	}
	if s.DryRun || s.Timeout == 0 {
		return nil
	}
	return s.wait(ctx)
}

// Offboard removes the runtime and the configuration Secret.
func (o *Options) Offboard(ctx context.Context) error {
	s, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	found, err := s.find(ctx)
	if err != nil {
		return err
	}
	switch {
	case found == nil:
		s.say("this cluster is not registered")
	case s.would("unregister runtime %s (%s)", found.Name, found.ID):
	default:
		if err := s.director.UnregisterRuntime(ctx, found.ID); err != nil {
			return explain("unregistering runtime "+found.ID, err)
		}
		s.say("runtime %s (%s) unregistered", found.Name, found.ID)
	}
	if s.would("delete Secret %s", s.configuration) {
		return nil
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.configuration.Namespace, Name: s.configuration.Name}}
	if err := s.kube.Delete(ctx, secret); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting Secret %s: %w", s.configuration, err)
	}
	s.say("Secret %s is deleted", s.configuration)
	return nil
}

// clusterUID is what tells this cluster from all others for as long as it lives.
func (s *session) clusterUID(ctx context.Context) (string, error) {
	var namespace corev1.Namespace
	if err := s.kube.Get(ctx, types.NamespacedName{Name: metav1.NamespaceSystem}, &namespace); err != nil {
		return "", fmt.Errorf("reading namespace %s of the cluster: %w", metav1.NamespaceSystem, err)
	}
	return string(namespace.UID), nil
}

// connection is the CompassConnection; nil if there is none, or none is known to the cluster.
func (s *session) connection(ctx context.Context) (*compassv1alpha1.CompassConnection, error) {
	c := &compassv1alpha1.CompassConnection{}
	err := s.kube.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, c)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the CompassConnection: %w", err)
	}
	return c, nil
}

func (s *session) secret(ctx context.Context, name types.NamespacedName) (*corev1.Secret, error) {
	found := &corev1.Secret{}
	err := s.kube.Get(ctx, name, found)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return found, nil
}

// connected reports whether the agent is connected by what the configuration Secret holds. What an earlier runtime left in
// the status does not count.
func connected(c *compassv1alpha1.CompassConnection, configuration *corev1.Secret) bool {
	if c == nil || configuration == nil || !meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return false
	}
	token := configuration.Data[keyToken]
	return len(token) == 0 || c.Status.TokenFingerprint == fingerprint(token)
}

// fingerprint is how the agent's status names a token that it tried.
func fingerprint(token []byte) string {
	sum := sha256.Sum256(token)
	return hex.EncodeToString(sum[:])
}

// unspent reports whether the Secret's token is good for a while yet, and the agent has not tried it.
func (s *session) unspent(secret *corev1.Secret, c *compassv1alpha1.CompassConnection) bool {
	token := secret.Data[keyToken]
	expires, err := time.Parse(time.RFC3339, secret.Annotations[AnnotationExpires])
	if len(token) == 0 || err != nil || expires.Sub(s.Clock.Now()) < spare {
		return false
	}
	return c == nil || c.Status.TokenFingerprint != fingerprint(token)
}

// giveToken asks for a token and writes it into the cluster. Every token that is asked for leaves an identity in Director,
// so those of earlier tokens are deleted first: all but the one of the certificate that the cluster has.
func (s *session) giveToken(ctx context.Context, id string) error {
	if s.would("request a one-time token and write it into Secret %s", s.configuration) {
		return nil
	}
	certificate, err := s.secret(ctx, s.certificate)
	if err != nil {
		return err
	}
	auths, err := s.director.RuntimeAuths(ctx, id)
	if err != nil {
		return explain("reading the identities of runtime "+id, err)
	}
	current := commonName(certificate)
	for _, auth := range auths {
		if auth == current {
			continue
		}
		if err := s.director.DeleteRuntimeAuth(ctx, auth); err != nil && !graphql.IsNotFound(err) {
			return explain("deleting the identity of an earlier token", err)
		}
	}
	token, err := s.director.RequestOneTimeTokenForRuntime(ctx, id)
	if err != nil {
		return explain("requesting a one-time token", err)
	}
	if u, err := url.Parse(token.ConnectorURL); err != nil || u.Scheme != "https" || u.Host == "" {
		return errors.New("Director names a Connector that has no https URL: the token is not given to the cluster")
	}
	if err := s.write(ctx, id, token); err != nil {
		return err
	}
	s.say("Secret %s written, with a token that is good until %s", s.configuration, token.ExpiresAt.UTC().Format(time.RFC3339))
	return nil
}

func (s *session) write(ctx context.Context, id string, token director.OneTimeToken) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.configuration.Namespace}}
	if err := s.kube.Get(ctx, types.NamespacedName{Name: namespace.Name}, namespace); apierrors.IsNotFound(err) {
		err = s.kube.Create(ctx, namespace)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating namespace %s: %w", namespace.Name, err)
		}
	} else if err != nil {
		return fmt.Errorf("reading namespace %s: %w", namespace.Name, err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeOpaque),
		"metadata": map[string]any{
			"namespace": s.configuration.Namespace, "name": s.configuration.Name,
			"annotations": map[string]any{AnnotationExpires: token.ExpiresAt.UTC().Format(time.RFC3339)},
		},
		"data": map[string]any{
			keyConnectorURL: encoded(token.ConnectorURL), keyRuntimeID: encoded(id), keyTenant: encoded(s.Tenant), keyToken: encoded(token.Token.Reveal()),
		},
	}}
	err := s.kube.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(FieldOwner), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", s.configuration, err)
	}
	return nil
}

// encoded is how a Secret's data stands in JSON.
func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

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

// wait waits until the agent has connected the cluster, and says meanwhile what keeps it.
func (s *session) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	last := ""
	for {
		c, err := s.connection(ctx)
		var configuration *corev1.Secret
		if err == nil {
			configuration, err = s.secret(ctx, s.configuration)
		}
		if err == nil && connected(c, configuration) {
			s.say("the cluster is connected")
			return nil
		}
		state := "the agent has not begun; it may not be installed"
		switch {
		case err != nil: // the cluster may answer again
			state = err.Error()
		case c != nil:
			state = string(c.Status.State)
			for _, kind := range []string{compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionConnected, compassv1alpha1.ConditionReady} {
				if found := meta.FindStatusCondition(c.Status.Conditions, kind); found != nil && found.Message != "" {
					state = found.Message
					break
				}
			}
		}
		if ctx.Err() == nil && state != last {
			s.say("waiting: %s", state)
			last = state
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not connected after %s: %s; run this again to go on", s.Timeout, state)
		case <-s.Clock.After(time.Second):
		}
	}
}
