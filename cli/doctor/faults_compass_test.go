package doctor_test

import (
	"crypto/x509/pkix"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/cli/onboard"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/compass"
)

// compassFaults are between the cluster and Compass.
var compassFaults = []fault{
	{
		name: "the configuration Secret is missing", step: doctor.StepConfiguration,
		plant: func(w *world) { w.unpair(); w.remove("compass-agent-configuration") },
		line:  `Configuration: Secret NAMESPACE/compass-agent-configuration is missing; it must hold CONNECTOR_URL, RUNTIME_ID, TENANT and TOKEN; register the cluster by appconn onboard, or write the Secret by hand; if this cluster is to have no Compass, run this command with --standalone`,
	},
	{
		name: "the configuration Secret has no RUNTIME_ID", step: doctor.StepConfiguration,
		plant: func(w *world) {
			w.edit("compass-agent-configuration", func(d map[string][]byte) { delete(d, "RUNTIME_ID") })
		},
		line: `Configuration: Secret NAMESPACE/compass-agent-configuration has no RUNTIME_ID; write it there: it is the id of this cluster's runtime in Compass`,
	},
	{
		name: "there is no certificate and no token", step: doctor.StepConfiguration,
		plant: func(w *world) { w.unpair(); w.configure("") },
		line:  `Configuration: Secret NAMESPACE/compass-agent-configuration has no TOKEN, and the cluster has no client certificate yet; write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "there is no certificate and nothing says where the token is for", step: doctor.StepConfiguration,
		plant: func(w *world) {
			w.unpair()
			w.edit("compass-agent-configuration", func(d map[string][]byte) { delete(d, "CONNECTOR_URL") })
		},
		line: `Configuration: Secret NAMESPACE/compass-agent-configuration has no CONNECTOR_URL; write it there: it comes with the token`,
	},
	{
		name: "the one-time token ended before it was used", step: doctor.StepConfiguration,
		plant: func(w *world) {
			w.unpair()
			w.annotate("compass-agent-configuration", onboard.AnnotationExpires, w.now.Add(-time.Minute).UTC().Format(time.RFC3339))
		},
		line: `Configuration: the one-time token in Secret NAMESPACE/compass-agent-configuration ended at TIME; write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "the one-time token was tried and refused", step: doctor.StepConfiguration,
		plant: func(w *world) {
			w.unpair()
			w.connect(unconnected, func(c *compassv1alpha1.CompassConnection) {
				c.Status.State, c.Status.TokenFingerprint = compassv1alpha1.ConnectionFailed, w.tokenFingerprint()
				c.Status.ConnectionStatus.Error = "Failed to retrieve certificate: refused"
			})
		},
		line: `Configuration: the one-time token in Secret NAMESPACE/compass-agent-configuration was tried, and gave no client certificate: Failed to retrieve certificate: refused; write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "there is no client Secret, and the agent has not used the token", step: doctor.StepClientSecret,
		plant: func(w *world) { w.unpair() },
		line:  `ClientSecret: Secret NAMESPACE/cluster-client-certificates is missing: the cluster is not paired with Compass; if the one-time token is good, look at the agent, which uses it within seconds; else write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "the client Secret lacks a key", step: doctor.StepClientSecret,
		plant: func(w *world) {
			w.edit("cluster-client-certificates", func(d map[string][]byte) { delete(d, "crtChain") })
		},
		line: `ClientSecret: Secret NAMESPACE/cluster-client-certificates cannot be used: data["crtChain"] is missing; start the agent if it does not run: one that ran before the damage mends it; else write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "the private key is not that of the client certificate", step: doctor.StepClientSecret,
		plant: func(w *world) {
			_, key, err := w.authority.Issue(authority.Request{})
			if err != nil {
				w.t.Fatal(err)
			}
			w.edit("cluster-client-certificates", func(d map[string][]byte) { d["key"] = key })
		},
		line: `ClientSecret: Secret NAMESPACE/cluster-client-certificates cannot be used: data["crt"]: the certificate is for another key; start the agent if it does not run: one that ran before the damage mends it; else write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "the client certificate is no PEM", step: doctor.StepClientSecret,
		plant: func(w *world) {
			w.edit("cluster-client-certificates", func(d map[string][]byte) { d["crt"] = []byte(gibberish) })
		},
		line: `ClientSecret: Secret NAMESPACE/cluster-client-certificates cannot be used: data["crt"]: error decoding certificate PEM block: no valid certificates found; start the agent if it does not run: one that ran before the damage mends it; else write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "the client certificate has ended", step: doctor.StepClientCertificate,
		plant: func(w *world) {
			w.now = w.now.Add(91 * 24 * time.Hour)
			w.connect()
		},
		line: `ClientCertificate: the client certificate CN=UUID,OU=OrgUnit,O=Org,L=locality,ST=province,C=DE ended at TIME; write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "the clock is behind", step: doctor.StepClientCertificate,
		plant: func(w *world) {
			w.now = w.now.Add(-24 * time.Hour)
			w.connect()
		},
		line: `ClientCertificate: the client certificate CN=UUID,OU=OrgUnit,O=Org,L=locality,ST=province,C=DE is valid from TIME only; compare the clocks`,
	},
	{
		name: "the configuration names another runtime than the certificate", step: doctor.StepClientCertificate,
		plant: func(w *world) {
			w.annotate("cluster-client-certificates", "compass.kyma-project.io/runtime-id", "another")
		},
		line: `ClientCertificate: the client certificate was issued for runtime another and tenant (unknown), Secret NAMESPACE/compass-agent-configuration names runtime RUNTIME and tenant TENANT; write them back, or write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "Compass's host is unknown", step: doctor.StepCompassDNS,
		plant: directed(always("https://compass.example.com/director/graphql")),
		line:  `CompassDNS: the name compass.example.com, of Director, does not exist; correct spec.managementInfo.directorUrl of CompassConnection compass-connection, or the DNS`,
	},
	{
		name: "the DNS server fails", step: doctor.StepCompassDNS, code: 2,
		plant: directed(always("https://broken.example.com/director/graphql")),
		line:  `CompassDNS: the DNS server gives no answer for broken.example.com, the name of Director; look at the DNS server of this machine, and run it again`,
	},
	{
		name: "Compass has a name of the cluster's network", step: doctor.StepCompassDNS, code: 2,
		plant: directed(always("https://compass.kyma-system.svc.cluster.local/director/graphql")),
		line:  `CompassDNS: could not be checked from here, for it may be of the cluster's network: the name compass.kyma-system.svc.cluster.local, of Director, does not exist; run this command in the cluster: see docs/reference/appconn-doctor.md`,
	},
	{
		name: "nothing says where Compass is", step: doctor.StepCompassDNS,
		plant: func(w *world) { w.disconnect() },
		line:  `CompassDNS: nothing says where Compass is: neither CompassConnection compass-connection nor Secret NAMESPACE/cluster-client-certificates does; pair the cluster: write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "Compass's URL is not https", step: doctor.StepCompassDNS,
		plant: directed(always("http://compass.example.com")),
		line:  `CompassDNS: spec.managementInfo.directorUrl of CompassConnection compass-connection is no https URL; correct spec.managementInfo.directorUrl of CompassConnection compass-connection`,
	},
	{
		name: "Compass's port is closed", step: doctor.StepCompassTCP,
		plant: directed(func(w *world) string {
			address := closed(w.t)
			w.knows(address, "CLOSED")
			return "https://" + address + "/director/graphql"
		}),
		line: `CompassTCP: Director at CLOSED refuses connections; look whether Director runs, whether spec.managementInfo.directorUrl of CompassConnection compass-connection is right, and at what may be on the way: firewalls, proxies, NetworkPolicies`,
	},
	{
		name: "Compass's certificate is of an unknown authority", step: doctor.StepCompassTLS,
		plant: func(w *world) { w.connect(unconnected); delete(w.env, "APP_COMPASS_CA_FILE") },
		line:  `CompassTLS: the certificate of Director is of an authority that is not trusted; the chain that it sent: CN=localhost, issued by CN=compass-edge-ca,O=Edge; CN=compass-edge-ca,O=Edge, issued by CN=compass-edge-ca,O=Edge; name the file with its authority by APP_COMPASS_CA_FILE, for the agent and for this command`,
	},
	{
		name: "Compass's certificate is trusted by the agent and not here", step: doctor.StepCompassTLS, code: 2,
		plant: func(w *world) { delete(w.env, "APP_COMPASS_CA_FILE") },
		line:  `CompassTLS: could not be checked from here, while the agent is connected: the certificate of Director is of an authority that is not trusted; the chain that it sent: CN=localhost, issued by CN=compass-edge-ca,O=Edge; CN=compass-edge-ca,O=Edge, issued by CN=compass-edge-ca,O=Edge; name the file with its authority by APP_COMPASS_CA_FILE, for the agent and for this command`,
	},
	{
		name: "Compass does not know the authority of the client certificate", step: doctor.StepCompassTLS,
		plant: func(w *world) {
			credential := w.credential()
			w.connect(unconnected)
			w.put("cluster-client-certificates", credential)
		},
		line: `CompassTLS: Director does not accept the client certificate CN=stranger, issued by CN=other authority: TLS alert 48 (unknown certificate authority); if it was renewed or revoked a moment ago, run this again; else write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "there is no TLS where Compass should be", step: doctor.StepCompassTLS,
		plant: directed(func(w *world) string { return "https://" + hostOf(w.systems.HTTPURL()) }),
		line:  `CompassTLS: Director at PLAIN does not speak TLS; correct the port or the scheme in spec.managementInfo.directorUrl of CompassConnection compass-connection`,
	},
	{
		name: "the client certificate was revoked", step: doctor.StepDirector,
		plant: func(w *world) {
			for _, auth := range w.compass.Admin().SystemAuths(w.runtimeID) {
				if err := w.compass.Admin().Revoke(auth.ID); err != nil {
					w.t.Fatal(err)
				}
			}
		},
		line: `Director: Director does not know who calls: the certificate was revoked, or runtime RUNTIME is not registered any more or is another tenant's, or parts of Compass are down: RuntimeLabels: Ambiguous (HTTP 200, InsufficientScopes 23 at runtime, DIRECTOR/director/graphql, request UUID); if it lasts, write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand; if the runtime is gone, register the cluster by appconn onboard`,
	},
	{
		name: "the runtime is not registered any more", step: doctor.StepDirector,
		plant: func(w *world) {
			if err := w.compass.Admin().DeleteRuntime(w.runtimeID); err != nil {
				w.t.Fatal(err)
			}
		},
		line: `Director: Director does not know who calls: the certificate was revoked, or runtime RUNTIME is not registered any more or is another tenant's, or parts of Compass are down: RuntimeLabels: Ambiguous (HTTP 200, InsufficientScopes 23 at runtime, DIRECTOR/director/graphql, request UUID); if it lasts, write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand; if the runtime is gone, register the cluster by appconn onboard`,
	},
	{
		name: "the certificate is that of another runtime, and nothing in the cluster says so", step: doctor.StepDirector,
		plant: func(w *world) {
			w.edit("compass-agent-configuration", func(d map[string][]byte) { d["RUNTIME_ID"] = []byte("another") })
		},
		line: `Director: the client certificate is that of runtime RUNTIME, and RUNTIME_ID in Secret NAMESPACE/compass-agent-configuration is another; write RUNTIME into RUNTIME_ID, or write a new one-time token into key TOKEN of Secret NAMESPACE/compass-agent-configuration, by appconn onboard or by hand`,
	},
	{
		name: "Director is down", step: doctor.StepDirector,
		plant: func(w *world) { w.fault(compass.Fault{Kind: compass.FaultDirectorDown}) },
		line:  `Director: Director fails: RuntimeLabels: Server (HTTP 502, DIRECTOR/director/graphql, request UUID); ask who runs Compass, by the request's id; nothing is to be done in the cluster`,
	},
	{
		name: "Director asks to be left alone", step: doctor.StepDirector, code: 2,
		plant: func(w *world) { w.fault(compass.Fault{Kind: compass.FaultRateLimited}) },
		line:  `Director: Director asks to be left alone: RuntimeLabels: Throttled (HTTP 429, DIRECTOR/director/graphql, request UUID); run it again later`,
	},
	{
		name: "Director does not let the cluster read", step: doctor.StepDirector,
		plant: func(w *world) { w.fault(compass.Fault{Kind: compass.FaultScopeLost, Scope: "runtime:read"}) },
		line:  `Director: Director knows the cluster and does not let it read: RuntimeLabels: ScopeMissing (HTTP 200, InsufficientScopes 23 at runtime, DIRECTOR/director/graphql, request UUID); ask who runs Compass`,
	},
	{
		name: "something else answers where Director should be", step: doctor.StepDirector,
		plant: func(w *world) {
			cert, key, err := w.authority.Issue(authority.Request{Subject: pkix.Name{CommonName: "this-cluster"}})
			if err != nil {
				w.t.Fatal(err)
			}
			w.put("cluster-client-certificates", map[string][]byte{certs.ClientKey: key, certs.ClientCertificate: cert, certs.ClientChain: cert})
			w.env["APP_COMPASS_CA_FILE"] = strings.TrimPrefix(w.flags[0], "--target-ca-file=")
			directed(func(w *world) string { return w.systems.HTTPSURL() + "/status/404" })(w)
		},
		line: `Director: what answers there is not a Director as this program knows it: RuntimeLabels: Invalid (HTTP 404, SYSTEM/status/404, request UUID); look whether spec.managementInfo.directorUrl of CompassConnection compass-connection is Director's, and at what may be on the way`,
	},
	{
		name: "the Connector's port is closed", step: doctor.StepConnector,
		plant: func(w *world) {
			address := closed(w.t)
			w.knows(address, "CLOSED")
			w.connect(func(c *compassv1alpha1.CompassConnection) { c.Spec.ManagementInfo.ConnectorURL = "https://" + address })
		},
		line: `Connector: the Connector at CLOSED refuses connections; look whether the Connector runs, whether spec.managementInfo.connectorUrl of CompassConnection compass-connection is right, and at what may be on the way: firewalls, proxies, NetworkPolicies`,
	},
	{
		name: "the Connector's URL is not https", step: doctor.StepConnector,
		plant: func(w *world) {
			w.connect(func(c *compassv1alpha1.CompassConnection) { c.Spec.ManagementInfo.ConnectorURL = "connector" })
		},
		line: `Connector: spec.managementInfo.connectorUrl of CompassConnection compass-connection is no https URL; correct spec.managementInfo.connectorUrl of CompassConnection compass-connection`,
	},
	{
		name: "the gateway looks at no Application", step: doctor.StepApplications,
		plant: func(w *world) { w.sell(func(a *v1alpha1.Application) { a.Status.Conditions = nil }) },
		line:  `Applications: Application shop: the gateway has not said anything of the Application: it does not run, or cannot write its condition RoutesReady; run appconn doctor shop`,
	},
	{
		name: "the agent does not run", step: doctor.StepSync,
		plant: func(w *world) {
			w.connect(func(c *compassv1alpha1.CompassConnection) {
				c.Status.NextAttempt = &metav1.Time{Time: w.now.Add(-10 * time.Minute)}
			})
		},
		line: `Sync: the agent meant to call Compass at TIME and has not: it does not run; look at the agent's Pod and its log`,
	},
	{
		name: "the agent waits for somebody", step: doctor.StepSync,
		plant: func(w *world) {
			w.connect(condition(compassv1alpha1.ConditionStalled, metav1.ConditionTrue, "TokenNeeded", "write a new one-time token"))
		},
		line: `Sync: the agent waits for somebody: write a new one-time token; do what the message says; after that the agent goes on by itself`,
	},
	{
		name: "the sync fails", step: doctor.StepSync,
		plant: func(w *world) {
			w.connect(condition(compassv1alpha1.ConditionReady, metav1.ConditionFalse, "SyncFailed", "the cluster did not take it"))
		},
		line: `Sync: the agent says: not ready: the cluster did not take it; see what is wrong above; the agent tries again by itself`,
	},
	{
		name: "Applications are kept that Compass does not name", step: doctor.StepSync,
		plant: func(w *world) {
			w.connect(condition(compassv1alpha1.ConditionPruneBlocked, metav1.ConditionTrue, "Guarded", "none of the 9 Applications is in Compass any more"))
		},
		line: `Sync: Applications are kept that Compass does not name: none of the 9 Applications is in Compass any more; look at the formations of the runtime in Compass; if the systems are really gone, confirm it as the message says`,
	},
	{
		name: "an Application is not as it should be", step: doctor.StepApplications,
		plant: func(w *world) { w.sell(refusedBySync) },
		line:  `Applications: Application shop: the agent says that Synchronized is False, InvalidData: bundles[0].name is missing; run appconn doctor shop`,
	},
}
