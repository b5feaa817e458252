package deploy

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"istio.io/api/label"
	istio "istio.io/api/networking/v1alpha3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayapi "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/gateway"
)

// objects are those of an overlay with components, by kind and name.
func objects(t *testing.T, overlay string, components ...string) map[string]*unstructured.Unstructured {
	t.Helper()
	return parsed(t, rendered(t, overlay, components...))
}

func parsed(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	found := map[string]*unstructured.Unstructured{}
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		key := object.GetKind() + "/" + object.GetName()
		if found[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		found[key] = object
	}
}

const (
	validatorName = "central-application-connectivity-validator"
	gatewayName   = "central-application-gateway"
	agentName     = "compass-runtime-agent"
)

// workloads are the Deployments of each overlay.
var workloads = map[string][]string{
	"compass":    {validatorName, gatewayName, agentName},
	"standalone": {validatorName, gatewayName},
	"no-istio":   {validatorName, gatewayName, agentName},
}

func TestEachOverlayIsAcceptedAndItsPodsAreAdmittedAsRestricted(t *testing.T) {
	for overlay, names := range workloads {
		t.Run(overlay, func(t *testing.T) {
			install(t, overlay)
			var deployments appsv1.DeploymentList
			if err := kube.List(t.Context(), &deployments, client.InNamespace(system)); err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, d := range deployments.Items {
				found = append(found, d.Name)
				pod := &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: d.Spec.Template.Spec}
				pod.Namespace, pod.GenerateName = system, d.Name+"-"
				if err := kube.Create(t.Context(), pod); err != nil {
					t.Errorf("a Pod of Deployment %s: %v", d.Name, err)
					continue
				}
				if err := kube.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
					t.Error(err)
				}
				inject, want := pod.Labels[label.SidecarInject.Name], "true"
				if overlay == "no-istio" {
					want = "false"
				}
				if inject != want {
					t.Errorf("Pods of %s have label %s=%q, not %q", d.Name, label.SidecarInject.Name, inject, want)
				}
			}
			slices.Sort(found)
			if diff := cmp.Diff(names, found); diff != "" {
				t.Errorf("Deployments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachComponentIsAcceptedWithEachOverlayThatItIsFor(t *testing.T) {
	for _, c := range []struct {
		overlay    string
		components []string
	}{
		{"compass", []string{"server-certificate"}},
		{"compass", []string{"gateway-api"}},
		{"compass", []string{"agent-cert-manager"}},
		{"compass", []string{"agent-cert-manager", "gateway-api", "server-certificate", "tracing"}},
		{"standalone", []string{"gateway-api", "server-certificate"}},
		{"no-istio", []string{"agent-cert-manager", "tracing"}},
	} {
		t.Run(c.overlay+" "+strings.Join(c.components, " "), func(t *testing.T) { install(t, c.overlay, c.components...) })
	}
}

// object is one of Istio, whose API types are its specification alone.
type object[T any] struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              T `json:"spec"`
}

// TestTheEdgeByGatewayAPIIsTheOneByIstio compares what both say: host, port, Secrets, cipher suites, paths and time.
func TestTheEdgeByGatewayAPIIsTheOneByIstio(t *testing.T) {
	byIstio, byAPI := objects(t, "compass"), objects(t, "compass", "gateway-api")
	if byAPI["Gateway/kyma-gateway-application-connector"] != nil || byAPI["VirtualService/"+validatorName] != nil {
		t.Error("Istio's edge is still there")
	}
	var istioGateway object[istio.Gateway]
	var virtualService object[istio.VirtualService]
	decode(t, byIstio["Gateway/kyma-gateway-application-connector"], &istioGateway)
	decode(t, byIstio["VirtualService/"+validatorName], &virtualService)
	server, http := istioGateway.Spec.Servers[0], virtualService.Spec.Http[0]
	var paths []string
	for _, m := range http.Match {
		paths = append(paths, m.Uri.GetRegex())
	}
	want := []string{
		strings.TrimPrefix(server.Hosts[0], "./"), virtualService.Spec.Hosts[0], fmt.Sprint(server.Port.Number), server.Tls.CredentialName,
		server.Tls.CredentialName + "-cacert", strings.Join(server.Tls.CipherSuites, ","), strings.Join(paths, " "),
		http.Timeout.AsDuration().String(), http.Route[0].Destination.Host, fmt.Sprint(http.Route[0].Destination.Port.Number),
	}

	var edge gatewayapi.Gateway
	var route gatewayapi.HTTPRoute
	decode(t, byAPI["Gateway/application-connector"], &edge)
	decode(t, byAPI["HTTPRoute/"+validatorName], &route)
	listener, rule := edge.Spec.Listeners[0], route.Spec.Rules[0]
	validation := edge.Spec.TLS.Frontend.Default.Validation
	paths = nil
	for _, m := range rule.Matches {
		paths = append(paths, *m.Path.Value)
	}
	timeout, err := time.ParseDuration(string(*rule.Timeouts.Request))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		string(*listener.Hostname), string(route.Spec.Hostnames[0]), fmt.Sprint(listener.Port), string(listener.TLS.CertificateRefs[0].Name),
		string(validation.CACertificateRefs[0].Name), string(listener.TLS.Options["gateway.istio.io/tls-cipher-suites"]), strings.Join(paths, " "),
		timeout.String(), string(rule.BackendRefs[0].Name), fmt.Sprint(*rule.BackendRefs[0].Port),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-istio +gateway api):\n%s", diff)
	}
	if validation.Mode != gatewayapi.AllowValidOnly || server.Tls.Mode != istio.ServerTLSSettings_MUTUAL {
		t.Errorf("clients without a certificate: %s by Gateway API, %s by Istio", validation.Mode, server.Tls.Mode)
	}
}

