package doctor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/simulator/authority"
)

const (
	authoritiesSecret = "kyma-gateway-certs-cacert"
	serverSecret      = "kyma-gateway-certs"
	edgeHost          = "gateway.kyma.example.com"
)

// kinds of the edge's objects, as plurals by kind and group. What their definitions check is Istio's, and tested in e2e/istio.
var kinds = map[schema.GroupKind]string{
	{Group: "networking.istio.io", Kind: "Gateway"}:           "gateways",
	{Group: "networking.istio.io", Kind: "VirtualService"}:    "virtualservices",
	{Group: "gateway.networking.k8s.io", Kind: "Gateway"}:     "gateways",
	{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute"}:   "httproutes",
	{Group: "networking.istio.io", Kind: "DestinationRule"}:   "destinationrules",
	{Group: "security.istio.io", Kind: "AuthorizationPolicy"}: "authorizationpolicies",
	{Group: "security.istio.io", Kind: "PeerAuthentication"}:  "peerauthentications",
}

// istio installs definitions of the edge's objects until the test ends, Istio's own in a version.
func istio(t *testing.T, version string) {
	t.Helper()
	dir := t.TempDir()
	for kind, plural := range kinds {
		served := "v1"
		if strings.HasSuffix(kind.Group, ".istio.io") {
			served = version
		}
		text := fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.%[2]s, annotations: {api-approved.kubernetes.io: "unapproved, of a test"}}
spec:
  group: %[2]s
  scope: Namespaced
  names: {plural: %[1]s, singular: %[3]s, kind: %[4]s}
  versions: [{name: %[5]s, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, plural, kind.Group, strings.ToLower(kind.Kind), kind.Kind, served)
		if err := os.WriteFile(filepath.Join(dir, plural+"."+kind.Group+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := kubetest.InstallCRDs(t.Context(), &cluster, dir); err != nil {
		t.Fatal(err)
	}
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, err := client.New(&cluster, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for kind, plural := range kinds {
			definition := &unstructured.Unstructured{}
			definition.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
			definition.SetName(plural + "." + kind.Group)
			if err := c.Delete(context.Background(), definition); err != nil {
				t.Error(err)
			}
		}
		// Others look at a cluster without Istio.
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			groups, err := set.Discovery().ServerGroups()
			if err != nil || time.Now().After(end) {
				t.Fatalf("the groups of Istio are still there: %v", err)
			}
			if !slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool {
				return strings.HasSuffix(g.Name, ".istio.io") || strings.HasPrefix(g.Name, "gateway.networking")
			}) {
				return
			}
		}
	})
}

// edge puts the objects of a file of the manifests into the test's namespace, changed, and the edge's certificate.
func (w *world) edge(file string, change func(kind string, o *unstructured.Unstructured) (keep bool)) {
	w.t.Helper()
	text := read(w.t, filepath.Join("..", "..", "manifests", file))
	policies, _, _ := strings.Cut(read(w.t, filepath.Join("..", "..", "manifests", "istio", "policies.yaml")), "\n---\napiVersion: networking.k8s.io")
	text = strings.NewReplacer("kyma-system", w.namespace, "namespace: istio-system", "namespace: "+w.namespace).Replace(text + "\n---\n" + policies)
	served := "v1"
	if w.istio != "" {
		served = w.istio
	}
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		o.SetNamespace(w.namespace)
		if group := o.GroupVersionKind().Group; strings.HasSuffix(group, ".istio.io") {
			o.SetAPIVersion(group + "/" + served)
		}
		if change != nil && !change(o.GetKind(), o) {
			continue
		}
		if err := w.client.Create(w.t.Context(), o); err != nil {
			w.t.Fatal(err)
		}
	}
	w.serves(authority.Request{Hosts: []string{edgeHost}})
}

