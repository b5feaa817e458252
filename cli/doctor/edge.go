package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/certs"
)

// What the manifests call the objects of the edge.
const (
	istioGateway = "kyma-gateway-application-connector"
	apiGateway   = "application-connector"
	validator    = "central-application-connectivity-validator"

	applyManifests = "apply the manifests of Application Connector again: see docs/install.md"
	// authoritiesSuffix is Istio's rule for names: where it looks for clients' authorities, beside the server's certificate.
	authoritiesSuffix = "-cacert"
)

// Kinds without versions: Istio before 1.22 serves v1beta1 and v1alpha3 only, with the same fields.
var (
	istioGateways   = schema.GroupKind{Group: "networking.istio.io", Kind: "Gateway"}
	virtualServices = schema.GroupKind{Group: "networking.istio.io", Kind: "VirtualService"}
	authorizations  = schema.GroupKind{Group: "security.istio.io", Kind: "AuthorizationPolicy"}
	apiGateways     = schema.GroupKind{Group: "gateway.networking.k8s.io", Kind: "Gateway"}
	httpRoutes      = schema.GroupKind{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute"}
)

// edge is the way of events into the cluster, up to the validator.
type edge struct {
	*walk
	chain

	// own is the agent's client certificate, which those of external systems have the authority of; nil if there is none, or
	// none that is valid.
	own *certs.Credential
	// host of events, and the Secret with the server's certificate; empty if there is no edge that is known here.
	host   string
	server types.NamespacedName
}

// inbound looks at what external systems need to send events: authorities, the edge's objects, and its certificate.
func (w *walk) inbound(ctx context.Context, own *certs.Credential) []Step {
	e := &edge{walk: w, own: own}
	e.do(ctx, StepAuthorities, nil, e.trusted)
	e.do(ctx, StepEdge, nil, e.led)
	e.do(ctx, StepServerCertificate, []string{StepEdge}, e.certified)
	return e.steps
}

// trusted judges the authorities of clients: the one that the agent's certificate is from is that of external systems too.
func (e *edge) trusted(ctx context.Context) outcome {
	const agent = "look at the agent's Pod and its log: it writes the Secret within seconds, if it runs and the cluster is paired"
	name := e.agent.CASecret
	remedy := agent
	if e.Standalone {
		remedy = "write the authorities of your clients into its key " + certs.CACert
	}
	secret := &corev1.Secret{}
	switch err := e.cluster.Get(ctx, name, secret); {
	case apierrors.IsNotFound(err):
		return wrong(remedy, "Secret %s is missing: with Istio the edge takes the authority of its own certificate for that of its clients", name)
	case err != nil:
		return e.unseen(err)
	}
	authorities, err := certs.DecodeCA(secret.Data)
	if err != nil {
		return wrong(remedy, "Secret %s cannot be used, so that the edge lets nobody in: %s", name, err)
	}
	var good []string
	for _, a := range authorities {
		if e.now().Before(a.NotAfter) {
			good = append(good, a.Subject.String()+", valid until "+stamp(a.NotAfter))
		}
	}
	if len(good) == 0 {
		return wrong(remedy, "of the authorities in Secret %s each has ended, the last one at %s", name, stamp(slices.MaxFunc(authorities, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter))
	}
	if e.own == nil {
		return fine("Secret %s holds %s", name, strings.Join(good, "; "))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range authorities {
		roots.AddCert(a)
	}
	for _, c := range e.own.Chain[1:] {
		between.AddCert(c)
	}
	leaf, at := e.own.Leaf(), e.now()
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore // within the skew of clocks: it is valid
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if ended, is := errors.AsType[x509.CertificateInvalidError](err); is && ended.Reason == x509.Expired {
		return wrong("have the agent renew its certificate, with which the new authority comes: see docs/connection.md",
			"the authority %s in Secret %s, which issued the client certificate, ended at %s", ended.Cert.Subject, name, stamp(ended.Cert.NotAfter))
	}
	if err != nil {
		return wrong(agent, "Secret %s does not hold the authority that issued the client certificate, %s, but %s: external systems with certificates of Compass are not let in", name, leaf.Issuer, strings.Join(good, "; "))
	}
	root := chains[0][len(chains[0])-1]
	return fine("Secret %s holds %s, valid until %s, which issued the client certificate", name, root.Subject, stamp(root.NotAfter))
}

// led judges the objects of the edge, as far as Istio serves it: its own, or those of Gateway API.
func (e *edge) led(ctx context.Context) outcome {
	system, beside := e.agent.IntegrationNamespace, e.agent.CASecret.Namespace
	gateway, err := e.object(ctx, istioGateways, system, istioGateway)
	if meta.IsNoMatchError(err) {
		return left("the cluster has no Istio: another edge is not looked at")
	}
	find, route := e.byIstio, virtualServices
	if apierrors.IsNotFound(err) {
		if gateway, err = e.object(ctx, apiGateways, beside, apiGateway); apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return wrong(applyManifests, "there is no Gateway %s/%s, and no Gateway %s/%s of Gateway API either: no listener takes events", system, istioGateway, beside, apiGateway)
		}
		find, route = e.byGatewayAPI, httpRoutes
	}
	if err != nil {
		return e.unseen(err)
	}
	if problem := find(gateway); problem != nil {
		return *problem
	}
	leads, err := e.object(ctx, route, system, validator)
	switch {
	case apierrors.IsNotFound(err):
		return wrong(applyManifests, "there is no %s %s/%s: events for %s lead nowhere", route.Kind, system, validator, e.host)
	case err != nil:
		return e.unseen(err)
	}
	field := map[schema.GroupKind]string{virtualServices: "hosts", httpRoutes: "hostnames"}[route]
	if hosts, _, _ := unstructured.NestedStringSlice(leads.Object, "spec", field); !slices.Contains(hosts, e.host) {
		return wrong("give both the same domain: "+applyManifests, "%s %s/%s is for %s, and the Gateway for %s", route.Kind, system, validator, cmp.Or(strings.Join(hosts, ", "), "no host"), e.host)
	}
	name := gateway.GetNamespace() + "/" + gateway.GetName()
	if !slices.Contains(attached(leads), name) {
		return wrong(applyManifests, "%s %s/%s is not attached to Gateway %s, but to %s: events for %s lead nowhere", route.Kind, system, validator, name, cmp.Or(strings.Join(attached(leads), ", "), "none"), e.host)
	}
	guarded, problem := e.guarded(ctx)
	if problem != nil {
		return *problem
	}
	return fine("Gateway %s asks clients of %s for a certificate, and %s %s leads their events to the validator%s", name, e.host, route.Kind, validator, guarded)
}

// attached are the Gateways that a route names, as namespace/name.
func attached(route *unstructured.Unstructured) []string {
	var all []string
	gateways, _, _ := unstructured.NestedStringSlice(route.Object, "spec", "gateways") // of Istio
	for _, g := range gateways {
		if !strings.Contains(g, "/") {
			g = route.GetNamespace() + "/" + g
		}
		all = append(all, g)
	}
	parents, _, _ := unstructured.NestedSlice(route.Object, "spec", "parentRefs") // of Gateway API
	for _, p := range parents {
		parent, _ := p.(map[string]any)
		name, _, _ := unstructured.NestedString(parent, "name")
		namespace, _, _ := unstructured.NestedString(parent, "namespace")
		all = append(all, cmp.Or(namespace, route.GetNamespace())+"/"+name)
	}
	return all
}

// byIstio reads a Gateway of Istio: host, and Secrets. What it gives is wrong.
func (e *edge) byIstio(gateway *unstructured.Unstructured) *outcome {
	name := gateway.GetNamespace() + "/" + gateway.GetName()
	servers, _, _ := unstructured.NestedSlice(gateway.Object, "spec", "servers")
	for _, s := range servers {
		server, _ := s.(map[string]any)
		mode, _, _ := unstructured.NestedString(server, "tls", "mode")
		secret, _, _ := unstructured.NestedString(server, "tls", "credentialName")
		hosts, _, _ := unstructured.NestedStringSlice(server, "hosts")
		if mode != "MUTUAL" || secret == "" || len(hosts) == 0 {
			continue
		}
		_, host, scoped := strings.Cut(hosts[0], "/")
		if !scoped {
			host = hosts[0]
		}
		return e.found(name, host, secret, secret+authoritiesSuffix)
	}
	o := wrong(applyManifests, "Gateway %s has no server with tls.mode MUTUAL and a credentialName: it asks no client for a certificate, and the validator lets nobody in without", name)
	return &o
}

// byGatewayAPI is byIstio for a Gateway of Gateway API.
func (e *edge) byGatewayAPI(gateway *unstructured.Unstructured) *outcome {
	name := gateway.GetNamespace() + "/" + gateway.GetName()
	first := func(in map[string]any, path ...string) string {
		references, _, _ := unstructured.NestedSlice(in, path...)
		if len(references) == 0 {
			return ""
		}
		reference, _ := references[0].(map[string]any)
		text, _, _ := unstructured.NestedString(reference, "name")
		return text
	}
	authorities := first(gateway.Object, "spec", "tls", "frontend", "default", "validation", "caCertificateRefs")
	listeners, _, _ := unstructured.NestedSlice(gateway.Object, "spec", "listeners")
	for _, l := range listeners {
		listener, _ := l.(map[string]any)
		host, _, _ := unstructured.NestedString(listener, "hostname")
		if secret := first(listener, "tls", "certificateRefs"); host != "" && secret != "" && authorities != "" {
			return e.found(name, host, secret, authorities)
		}
	}
	o := wrong(applyManifests, "Gateway %s has no listener with a certificate, or no spec.tls.frontend.default.validation: it asks no client for a certificate, and the validator lets nobody in without", name)
	return &o
}

// found keeps what a Gateway says, and compares where it looks for authorities with where they are written.
func (e *edge) found(gateway, host, server, authorities string) *outcome {
	e.host, e.server = host, types.NamespacedName{Namespace: e.agent.CASecret.Namespace, Name: server}
	if authorities == e.agent.CASecret.Name {
		return nil
	}
	o := wrong("set APP_CA_CERTIFICATES_SECRET of the agent, and for this command, to the Secret that the Gateway takes, or the Gateway's to the agent's",
		"Gateway %s takes the authorities of clients from Secret %s, and the agent writes them to %s", gateway, authorities, e.agent.CASecret)
	return &o
}

// certified judges the certificate of the edge.
func (e *edge) certified(ctx context.Context) outcome {
	if e.host == "" {
		return left("the edge is not known")
	}
	const remedy = "look at whoever writes it: cert-manager's Certificate, or the platform"
	secret := &corev1.Secret{}
	switch err := e.cluster.Get(ctx, e.server, secret); {
	case apierrors.IsNotFound(err):
		return wrong(remedy, "Secret %s is missing, which the edge takes its certificate from: no connection comes about", e.server)
	case err != nil:
		return e.unseen(err)
	}
	certificate, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if len(certificate) == 0 && len(key) == 0 { // Istio's other names
		certificate, key = secret.Data["cert"], secret.Data["key"]
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return wrong(remedy, "Secret %s cannot be used: %s", e.server, err)
	}
	leaf := pair.Leaf
	switch err := leaf.VerifyHostname(e.host); {
	case !e.now().Before(leaf.NotAfter):
		return wrong(remedy, "the edge's certificate %s in Secret %s ended at %s", leaf.Subject, e.server, stamp(leaf.NotAfter))
	case e.now().Before(leaf.NotBefore):
		return wrong("compare the clocks", "the edge's certificate %s in Secret %s is valid from %s only", leaf.Subject, e.server, stamp(leaf.NotBefore))
	case err != nil:
		return wrong(remedy, "the edge's certificate in Secret %s is for another host than %s: %s", e.server, e.host, err)
	}
	return fine("Secret %s holds a certificate for %s, issued by %s, valid until %s", e.server, e.host, leaf.Issuer, stamp(leaf.NotAfter))
}

// object reads an object in the version that the cluster prefers.
func (e *edge) object(ctx context.Context, kind schema.GroupKind, namespace, name string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	mapping, err := e.cluster.RESTMapper().RESTMapping(kind)
	if err != nil {
		return o, err
	}
	o.SetGroupVersionKind(mapping.GroupVersionKind)
	return o, e.cluster.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, o)
}

// unseen is unreadable, only that whoever may not read what the edge has, as the agent's own service account may not but for the
// authorities, is told nothing of it, and all else.
func (e *edge) unseen(err error) outcome {
	if apierrors.IsForbidden(err) {
		return left("you may not read it: %s", err)
	}
	return unreadable(err)
}