// TestABudgetIsForEachDeploymentAndLetsTheLastPodGo: one that says how many must stay keeps a node with the last one from being
// drained.
func TestABudgetIsForEachDeploymentAndLetsTheLastPodGo(t *testing.T) {
	for overlay, names := range workloads {
		all := objects(t, overlay)
		for _, name := range names {
			var budget policyv1.PodDisruptionBudget
			decode(t, all["PodDisruptionBudget/"+name], &budget)
			if most := budget.Spec.MaxUnavailable; budget.Spec.MinAvailable != nil || most == nil || most.IntValue() < 1 {
				t.Errorf("%s: the budget of %s lets not one Pod go: %+v", overlay, name, budget.Spec)
			}
			if sick := budget.Spec.UnhealthyPodEvictionPolicy; sick == nil || *sick != policyv1.AlwaysAllow {
				t.Errorf("%s: by the budget of %s Pods that are not ready keep their node from being drained: %+v", overlay, name, budget.Spec)
			}
			selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
			if err != nil {
				t.Fatal(err)
			}
			for _, of := range names {
				pods := deployment(t, all, of).Spec.Template.Labels
				if got, want := selector.Matches(labels.Set(pods)), of == name; got != want {
					t.Errorf("%s: the budget of %s is for the Pods of %s: %v", overlay, name, of, got)
				}
			}
		}
	}
}

func TestAPrivilegedPodIsNotAdmittedBesideThem(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "privileged"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}
	if err := kube.Create(t.Context(), pod); !apierrors.IsForbidden(err) {
		t.Errorf("it was admitted: %v", err)
	}
}