// serves writes the edge's certificate.
func (w *world) serves(r authority.Request) {
	w.t.Helper()
	r.Server = true
	cert, key, err := w.authority.Issue(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(serverSecret, map[string][]byte{"tls.crt": cert, "tls.key": key})
}

const (
	byIstio      = "istio/edge.yaml"
	byGatewayAPI = "components/gateway-api/edge.yaml"
)

// with plants a change of one field of one kind of object.
func with(file, kind string, value any, field ...string) func(*world) {
	return func(w *world) {
		w.edge(file, func(k string, o *unstructured.Unstructured) bool {
			if k == kind {
				if err := unstructured.SetNestedField(o.Object, value, field...); err != nil {
					w.t.Fatal(err)
				}
			}
			return true
		})
	}
}

// without plants the absence of a kind of object.
func without(file, kind string) func(*world) {
	return func(w *world) {
		w.edge(file, func(k string, _ *unstructured.Unstructured) bool { return k != kind })
	}
}

// servers are those of a Gateway of Istio.
func servers(mode, secret string) []any {
	return []any{map[string]any{"hosts": []any{"./" + edgeHost}, "tls": map[string]any{"mode": mode, "credentialName": secret}}}
}

var edgeFaults = []fault{
	{
		name: "the authorities are missing", step: doctor.StepAuthorities,
		plant: func(w *world) { w.edge(byIstio, nil); w.remove(authoritiesSecret) },
		line:  `Authorities: Secret NAMESPACE/kyma-gateway-certs-cacert is missing: with Istio the edge takes the authority of its own certificate for that of its clients; look at the agent's Pod and its log: it writes the Secret within seconds, if it runs and the cluster is paired`,
	},
	{
		name: "the authorities are missing, and nobody writes them", step: doctor.StepAuthorities, args: []string{"--standalone"},
		plant: func(w *world) { w.edge(byIstio, nil); w.remove(authoritiesSecret) },
		line:  `Authorities: Secret NAMESPACE/kyma-gateway-certs-cacert is missing: with Istio the edge takes the authority of its own certificate for that of its clients; write the authorities of your clients into its key cacert`,
	},
	{
		name: "the authorities are under another key", step: doctor.StepAuthorities,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			w.edit(authoritiesSecret, func(d map[string][]byte) { d["ca.crt"] = d["cacert"]; delete(d, "cacert") })
		},
		line: `Authorities: Secret NAMESPACE/kyma-gateway-certs-cacert cannot be used, so that the edge lets nobody in: data["cacert"] is missing; look at the agent's Pod and its log: it writes the Secret within seconds, if it runs and the cluster is paired`,
	},
	{
		name: "the authorities are no PEM", step: doctor.StepAuthorities,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			w.put(authoritiesSecret, map[string][]byte{"cacert": []byte(gibberish)})
		},
		line: `Authorities: Secret NAMESPACE/kyma-gateway-certs-cacert cannot be used, so that the edge lets nobody in: data["cacert"]: error decoding certificate PEM block: no valid certificates found; look at the agent's Pod and its log: it writes the Secret within seconds, if it runs and the cluster is paired`,
	},
	{
		name: "there is the authority of nobody alone", step: doctor.StepAuthorities,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			w.put(authoritiesSecret, map[string][]byte{"cacert": w.authority.CA()})
		},
		line: `Authorities: Secret NAMESPACE/kyma-gateway-certs-cacert does not hold the authority that issued the client certificate, CN=compass-connector-ca,O=Org,C=DE, but CN=other authority, valid until TIME: external systems with certificates of Compass are not let in; look at the agent's Pod and its log: it writes the Secret within seconds, if it runs and the cluster is paired`,
	},
	{
		name: "each authority has ended", step: doctor.StepAuthorities,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			old, err := authority.New("old authority", clocktesting.NewFakePassiveClock(w.now.AddDate(-50, 0, 0)))
			if err != nil {
				w.t.Fatal(err)
			}
			w.put(authoritiesSecret, map[string][]byte{"cacert": old.CA()})
		},
		line: `Authorities: of the authorities in Secret NAMESPACE/kyma-gateway-certs-cacert each has ended, the last one at TIME; look at the agent's Pod and its log: it writes the Secret within seconds, if it runs and the cluster is paired`,
	},
	{
		name: "there is no Gateway", step: doctor.StepEdge, plant: without(byIstio, "Gateway"),
		line: `Edge: there is no Gateway NAMESPACE/kyma-gateway-application-connector, and no Gateway NAMESPACE/application-connector of Gateway API either: no listener takes events; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the Gateway asks for no certificate", step: doctor.StepEdge, plant: with(byIstio, "Gateway", servers("SIMPLE", serverSecret), "spec", "servers"),
		line: `Edge: Gateway NAMESPACE/kyma-gateway-application-connector has no server with tls.mode MUTUAL and a credentialName: it asks no client for a certificate, and the validator lets nobody in without; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the Gateway takes authorities from elsewhere", step: doctor.StepEdge, plant: with(byIstio, "Gateway", servers("MUTUAL", "others"), "spec", "servers"),
		line: `Edge: Gateway NAMESPACE/kyma-gateway-application-connector takes the authorities of clients from Secret others-cacert, and the agent writes them to NAMESPACE/kyma-gateway-certs-cacert; set APP_CA_CERTIFICATES_SECRET of the agent, and for this command, to the Secret that the Gateway takes, or the Gateway's to the agent's`,
	},
	{
		name: "there is no VirtualService", step: doctor.StepEdge, plant: without(byIstio, "VirtualService"),
		line: `Edge: there is no VirtualService NAMESPACE/central-application-connectivity-validator: events for gateway.kyma.example.com lead nowhere; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the VirtualService is for another domain", step: doctor.StepEdge, plant: with(byIstio, "VirtualService", []any{"gateway.example.com"}, "spec", "hosts"),
		line: `Edge: VirtualService NAMESPACE/central-application-connectivity-validator is for gateway.example.com, and the Gateway for gateway.kyma.example.com; give both the same domain: apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the VirtualService is of another Gateway", step: doctor.StepEdge, plant: with(byIstio, "VirtualService", []any{"other/gateway", "mine"}, "spec", "gateways"),
		line: `Edge: VirtualService NAMESPACE/central-application-connectivity-validator is not attached to Gateway NAMESPACE/kyma-gateway-application-connector, but to other/gateway, NAMESPACE/mine: events for gateway.kyma.example.com lead nowhere; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "nothing keeps others from the validator", step: doctor.StepEdge, plant: without(byIstio, "AuthorizationPolicy"),
		line: `Edge: there is no AuthorizationPolicy NAMESPACE/central-application-connectivity-validator: whoever reaches the validator from within the cluster can pass for any external system; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the policy of the validator is only an audit", step: doctor.StepEdge, plant: with(byIstio, "AuthorizationPolicy", "AUDIT", "spec", "action"),
		line: `Edge: AuthorizationPolicy NAMESPACE/central-application-connectivity-validator has the action AUDIT, and must have ALLOW: whoever it does not name reaches the validator, and can pass for any external system; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the policy of the validator lets everybody in", step: doctor.StepEdge, plant: with(byIstio, "AuthorizationPolicy", []any{map[string]any{}}, "spec", "rules"),
		line: `Edge: AuthorizationPolicy NAMESPACE/central-application-connectivity-validator lets callers without a principal reach port 8080 of the validator: they can pass for any external system; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the policy of the validator is for another domain", step: doctor.StepEdge, plant: with(byIstio, "AuthorizationPolicy", []any{map[string]any{
			"from": []any{map[string]any{"source": map[string]any{"principals": []any{"gateway"}}}},
			"to":   []any{map[string]any{"operation": map[string]any{"ports": []any{"8080"}, "hosts": []any{"gateway.example.com"}}}},
		}}, "spec", "rules"),
		line: `Edge: AuthorizationPolicy NAMESPACE/central-application-connectivity-validator lets no events for gateway.kyma.example.com reach the validator, only for: gateway.example.com; senders get 403; give it the domain of the Gateway: apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the policy of the validator lets nobody in", step: doctor.StepEdge, plant: with(byIstio, "AuthorizationPolicy", []any{}, "spec", "rules"),
		line: `Edge: AuthorizationPolicy NAMESPACE/central-application-connectivity-validator lets nobody reach port 8080 of the validator: senders get 403; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "by Gateway API, the route is of another Gateway", step: doctor.StepEdge, plant: with(byGatewayAPI, "HTTPRoute", []any{map[string]any{"name": "other"}}, "spec", "parentRefs"),
		line: `Edge: HTTPRoute NAMESPACE/central-application-connectivity-validator is not attached to Gateway NAMESPACE/application-connector, but to NAMESPACE/other: events for gateway.kyma.example.com lead nowhere; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "by Gateway API, the Gateway asks for no certificate", step: doctor.StepEdge, plant: with(byGatewayAPI, "Gateway", map[string]any{}, "spec", "tls"),
		line: `Edge: Gateway NAMESPACE/application-connector has no listener with a certificate, or no spec.tls.frontend.default.validation: it asks no client for a certificate, and the validator lets nobody in without; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "by Gateway API, there is no route", step: doctor.StepEdge, plant: without(byGatewayAPI, "HTTPRoute"),
		line: `Edge: there is no HTTPRoute NAMESPACE/central-application-connectivity-validator: events for gateway.kyma.example.com lead nowhere; apply the manifests of Application Connector again: see docs/install.md`,
	},
	{
		name: "the edge's certificate is missing", step: doctor.StepServerCertificate,
		plant: func(w *world) { w.edge(byIstio, nil); w.remove(serverSecret) },
		line:  `ServerCertificate: Secret NAMESPACE/kyma-gateway-certs is missing, which the edge takes its certificate from: no connection comes about; look at whoever writes it: cert-manager's Certificate, or the platform`,
	},
	{
		name: "the edge's key is that of another certificate", step: doctor.StepServerCertificate,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			_, key, err := w.authority.Issue(authority.Request{})
			if err != nil {
				w.t.Fatal(err)
			}
			w.edit(serverSecret, func(d map[string][]byte) { d["tls.key"] = key })
		},
		line: `ServerCertificate: Secret NAMESPACE/kyma-gateway-certs cannot be used: tls: private key does not match public key; look at whoever writes it: cert-manager's Certificate, or the platform`,
	},
	{
		name: "the edge's certificate has ended", step: doctor.StepServerCertificate,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			w.serves(authority.Request{Hosts: []string{edgeHost}, NotBefore: w.now.Add(-2 * time.Hour), NotAfter: w.now.Add(-time.Hour)})
		},
		line: `ServerCertificate: the edge's certificate  in Secret NAMESPACE/kyma-gateway-certs ended at TIME; look at whoever writes it: cert-manager's Certificate, or the platform`,
	},
	{
		name: "the edge's certificate is not valid yet", step: doctor.StepServerCertificate,
		plant: func(w *world) {
			w.edge(byIstio, nil)
			w.serves(authority.Request{Hosts: []string{edgeHost}, NotBefore: w.now.Add(time.Hour), NotAfter: w.now.Add(2 * time.Hour)})
		},
		line: `ServerCertificate: the edge's certificate  in Secret NAMESPACE/kyma-gateway-certs is valid from TIME only; compare the clocks`,
	},
	{
		name: "the edge's certificate is for another host", step: doctor.StepServerCertificate,
		plant: func(w *world) { w.edge(byGatewayAPI, nil); w.serves(authority.Request{Hosts: []string{"example.com"}}) },
		line:  `ServerCertificate: the edge's certificate in Secret NAMESPACE/kyma-gateway-certs is for another host than gateway.kyma.example.com: x509: certificate is valid for example.com, not gateway.kyma.example.com; look at whoever writes it: cert-manager's Certificate, or the platform`,
	},
}

