// Package replacement holds the agent against what must hold of one that takes the place of the one that clusters have.
package replacement

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestMain(m *testing.M) { agenttest.Run(m) }

// What an agent must hold that takes the place of the one that clusters have. Point 14, rotations under load, is tested
// in e2e/rotation, where gateway and validator run too.
func TestReplacement(t *testing.T) {
	for _, point := range []struct {
		name string
		test func(*testing.T, *agenttest.Stage)
	}{
		{"01-pairs with the first and the second token and goes on after a kill", replacesPairing},
		{"02-reads the Secrets of the agent before and keeps what is foreign", replacesSecrets},
		{"03-writes the very Applications that are documented", replacesApplications},
		{"04-reads a thousand applications by pages within its memory and then writes nothing", replacesScale},
		{"05-deletes nothing on an answer that is not whole", replacesDeletion},
		{"06-odd systems do not keep others from being synced", replacesNames},
		{"07-recovers by a new token and waits readably without", replacesRecovery},
		{"08-keeps other URLs of Compass over a restart", replacesURLs},
		{"09-renews once while Director is away", replacesOutage},
		{"10-keeps what users set and repairs what it manages", replacesEdits},
		{"11-leaves foreign Secrets alone", replacesForeignSecrets},
		{"12-of two agents one acts and a token is used once", replacesReplicas},
		{"13-tells no secret", replacesSilence},
		{"15-does once what is asked for", replacesRequests},
	} {
		t.Run(point.name, func(t *testing.T) { point.test(t, agenttest.New(t)) })
	}
}

func replacesPairing(t *testing.T, s *agenttest.Stage) {
	c := &agenttest.Crashes{Stage: s, Witness: agenttest.NewWitness(t)}
	s.Configure()
	c.KillAt(agenttest.Effect{What: "PATCH secrets " + s.Pending().Name, Nth: 2}) // the second token is stored, and not spent
	p := s.Spawn(c.Witness)
	c.Connected(p)
	p.Kill()
	var byToken []string
	for _, r := range s.Compass.Admin().Requests() {
		if r.Endpoint == "token" {
			byToken = append(byToken, r.Operations...)
		}
	}
	if want := []string{"configuration", "signCertificateSigningRequest"}; !slices.Equal(byToken, want) {
		t.Errorf("with tokens Compass was asked for %v, want %v", byToken, want)
	}
}

// pairedBefore leaves in the cluster what the agent before leaves: it pairs as that one does, and writes as that one does.
func pairedBefore(s *agenttest.Stage, encode func(*rsa.PrivateKey) []byte) (credential, authorities *corev1.Secret) {
	s.T.Helper()
	s.Configure()
	configured := s.Secret(s.Configuration)
	roots, err := graphql.RootsFromFile(s.Env["APP_COMPASS_CA_FILE"])
	if err != nil {
		s.T.Fatal(err)
	}
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	defer transport.CloseIdleConnections()
	c := connector.New(transport, string(configured.Data["CONNECTOR_URL"]))
	configuration, err := c.Configuration(s.T.Context(), secret.Value(configured.Data["TOKEN"]))
	if err != nil {
		s.T.Fatal(err)
	}
	subject, err := certs.ParseSubject(configuration.Subject)
	if err != nil {
		s.T.Fatal(err)
	}
	key, err := certs.GenerateKey(2048)
	if err != nil {
		s.T.Fatal(err)
	}
	csr, err := certs.NewRequest(key, subject)
	if err != nil {
		s.T.Fatal(err)
	}
	issued, err := c.Sign(s.T.Context(), configuration.Token, csr)
	if err != nil {
		s.T.Fatal(err)
	}
	text := func(all ...*x509.Certificate) (out []byte) {
		for _, one := range all {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})...)
		}
		return out
	}
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.Credential.Namespace, Name: "owner"}}
	if err := s.Client.Create(s.T.Context(), owner); err != nil {
		s.T.Fatal(err)
	}
	credential = &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Credential.Namespace, Name: s.Credential.Name, Labels: map[string]string{"mine": "label"}, Annotations: map[string]string{"mine": "annotation"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
		},
		Data: map[string][]byte{"key": encode(key), "crt": text(issued.Chain[0]), "crtChain": text(issued.Chain...), "mine": []byte("kept")},
	}
	authorities = &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Authorities.Namespace, Name: s.Authorities.Name, Labels: map[string]string{"mine": "label"}},
		Data:       map[string][]byte{"cacert": text(issued.CA...), "mine": []byte("kept")},
	}
	connection := &compassv1alpha1.CompassConnection{ObjectMeta: metav1.ObjectMeta{Name: compassv1alpha1.ConnectionName}, Spec: compassv1alpha1.CompassConnectionSpec{
		ManagementInfo: compassv1alpha1.ManagementInfo{ConnectorURL: configuration.ConnectorURL, DirectorURL: configuration.DirectorURL},
	}}
	for _, o := range []client.Object{credential.DeepCopy(), authorities.DeepCopy(), connection} {
		if err := s.Client.Create(s.T.Context(), o); err != nil {
			s.T.Fatal(err)
		}
	}
	return credential, authorities
}

