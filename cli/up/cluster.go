package up

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/manifests"
	"github.com/application-connector/application-connector/simulator/authority"
)

// fieldOwner of what appconn up applies to the cluster.
const fieldOwner = client.FieldOwner("appconn")

// Where the parts expect their Secrets.
const (
	systemNamespace = "kyma-system"
	istioNamespace  = "istio-system"

	configurationSecret = "compass-agent-configuration"
	serverSecret        = "kyma-gateway-certs"
)

func newClient(cfg *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), appv1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme))
	if err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: scheme})
}

// installDefinitions applies the resource definitions and waits until the server serves them.
func installDefinitions(ctx context.Context, c client.Client) error {
	files, err := fs.Glob(manifests.CRDs, "crds/*.yaml")
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := manifests.CRDs.ReadFile(file)
		if err != nil {
			return err
		}
		if err := apply(ctx, c, text, client.ForceOwnership); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(text, crd); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := until(ctx, func() error { return established(ctx, c, crd.Name) }); err != nil {
			return err
		}
	}
	return nil
}

func established(ctx context.Context, c client.Client, name string) error {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := c.Get(ctx, client.ObjectKey{Name: name}, crd); err != nil {
		return err
	}
	for _, condition := range crd.Status.Conditions {
		if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("%s is not served yet", name)
}

// apply applies each document of a YAML text, as kubectl apply --server-side does: fields that somebody else owns are a
// conflict unless options say otherwise.
func apply(ctx context.Context, c client.Client, text []byte, options ...client.ApplyOption) error {
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), append(options, fieldOwner)...); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

func createNamespaces(ctx context.Context, c client.Client) error {
	for _, name := range []string{systemNamespace, istioNamespace} {
		ns := &corev1.Namespace{}
		ns.Name = name
		if err := c.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// managedByLabel marks Secrets that appconn up wrote; others are never overwritten.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	managedByUs    = "appconn"
)

// writeSecret creates a Secret, or replaces the data of the one that an earlier run created. In a cluster that is in use
// the same names hold the key of its ingress and its pairing with Compass: those are left alone, and it is an error.
func writeSecret(ctx context.Context, c client.Client, namespace, name string, kind corev1.SecretType, data map[string][]byte) error {
	s := &corev1.Secret{}
	s.Namespace, s.Name = namespace, name
	err := c.Get(ctx, client.ObjectKeyFromObject(s), s)
	switch {
	case apierrors.IsNotFound(err):
		s.Type, s.Data, s.Labels = kind, data, map[string]string{managedByLabel: managedByUs}
		return c.Create(ctx, s)
	case err != nil:
		return err
	case s.Labels[managedByLabel] != managedByUs:
		return fmt.Errorf("Secret %s/%s was not written by appconn up and is left alone: use a cluster that is not connected yet", namespace, name)
	}
	s.Data = data
	return c.Update(ctx, s)
}

// serverCertificate writes the edge's certificate, of an authority of its own, as a Secret of type kubernetes.io/tls,
// and that authority to a file, for clients.
func (w *world) serverCertificate(ctx context.Context) error {
	ca, err := authority.Open(w.path("edge"), "edge-ca", nil)
	if err != nil {
		return err
	}
	cert, key, err := ca.Issue(authority.Request{Subject: pkix.Name{CommonName: "localhost"}, Hosts: []string{"localhost", host}, Server: true})
	if err != nil {
		return err
	}
	data := map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}
	if err := writeSecret(ctx, w.cluster, istioNamespace, serverSecret, corev1.SecretTypeTLS, data); err != nil {
		return err
	}
	return writeFile(w.path("edge-ca.crt"), ca.CA())
}

// writeFile writes a file that only its owner may read, whole or not at all.
func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// until calls check until it returns nil, or ctx ends: then it returns what check said last.
func until(ctx context.Context, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		var final finalError
		if errors.As(err, &final) {
			return final.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// finalError ends waiting: what was waited for will not come.
type finalError struct{ error }