func TestEachFaultOfTheEdgeIsFoundAndNamed(t *testing.T) {
	istio(t, "v1")
	for _, f := range edgeFaults {
		t.Run(f.name, func(t *testing.T) { f.isFound(newWorld(t)) })
	}
	for name, c := range map[string]struct {
		file, leads string
		written     map[string]string // keys of the server's Secret, by those of the manifests
	}{
		"by Istio":       {byIstio, "Gateway NAMESPACE/kyma-gateway-application-connector asks clients of gateway.kyma.example.com for a certificate, and VirtualService central-application-connectivity-validator leads their events to the validator", nil},
		"by Gateway API": {byGatewayAPI, "Gateway NAMESPACE/application-connector asks clients of gateway.kyma.example.com for a certificate, and HTTPRoute central-application-connectivity-validator leads their events to the validator", nil},
		"by Istio's names of keys": {byIstio, "Gateway NAMESPACE/kyma-gateway-application-connector asks clients of gateway.kyma.example.com for a certificate, and VirtualService central-application-connectivity-validator leads their events to the validator",
			map[string]string{"tls.crt": "cert", "tls.key": "key"}},
	} {
		t.Run("nothing is wrong "+name, func(t *testing.T) {
			w := newWorld(t)
			w.edge(c.file, nil)
			w.edit(serverSecret, func(d map[string][]byte) {
				for from, to := range c.written {
					d[to] = d[from]
					delete(d, from)
				}
			})
			r, out := w.report()
			if out.code != 0 {
				t.Error(out.line)
			}
			for step, want := range map[string]string{
				doctor.StepEdge:              c.leads,
				doctor.StepServerCertificate: "Secret NAMESPACE/kyma-gateway-certs holds a certificate for gateway.kyma.example.com, issued by CN=other authority, valid until TIME",
			} {
				i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.Name == step })
				if got := w.plain(r.Steps[i].Finding); r.Steps[i].State != doctor.OK || got != want {
					t.Errorf("%s is %s: %s\nwant %s", step, r.Steps[i].State, got, want)
				}
			}
		})
	}
	// The agent's service account may read the authorities, and neither the edge's objects nor its key.
	t.Run("what may not be read is left out", func(t *testing.T) {
		w := newWorld(t)
		w.edge(byIstio, nil)
		w.mayRead("someone", []rbacv1.PolicyRule{
			{APIGroups: []string{"applicationconnector.kyma-project.io"}, Resources: []string{"applications"}, Verbs: []string{"get", "list"}},
			{APIGroups: []string{"compass.kyma-project.io"}, Resources: []string{"compassconnections"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: []string{authoritiesSecret, "compass-agent-configuration", "cluster-client-certificates"}},
		})
		r, out := w.report("--as", "someone")
		if out.code != 0 {
			t.Error(out.line)
		}
		for _, step := range []string{doctor.StepEdge, doctor.StepServerCertificate} {
			if i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.Name == step }); r.Steps[i].State != doctor.Skipped {
				t.Errorf("%+v", r.Steps[i])
			}
		}
		// With the objects alone, the Secret is left out.
		w.mayRead("someone-else", []rbacv1.PolicyRule{
			{APIGroups: []string{"applicationconnector.kyma-project.io"}, Resources: []string{"applications"}, Verbs: []string{"get", "list"}},
			{APIGroups: []string{"compass.kyma-project.io"}, Resources: []string{"compassconnections"}, Verbs: []string{"get"}},
			{APIGroups: []string{"networking.istio.io"}, Resources: []string{"gateways", "virtualservices"}, Verbs: []string{"get"}},
			{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: []string{authoritiesSecret, "compass-agent-configuration", "cluster-client-certificates"}},
		})
		r, out = w.report("--as", "someone-else")
		if out.code != 0 {
			t.Error(out.line)
		}
		for step, want := range map[string]doctor.State{doctor.StepEdge: doctor.OK, doctor.StepServerCertificate: doctor.Skipped} {
			if i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.Name == step }); r.Steps[i].State != want {
				t.Errorf("%+v", r.Steps[i])
			}
		}
	})
}

