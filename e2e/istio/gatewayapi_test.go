package istio

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"istio.io/istio/pilot/test/xdstest"
)

// apiAuthorities is what the edge by Gateway API knows Secret kyma-gateway-certs-cacert by.
const apiAuthorities = "kubernetes-gateway://istio-system/kyma-gateway-certs-cacert-cacert"

// byGatewayAPI is overlay compass with the component, in a mesh, with Secrets of the edge, and a class as Istio has it.
func byGatewayAPI(t *testing.T, secrets ...object) []object {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "manifests"))); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "built")
	kustomization := []byte("resources: [../overlays/compass]\ncomponents: [../components/gateway-api, ../settings]\n")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "kustomization.yaml"), kustomization, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), kubectl, "kustomize", folder)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("kustomize: %v\n%s", err, stderr.String())
	}
	all := objects(t, string(text))
	all = append(all, mesh(t, all)...)
	all = append(all, objects(t, "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio}\nspec: {controllerName: istio.io/gateway-controller}\n")...)
	return append(all, secrets...)
}

// serving are the chains of the edge, once one of them is for a host. Istio reads Gateway API by and by.
func (c control) serving(host string) []*listener.FilterChain {
	c.t.Helper()
	var chains []*listener.FilterChain
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		chains = nil
		for _, l := range c.Listeners(c.ingress()) {
			if l.GetName() == "0.0.0.0_8443" {
				chains = append(chains, l.GetFilterChains()...)
			}
		}
		if slices.ContainsFunc(chains, func(chain *listener.FilterChain) bool { return isFor(chain, host) }) {
			return chains
		}
	}
	c.t.Fatalf("the edge has no chain for %s, only %d others", host, len(chains))
	return nil
}

func isFor(chain *listener.FilterChain, host string) bool {
	return slices.Contains(chain.GetFilterChainMatch().GetServerNames(), host)
}