func replacesSecrets(t *testing.T, s *agenttest.Stage) {
	for name, encode := range map[string]func(*rsa.PrivateKey) []byte{
		"PKCS#1": func(key *rsa.PrivateKey) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		},
		"PKCS#8": func(key *rsa.PrivateKey) []byte {
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := agenttest.New(t)
			credential, authorities := pairedBefore(s, encode)
			s.Compass.Admin().ResetCounters()
			s.Start()
			s.InState(compassv1alpha1.Synchronized)
			// Director is asked once whose the certificate is, and nobody for another one.
			if signed, asked := s.Calls("signCertificateSigningRequest"), s.Calls("viewer"); signed != 0 || asked != 1 {
				t.Errorf("%d certificates were asked for, and %d times whose this is", signed, asked)
			}
			now, ca := s.Secret(s.Credential), s.Secret(s.Authorities)
			was, err := certs.DecodeClient(credential.Data)
			if err != nil {
				t.Fatal(err)
			}
			is, err := certs.DecodeClient(now.Data)
			if err != nil || is.Fingerprint() != was.Fingerprint() || !was.Key.(*rsa.PrivateKey).Equal(is.Key) {
				t.Errorf("the certificate is another one: %v", err)
			}
			for _, key := range []string{"crt", "crtChain", "mine"} {
				if !bytes.Equal(now.Data[key], credential.Data[key]) {
					t.Errorf("key %s of the client Secret has changed", key)
				}
			}
			if now.Labels["mine"] != "label" || now.Annotations["mine"] != "annotation" || len(now.OwnerReferences) != 1 {
				t.Errorf("labels %v, annotations %v, owners %v", now.Labels, now.Annotations, now.OwnerReferences)
			}
			if string(ca.Data["cacert"]) != string(authorities.Data["cacert"]) || string(ca.Data["mine"]) != "kept" || ca.Labels["mine"] != "label" {
				t.Error("the CA Secret has changed")
			}
		})
	}
}

const (
	goldenApp    = "6f2b0f5e-0f6d-4a57-8d64-7a3d0f6c1a01"
	goldenBundle = "6f2b0f5e-0f6d-4a57-8d64-7a3d0f6c1a02"
	goldenOAuth  = "6f2b0f5e-0f6d-4a57-8d64-7a3d0f6c1a03"
	goldenAPI    = "6f2b0f5e-0f6d-4a57-8d64-7a3d0f6c1a04"
	goldenPrices = "6f2b0f5e-0f6d-4a57-8d64-7a3d0f6c1a05"
	goldenEvent  = "6f2b0f5e-0f6d-4a57-8d64-7a3d0f6c1a06"
)