// Istio before 1.22 does not serve v1; its fields are the same.
func TestTheEdgeOfAnOlderIstioIsLookedAtToo(t *testing.T) {
	for _, version := range []string{"v1beta1", "v1alpha3"} {
		t.Run(version, func(t *testing.T) {
			istio(t, version)
			w := newWorld(t)
			w.istio = version
			w.edge(byIstio, nil)
			r, out := w.report()
			i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.Name == doctor.StepEdge })
			if out.code != 0 || r.Steps[i].State != doctor.OK {
				t.Errorf("exit code %d, %+v", out.code, r.Steps[i])
			}
			w.sweep()
			w.serves(authority.Request{Hosts: []string{"example.com"}})
			w.edge(byIstio, func(kind string, _ *unstructured.Unstructured) bool { return kind != "VirtualService" })
			if _, out := w.report(); out.code != 1 || !strings.HasPrefix(out.line, "Edge: there is no VirtualService ") {
				t.Errorf("exit code %d: %s", out.code, out.line)
			}
		})
	}
}

// sweep takes the edge's objects away.
func (w *world) sweep() {
	w.t.Helper()
	for kind := range kinds {
		mapping, err := w.client.RESTMapper().RESTMapping(kind)
		if err != nil {
			w.t.Fatal(err)
		}
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(mapping.GroupVersionKind)
		if err := w.client.DeleteAllOf(w.t.Context(), o, client.InNamespace(w.namespace)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// mayRead gives somebody rights until the test ends.
func (w *world) mayRead(user string, rules []rbacv1.PolicyRule) {
	w.t.Helper()
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		w.t.Fatal(err)
	}
	name := w.namespace + "-" + user
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
	if _, err := set.RbacV1().ClusterRoles().Create(w.t.Context(), role, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := set.RbacV1().ClusterRoleBindings().Create(w.t.Context(), binding, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		err := errors.Join(set.RbacV1().ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{}), set.RbacV1().ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{}))
		if err != nil {
			w.t.Error(err)
		}
	})
}

