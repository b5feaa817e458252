package upgrade

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

var (
	applicationKind = schema.GroupVersionKind{Group: "applicationconnector.kyma-project.io", Version: "v1alpha1", Kind: "Application"}
	connectionKind  = schema.GroupVersionKind{Group: "compass.kyma-project.io", Version: "v1alpha1", Kind: "CompassConnection"}
)

// before is a model of the agent and the gateway of the module in use today, in what they read and write: whole objects, by
// update of the main resource, with what they do not know left out. It reaches the cluster by their service accounts.
type before struct {
	t         *testing.T
	kube      client.Client // the agent's
	transport *graphql.Transport
	ended     bool // its certificate has, so that it can do nothing
}

// newBefore needs the service accounts of the manifests of before.
func newBefore(w *world) *before {
	w.t.Helper()
	kube, err := client.New(w.as(agentName), client.Options{})
	w.must(err)
	roots, err := graphql.RootsFromFile(w.compassCA)
	w.must(err)
	b := &before{t: w.t, kube: kube, transport: graphql.NewTransport(graphql.Options{RootCAs: roots})}
	w.t.Cleanup(b.transport.CloseIdleConnections)
	return b
}

// beforeOwner: a program that names no field manager goes by its own name.
const beforeOwner = client.FieldOwner(agentName)

func object(kind schema.GroupVersionKind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(kind)
	o.SetName(name)
	return o
}

// put writes a Secret as it was written: what is there keeps its other keys and loses labels, annotations and owners that are
// not given. It is not looked whether somebody else has changed it in the meantime.
func (b *before) put(s *corev1.Secret) error {
	ctx := b.t.Context()
	existing := &corev1.Secret{}
	err := b.kube.Get(ctx, client.ObjectKeyFromObject(s), existing)
	if apierrors.IsNotFound(err) {
		return b.kube.Create(ctx, s, beforeOwner)
	}
	if err != nil {
		return err
	}
	if len(s.Labels) == 0 { // the agent's own; those with credentials are replaced whole
		for key, value := range existing.Data {
			if _, given := s.Data[key]; !given {
				s.Data[key] = value
			}
		}
	}
	return b.kube.Update(ctx, s, beforeOwner)
}

// pair connects the cluster with the token of the configuration Secret.
func (b *before) pair() error {
	ctx := b.t.Context()
	configured := &corev1.Secret{}
	if err := b.kube.Get(ctx, client.ObjectKey{Namespace: system, Name: "compass-agent-configuration"}, configured); err != nil {
		return err
	}
	c := connector.New(b.transport, string(configured.Data["CONNECTOR_URL"]))
	configuration, err := c.Configuration(ctx, secret.Value(configured.Data["TOKEN"]))
	if err != nil {
		return err
	}
	subject, err := certs.ParseSubject(configuration.Subject)
	if err != nil {
		return err
	}
	key, err := certs.GenerateKey(4096)
	if err != nil {
		return err
	}
	request, err := certs.NewRequest(key, subject)
	if err != nil {
		return err
	}
	issued, err := c.Sign(ctx, configuration.Token, request)
	if err != nil {
		return err
	}
	text := func(all ...*x509.Certificate) (out []byte) {
		for _, one := range all {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})...)
		}
		return out
	}
	certificate := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "cluster-client-certificates"}, Data: map[string][]byte{
		"key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"crt": text(issued.Certificate), "crtChain": text(issued.Chain...),
	}}
	authorities := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ingress, Name: "kyma-gateway-certs-cacert"}, Data: map[string][]byte{"cacert": text(issued.CA...)}}
	if err := errors.Join(b.put(certificate), b.put(authorities)); err != nil {
		return err
	}
	now := time.Now().UTC().Format(time.RFC3339)
	connection := object(connectionKind, "compass-connection")
	connection.Object["spec"] = map[string]any{"managementInfo": map[string]any{"connectorUrl": configuration.ConnectorURL, "directorUrl": configuration.DirectorURL}}
	connection.Object["status"] = map[string]any{
		"connectionState": "Connected",
		"connectionStatus": map[string]any{"established": now, "lastSync": now, "lastSuccess": now, "certificateStatus": map[string]any{
			"acquired": now, "notBefore": issued.Certificate.NotBefore.UTC().Format(time.RFC3339), "notAfter": issued.Certificate.NotAfter.UTC().Format(time.RFC3339),
		}},
	}
	return b.kube.Create(ctx, connection, beforeOwner)
}

