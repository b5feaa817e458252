package doctor_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/compass"
)

// pair gets a client certificate from the Connector, and writes the Secrets as the agent would.
func (w *world) pair() {
	w.t.Helper()
	token, err := w.compass.Admin().RuntimeToken(w.runtimeID)
	if err != nil {
		w.t.Fatal(err)
	}
	roots, err := graphql.Roots(w.compass.ServerCA())
	if err != nil {
		w.t.Fatal(err)
	}
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	defer transport.CloseIdleConnections()
	c := connector.New(transport, token.ConnectorURL)
	answer, err := c.Configuration(w.t.Context(), secret.Value(token.Token))
	if err != nil {
		w.t.Fatal(err)
	}
	subject, err := certs.ParseSubject(answer.Subject)
	if err != nil {
		w.t.Fatal(err)
	}
	request, err := certs.NewRequest(w.key, subject)
	if err != nil {
		w.t.Fatal(err)
	}
	issued, err := c.Sign(w.t.Context(), answer.Token, request)
	if err != nil {
		w.t.Fatal(err)
	}
	credential, err := certs.Verify(certs.Issuance{Key: w.key, Subject: subject, Certificate: issued.Certificate, Chain: issued.Chain, CA: issued.CA, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := certs.EncodeClient(credential)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put("cluster-client-certificates", data)
	if data, err = certs.EncodeCA(credential.CA); err != nil {
		w.t.Fatal(err)
	}
	w.put("kyma-gateway-certs-cacert", data)
	w.configure(token.Token)
}

// configure writes the configuration Secret.
func (w *world) configure(token string) {
	w.t.Helper()
	w.put("compass-agent-configuration", text("CONNECTOR_URL", w.compass.TokenURL(), "RUNTIME_ID", w.runtimeID, "TENANT", tenant, "TOKEN", token))
}

// unpair takes the client certificate away, and gives the cluster a fresh token.
func (w *world) unpair() {
	w.t.Helper()
	w.remove("cluster-client-certificates")
	w.disconnect()
	token, err := w.compass.Admin().RuntimeToken(w.runtimeID)
	if err != nil {
		w.t.Fatal(err)
	}
	w.configure(token.Token)
}

func text(pairs ...string) map[string][]byte {
	data := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		data[pairs[i]] = []byte(pairs[i+1])
	}
	return data
}

// put writes a Secret, and remembers what is in it as secret.
func (w *world) put(name string, data map[string][]byte) {
	w.t.Helper()
	w.watch.AddSecret(name, data)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Data: data}
	err := w.client.Create(w.t.Context(), s.DeepCopy())
	if err != nil && client.IgnoreAlreadyExists(err) == nil {
		err = w.client.Update(w.t.Context(), s)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// edit changes the data of a Secret.
func (w *world) edit(name string, change func(map[string][]byte)) {
	w.t.Helper()
	var s corev1.Secret
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, &s); err != nil {
		w.t.Fatal(err)
	}
	change(s.Data)
	w.put(name, s.Data)
}

// annotate sets an annotation of a Secret.
func (w *world) annotate(name, key, value string) {
	w.t.Helper()
	var s corev1.Secret
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, &s); err != nil {
		w.t.Fatal(err)
	}
	s.Annotations = map[string]string{key: value}
	if err := w.client.Update(w.t.Context(), &s); err != nil {
		w.t.Fatal(err)
	}
}

// tokenFingerprint is that of the token in the configuration Secret.
func (w *world) tokenFingerprint() string {
	w.t.Helper()
	var s corev1.Secret
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: w.namespace, Name: "compass-agent-configuration"}, &s); err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(s.Data["TOKEN"])
	return hex.EncodeToString(sum[:])
}

// fault has Compass fail until the test ends.
func (w *world) fault(f compass.Fault) {
	w.t.Helper()
	id, err := w.compass.Admin().SetFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.compass.Admin().ClearFaults(id) })
}

// named has the Application's name in place of shop.
func (w *world) named(arg string) string {
	if rest, ok := strings.CutPrefix(arg, "shop"); ok {
		return w.application + rest
	}
	return arg
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := w.client.Delete(w.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}); err != nil {
		w.t.Fatal(err)
	}
}