func replacesApplications(t *testing.T, s *agenttest.Stage) {
	s.Put(compass.Application{ID: goldenApp, Name: "Golden", Bundles: []compass.Bundle{
		{ID: goldenBundle, Name: "display_!@#$%^&*()name", Description: "with a password", Auth: &compass.Auth{
			Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: agenttest.CanaryText}}, Headers: map[string][]string{"h1": {agenttest.CanaryText}},
		}, APIs: []compass.API{{ID: goldenAPI, Name: "API v1.0", TargetURL: "https://shop.example.com/v1"}},
			Events: []compass.Event{{ID: goldenEvent, Name: "order.created"}}},
		{ID: goldenOAuth, Name: "Prices", Auth: &compass.Auth{
			Credential: compass.Credential{OAuth: &compass.OAuth{ClientID: "client", ClientSecret: agenttest.CanaryText, URL: "https://idp.example.com/token"}},
			CSRF:       &compass.CSRF{TokenEndpointURL: "https://shop.example.com/csrf"},
		}, APIs: []compass.API{{ID: goldenPrices, Name: "Prices", TargetURL: "https://shop.example.com/prices"}}},
	}})
	s.Configure()
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
	stored := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "applicationconnector.kyma-project.io/v1alpha1", "kind": "Application"}}
	if err := s.Client.Get(t.Context(), types.NamespacedName{Name: "mp-golden"}, stored); err != nil {
		t.Fatal(err)
	}
	suffix := func(id string) string {
		sum := sha1.Sum([]byte(id))
		return hex.EncodeToString(sum[:])[:5]
	}
	gateway := "http://central-application-gateway.kyma-system.svc.cluster.local:8082/mp-golden"
	want := `{"labels":{"applicationconnector.kyma-project.io/managed-by":"compass-runtime-agent"},"spec":{
"compassMetadata":{"applicationId":"` + goldenApp + `","authentication":{"clientIds":[]}},
"description":"Description not provided","displayName":"","encodeUrl":false,"labels":{"connected-app":"mp-golden"},"longDescription":"","providerDisplayName":"","skipVerify":false,
"services":[
{"id":"` + goldenBundle + `","identifier":"","name":"display-name-` + suffix(goldenBundle) + `","displayName":"display_!@#$%^\u0026*()name","description":"with a password","providerDisplayName":"","entries":[
{"id":"` + goldenAPI + `","name":"API v1.0","type":"API","targetUrl":"https://shop.example.com/v1","centralGatewayUrl":"` + gateway + `/display-name/api-v1-0","gatewayUrl":"","credentials":{"type":"Basic","secretName":"mp-golden-` + goldenBundle + `"},"requestParametersSecretName":"params-mp-golden-` + goldenBundle + `"},
{"id":"` + goldenEvent + `","name":"order.created","type":"Events","targetUrl":"","centralGatewayUrl":"","gatewayUrl":"","credentials":{"type":"","secretName":""}}]},
{"id":"` + goldenOAuth + `","identifier":"","name":"prices-` + suffix(goldenOAuth) + `","displayName":"Prices","description":"Description not provided","providerDisplayName":"","entries":[
{"id":"` + goldenPrices + `","name":"Prices","type":"API","targetUrl":"https://shop.example.com/prices","centralGatewayUrl":"` + gateway + `/prices/prices","gatewayUrl":"","credentials":{"type":"OAuth","secretName":"mp-golden-` + goldenOAuth + `","authenticationUrl":"https://idp.example.com/token","csrfInfo":{"tokenEndpointURL":"https://shop.example.com/csrf"}}}]}]}}`
	var fields any
	if err := json.Unmarshal([]byte(want), &fields); err != nil {
		t.Fatal(err)
	}
	if got := agenttest.Printed(t, map[string]any{"labels": stored.GetLabels(), "spec": stored.Object["spec"]}); got != agenttest.Printed(t, fields) {
		t.Errorf("got\n%s\nwant\n%s", got, agenttest.Printed(t, fields))
	}
	for name, want := range map[string]map[string]string{
		"mp-golden-" + goldenBundle: {"username": "user", "password": agenttest.CanaryText}, "mp-golden-" + goldenOAuth: {"clientId": "client", "clientSecret": agenttest.CanaryText},
		"params-mp-golden-" + goldenBundle: {"headers": `{"h1":["` + agenttest.CanaryText + `"]}`},
	} {
		stored := s.Secret(types.NamespacedName{Namespace: s.Credential.Namespace, Name: name})
		if stored == nil || len(stored.Data) != len(want) || stored.Labels["app"] != "mp-golden" || len(stored.OwnerReferences) != 1 {
			t.Errorf("Secret %s is not as documented", name)
			continue
		}
		for key, value := range want {
			if string(stored.Data[key]) != value {
				t.Errorf("key %s of Secret %s is not as documented", key, name)
			}
		}
	}
}

