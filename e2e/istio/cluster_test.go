package istio

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// ingress is the Pod of Istio's ingress gateway; Gateways select it by its label.
var ingress = corev1.Pod{
	TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
	ObjectMeta: metav1.ObjectMeta{Namespace: istio, Name: "istio-ingressgateway-1", Labels: map[string]string{"app": "istio-ingressgateway", "istio": "ingressgateway"}},
	Spec: corev1.PodSpec{
		ServiceAccountName: "istio-ingressgateway-service-account",
		Containers:         []corev1.Container{{Name: "istio-proxy", Image: "docker.io/istio/proxyv2:1.31.0"}},
	},
	Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
}

// mesh is what a cluster with Istio has before, and makes of, the manifests: namespaces, the ingress gateway, and for each
// Deployment a Pod with a sidecar that its Services lead to.
func mesh(t *testing.T, manifests []object) []object {
	t.Helper()
	all := []runtime.Object{
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: system, Labels: map[string]string{"istio-injection": "enabled"}}},
		&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: istio}},
		&ingress,
		&corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: istio, Name: "istio-ingressgateway", Labels: ingress.Labels},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.1.0.1", Selector: ingress.Labels,
				Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(8443)}},
			},
		},
	}
	var pods []*corev1.Pod
	for _, o := range manifests {
		if o.GetKind() == "Deployment" {
			pods = append(pods, pod(t, o, fmt.Sprintf("10.0.1.%d", len(pods)+1)))
			all = append(all, pods[len(pods)-1])
		}
	}
	for _, o := range manifests {
		if o.GetKind() == "Service" {
			all = append(all, slice(t, o, pods))
		}
	}
	return texts(t, all...)
}

// pod is what becomes of a Deployment where Istio sets up a sidecar.
func pod(t *testing.T, from object, ip string) *corev1.Pod {
	t.Helper()
	var d appsv1.Deployment
	from.into(t, &d)
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "-1", Labels: d.Spec.Template.Labels},
		Spec:       d.Spec.Template.Spec,
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
	for i := range p.Spec.Containers {
		for j := range p.Spec.Containers[i].Ports {
			p.Spec.Containers[i].Ports[j].Protocol = corev1.ProtocolTCP
		}
	}
	if p.Labels["sidecar.istio.io/inject"] == "true" {
		p.Spec.Containers = append(p.Spec.Containers, ingress.Spec.Containers...)
	}
	return p
}

// slice leads a Service to its Pod.
func slice(t *testing.T, from object, pods []*corev1.Pod) *discoveryv1.EndpointSlice {
	t.Helper()
	var s corev1.Service
	from.into(t, &s)
	e := &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range pods {
		if p.Labels["app"] != s.Spec.Selector["app"] {
			continue
		}
		e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{p.Status.PodIP},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name},
		})
		for _, port := range s.Spec.Ports {
			for _, c := range p.Spec.Containers {
				for _, of := range c.Ports {
					if port.TargetPort.StrVal == of.Name || port.TargetPort.IntVal == of.ContainerPort {
						e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &port.Name, Port: &of.ContainerPort, Protocol: ptr.To(corev1.ProtocolTCP)})
					}
				}
			}
		}
	}
	if len(e.Ports) < len(s.Spec.Ports) {
		t.Fatalf("Service %s leads nowhere", s.Name)
	}
	return e
}

// into decodes the object, as the API server keeps it.
func (o object) into(t *testing.T, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(o.text), into); err != nil {
		t.Fatalf("%s: %v", o, err)
	}
	switch into := into.(type) {
	case *corev1.Secret:
		for key, value := range into.StringData {
			if into.Data == nil {
				into.Data = map[string][]byte{}
			}
			into.Data[key] = []byte(value)
		}
		into.StringData = nil
	case *corev1.Service:
		for i := range into.Spec.Ports {
			into.Spec.Ports[i].Protocol = corev1.ProtocolTCP
		}
		into.Spec.ClusterIP = "10.1.1.1"
	}
}

// texts are the objects in YAML.
func texts(t *testing.T, of ...runtime.Object) []object {
	t.Helper()
	var all []object
	for _, o := range of {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, objects(t, string(text))...)
	}
	return all
}

// authority signs certificates for an hour.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

// signed is a certificate for anything, and its key in PEM.
func (a authority) signed(t *testing.T, name string) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func inPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// serverSecret is what cert-manager writes for the edge: the server's certificate, its key and its authority.
func serverSecret(t *testing.T, by authority) object {
	t.Helper()
	certificate, key := by.signed(t, host)
	return texts(t, &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: istio, Name: "kyma-gateway-certs"},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{corev1.TLSCertKey: inPEM(certificate), corev1.TLSPrivateKeyKey: key, "ca.crt": inPEM(by.certificate)},
	})[0]
}