// credential reads the client Secret, of which only a key in PKCS#1 was understood.
func (b *before) credential() (tls.Certificate, error) {
	s := &corev1.Secret{}
	if err := b.kube.Get(b.t.Context(), client.ObjectKey{Namespace: system, Name: "cluster-client-certificates"}, s); err != nil {
		return tls.Certificate{}, err
	}
	key, _ := pem.Decode(s.Data["key"])
	if key == nil || key.Type != "RSA PRIVATE KEY" {
		return tls.Certificate{}, errors.New("the key of the client Secret is not in PKCS#1")
	}
	if len(s.Data["crt"]) == 0 {
		return tls.Certificate{}, errors.New("the client Secret has no crt")
	}
	return tls.X509KeyPair(s.Data["crtChain"], s.Data["key"])
}

// sync is one heartbeat of the agent that is connected: the Connector is asked, the Director is read, everything is written.
func (b *before) sync() error {
	ctx := b.t.Context()
	connection := object(connectionKind, "compass-connection")
	if err := b.kube.Get(ctx, client.ObjectKeyFromObject(connection), connection); err != nil {
		return err
	}
	certificate, err := b.credential()
	if err != nil {
		return err
	}
	configured := &corev1.Secret{}
	if err := b.kube.Get(ctx, client.ObjectKey{Namespace: system, Name: "compass-agent-configuration"}, configured); err != nil {
		return err
	}
	b.transport.SetCertificate(&certificate)
	at := func(field string) string {
		url, _, _ := unstructured.NestedString(connection.Object, "spec", "managementInfo", field)
		return url
	}
	if _, err := connector.New(b.transport, at("connectorUrl")).Configuration(ctx, ""); err != nil {
		return err
	}
	read, err := director.New(b.transport, at("directorUrl"), string(configured.Data["TENANT"])).Snapshot(ctx, string(configured.Data["RUNTIME_ID"]))
	if err != nil {
		return err
	}
	if !read.Complete || len(read.Invalid) > 0 {
		return fmt.Errorf("the Director's answer is not whole: %s %v", read.Incomplete, read.Invalid)
	}
	for _, app := range read.Applications {
		if err := b.write(app); err != nil {
			return fmt.Errorf("%s: %w", app.Name, err)
		}
	}
	return b.report(connection)
}

// write brings one Application and its Secrets into place; every one is written, also if nothing has changed.
func (b *before) write(read director.Application) error {
	ctx := b.t.Context()
	app := object(applicationKind, read.Name)
	err := b.kube.Get(ctx, client.ObjectKeyFromObject(app), app)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	spec, _ := app.Object["spec"].(map[string]any)
	if missing {
		spec = map[string]any{"skipVerify": false, "encodeUrl": false, "displayName": "", "providerDisplayName": "", "longDescription": ""}
	}
	var clients []any
	for _, id := range read.AuthIDs {
		clients = append(clients, id)
	}
	if clients == nil {
		clients = []any{}
	}
	spec["description"] = described(read.Description)
	spec["labels"] = map[string]any{"connected-app": read.Name}
	spec["compassMetadata"] = map[string]any{"applicationId": read.ID, "authentication": map[string]any{"clientIds": clients}}
	services, secrets := []any{}, []*corev1.Secret{}
	for _, bundle := range read.Bundles {
		service, of := b.service(read.Name, bundle)
		services, secrets = append(services, service), append(secrets, of...)
	}
	spec["services"] = services
	status, _ := app.Object["status"].(map[string]any)
	if _, has := status["installationStatus"]; !has { // it had no way to leave it out
		app.Object["status"] = map[string]any{"installationStatus": map[string]any{"status": "", "description": ""}}
	}
	app.Object["spec"] = spec
	app.SetLabels(map[string]string{"applicationconnector.kyma-project.io/managed-by": agentName})
	if missing {
		err = b.kube.Create(ctx, app, beforeOwner)
	} else {
		err = b.kube.Update(ctx, app, beforeOwner)
	}
	if err != nil {
		return err
	}
	for _, s := range secrets {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: applicationKind.GroupVersion().String(), Kind: "Application", Name: app.GetName(), UID: app.GetUID()}}
		if err := b.put(s); err != nil {
			return err
		}
	}
	return nil
}

func described(text string) string {
	if text == "" {
		return "Description not provided"
	}
	return text
}