func TestTheEdgeByGatewayAPIRequiresAClientCertificateByOurAuthoritiesAndTellsWhoItWas(t *testing.T) {
	compass := newAuthority(t, "Compass")
	ours, _ := compass.signed(t, "ours")
	failClosed := rendered(t, "istio/fail-closed")
	c := started(t, byGatewayAPI(t, append(failClosed, serverSecret(t, newAuthority(t, "of the server")))...))
	chains := c.serving(host)
	if len(chains) != 1 {
		t.Fatalf("it has %d chains, and should have one", len(chains))
	}
	same(t, "which connections it takes", chains[0].GetFilterChainMatch(), "serverNames: [gateway.kyma.example.com]")
	// As by Istio's own Gateway, but for the names of Secrets, and the floor of TLS: nothing is said, which Envoy takes for 1.2.
	same(t, "TLS", downstream(t, chains[0]), `
requireClientCertificate: true
commonTlsContext:
  alpnProtocols: [h2, http/1.1]
  tlsParams:
    cipherSuites:
      - ECDHE-ECDSA-AES128-GCM-SHA256
      - ECDHE-RSA-AES128-GCM-SHA256
      - ECDHE-ECDSA-AES256-GCM-SHA384
      - ECDHE-RSA-AES256-GCM-SHA384
      - ECDHE-ECDSA-CHACHA20-POLY1305
      - ECDHE-RSA-CHACHA20-POLY1305
  tlsCertificateSdsSecretConfigs:
    - name: kubernetes-gateway://istio-system/kyma-gateway-certs
      sdsConfig: {ads: {}, resourceApiVersion: V3}
  combinedValidationContext:
    defaultValidationContext: {}
    validationContextSdsSecretConfig:
      name: `+apiAuthorities+`
      sdsConfig: {ads: {}, resourceApiVersion: V3}
`)
	bundle := c.secret(apiAuthorities).GetValidationContext().GetTrustedCa().GetInlineBytes()
	if trusts(t, bundle, ours) {
		t.Error("before the agent is paired a client is let in")
	}
	if block := failClosed[0]; !strings.Contains(block.text, strings.TrimSpace(strings.Split(string(bundle), "\n")[1])) {
		t.Errorf("the authorities are not those of our Secret:\n%s", bundle)
	}

	manager := xdstest.ExtractHTTPConnectionManager(t, chains[0])
	same(t, "X-Forwarded-Client-Cert", &hcm.HttpConnectionManager{
		ForwardClientCertDetails: manager.GetForwardClientCertDetails(), SetCurrentClientCertDetails: manager.GetSetCurrentClientCertDetails(),
	}, "{forwardClientCertDetails: SANITIZE_SET, setCurrentClientCertDetails: {subject: true, cert: true, dns: true, uri: true}}")

	var got []string
	for _, table := range c.Routes(c.ingress()) {
		if table.GetName() != manager.GetRds().GetRouteConfigName() {
			t.Errorf("a table of routes %s, and the listener takes %s", table.GetName(), manager.GetRds().GetRouteConfigName())
		}
		for _, h := range table.GetVirtualHosts() {
			for _, r := range h.GetRoutes() {
				got = append(got, fmt.Sprintf("%s %s to %s within %s, repeated %d times at most", strings.Join(h.GetDomains(), " "), r.GetMatch().GetSafeRegex().GetRegex(),
					r.GetRoute().GetCluster(), r.GetRoute().GetTimeout().AsDuration(), r.GetRoute().GetRetryPolicy().GetNumRetries().GetValue()))
			}
		}
	}
	slices.Sort(got)
	var want []string
	for _, path := range []string{"^/[^/]+/events(/|/.*)?", "^/[^/]+/v1/events(/|/.*)?", "^/[^/]+/v2/events(/|/.*)?"} {
		// What can't be said by Gateway API: that nothing is repeated.
		want = append(want, host+" "+path+" to "+cluster+" within 45s, repeated 2 times at most")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

// TestTheEdgeByGatewayAPIServesNothingWithoutItsAuthorities: unlike Istio's own Gateway, which then takes the server's.
func TestTheEdgeByGatewayAPIServesNothingWithoutItsAuthorities(t *testing.T) {
	for name, secrets := range map[string][]object{
		"without the Secret":          nil,
		"with one that holds nothing": objects(t, "apiVersion: v1\nkind: Secret\nmetadata: {namespace: istio-system, name: kyma-gateway-certs-cacert}\n"),
	} {
		t.Run(name, func(t *testing.T) {
			// Another Gateway, served by the same certificate, shows that Istio has read all.
			other := objects(t, `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: istio-system, name: other}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: istio-ingressgateway.istio-system.svc.cluster.local}]
  listeners:
    - {name: https, hostname: other.example.com, port: 443, protocol: HTTPS, tls: {mode: Terminate, certificateRefs: [{name: kyma-gateway-certs}]}}
`)
			c := started(t, byGatewayAPI(t, slices.Concat(secrets, other, []object{serverSecret(t, newAuthority(t, "of the server"))})...))
			for _, chain := range c.serving("other.example.com") {
				if isFor(chain, host) {
					t.Errorf("there is a chain for our host:\n%s", xdstest.Dump(t, chain))
				}
			}
		})
	}
}

func TestTheEdgeByGatewayAPITrustsWhomTheAgentNames(t *testing.T) {
	compass, server := newAuthority(t, "Compass"), newAuthority(t, "of the server")
	ours, _ := compass.signed(t, "ours")
	stranger, _ := server.signed(t, "stranger")
	secret := objects(t, "apiVersion: v1\nkind: Secret\nmetadata: {namespace: istio-system, name: kyma-gateway-certs-cacert}\nstringData:\n  cacert: |\n    "+
		strings.ReplaceAll(strings.TrimSpace(string(inPEM(compass.certificate))), "\n", "\n    ")+"\n")
	c := started(t, byGatewayAPI(t, append(secret, serverSecret(t, server))...))
	c.serving(host)
	bundle := c.secret(apiAuthorities).GetValidationContext().GetTrustedCa().GetInlineBytes()
	for client, want := range map[*x509.Certificate]bool{ours: true, stranger: false} {
		if got := trusts(t, bundle, client); got != want {
			t.Errorf("%s is let in: %v", client.Subject, got)
		}
	}
}