// connect writes the CompassConnection as the agent would with whom all is well, but for what changes change.
func (w *world) connect(changes ...func(*compassv1alpha1.CompassConnection)) {
	w.t.Helper()
	w.disconnect()
	next := metav1.NewTime(w.now.Add(time.Minute))
	condition := func(kind string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: kind, LastTransitionTime: metav1.NewTime(w.now)}
	}
	c := &compassv1alpha1.CompassConnection{
		ObjectMeta: metav1.ObjectMeta{Name: compassv1alpha1.ConnectionName},
		Spec: compassv1alpha1.CompassConnectionSpec{ManagementInfo: compassv1alpha1.ManagementInfo{
			DirectorURL: w.compass.DirectorURL(), ConnectorURL: w.compass.MTLSConnectorURL(),
		}},
	}
	status := compassv1alpha1.CompassConnectionStatus{
		State: compassv1alpha1.Synchronized, ConnectionStatus: &compassv1alpha1.ConnectionStatus{}, NextAttempt: &next,
		SynchronizationStatus: &compassv1alpha1.SynchronizationStatus{LastSuccessfulApplication: metav1.NewTime(w.now.Add(-time.Minute))},
		Applications:          &compassv1alpha1.ApplicationCounts{Total: 1, Synced: 1, Ready: 1},
		Conditions:            []metav1.Condition{condition(compassv1alpha1.ConditionConnected), condition(compassv1alpha1.ConditionReady)},
	}
	c.Status = status
	for _, change := range changes {
		change(c)
	}
	status = c.Status
	if err := w.client.Create(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
	c.Status = status
	if err := w.client.Status().Update(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) disconnect() {
	w.t.Helper()
	err := w.client.Delete(w.t.Context(), &compassv1alpha1.CompassConnection{ObjectMeta: metav1.ObjectMeta{Name: compassv1alpha1.ConnectionName}})
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
}

// unconnected is a CompassConnection whose agent has not reached Compass.
func unconnected(c *compassv1alpha1.CompassConnection) {
	c.Status.Conditions = nil
}

// sell writes an Application with one API for each kind of credentials, as agent and gateway would.
func (w *world) sell(changes ...func(*v1alpha1.Application)) {
	w.t.Helper()
	cert, key, err := w.systems.ClientCertificate("this-cluster")
	if err != nil {
		w.t.Fatal(err)
	}
	w.put("shop-basic", text("username", "user", "password", password))
	w.put("shop-oauth", text("clientId", "client", "clientSecret", clientSecret))
	w.put("shop-certificate", map[string][]byte{"crt": cert, "key": key, "clientId": []byte("client")})
	w.put("shop-parameters", text("headers", `{"X-Api-Key":["`+apiKey+`"]}`, "queryParameters", `{"region":["eu"]}`))
	https, mutual := w.systems.HTTPSURL(), w.systems.MTLSURL()
	service := func(name string, entries ...v1alpha1.Entry) v1alpha1.Service {
		for i := range entries {
			entries[i].ID, entries[i].Type = name+entries[i].Name, v1alpha1.EntryTypeAPI
		}
		return v1alpha1.Service{ID: name, Name: name, DisplayName: name, Entries: entries}
	}
	app := &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Name: w.application},
		Spec: v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{
			service("Open", v1alpha1.Entry{Name: "Items", TargetURL: https + "/api/none"}),
			service("Orders", v1alpha1.Entry{Name: "Orders API", TargetURL: https + "/api/basic?key=" + gibberish, Credentials: v1alpha1.Credentials{Type: "Basic", SecretName: "shop-basic"}}),
			service("Prices", v1alpha1.Entry{Name: "Prices", TargetURL: https + "/api/oauth", Credentials: v1alpha1.Credentials{
				Type: "OAuth", SecretName: "shop-oauth", AuthenticationURL: https + "/oauth/token"}}),
			service("Stock", v1alpha1.Entry{Name: "Stock", TargetURL: https + "/api/oauth-mtls", Credentials: v1alpha1.Credentials{
				Type: "OAuthWithCert", SecretName: "shop-certificate", AuthenticationURL: mutual + "/oauth-mtls/token"}}),
			service("Warehouse",
				v1alpha1.Entry{Name: "Shelves", TargetURL: mutual + "/api/certificate", Credentials: v1alpha1.Credentials{Type: "CertificateGen", SecretName: "shop-certificate"}},
				v1alpha1.Entry{Name: "Boxes", TargetURL: mutual + "/api/certificate", Credentials: v1alpha1.Credentials{Type: "CertificateGen", SecretName: "shop-certificate"}}),
			service("Sales", v1alpha1.Entry{Name: "Sales", TargetURL: https + "/api/csrf", Credentials: v1alpha1.Credentials{
				Type: "Basic", SecretName: "shop-basic", CSRFInfo: &v1alpha1.CSRFInfo{TokenEndpointURL: https + "/api/csrf/"}}}),
			service("Maps", v1alpha1.Entry{Name: "Maps", TargetURL: https + "/api/parameters", RequestParametersSecretName: "shop-parameters"}),
		}},
	}
	app.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionRoutesReady, Status: metav1.ConditionTrue, Reason: "Ready", Message: "8 APIs can be called", ObservedGeneration: 1, LastTransitionTime: metav1.NewTime(w.now),
	}}
	for _, change := range changes {
		change(app)
	}
	if err := client.IgnoreNotFound(w.client.Delete(w.t.Context(), &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: w.application}})); err != nil {
		w.t.Fatal(err)
	}
	status := app.Status
	if err := w.client.Create(w.t.Context(), app); err != nil {
		w.t.Fatal(err)
	}
	app.Status = status
	if err := w.client.Status().Update(w.t.Context(), app); err != nil {
		w.t.Fatal(err)
	}
}

// rename gives the Application another name.
func (w *world) rename(name string) {
	w.t.Helper()
	if err := w.client.DeleteAllOf(w.t.Context(), &v1alpha1.Application{}); err != nil {
		w.t.Fatal(err)
	}
	w.application = name
	w.sell()
}

// entry changes one API of the Application.
func (w *world) entry(service string, change func(*v1alpha1.Entry)) {
	w.t.Helper()
	w.sell(func(a *v1alpha1.Application) {
		for i := range a.Spec.Services {
			if a.Spec.Services[i].Name == service {
				change(&a.Spec.Services[i].Entries[0])
				return
			}
		}
		w.t.Fatalf("no service %s", service)
	})
}
