package istio

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"istio.io/istio/pilot/pkg/simulation"
	"istio.io/istio/pilot/test/xdstest"
	corev1 "k8s.io/api/core/v1"
)

const (
	// authorities is what the edge knows Secret kyma-gateway-certs-cacert by.
	authorities = "kubernetes://kyma-gateway-certs-cacert"
	routes      = "https.443.https-app-connector.kyma-gateway-application-connector.kyma-system"
	cluster     = "outbound|8080||central-application-connectivity-validator.kyma-system.svc.cluster.local"
)

// downstream is what a listener's chain asks for before it talks; nil is nothing.
func downstream(t *testing.T, chain *listener.FilterChain) *tls.DownstreamTlsContext {
	t.Helper()
	if chain.GetTransportSocket() == nil {
		return nil
	}
	return xdstest.UnmarshalAny[tls.DownstreamTlsContext](t, chain.GetTransportSocket().GetTypedConfig())
}

func TestTheEdgeHasOneListenerForOurHostAloneThatRequiresAClientCertificate(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			c := started(t, installed(t, overlay))
			listeners := c.Listeners(c.ingress())
			// The Service of the ingress gateway leads port 443 there.
			if diff := cmp.Diff([]string{"0.0.0.0_8443"}, xdstest.ExtractListenerNames(listeners)); diff != "" {
				t.Fatalf("listeners (-want +got):\n%s", diff)
			}
			chains := listeners[0].GetFilterChains()
			if len(chains) != 1 || listeners[0].GetDefaultFilterChain() != nil {
				t.Fatalf("it has %d chains and a default %v, and should have one alone", len(chains), listeners[0].GetDefaultFilterChain())
			}
			same(t, "which connections it takes", chains[0].GetFilterChainMatch(), "serverNames: [gateway.kyma.example.com]")
			same(t, "TLS", downstream(t, chains[0]), `
requireClientCertificate: true
commonTlsContext:
  alpnProtocols: [h2, http/1.1]
  tlsParams:
    tlsMinimumProtocolVersion: TLSv1_2
    cipherSuites:
      - ECDHE-ECDSA-AES128-GCM-SHA256
      - ECDHE-RSA-AES128-GCM-SHA256
      - ECDHE-ECDSA-AES256-GCM-SHA384
      - ECDHE-RSA-AES256-GCM-SHA384
      - ECDHE-ECDSA-CHACHA20-POLY1305
      - ECDHE-RSA-CHACHA20-POLY1305
  tlsCertificateSdsSecretConfigs:
    - name: kubernetes://kyma-gateway-certs
      sdsConfig: {ads: {}, resourceApiVersion: V3}
  combinedValidationContext:
    defaultValidationContext: {}
    validationContextSdsSecretConfig:
      name: kubernetes://kyma-gateway-certs-cacert
      sdsConfig: {ads: {}, resourceApiVersion: V3}
`)
		})
	}
}

func TestTheEdgeReplacesWhatClientsClaimAboutThemselves(t *testing.T) {
	c := started(t, installed(t, "overlays/compass"))
	manager := xdstest.ExtractHTTPConnectionManager(t, c.Listeners(c.ingress())[0].GetFilterChains()[0])
	if manager == nil {
		t.Fatal("the edge does not speak HTTP")
	}
	// Envoy adds the hash by itself.
	same(t, "X-Forwarded-Client-Cert", &hcm.HttpConnectionManager{
		ForwardClientCertDetails:    manager.GetForwardClientCertDetails(),
		SetCurrentClientCertDetails: manager.GetSetCurrentClientCertDetails(),
		UseRemoteAddress:            manager.GetUseRemoteAddress(),
		XffNumTrustedHops:           manager.GetXffNumTrustedHops(),
		NormalizePath:               manager.GetNormalizePath(),
	}, `
forwardClientCertDetails: SANITIZE_SET
setCurrentClientCertDetails: {subject: true, cert: true, dns: true, uri: true}
useRemoteAddress: true
normalizePath: true
`)
	if got := manager.GetRds().GetRouteConfigName(); got != routes {
		t.Errorf("it takes routes %q, and should take %q", got, routes)
	}
	for _, r := range c.Routes(c.ingress()) {
		if strings.Contains(strings.ToLower(xdstest.Dump(t, r)), "x-forwarded-client-cert") {
			t.Errorf("a route touches X-Forwarded-Client-Cert:\n%s", xdstest.Dump(t, r))
		}
	}
}

func TestTheEdgeLeadsPathsOfEventsToTheValidatorWithoutRepeating(t *testing.T) {
	c := started(t, installed(t, "overlays/compass"))
	all := c.Routes(c.ingress())
	if len(all) != 1 {
		t.Fatalf("it has %d tables of routes, and should have one", len(all))
	}
	route := func(path string) string {
		return `
        - name: events
          match: {caseSensitive: true, safeRegex: {regex: '` + path + `'}}
          route: {cluster: '` + cluster + `', timeout: 45s, maxGrpcTimeout: 45s}
          decorator: {operation: 'central-application-connectivity-validator.kyma-system.svc.cluster.local:8080` + path + `'}
          metadata: {filterMetadata: {istio: {config: /apis/networking.istio.io/v1/namespaces/kyma-system/virtual-service/central-application-connectivity-validator}}}`
	}
	// A route without retryPolicy repeats nothing; Istio sets one by itself where nothing is said.
	same(t, "routes", all[0], `
name: `+routes+`
ignorePortInHostMatching: true
maxDirectResponseBodySizeBytes: 1048576
validateClusters: false
virtualHosts:
    - name: gateway.kyma.example.com:443
      domains: [gateway.kyma.example.com]
      includeRequestAttemptCount: true
      routes:`+route("^/[^/]+/v1/events(/|/.*)?")+route("^/[^/]+/v2/events(/|/.*)?")+route("^/[^/]+/events(/|/.*)?")+"\n")
}

