package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// meshTimeout bounds the one look at the mesh's settings.
const meshTimeout = 30 * time.Second

// checkMesh looks once, when the API server is known to answer, whether the mesh's settings let clients speak for
// themselves, and says so in the log. It decides nothing: a gateway may be set up otherwise than the mesh, and each request
// is judged by its own header.
func checkMesh(ctx context.Context, config *rest.Config, name types.NamespacedName, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, meshTimeout)
	defer cancel()
	details, err := forwardClientCertDetails(ctx, config, name)
	log = log.With("configMap", name.String())
	switch {
	case apierrors.IsNotFound(err):
		log.Info("no settings of the mesh to check")
	case err != nil:
		log.Info("the settings of the mesh can't be checked; make sure that forwardClientCertDetails of the ingress gateway is SANITIZE_SET", "error", err.Error())
	case details == "" || details == "UNDEFINED" || details == "SANITIZE_SET":
		log.Info("the mesh replaces what clients claim about themselves", "forwardClientCertDetails", details)
	case details == "SANITIZE":
		log.Warn("the mesh removes X-Forwarded-Client-Cert and does not tell the client's certificate: every event will be refused; set forwardClientCertDetails to SANITIZE_SET",
			"forwardClientCertDetails", details)
	default:
		log.Warn("the mesh forwards X-Forwarded-Client-Cert of clients, which it should replace: such requests are refused; set forwardClientCertDetails to SANITIZE_SET",
			"forwardClientCertDetails", details)
	}
}

// forwardClientCertDetails reads Istio's setting for gateways from the ConfigMap that holds its MeshConfig; empty if it is
// not set.
func forwardClientCertDetails(ctx context.Context, config *rest.Config, name types.NamespacedName) (string, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return "", err
	}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	kube, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return "", err
	}
	object := &corev1.ConfigMap{}
	if err := kube.Get(ctx, name, object); err != nil {
		return "", err
	}
	var mesh struct {
		DefaultConfig struct {
			GatewayTopology struct {
				ForwardClientCertDetails string `json:"forwardClientCertDetails"`
			} `json:"gatewayTopology"`
		} `json:"defaultConfig"`
	}
	if err := yaml.Unmarshal([]byte(object.Data["mesh"]), &mesh); err != nil {
		return "", fmt.Errorf("key mesh must be Istio's MeshConfig in YAML: %w", err)
	}
	return mesh.DefaultConfig.GatewayTopology.ForwardClientCertDetails, nil
}
