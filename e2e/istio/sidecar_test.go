package istio

import (
	"testing"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/google/go-cmp/cmp"
	"istio.io/istio/pilot/pkg/simulation"
	"istio.io/istio/pilot/test/xdstest"
)

// agent is how proxies ask for their own certificate and the mesh's authorities: "default" and "ROOTCA".
const agent = "{apiConfigSource: {apiType: GRPC, transportApiVersion: V3, setNodeOnFirstMessageOnly: true, grpcServices: [{envoyGrpc: {clusterName: sds-grpc}}]}, initialFetchTimeout: 0s, resourceApiVersion: V3}"

// inbound are the chains of the validator's sidecar that take connections to a port.
func inbound(t *testing.T, c control, all []object, port uint32) []*listener.FilterChain {
	t.Helper()
	l := xdstest.ExtractListener("virtualInbound", c.Listeners(c.sidecar(all)))
	if l == nil {
		t.Fatal("the sidecar takes no connections")
	}
	var chains []*listener.FilterChain
	for _, chain := range l.GetFilterChains() {
		if chain.GetFilterChainMatch().GetDestinationPort().GetValue() == port {
			chains = append(chains, chain)
		}
	}
	if len(chains) == 0 {
		t.Fatalf("no chain for port %d", port)
	}
	return chains
}

func TestTheValidatorsSidecarTakesEventsFromTheMeshAloneAndTellsWhoItWas(t *testing.T) {
	all := installed(t, "overlays/compass")
	chains := inbound(t, started(t, all), all, 8080)
	if len(chains) != 1 {
		t.Fatalf("it has %d chains for the port, and should have one", len(chains))
	}
	same(t, "which connections it takes", chains[0].GetFilterChainMatch(), "{destinationPort: 8080, transportProtocol: tls}")
	context := downstream(t, chains[0])
	context.GetCommonTlsContext().TlsParams = nil // Istio's own
	same(t, "TLS", context, `
requireClientCertificate: true
commonTlsContext:
  alpnProtocols: [h2, http/1.1]
  tlsCertificateSdsSecretConfigs: [{name: default, sdsConfig: `+agent+`}]
  combinedValidationContext:
    defaultValidationContext: {matchSubjectAltNames: [{prefix: "spiffe://cluster.local/"}]}
    validationContextSdsSecretConfig: {name: ROOTCA, sdsConfig: `+agent+`}
`)
	manager := xdstest.ExtractHTTPConnectionManager(t, chains[0])
	// So the validator finds two elements, of which the last is the ingress gateway's: --trustedHops=1.
	same(t, "X-Forwarded-Client-Cert", &hcm.HttpConnectionManager{
		ForwardClientCertDetails:    manager.GetForwardClientCertDetails(),
		SetCurrentClientCertDetails: manager.GetSetCurrentClientCertDetails(),
	}, "{forwardClientCertDetails: APPEND_FORWARD, setCurrentClientCertDetails: {subject: true, dns: true, uri: true}}")
	// Istio's own for each sidecar: such a request did not reach the validator.
	same(t, "what is repeated", manager.GetRouteConfig().GetVirtualHosts()[0].GetRoutes()[0].GetRoute().GetRetryPolicy(), "{retryOn: reset-before-request, numRetries: 2}")
}

func TestTheValidatorsSidecarAdmitsTheIngressGatewayAloneAndAnybodyToHealthAndMetrics(t *testing.T) {
	all := installed(t, "overlays/compass")
	c := started(t, all)
	for _, port := range []uint32{8080, 8081} {
		for _, chain := range inbound(t, c, all, port) {
			var rules []*rbac.RBAC
			for _, filter := range xdstest.ExtractHTTPConnectionManager(t, chain).GetHttpFilters() {
				if filter.GetName() == "envoy.filters.http.rbac" {
					rules = append(rules, xdstest.UnmarshalAny[rbac.RBAC](t, filter.GetTypedConfig()))
				}
			}
			if len(rules) != 1 {
				t.Fatalf("chain %s has %d filters of rights, and should have one", chain.GetFilterChainMatch(), len(rules))
			}
			same(t, "rights", rules[0], `
shadowRulesStatPrefix: istio_dry_run_allow_
rules:
  policies:
    ns[kyma-system]-policy[central-application-connectivity-validator]-rule[0]:
      principals:
        - andIds: {ids: [{orIds: {ids: [{authenticated: {principalName: {exact: spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account}}}]}}]}
      permissions:
        - andRules:
            rules:
              - orRules:
                  rules:
                    - header: {name: ":authority", stringMatch: {exact: gateway.kyma.example.com, ignoreCase: true}}
                    - header: {name: ":authority", stringMatch: {exact: "gateway.kyma.example.com:443", ignoreCase: true}}
              - orRules:
                  rules:
                    - header: {name: ":method", stringMatch: {exact: POST}}
                    - header: {name: ":method", stringMatch: {exact: GET}}
              - orRules: {rules: [{destinationPort: 8080}]}
    ns[kyma-system]-policy[central-application-connectivity-validator]-rule[1]:
      principals:
        - andIds: {ids: [{any: true}]}
      permissions:
        - andRules:
            rules:
              - orRules: {rules: [{header: {name: ":method", stringMatch: {exact: GET}}}]}
              - orRules:
                  rules:
                    - urlPath: {path: {exact: /v1/health}}
                    - urlPath: {path: {exact: /livez}}
                    - urlPath: {path: {exact: /readyz}}
                    - urlPath: {path: {exact: /metrics}}
              - orRules: {rules: [{destinationPort: 8081}]}
`)
		}
	}
}

