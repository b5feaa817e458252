package doctor_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/simulator/authority"
)

// targetFaults are between an Application and its APIs.
var targetFaults = []fault{
	{
		name: "the Application's name is misspelt", args: []string{"shpo"}, step: doctor.StepApplication,
		plant: func(w *world) { w.rename("shop") },
		line:  `Application of shpo: there is no Application shpo; near to it: shop; correct the name; if it comes from Compass, appconn diff says what the next sync does about it, and its formation in Compass must be the runtime's`,
	},
	{
		name: "there is no such Application", args: []string{"billing"}, step: doctor.StepApplication,
		plant: func(*world) {},
		line:  `Application of billing: there is no Application billing, nor any with a name like that, of 1; if it comes from Compass, appconn diff says what the next sync does about it, and its formation in Compass must be the runtime's`,
	},
	{
		name: "the Application is not as Compass says", args: []string{"shop"}, step: doctor.StepApplication,
		plant: func(w *world) { w.sell(refusedBySync) },
		line:  `Application of shop: the agent says that Synchronized is False, InvalidData: bundles[0].name is missing; do what the message says, in Compass; the agent takes it over with its next sync`,
	},
	{
		name: "there is no such service", args: []string{"shop/order"}, step: doctor.StepAPI,
		plant: func(*world) {},
		line:  `API of shop: the Application has no service order with an API; it has: open, orders, prices, stock, warehouse, sales, maps; correct the name`,
	},
	{
		name: "there is no such API", args: []string{"shop/warehouse/box"}, step: doctor.StepAPI,
		plant: func(*world) {},
		line:  `API of shop: service warehouse has no API box; it has: shelves, boxes; correct the name`,
	},
	{
		name: "two APIs go by one address", args: []string{"shop/warehouse/boxes"}, step: doctor.StepAPI,
		plant: func(w *world) { w.entry("Warehouse", func(e *v1alpha1.Entry) { e.Name = "boxes!" }) },
		line:  `API of shop/warehouse/boxes: 2 APIs go by this address, so the gateway refuses each: "boxes!" of service "Warehouse" (id Warehouse), "Boxes" of service "Warehouse" (id Warehouse); give the services other displayNames, or the entries other names, in Compass or by hand`,
	},
	{
		name: "an API of several has no name for URLs", args: []string{"shop/warehouse"}, step: doctor.StepAPI,
		plant: func(w *world) { w.entry("Warehouse", func(e *v1alpha1.Entry) { e.Name = "?" }) },
		line:  `API of shop/warehouse: it cannot be called: its name is nothing in a URL, and it is not the only API of its service; give the entry a name with a letter or a digit, in Compass or by hand`,
	},
	{
		name: "the Secret of the credentials is missing", args: []string{"shop/orders"}, step: doctor.StepCredentials,
		plant: func(w *world) { w.remove("shop-basic") },
		line:  `Credentials of shop/orders/orders-api: Secret shop-basic, named by credentials.secretName, does not exist; create it in namespace NAMESPACE`,
	},
	{
		name: "the Secret of the credentials lacks a key", args: []string{"shop/orders"}, step: doctor.StepCredentials,
		plant: func(w *world) { w.put("shop-basic", text("username", "user")) },
		line:  `Credentials of shop/orders/orders-api: Secret shop-basic: key password is missing; put the right value there`,
	},
	{
		name: "the client certificate of the credentials is no PEM", args: []string{"shop/warehouse/shelves"}, step: doctor.StepCredentials,
		plant: func(w *world) { w.put("shop-certificate", text("crt", gibberish, "key", gibberish)) },
		line:  `Credentials of shop/warehouse/shelves: Secret shop-certificate: keys crt and key: tls: failed to find any PEM data in certificate input; put the right value there`,
	},
	{
		name: "the client certificate of the credentials has ended", args: []string{"shop/warehouse/shelves"}, step: doctor.StepCredentials,
		plant: func(w *world) {
			cert, key, err := w.systems.IssueClientCertificate(authority.Request{Subject: pkix.Name{CommonName: "this-cluster"}, NotBefore: w.now.Add(-48 * time.Hour), NotAfter: w.now.Add(-time.Hour)})
			if err != nil {
				w.t.Fatal(err)
			}
			w.put("shop-certificate", map[string][]byte{"crt": cert, "key": key})
		},
		line: `Credentials of shop/warehouse/shelves: the client certificate CN=this-cluster in Secret shop-certificate ended at TIME; put a new certificate with its key there`,
	},
	{
		name: "the request parameters are no JSON", args: []string{"shop/maps"}, step: doctor.StepCredentials,
		plant: func(w *world) { w.put("shop-parameters", text("headers", gibberish)) },
		line:  `Credentials of shop/maps/maps: Secret shop-parameters: key headers is not a JSON object of lists of strings, such as {"name":["value"]}; put the right value there`,
	},
	{
		name: "the type of the credentials is unknown", args: []string{"shop/orders"}, step: doctor.StepCredentials,
		plant: func(w *world) { w.entry("Orders", func(e *v1alpha1.Entry) { e.Credentials.Type = "Kerberos" }) },
		line:  `Credentials of shop/orders/orders-api: credentials.type "Kerberos" is not known: use None, NoAuth, Basic, OAuth, OAuthWithCert or CertificateGen; correct it`,
	},
	{
		name: "the Secret of the API's authority has no certificate", args: []string{"shop/open"}, step: doctor.StepCredentials,
		plant: func(w *world) {
			w.put("authority", text("ca.crt", gibberish))
			w.set(v1alpha1.TargetSettings{Target: "*", TLS: &v1alpha1.TLSSettings{CASecretName: "authority"}})
		},
		line: `Credentials of shop/open/items: spec.targetSettings["*"].tls.caSecretName: Secret authority: key ca.crt holds no certificate: give certificates in PEM form (-----BEGIN CERTIFICATE-----); correct the field in the Application: it is not Compass's`,
	},
	{
		name: "the Secret of credentials from Compass is missing", args: []string{"shop/orders"}, step: doctor.StepCredentials,
		plant: func(w *world) {
			w.sell(func(a *v1alpha1.Application) {
				a.Spec.CompassMetadata = &v1alpha1.CompassMetadata{ApplicationID: "1", Authentication: v1alpha1.Authentication{ClientIDs: []string{}}}
			})
			w.remove("shop-basic")
		},
		line: `Credentials of shop/orders/orders-api: Secret shop-basic, named by credentials.secretName, does not exist; look at the agent, which writes it, and at condition CredentialsReady of the Application`,
	},
	{
		name: "the target is no http URL", args: []string{"shop/open"}, step: doctor.StepCredentials,
		plant: targeted("Open", always("ftp://user:"+gibberish+"@api.example.com")),
		line:  `Credentials of shop/open/items: targetUrl is not an absolute URL with scheme http or https; correct it`,
	},
	{
		name: "the API's host is unknown", args: []string{"shop/open"}, step: doctor.StepTargetDNS,
		plant: targeted("Open", always("https://api.example.com/v1")),
		line:  `TargetDNS of shop/open/items: the name api.example.com, of the API, does not exist; correct targetUrl of the entry, or the DNS`,
	},
	{
		name: "the API is in the cluster", args: []string{"shop/open"}, step: doctor.StepTargetDNS, code: 2,
		plant: targeted("Open", always("http://stock.backend:8080/v1")),
		line:  `TargetDNS of shop/open/items: could not be checked from here, for it may be of the cluster's network: the name stock.backend, of the API, does not exist; run this command in the cluster: see docs/reference/appconn-doctor.md`,
	},
	{
		name: "the API refuses connections", args: []string{"shop/open"}, step: doctor.StepTargetTCP,
		plant: targeted("Open", func(w *world) string {
			address := closed(w.t)
			w.knows(address, "CLOSED")
			return "https://" + address
		}),
		line: `TargetTCP of shop/open/items: the API at CLOSED refuses connections; look whether the API runs, whether targetUrl of the entry is right, and at what may be on the way: firewalls, proxies, NetworkPolicies`,
	},
	{
		name: "the gateway would not connect to the API", args: []string{"shop/open"}, step: doctor.StepTargetTCP,
		plant: func(w *world) { w.flags = w.flags[:1] },
		line:  `TargetTCP of shop/open/items: the gateway makes no connection to the API at SYSTEM: that is a loopback address; correct targetUrl of the entry or, if that address is meant, set -allowedTargets of the gateway, and --allowed-targets here`,
	},
	{
		name: "the API's certificate is of an unknown authority", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: func(w *world) { w.flags = w.flags[1:] },
		line:  `TargetTLS of shop/open/items: the certificate of the API is of an authority that is not trusted; the chain that it sent: CN=external systems, issued by CN=systems-servers; put the authority into spec.targetSettings["open/items"].tls of the Application or, if the gateway has it by -targetCAFile, name that file by --target-ca-file`,
	},
	{
		name: "the API's certificate has ended", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: targeted("Open", func(w *world) string { return w.systems.ExpiredURL() + "/api/none" }),
		line:  `TargetTLS of shop/open/items: the certificate CN=external systems of the API ended at TIME; whoever runs the API must renew it`,
	},
	{
		name: "the API's certificate is for another name", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: targeted("Open", func(w *world) string { return w.secured("OTHER", nil, "api.example.com", "192.0.2.1") }),
		line:  `TargetTLS of shop/open/items: the certificate of the API is for api.example.com, 192.0.2.1, not for 127.0.0.1; correct the name in targetUrl of the entry, or have the API get a certificate for it`,
	},
	{
		name: "the API demands a client certificate", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: targeted("Open", func(w *world) string { return w.systems.MTLSURL() + "/api/certificate" }),
		line:  `TargetTLS of shop/open/items: the API demands a client certificate of CN=systems-clients and got none: TLS alert 116 (certificate required); give the entry credentials of type CertificateGen`,
	},
	{
		name: "the API demands the client certificate of its token", args: []string{"shop/stock"}, step: doctor.StepTargetTLS,
		plant: targeted("Stock", func(w *world) string { return w.systems.MTLSURL() + "/api/oauth-mtls" }),
		line:  `TargetTLS of shop/stock/stock: the API demands a client certificate of CN=systems-clients and got none: TLS alert 116 (certificate required); set oauth.certificateBound in spec.targetSettings["stock/stock"] of the Application: it has the API get the certificate too`,
	},
	{
		name: "the API does not accept the client certificate", args: []string{"shop/warehouse/shelves"}, step: doctor.StepTargetTLS,
		plant: func(w *world) {
			cert, key, err := w.authority.Issue(authority.Request{Subject: pkix.Name{CommonName: "stranger"}})
			if err != nil {
				w.t.Fatal(err)
			}
			w.put("shop-certificate", map[string][]byte{"crt": cert, "key": key})
		},
		line: `TargetTLS of shop/warehouse/shelves: the API does not accept the client certificate CN=stranger, issued by CN=other authority: TLS alert 48 (unknown certificate authority); compare the certificate in Secret shop-certificate with what the API accepts, and correct it`,
	},
	{
		name: "the API speaks TLS 1.1", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: targeted("Open", func(w *world) string {
			return w.secured("OLD", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, "127.0.0.1")
		}),
		line: `TargetTLS of shop/open/items: the API refuses the handshake: TLS alert 70 (protocol version not supported); compare the versions of TLS and the ciphers of the API with what is spoken here: TLS 1.2 and newer`,
	},
	{
		name: "the API closes the connection after the client certificate", args: []string{"shop/warehouse/shelves"}, step: doctor.StepTargetTLS,
		plant: targeted("Warehouse", func(w *world) string {
			return w.peer("SHY", func(conn net.Conn) {
				server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{w.certificate("127.0.0.1")}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
				if err := server.HandshakeContext(w.t.Context()); err != nil {
					w.t.Error(err)
				}
			})
		}),
		line: `TargetTLS of shop/warehouse/shelves: the API closes the connection after it asked for a client certificate and got CN=this-cluster, issued by CN=systems-clients, without an alert; compare the certificate in Secret shop-certificate with what the API accepts, and correct it`,
	},
	{
		name: "the API breaks off the handshake", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: targeted("Open", func(w *world) string {
			return w.peer("SHY", func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) })
		}),
		line: `TargetTLS of shop/open/items: the API breaks off the handshake: EOF; look whether the API is well, and at what may be on the way`,
	},
	{
		name: "the API does not finish the handshake", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: func(w *world) {
			targeted("Open", func(w *world) string {
				return w.peer("SILENT", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }) // until the other side gives up
			})(w)
			w.set(v1alpha1.TargetSettings{Target: "open/items", Timeouts: &v1alpha1.TimeoutSettings{Connect: "200ms"}})
		},
		line: `TargetTLS of shop/open/items: the API does not finish the handshake in time; look whether the API is well, and at what may be on the way`,
	},
	{
		name: "the API speaks no TLS", args: []string{"shop/open"}, step: doctor.StepTargetTLS,
		plant: targeted("Open", func(w *world) string { return "https://" + hostOf(w.systems.HTTPURL()) }),
		line:  `TargetTLS of shop/open/items: the API at PLAIN does not speak TLS; correct the port or the scheme in targetUrl of the entry`,
	},
	{
		name: "the token endpoint does not accept the client", args: []string{"shop/prices"}, step: doctor.StepToken,
		plant: func(w *world) { w.put("shop-oauth", text("clientId", "client", "clientSecret", gibberish)) },
		line:  `Token of shop/prices/prices: incorrect response code '401' while getting token from https://SYSTEM/oauth/token; correct the credentials in Secret shop-oauth`,
	},
	{
		name: "the token endpoint's host is unknown", args: []string{"shop/prices"}, step: doctor.StepToken,
		plant: func(w *world) {
			w.entry("Prices", func(e *v1alpha1.Entry) { e.Credentials.AuthenticationURL = "https://auth.example.com/token" })
		},
		line: `Token of shop/prices/prices: the name auth.example.com, of the token endpoint, does not exist; correct credentials.authenticationUrl of the entry, or the DNS`,
	},
	{
		name: "the token endpoint demands a client certificate", args: []string{"shop/prices"}, step: doctor.StepToken,
		plant: func(w *world) {
			w.entry("Prices", func(e *v1alpha1.Entry) { e.Credentials.AuthenticationURL = w.systems.MTLSURL() + "/oauth/token" })
		},
		line: `Token of shop/prices/prices: the token endpoint demands a client certificate of CN=systems-clients and got none: TLS alert 116 (certificate required); give the entry credentials of type OAuthWithCert`,
	},
	{
		name: "the token endpoint answers by something else than JSON", args: []string{"shop/prices"}, step: doctor.StepToken,
		plant: func(w *world) {
			url := w.endpoint("LOGIN", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>"+gibberish) })
			w.entry("Prices", func(e *v1alpha1.Entry) { e.Credentials.AuthenticationURL = url + "/login?key=" + gibberish })
		},
		line: `Token of shop/prices/prices: failed to unmarshal token response body: the answer of http://LOGIN/login is not a JSON object with access_token and a whole number expires_in; correct credentials.authenticationUrl of the entry, if that is not the token endpoint`,
	},
	{
		name: "the token endpoint is at another path", args: []string{"shop/prices"}, step: doctor.StepToken,
		plant: func(w *world) {
			w.entry("Prices", func(e *v1alpha1.Entry) { e.Credentials.AuthenticationURL = w.systems.HTTPSURL() + "/token" })
		},
		line: `Token of shop/prices/prices: incorrect response code '404' while getting token from https://SYSTEM/token; correct credentials.authenticationUrl of the entry, if that is not the token endpoint`,
	},
	{
		name: "the token endpoint fails", args: []string{"shop/prices"}, step: doctor.StepToken,
		plant: func(w *world) {
			w.entry("Prices", func(e *v1alpha1.Entry) { e.Credentials.AuthenticationURL = w.systems.HTTPSURL() + "/status/503" })
		},
		line: `Token of shop/prices/prices: incorrect response code '503' while getting token from https://SYSTEM/status/503; ask those who run the token endpoint`,
	},
	{
		name: "the CSRF token endpoint gives no token", args: []string{"shop/sales"}, step: doctor.StepCSRF,
		plant: func(w *world) {
			w.entry("Sales", func(e *v1alpha1.Entry) {
				e.Credentials.CSRFInfo = &v1alpha1.CSRFInfo{TokenEndpointURL: w.systems.HTTPSURL() + "/api/none"}
			})
		},
		line: `CSRF of shop/sales/sales: the answer of https://SYSTEM/api/none has no header X-Csrf-Token; correct credentials.csrfInfo.tokenEndpointURL of the entry, if that is not the CSRF token endpoint`,
	},
	{
		name: "the CSRF token endpoint does not accept the credentials", args: []string{"shop/sales"}, step: doctor.StepCSRF,
		plant: func(w *world) { w.put("shop-basic", text("username", "user", "password", gibberish)) },
		line:  `CSRF of shop/sales/sales: incorrect response code '401' while getting token from https://SYSTEM/api/csrf/; correct the credentials in Secret shop-basic`,
	},
	{
		name: "the API does not accept the password", args: []string{"shop/orders"}, step: doctor.StepAnswer,
		plant: func(w *world) { w.put("shop-basic", text("username", "user", "password", gibberish)) },
		line:  `Answer of shop/orders/orders-api: GET https://SYSTEM/api/basic is answered by 401: the API does not accept the credentials of type Basic; correct the credentials in Secret shop-basic`,
	},
	{
		name: "the API does not allow the client of a good token", args: []string{"shop/prices"}, step: doctor.StepAnswer,
		plant: targeted("Prices", func(w *world) string { return w.systems.HTTPSURL() + "/status/403" }),
		line:  `Answer of shop/prices/prices: GET https://SYSTEM/status/403 is answered by 403: the API does not accept the credentials of type OAuth; correct the credentials in Secret shop-oauth, or give the client the right to call the API`,
	},
	{
		name: "the API wants credentials where there are none", args: []string{"shop/open"}, step: doctor.StepAnswer,
		plant: targeted("Open", func(w *world) string { return w.systems.HTTPSURL() + "/api/basic" }),
		line:  `Answer of shop/open/items: GET https://SYSTEM/api/basic is answered by 401, and the entry names no credentials; add credentials`,
	},
	{
		name: "the API does not accept the API key", args: []string{"shop/maps"}, step: doctor.StepAnswer,
		plant: func(w *world) {
			w.put("shop-parameters", text("headers", `{"X-Api-Key":["`+gibberish+`"]}`, "queryParameters", `{"region":["eu"]}`))
		},
		line: `Answer of shop/maps/maps: GET https://SYSTEM/api/parameters is answered by 401: the API does not accept the request parameters; correct the values in Secret shop-parameters`,
	},
	{
		name: "the API fails", args: []string{"shop/open"}, step: doctor.StepAnswer,
		plant: targeted("Open", func(w *world) string { return w.systems.HTTPSURL() + "/status/503" }),
		line:  `Answer of shop/open/items: GET https://SYSTEM/status/503 is answered by 503; ask those who run the API`,
	},
	{
		name: "the API does not answer in time", args: []string{"shop/open"}, step: doctor.StepAnswer,
		plant: func(w *world) {
			targeted("Open", func(w *world) string { return w.systems.HTTPSURL() + "/slow?delay=1h" })(w)
			w.set(v1alpha1.TargetSettings{Target: "open/items", Timeouts: &v1alpha1.TimeoutSettings{Header: "200ms"}})
		},
		line: `Answer of shop/open/items: GET https://SYSTEM/slow is not answered in time; ask those who run the API, or raise timeouts.header in spec.targetSettings["open/items"] of the Application`,
	},
	{
		name: "the API is asked too often", args: []string{"shop/open"}, step: doctor.StepAnswer, code: 2,
		plant: targeted("Open", func(w *world) string { return w.systems.HTTPSURL() + "/status/429" }),
		line:  `Answer of shop/open/items: GET https://SYSTEM/status/429 is answered by 429: there were too many calls; run it again later`,
	},
	{
		name: "the gateway does not run", args: []string{"shop/open"}, step: doctor.StepGateway,
		plant: func(w *world) { w.sell(func(a *v1alpha1.Application) { a.Status.Conditions = nil }) },
		line:  `Gateway of shop: the gateway has not said anything of the Application: it does not run, or cannot write its condition RoutesReady; if it lasts for more than some seconds, look at the gateway's Pods and their log`,
	},
	{
		name: "the gateway has not seen a change", args: []string{"shop/open"}, step: doctor.StepGateway,
		plant: func(w *world) {
			w.sell(func(a *v1alpha1.Application) { a.Status.Conditions[0].ObservedGeneration = 0 })
		},
		line: `Gateway of shop: the gateway knows generation 0 of the Application, which is at 1 by now: it does not run, or cannot reach the API server; if it lasts for more than some seconds, look at the gateway's Pods and their log`,
	},
	{
		name: "the gateway may not read a Secret", args: []string{"shop/open"}, step: doctor.StepGateway,
		plant: func(w *world) {
			w.sell(func(a *v1alpha1.Application) {
				c := &a.Status.Conditions[0]
				c.Status, c.Reason, c.Message = metav1.ConditionFalse, "SecretUnreadable", "Secret shop-basic, named by credentials.secretName, cannot be read: forbidden"
			})
		},
		line: `Gateway of shop: the gateway says that RoutesReady is False, SecretUnreadable: Secret shop-basic, named by credentials.secretName, cannot be read: forbidden; do what the message says`,
	},
}
