package istio

import (
	"testing"
	"time"

	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/model"
	v3 "istio.io/istio/pilot/pkg/xds/v3"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pilot/test/xdstest"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/constants"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/resource"
	"istio.io/istio/pkg/spiffe"
	"istio.io/istio/pkg/util/sets"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	gatewayapi "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// control is Istio's control plane, without a cluster.
type control struct {
	*xds.FakeDiscoveryServer
	t *testing.T
}

// started is Istio's control plane that finds all this in its cluster.
func started(t *testing.T, all []object) control {
	t.Helper()
	var configuration []config.Config
	var kube []runtime.Object
	for _, o := range all {
		var into runtime.Object
		switch kind := o.GetKind(); {
		case o.GroupVersionKind().Group == gatewayapi.GroupName:
			switch kind {
			case "GatewayClass":
				into = &gatewayapi.GatewayClass{}
			case "Gateway":
				into = &gatewayapi.Gateway{}
			case "HTTPRoute":
				into = &gatewayapi.HTTPRoute{}
			default:
				t.Fatalf("%s is not given to Istio here", o)
			}
		case o.ofIstio():
			configuration = append(configuration, o.configuration(t))
			continue
		case kind == "Service":
			into = &corev1.Service{}
		case kind == "Secret":
			into = &corev1.Secret{}
		case kind == "Pod":
			into = &corev1.Pod{}
		case kind == "Namespace":
			into = &corev1.Namespace{}
		case kind == "EndpointSlice":
			into = &discoveryv1.EndpointSlice{}
		default:
			continue
		}
		o.into(t, into)
		kube = append(kube, into)
	}
	options := xds.FakeOptions{Configs: configuration, KubernetesObjects: kube, DisableSecretAuthorization: true}
	return control{xds.NewFakeDiscoveryServer(t, options), t}
}

// configuration is what Istio's control plane reads from the API server, where short names are of the domain cluster.local.
func (o object) configuration(t *testing.T) config.Config {
	t.Helper()
	schema, ok := collections.Pilot.FindByGroupVersionAliasesKind(resource.FromKubernetesGVK(ptr.To(o.GroupVersionKind())))
	if !ok {
		t.Fatalf("Istio does not know %s", o)
	}
	var kind crd.IstioKind
	o.into(t, &kind)
	c, err := crd.ConvertObject(schema, &kind, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	return *c
}

// ingress is the proxy that is the edge.
func (c control) ingress() *model.Proxy {
	return c.proxy(model.Router, ingress)
}

// sidecar is the proxy beside the validator.
func (c control) sidecar(all []object) *model.Proxy {
	for _, o := range all {
		if o.GetKind() == "Pod" && o.GetName() == validator+"-1" {
			var p corev1.Pod
			o.into(c.t, &p)
			return c.proxy(model.SidecarProxy, p)
		}
	}
	c.t.Fatal("the validator has no Pod")
	return nil
}

func (c control) proxy(kind model.NodeType, p corev1.Pod) *model.Proxy {
	return c.SetupProxy(&model.Proxy{
		Type: kind, ID: p.Name + "." + p.Namespace, ConfigNamespace: p.Namespace, IPAddresses: []string{p.Status.PodIP}, Labels: p.Labels,
		Metadata: &model.NodeMetadata{
			Namespace: p.Namespace, Labels: p.Labels, ServiceAccount: p.Spec.ServiceAccountName, ClusterID: constants.DefaultClusterName, IstioVersion: "1.31.0",
			ProxyConfig: (*model.NodeMetaProxyConfig)(&meshconfig.ProxyConfig{}),
		},
		VerifiedIdentity: &spiffe.Identity{TrustDomain: "cluster.local", Namespace: p.Namespace, ServiceAccount: p.Spec.ServiceAccountName},
	})
}

// secret is what the edge gets when it asks for authorities or a certificate by this name; nil if there is none.
func (c control) secret(name string) *tls.Secret {
	c.t.Helper()
	request := &model.PushRequest{Forced: true, Push: c.PushContext(), Start: time.Now()}
	resources, _, err := c.Discovery.Generators[v3.SecretType].Generate(c.ingress(), &model.WatchedResource{ResourceNames: sets.New(name)}, request)
	if err != nil {
		c.t.Fatal(err)
	}
	var anys []*anypb.Any
	for _, r := range resources {
		anys = append(anys, r.Resource)
	}
	return xdstest.ExtractTLSSecrets(c.t, anys)[name]
}

// same compares what was generated with what it should be, in YAML.
func same(t *testing.T, what string, got proto.Message, want string) {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	expected := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(text, expected); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expected, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