// ended is a certificate that is valid, by an authority that has ended: what the simulated Compass has not.
func ended(t *testing.T, now time.Time) map[string][]byte {
	t.Helper()
	old, err := authority.New("old authority", clocktesting.NewFakePassiveClock(now.AddDate(-50, 0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := old.Issue(authority.Request{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{certs.ClientKey: key, certs.ClientCertificate: cert, certs.ClientChain: append(slices.Clone(cert), old.CA()...), certs.CACert: append(slices.Clone(old.CA()), shared().authority.CA()...)}
}

func TestAnAuthorityThatEndedBeforeTheCertificateThatItIssuedIsNamed(t *testing.T) {
	w := newWorld(t)
	data := ended(t, w.now)
	w.put(authoritiesSecret, map[string][]byte{certs.CACert: data[certs.CACert]})
	delete(data, certs.CACert)
	w.put("cluster-client-certificates", data)
	r, _ := w.report() // Compass does not know the certificate, which is said too
	i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.Name == doctor.StepAuthorities })
	got := w.plain(r.Steps[i].Finding) + "; " + r.Steps[i].Remedy
	const want = "the authority CN=old authority in Secret NAMESPACE/kyma-gateway-certs-cacert, which issued the client certificate, ended at TIME; " +
		"have the agent renew its certificate, with which the new authority comes: see docs/connection.md"
	if r.Steps[i].State != doctor.Wrong || got != want {
		t.Errorf("got  %s: %s\nwant %s", r.Steps[i].State, got, want)
	}
}