// manySystems are read by ten pages, with three bundles each. memoryBound is half of the limit in manifests/base/agent.
const (
	manySystems = 1000
	memoryBound = 256 << 20
)

func replacesScale(t *testing.T, s *agenttest.Stage) {
	apps := make([]compass.Application, manySystems)
	for i := range apps {
		apps[i] = compass.Application{Name: fmt.Sprintf("System %d", i)}
		for j := range 3 {
			apps[i].Bundles = append(apps[i].Bundles, compass.Bundle{
				Name: fmt.Sprintf("Bundle %d", j), APIs: []compass.API{{Name: "API", TargetURL: "https://system.example.com"}},
			})
		}
	}
	s.Put(apps...)
	s.Configure()
	w := agenttest.NewWitness(t)
	p := s.Spawn(w)
	c := s.InState(compassv1alpha1.Synchronized)
	if got := c.Status.Applications; got.Total != manySystems+1 || got.Synced != manySystems+1 || got.Failed != 0 || got.PendingDeletion != 0 {
		t.Errorf("applications %+v", got)
	}
	w.WatchFor(agenttest.Effect{})
	before := s.Calls("applicationsForRuntime")
	s.Resync()
	for _, e := range w.Effects() {
		if strings.Contains(e.What, "applications") || strings.Contains(e.What, "secrets") {
			t.Errorf("a quiet sync writes: %s", e.What)
		}
	}
	// Eleven pages of a hundred, and their ids once more.
	if pages := s.Calls("applicationsForRuntime") - before; pages != 2*11 {
		t.Errorf("%d requests for %d applications", pages, manySystems+1)
	}
	p.Kill()
	if peak := p.Peak(); peak > memoryBound {
		t.Errorf("the agent had %d MiB of memory, more than %d", peak>>20, memoryBound>>20)
	} else {
		t.Logf("the agent had %d MiB of memory at most", peak>>20)
	}
}

func replacesDeletion(t *testing.T, s *agenttest.Stage) {
	s.Configure()
	r := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	there := func(when string) {
		t.Helper()
		if got := s.Applications(); !slices.Equal(got, []string{"mp-shop"}) {
			t.Fatalf("%s: Applications %v", when, got)
		}
	}
	for _, f := range []compass.Fault{
		{Kind: compass.FaultNullData, Operation: "applicationsForRuntime"},
		{Kind: compass.FaultStatus, Operation: "applicationsForRuntime", Status: 503},
		{Kind: compass.FaultScopeLost, Scope: "application:read"},
	} {
		clear := s.Fault(f)
		s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
		c := s.InState(compassv1alpha1.SynchronizationFailed)
		if c.Status.SynchronizationStatus.Error == "" || meta.IsStatusConditionTrue(c.Status.Conditions, "Ready") {
			t.Errorf("%s: status %+v", f.Kind, c.Status)
		}
		there(string(f.Kind))
		clear()
		s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
		s.InState(compassv1alpha1.Synchronized)
	}
	// A runtime that is in no formation any more gets an empty answer, without an error.
	if err := s.Compass.Admin().DeleteApplication(s.Compass.Admin().Inventory().Tenants[0].Applications[0].ID); err != nil {
		t.Fatal(err)
	}
	c := s.Resync()
	there("an empty formation")
	if blocked := meta.FindStatusCondition(c.Status.Conditions, "PruneBlocked"); blocked == nil || blocked.Message == "" {
		t.Errorf("condition PruneBlocked: %+v", blocked)
	}
	s.Eventually("an event and the metric", func() bool {
		var events eventsv1.EventList
		if err := s.Client.List(t.Context(), &events); err != nil {
			return false
		}
		_, metrics := s.Fetch(r.Metrics + "/metrics")
		return slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool { return e.Reason == "PruneBlocked" && e.Regarding.UID == c.UID }) &&
			strings.Contains(metrics, "compass_runtime_agent_applications{state=\"pending_deletion\"} 1\n")
	})
}