func TestTheValidatorsSidecarTakesPlainConnectionsToHealthAndMetricsAlone(t *testing.T) {
	all := installed(t, "overlays/compass")
	c := started(t, all)
	sidecar := simulation.NewSimulation(t, c.FakeDiscoveryServer, c.sidecar(all))
	type found struct {
		Cluster string
		Error   error
	}
	for name, test := range map[string]struct {
		port int
		mode simulation.TLSMode
		want found
	}{
		"events by the mesh":            {8080, simulation.MTLS, found{Cluster: "inbound|8080||"}},
		"events without TLS":            {8080, simulation.Plaintext, found{Error: simulation.ErrNoFilterChain}},
		"metrics by the mesh":           {8081, simulation.MTLS, found{Cluster: "inbound|8081||"}},
		"metrics without TLS":           {8081, simulation.Plaintext, found{Cluster: "inbound|8081||"}},
		"an unknown port without TLS":   {9999, simulation.Plaintext, found{Error: simulation.ErrNoFilterChain}},
		"events by TLS, not the mesh's": {8080, simulation.TLS, found{Error: simulation.ErrMTLSError}},
	} {
		t.Run(name, func(t *testing.T) {
			result := sidecar.Run(simulation.Call{Port: test.port, Protocol: simulation.HTTP, TLS: test.mode, HostHeader: host, Path: "/app/events", CallMode: simulation.CallModeInbound})
			if got := (found{result.ClusterMatched, result.Error}); got != test.want {
				t.Errorf("it finds %+v, and should find %+v", got, test.want)
			}
		})
	}
}

func TestTheEdgeShowsTheValidatorItsIdentityInTheMeshAndAsksForTheValidators(t *testing.T) {
	c := started(t, installed(t, "overlays/compass"))
	found := xdstest.ExtractCluster(cluster, c.Clusters(c.ingress()))
	if found == nil {
		t.Fatalf("the edge has no cluster %s, which its routes lead to", cluster)
	}
	same(t, "TLS", xdstest.UnmarshalAny[tls.UpstreamTlsContext](t, found.GetTransportSocket().GetTypedConfig()), `
sni: outbound_.8080_._.central-application-connectivity-validator.kyma-system.svc.cluster.local
commonTlsContext:
  alpnProtocols: [istio-peer-exchange, istio]
  tlsParams: {tlsMinimumProtocolVersion: TLSv1_2, tlsMaximumProtocolVersion: TLSv1_3}
  tlsCertificateSdsSecretConfigs: [{name: default, sdsConfig: `+agent+`}]
  combinedValidationContext:
    defaultValidationContext: {matchSubjectAltNames: [{exact: spiffe://cluster.local/ns/kyma-system/sa/central-application-connectivity-validator}]}
    validationContextSdsSecretConfig: {name: ROOTCA, sdsConfig: `+agent+`}
`)
	if got := len(found.GetTransportSocketMatches()); got != 0 {
		t.Errorf("%d ways around it", got)
	}
	same(t, "connections", xdstest.UnmarshalAny[upstream.HttpProtocolOptions](t, found.GetTypedExtensionProtocolOptions()["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]), `
commonHttpProtocolOptions: {idleTimeout: 60s}
explicitHttpConfig: {httpProtocolOptions: {}}
`)
	same(t, "how long it connects", found.GetConnectTimeout(), "5s")
	var addresses []string
	for _, e := range c.Endpoints(c.ingress()) {
		if e.GetClusterName() == cluster {
			addresses = xdstest.ExtractEndpoints(e)
		}
	}
	if diff := cmp.Diff([]string{"10.0.1.1:8080"}, addresses); diff != "" {
		t.Errorf("the validator's Pods (-want +got):\n%s", diff)
	}
}