// service is a bundle with the Secrets that its entries name.
func (b *before) service(app string, bundle director.Bundle) (map[string]any, []*corev1.Secret) {
	secretOf := func(name string, data map[string][]byte) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: system, Name: name + "-" + bundle.ID, Labels: map[string]string{"app": app, "bundleId": bundle.ID},
		}, Data: data}
	}
	credentials := map[string]any{"type": "", "secretName": ""}
	var parameters string
	var secrets []*corev1.Secret
	if bundle.Auth != nil {
		switch c := bundle.Auth.Credential.(type) {
		case director.Basic:
			s := secretOf(app, map[string][]byte{"username": []byte(c.Username), "password": []byte(c.Password.Reveal())})
			credentials, secrets = map[string]any{"type": "Basic", "secretName": s.Name}, append(secrets, s)
		case director.OAuth:
			s := secretOf(app, map[string][]byte{"clientId": []byte(c.ClientID), "clientSecret": []byte(c.ClientSecret.Reveal())})
			credentials, secrets = map[string]any{"type": "OAuth", "secretName": s.Name, "authenticationUrl": c.URL}, append(secrets, s)
		}
		if len(bundle.Auth.Headers) > 0 {
			text, err := json.Marshal(bundle.Auth.Headers)
			if err != nil {
				b.t.Fatal(err)
			}
			s := secretOf("params-"+app, map[string][]byte{"headers": text})
			parameters, secrets = s.Name, append(secrets, s)
		}
	}
	entries := []any{}
	for _, api := range bundle.APIs {
		entry := map[string]any{
			"id": api.ID, "name": api.Name, "type": "API", "targetUrl": api.TargetURL, "gatewayUrl": "", "credentials": credentials,
			"centralGatewayUrl": "http://central-application-gateway.kyma-system.svc.cluster.local:8082/" + app + "/" + normalised(bundle.Name) + "/" + normalised(api.Name),
		}
		if parameters != "" {
			entry["requestParametersSecretName"] = parameters
		}
		entries = append(entries, entry)
	}
	sum := sha1.Sum([]byte(bundle.ID))
	return map[string]any{
		"id": bundle.ID, "identifier": "", "name": normalised(bundle.Name) + "-" + hex.EncodeToString(sum[:])[:5], "displayName": bundle.Name,
		"description": described(bundle.Description), "providerDisplayName": "", "entries": entries,
	}, secrets
}

var other = regexp.MustCompile(`[^A-Za-z0-9]+`)

func normalised(name string) string {
	return strings.Trim(strings.ToLower(other.ReplaceAllString(name, "-")), "-")
}

var errStatusLost = errors.New("the cluster did not take the status that was written with the CompassConnection")

// report writes the status with the object, and looks whether the cluster took it: without it the agent would pair again.
func (b *before) report(connection *unstructured.Unstructured) error {
	now := time.Now().UTC().Format(time.RFC3339)
	status, _ := connection.Object["status"].(map[string]any)
	status["connectionState"] = "Synchronized"
	status["synchronizationStatus"] = map[string]any{"lastAttempt": now, "lastSuccessfulFetch": now, "lastSuccessfulApplication": now}
	if err := b.kube.Update(b.t.Context(), connection, beforeOwner); err != nil {
		return err
	}
	if at, _, _ := unstructured.NestedString(connection.Object, "status", "synchronizationStatus", "lastAttempt"); at != now {
		return errStatusLost
	}
	return nil
}

// callAsBefore is what the gateway of before does with a call of an entry: it reads Application and Secrets anew, and calls the API.
func (w *world) callAsBefore(app, service, entry string) (int, error) {
	kube, err := client.New(w.as(gatewayName), client.Options{})
	if err != nil {
		return 0, err
	}
	found := object(applicationKind, app)
	if err := kube.Get(w.t.Context(), client.ObjectKeyFromObject(found), found); err != nil {
		return 0, err
	}
	var entries []any
	services, _, _ := unstructured.NestedSlice(found.Object, "spec", "services")
	for _, s := range services {
		if s := s.(map[string]any); normalised(s["displayName"].(string)) == service {
			entries = s["entries"].([]any)
		}
	}
	for _, e := range entries {
		if e := e.(map[string]any); normalised(e["name"].(string)) == entry {
			return w.request(kube, e)
		}
	}
	return 0, fmt.Errorf("Application %s has no entry %s/%s", app, service, entry)
}

func (w *world) request(kube client.Client, entry map[string]any) (int, error) {
	read := func(name string) (map[string][]byte, error) {
		s := &corev1.Secret{}
		err := kube.Get(w.t.Context(), client.ObjectKey{Namespace: system, Name: name}, s)
		return s.Data, err
	}
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, entry["targetUrl"].(string), nil)
	if err != nil {
		return 0, err
	}
	credentials := entry["credentials"].(map[string]any)
	data, err := read(credentials["secretName"].(string))
	if err != nil {
		return 0, err
	}
	switch credentials["type"] {
	case "Basic":
		r.SetBasicAuth(string(data["username"]), string(data["password"]))
	case "OAuth":
		token, err := w.token(credentials["authenticationUrl"].(string), string(data["clientId"]), string(data["clientSecret"]))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if name, _ := entry["requestParametersSecretName"].(string); name != "" {
		data, err := read(name)
		if err != nil {
			return 0, err
		}
		var headers map[string][]string
		if err := json.Unmarshal(data["headers"], &headers); err != nil {
			return 0, err
		}
		for name, values := range headers {
			r.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	return answer(r)
}

func (w *world) token(endpoint, id, password string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {password}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	return token.AccessToken, json.NewDecoder(response.Body).Decode(&token)
}

func answer(r *http.Request) (int, error) {
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