func replacesNames(t *testing.T, s *agenttest.Stage) {
	taken := &applicationv1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "mp-taken"}, Spec: applicationv1alpha1.ApplicationSpec{Description: "mine"}}
	if err := s.Client.Create(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	bundle := func(name string) compass.Bundle {
		return compass.Bundle{Name: name, APIs: []compass.API{{Name: "API", TargetURL: "https://system.example.com"}}}
	}
	long := strings.Repeat("x", 90)
	s.Put(compass.Application{Name: "Taken"}, compass.Application{Name: "Größe über alles"}, compass.Application{Name: long},
		compass.Application{Name: "Colliding", Bundles: []compass.Bundle{bundle("one name"), bundle("one!name")}})
	s.Configure()
	r := s.Start()
	c := s.InState(compassv1alpha1.Synchronized)
	got := s.Applications()
	slices.Sort(got)
	if want := []string{"mp-colliding", "mp-gr-e-ber-alles", "mp-shop", "mp-taken", "mp-" + long}; !slices.Equal(got, want) {
		t.Errorf("Applications %v, want %v", got, want)
	}
	reasons := map[string]string{}
	for _, f := range c.Status.FailedApplications {
		reasons[f.Name] = f.Reason
	}
	if want := map[string]string{"mp-taken": "NameTaken", "mp-colliding": "AmbiguousAPIs"}; !maps.Equal(reasons, want) {
		t.Errorf("failed Applications %v, want %v", reasons, want)
	}
	s.Eventually("an event about each of them, and the metrics", func() bool {
		var events eventsv1.EventList
		if err := s.Client.List(t.Context(), &events); err != nil {
			return false
		}
		var told []string
		for _, e := range events.Items {
			if e.Reason == "ApplicationFailed" && e.Type == corev1.EventTypeWarning && e.Regarding.UID == c.UID {
				name, _, _ := strings.Cut(e.Note, " ")
				told = append(told, name)
			}
		}
		slices.Sort(told)
		_, metrics := s.Fetch(r.Metrics + "/metrics")
		return slices.Equal(told, []string{"mp-colliding", "mp-taken"}) &&
			strings.Contains(metrics, "compass_runtime_agent_applications{state=\"total\"} 5\n") &&
			strings.Contains(metrics, "compass_runtime_agent_failed_applications{reason=\"NameTaken\"} 1\n")
	})
	if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(taken), taken); err != nil || taken.Spec.Description != "mine" || len(taken.Spec.Services) > 0 {
		t.Errorf("the Application that somebody wrote has changed: %+v, %v", taken.Spec, err)
	}
}

func replacesRecovery(t *testing.T, s *agenttest.Stage) {
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	for _, auth := range s.Compass.Admin().SystemAuths(agenttest.RuntimeID) {
		if err := s.Compass.Admin().Revoke(auth.ID); err != nil {
			t.Fatal(err)
		}
	}
	c := s.Refused()
	if got := c.Status; got.NextAttempt == nil || got.SynchronizationStatus.Error+got.ConnectionStatus.Error == "" || meta.IsStatusConditionTrue(got.Conditions, "Ready") {
		t.Errorf("status %+v", got)
	}
	if got := s.Calls("signCertificateSigningRequest"); got != 1 {
		t.Errorf("%d certificates were asked for", got)
	}
	s.Configure()
	s.Until("a new certificate by the new token", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.State == compassv1alpha1.Synchronized && agenttest.Fingerprint(c) != agenttest.Fingerprint(before)
	})
}