func TestTheEdgeFindsTheValidatorByThePathsOfEventsAlone(t *testing.T) {
	c := started(t, installed(t, "overlays/compass"))
	// Unlike Envoy, the simulation takes a path that only begins as the expression says: that can't be asked here.
	edge := simulation.NewSimulation(t, c.FakeDiscoveryServer, c.ingress())
	type found struct {
		Cluster string
		Error   error
	}
	for name, test := range map[string]struct {
		host, path string
		plain      bool
		want       found
	}{
		"the first version":               {host, "/app/v1/events", false, found{Cluster: cluster}},
		"the first version, below":        {host, "/app/v1/events/x", false, found{Cluster: cluster}},
		"the second version":              {host, "/app/v2/events", false, found{Cluster: cluster}},
		"events without a version":        {host, "/app/events", false, found{Cluster: cluster}},
		"the host with its port":          {host + ":443", "/app/events", false, found{Cluster: cluster}},
		"another version":                 {host, "/app/v3/events", false, found{Error: simulation.ErrNoRoute}},
		"no Application":                  {host, "//v1/events", false, found{Error: simulation.ErrNoRoute}},
		"the metadata of the older times": {host, "/app/v1/metadata/services", false, found{Error: simulation.ErrNoRoute}},
		"health":                          {host, "/v1/health", false, found{Error: simulation.ErrNoRoute}},
		"another host behind our name":    {"console.kyma.example.com", "/app/events", false, found{Error: simulation.ErrNoVirtualHost}},
		"no TLS":                          {host, "/app/events", true, found{Error: simulation.ErrNoFilterChain}},
	} {
		t.Run(name, func(t *testing.T) {
			call := simulation.Call{Port: 8443, Protocol: simulation.HTTP, TLS: simulation.TLS, Sni: host, HostHeader: test.host, Path: test.path, CallMode: simulation.CallModeGateway}
			if test.plain {
				call.TLS, call.Sni = simulation.Plaintext, ""
			}
			result := edge.Run(call)
			if got := (found{result.ClusterMatched, result.Error}); got != test.want {
				t.Errorf("it finds %+v, and should find %+v", got, test.want)
			}
		})
	}
	t.Run("another name in TLS", func(t *testing.T) {
		call := simulation.Call{Port: 8443, Protocol: simulation.HTTP, TLS: simulation.TLS, Sni: "console.kyma.example.com", HostHeader: host, Path: "/app/events", CallMode: simulation.CallModeGateway}
		if result := edge.Run(call); !errors.Is(result.Error, simulation.ErrNoFilterChain) {
			t.Errorf("it finds %+v, and should find no chain", result)
		}
	})
}

// trusts says whether an edge with these authorities lets a client in.
func trusts(t *testing.T, bundle []byte, client *x509.Certificate) bool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		t.Fatalf("no authorities in %q", bundle)
	}
	_, err := client.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

func TestWithoutItsSecretOfAuthoritiesTheEdgeTrustsTheServersAndOurSecretPreventsThat(t *testing.T) {
	server := newAuthority(t, "an authority that signs for everybody")
	stranger, _ := server.signed(t, "stranger")
	compass := newAuthority(t, "Compass")
	ours, _ := compass.signed(t, "ours")

	all := rendered(t, "overlays/compass")
	all = append(all, mesh(t, all)...)
	all = append(all, serverSecret(t, server))
	failClosed := rendered(t, "istio/fail-closed")
	var nobody corev1.Secret
	failClosed[0].into(t, &nobody)
	paired := nobody.DeepCopy()
	paired.Data["cacert"] = inPEM(compass.certificate)

	type trust struct {
		Bundle         string
		Stranger, Ours bool
	}
	for name, test := range map[string]struct {
		secrets []object
		want    trust
	}{
		"no Secret, which is why there must be one": {nil, trust{string(inPEM(server.certificate)), true, false}},
		"ours before the agent is paired":           {failClosed, trust{string(nobody.Data["cacert"]), false, false}},
		"the same, as the agent filled it":          {texts(t, paired), trust{string(inPEM(compass.certificate)), false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := started(t, append(slices.Clone(all), test.secrets...)).secret(authorities).GetValidationContext().GetTrustedCa().GetInlineBytes()
			got := trust{string(bundle), trusts(t, bundle, stranger), trusts(t, bundle, ours)}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("the edge trusts (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("one without a certificate leaves the edge without authorities", func(t *testing.T) {
		empty := nobody.DeepCopy()
		empty.Data["cacert"] = nil
		if got := started(t, append(slices.Clone(all), texts(t, empty)...)).secret(authorities); got != nil {
			t.Errorf("it gets %v", got)
		}
	})
}