// The tools of existing clusters patch these by index, and find ports by name.
func TestWhatToolsOfExistingClustersRelyOnIsWhereItWas(t *testing.T) {
	all := objects(t, "compass")
	container := func(name string) corev1.Container {
		return deployment(t, all, name).Spec.Template.Spec.Containers[0]
	}
	validator, gw, ag := container(validatorName), container(gatewayName), container(agentName)
	ports := func(c corev1.Container) string {
		var all []string
		for _, p := range c.Ports {
			all = append(all, fmt.Sprint(p.Name, "=", p.ContainerPort))
		}
		return c.Name + " " + strings.Join(all, " ")
	}
	service := func(name string) string {
		var s corev1.Service
		decode(t, all["Service/"+name], &s)
		var all []string
		for _, p := range s.Spec.Ports {
			all = append(all, fmt.Sprint(p.Name, "=", p.Port))
		}
		return strings.Join(all, " ")
	}
	got := map[string]string{
		"validator argument 5": validator.Args[5], "validator argument 6": validator.Args[6],
		"agent variable 1": ag.Env[1].Name,
		"gateway":          strings.Join(gw.Args[1:9], " "), // new ones stand at the end
		"validator ports":  ports(validator), "gateway ports": ports(gw), "agent ports": ports(ag),
		"validator Service": service(validatorName), "gateway Service": service(gatewayName),
	}
	want := map[string]string{
		"validator argument 5": "--eventingPublisherHost=eventing-publisher-proxy.kyma-system", "validator argument 6": "--eventingDestinationPath=/publish",
		"agent variable 1":  "APP_CONTROLLER_SYNC_PERIOD",
		"gateway":           "--proxyPort=8080 --proxyPortCompass=8082 --externalAPIPort=8081 --logLevel=info --applicationSecretsNamespace=kyma-system --requestTimeout=10 --proxyTimeout=10 --proxyCacheTTL=120",
		"validator ports":   validatorName + " http-proxy=8080 http-api-port=8081",
		"gateway ports":     gatewayName + " http-proxy=8080 http-proxy-mps=8082 http-api-port=8081",
		"agent ports":       agentName + " http-health=8090 http-metrics=8089 http-status=8091",
		"validator Service": "http-api-port=8081 http-proxy=8080", "gateway Service": "http-api-port=8081 http-proxy=8080 http-proxy-mps=8082",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheProgramsAcceptTheArgumentsAndVariablesThatTheManifestsGiveThem(t *testing.T) {
	for overlay, names := range workloads {
		all := objects(t, overlay)
		for _, name := range names {
			c := deployment(t, all, name).Spec.Template.Spec.Containers[0]
			env := map[string]string{}
			for _, e := range c.Env {
				env[e.Name] = e.Value
			}
			var err error
			switch name {
			case validatorName:
				o, flags := events.NewOptions(), flag.NewFlagSet("", flag.ContinueOnError)
				o.BindFlags(flags)
				err = flags.Parse(c.Args[1:])
				o.Complete(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
				err = errors.Join(err, o.Validate())
			case gatewayName:
				o, flags := gateway.Options{}, flag.NewFlagSet("", flag.ContinueOnError)
				o.BindFlags(flags)
				err = errors.Join(flags.Parse(c.Args[1:]), o.Validate())
			case agentName:
				_, err = agent.FromEnvironment(func(name string) string { return env[name] })
				for name := range env {
					if name == "MEMORY_LIMIT_MIB" || name == "GOMEMLIMIT" {
						continue // Go's
					}
					if !slices.ContainsFunc(agent.Variables, func(v agent.Variable) bool { return v.Name == name }) {
						err = errors.Join(err, fmt.Errorf("%s is none of the agent's variables", name))
					}
				}
			}
			if err != nil {
				t.Errorf("%s of %s: %v", name, overlay, err)
			}
		}
	}
}

func TestTheDomainOfTheSettingsIsWhereverADomainIs(t *testing.T) {
	edge := []string{"- ./gateway.eu.shop.test", "- gateway.eu.shop.test", "- gateway.eu.shop.test", "- gateway.eu.shop.test:443"}
	agent := []string{"value: https://console.eu.shop.test", "value: https://gateway.eu.shop.test"}
	for _, c := range []struct {
		overlay    string
		components []string
		want       []string
	}{
		{"compass", nil, slices.Concat(edge, agent)},
		{"standalone", nil, edge},
		{"no-istio", nil, agent},
		{"compass", []string{"gateway-api", "server-certificate"}, slices.Concat([]string{
			"- gateway.eu.shop.test", "- gateway.eu.shop.test", "- gateway.eu.shop.test", "- gateway.eu.shop.test:443", "hostname: gateway.eu.shop.test",
		}, agent)},
	} {
		var got []string
		for document := range strings.SplitSeq(renderedWith(t, map[string]string{"kyma.example.com": "eu.shop.test"}, c.overlay, c.components...), "\n---\n") {
			if strings.Contains(document, "kind: CustomResourceDefinition\n") {
				continue // has examples
			}
			if strings.Contains(document, "example.com") {
				t.Errorf("%s: the domain of the manifests is left in\n%s", c.overlay, document)
			}
			for line := range strings.Lines(document) {
				if line = strings.TrimSpace(line); strings.Contains(line, "shop.test") {
					got = append(got, line)
				}
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", c.overlay, c.components, diff)
		}
	}
}

// TestWhereTheAPIServerIsAndWhatMayBeReachedIsSaidByTheSettings is for both families of addresses.
func TestWhereTheAPIServerIsAndWhatMayBeReachedIsSaidByTheSettings(t *testing.T) {
	for overlay := range workloads {
		text := renderedWith(t, map[string]string{
			"ports: [{protocol: TCP, port: 443}, {protocol: TCP, port: 6443}]": `{to: [{ipBlock: {cidr: "fd00::1/128"}}], ports: [{protocol: TCP, port: 16443}]}`,
			`ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}`:             `ipBlock: {cidr: 10.0.0.0/8}`,
		}, overlay)
		for policy, want := range map[string]string{
			"kyma-project.io--acm-module-to-api-server":            `[{"ports":[{"protocol":"TCP","port":16443}],"to":[{"ipBlock":{"cidr":"fd00::1/128"}}]}]`,
			"kyma-project.io--acm-module-allow-to-external-system": `[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}},{"ipBlock":{"cidr":"::/0","except":["fe80::/10","fd00:ec2::254/128"]}}]}]`,
		} {
			var p networkingv1.NetworkPolicy
			decode(t, parsed(t, text)["NetworkPolicy/"+policy], &p)
			got, err := json.Marshal(p.Spec.Egress)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want {
				t.Errorf("%s of %s has egress %s, not %s", policy, overlay, got, want)
			}
		}
	}
}

func TestWithTracingGatewayAndValidatorMayReachTheCollectorOfTheSettings(t *testing.T) {
	for overlay := range workloads {
		all := parsed(t, renderedWith(t, map[string]string{
			"http://collector.observability:4318": "https://spans.test/otlp",
			"port: 4318}]":                        "port: 443}]\n        to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: spans}}}]",
		}, overlay, "tracing"))
		for _, name := range []string{gatewayName, validatorName} {
			env := deployment(t, all, name).Spec.Template.Spec.Containers[0].Env
			if want := (corev1.EnvVar{Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Value: "https://spans.test/otlp"}); !slices.Contains(env, want) {
				t.Errorf("%s of %s has the variables %v", name, overlay, env)
			}
		}
		var p networkingv1.NetworkPolicy
		decode(t, all["NetworkPolicy/kyma-project.io--acm-module-allow-to-collector"], &p)
		got, err := json.Marshal(p.Spec)
		if err != nil {
			t.Fatal(err)
		}
		const want = `{"podSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["central-application-gateway","central-application-connectivity-validator"]}]},` +
			`"egress":[{"ports":[{"protocol":"TCP","port":443}],"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"spans"}}}]}],"policyTypes":["Egress"]}`
		if string(got) != want {
			t.Errorf("of %s: %s", overlay, cmp.Diff(want, string(got)))
		}
		if objects(t, overlay)["NetworkPolicy/kyma-project.io--acm-module-allow-to-collector"] != nil {
			t.Errorf("%s has that policy without tracing", overlay)
		}
	}
}

func TestTheAuthorityOfNobodySignsNothingAndIsNotReplacedTwice(t *testing.T) {
	folder := manifests(t, "istio/fail-closed")
	if _, err := kubectl(t.Context(), "", "create", "-k", folder); err != nil {
		t.Fatal(err)
	}
	name := client.ObjectKey{Namespace: "istio-system", Name: "kyma-gateway-certs-cacert"}
	var first corev1.Secret
	if err := kube.Get(t.Context(), name, &first); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kube.Delete(context.Background(), &first); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	block, rest := pem.Decode(first.Data["cacert"])
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Fatal("the Secret holds not just one certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !certificate.IsCA || certificate.MaxPathLen != 0 {
		t.Errorf("%s is no authority that an edge takes, or one for more", certificate.Subject)
	}
	if _, err := kubectl(t.Context(), "", "create", "-k", folder); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("creating it again gives %v", err)
	}
	var second corev1.Secret
	if err := kube.Get(t.Context(), name, &second); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("it was changed:\n%s", diff)
	}
}

func deployment(t *testing.T, all map[string]*unstructured.Unstructured, name string) *appsv1.Deployment {
	t.Helper()
	var d appsv1.Deployment
	decode(t, all["Deployment/"+name], &d)
	return &d
}

func decode(t *testing.T, from *unstructured.Unstructured, into any) {
	t.Helper()
	if from == nil {
		t.Fatalf("there is no %T", into)
	}
	text, err := from.MarshalJSON()
	if err == nil {
		err = yaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", from.GetKind(), from.GetName(), err)
	}
}

func TestTheDocumentationSaysHowToUninstall(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	if command := "kubectl " + strings.Join(uninstall, " ") + "\n"; !strings.Contains(string(page), command) {
		t.Errorf("it does not have %q", command)
	}
}