func replacesURLs(t *testing.T, s *agenttest.Stage) {
	s.Configure()
	first := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	first.Stop()
	moved := func(url string) string { return strings.Replace(url, "localhost", "127.0.0.1", 1) }
	s.Fault(compass.Fault{Kind: compass.FaultOtherURLs, DirectorURL: moved(s.Compass.DirectorURL()), ConnectorURL: moved(s.Compass.MTLSConnectorURL())})
	second := s.Start()
	s.Resync()
	second.Stop()
	kept := s.Connection(t.Context()).Spec.ManagementInfo
	if want := (compassv1alpha1.ManagementInfo{ConnectorURL: moved(s.Compass.MTLSConnectorURL()), DirectorURL: moved(s.Compass.DirectorURL())}); kept != want {
		t.Fatalf("managementInfo %+v, want %+v", kept, want)
	}
	told := len(s.Log.String())
	s.Start()
	s.Resync()
	if log := s.Log.String()[told:]; strings.Contains(log, `"endpoint":"localhost:`) || !strings.Contains(log, `"endpoint":"127.0.0.1:`) {
		t.Error("after the restart the old URLs are called")
	}
}

func replacesOutage(t *testing.T, s *agenttest.Stage) {
	s.Configure()
	r := s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	for _, operation := range []string{"viewer", "applicationsForRuntime"} {
		s.Fault(compass.Fault{Kind: compass.FaultStatus, Operation: operation, Status: 502})
	}
	failed := int32(0)
	for failed < 6 { // more than a bad certificate is given; each request passes the waiting time
		s.Ask(fmt.Sprintf("after %d failures", failed))
		failed = s.Until("another failure", func(c *compassv1alpha1.CompassConnection) bool { return c.Status.ConsecutiveFailures > failed }).Status.ConsecutiveFailures
	}
	if pending := s.Secret(s.Pending()); pending == nil || len(pending.Data["crt"]) == 0 {
		t.Error("the new certificate is not kept")
	}
	r.Stop()
	s.Start()
	s.Compass.Admin().ClearFaults()
	s.Ask("now that Director is back")
	s.Until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return agenttest.Fingerprint(c) != agenttest.Fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized && c.Status.RenewalRequest.HandledAt != nil
	})
	if got := s.Calls("signCertificateSigningRequest"); got != 2 {
		t.Errorf("%d certificates were asked for, want one for the pairing and one for the renewal", got)
	}
}

func replacesEdits(t *testing.T, s *agenttest.Stage) {
	s.Configure()
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
	app := &applicationv1alpha1.Application{}
	name := types.NamespacedName{Name: "mp-shop"}
	if err := s.Client.Get(t.Context(), name, app); err != nil {
		t.Fatal(err)
	}
	edited := app.DeepCopy()
	edited.Labels["mine"], edited.Annotations = "label", map[string]string{"mine": "annotation"}
	edited.Spec.SkipVerify, edited.Spec.Description = true, "edited"
	if err := s.Client.Patch(t.Context(), edited, client.MergeFrom(app)); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the repair", func() bool {
		return s.Client.Get(t.Context(), name, app) == nil && app.Spec.Description == "a shop"
	})
	if app.Labels["mine"] != "label" || app.Annotations["mine"] != "annotation" || !app.Spec.SkipVerify {
		t.Errorf("what a user set is gone: %v %v, skipVerify %v", app.Labels, app.Annotations, app.Spec.SkipVerify)
	}
}

func replacesForeignSecrets(t *testing.T, s *agenttest.Stage) {
	s.Configure()
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Credential.Namespace, Name: "foreign"}, StringData: map[string]string{"password": "somebody's " + agenttest.CanaryText}}
	if err := s.Client.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	app := &applicationv1alpha1.Application{}
	if err := s.Client.Get(t.Context(), types.NamespacedName{Name: "mp-shop"}, app); err != nil {
		t.Fatal(err)
	}
	right := app.Spec.Services[0].Entries[0].Credentials.SecretName
	bad := app.DeepCopy()
	bad.Spec.Services[0].Entries[0].Credentials.SecretName = foreign.Name
	if err := s.Client.Patch(t.Context(), bad, client.MergeFrom(app)); err != nil {
		t.Fatal(err)
	}
	s.Resync()
	if err := s.Client.Get(t.Context(), types.NamespacedName{Name: "mp-shop"}, app); err != nil || app.Spec.Services[0].Entries[0].Credentials.SecretName != right {
		t.Errorf("the Application points at Secret %s, %v", app.Spec.Services[0].Entries[0].Credentials.SecretName, err)
	}
	if now := s.Secret(client.ObjectKeyFromObject(foreign)); now == nil || now.ResourceVersion != foreign.ResourceVersion {
		t.Error("the foreign Secret was touched")
	}
}

func replacesReplicas(t *testing.T, s *agenttest.Stage) {
	s.Env["APP_LEADER_ELECTION"] = "true"
	one, two := s.Start(), s.Start()
	s.Configure()
	s.InState(compassv1alpha1.Synchronized)
	one.Stop() // whichever of them leads, one of the next two goes on: a rolling update
	three := s.Start()
	two.Stop()
	s.Resync()
	if configuration, signed := s.Calls("configuration"), s.Calls("signCertificateSigningRequest"); signed != 1 || configuration > 3 {
		t.Errorf("%d certificates were asked for, %d calls of configuration", signed, configuration)
	}
	byToken := 0
	for _, r := range s.Compass.Admin().Requests() {
		if r.WithToken {
			byToken++
		}
	}
	if byToken != 2 {
		t.Errorf("%d requests with tokens: the first and the second must be used once each", byToken)
	}
	three.Stop()
}

func replacesSilence(t *testing.T, s *agenttest.Stage) {
	s.Configure(agenttest.Set("TOKEN", "a token that is wrong, and secret"))
	r := s.Start()
	s.InState(compassv1alpha1.ConnectionFailed)
	s.Configure()
	before := s.InState(compassv1alpha1.Synchronized)
	old := s.Secret(s.Credential).Data["key"]
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	s.Until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return agenttest.Fingerprint(c) != agenttest.Fingerprint(before)
	})
	r.Stop()
	// The search finds what is there, of the old certificate and of the new one: what is done at the end of each test is
	// not in vain.
	for when, key := range map[string][]byte{"old": old, "new": s.Secret(s.Credential).Data["key"]} {
		if found := s.Canaries.In(string(key)); len(found) == 0 {
			t.Errorf("the %s private key would not be found", when)
		}
	}
	s.NoSecretWasTold()
}

func replacesRequests(t *testing.T, s *agenttest.Stage) {
	s.Env["APP_MINIMAL_COMPASS_SYNC_TIME"] = "1h" // whatever comes sooner comes because it was asked for
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	began := time.Now()
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) {
		spec.RefreshCredentialsNow, spec.ResyncNow = true, true
	})
	s.Until("the renewal and the sync", func(c *compassv1alpha1.CompassConnection) bool {
		return agenttest.Fingerprint(c) != agenttest.Fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized && !c.Spec.RefreshCredentialsNow && !c.Spec.ResyncNow &&
			c.Status.ObservedGeneration == c.Generation && !c.Status.SynchronizationStatus.LastSuccessfulApplication.Time.Before(began.Truncate(time.Second))
	})
	for range 3 {
		s.Resync()
	}
	if signed, synced := s.Calls("signCertificateSigningRequest"), s.Calls("applicationsForRuntime"); signed != 2 || synced < 5 || synced > 6 {
		t.Errorf("%d certificates, %d snapshots; want 2 and one for the pairing, one or two for the renewal and 3", signed, synced)
	}
}
