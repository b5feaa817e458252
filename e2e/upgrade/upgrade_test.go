package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"

	shopID   = "5b0d3f52-2b4f-4b63-9a0f-0d2f0d3f8a01"
	ordersID = "5b0d3f52-2b4f-4b63-9a0f-0d2f0d3f8a02"
	pricesID = "5b0d3f52-2b4f-4b63-9a0f-0d2f0d3f8a03"
	laterID  = "5b0d3f52-2b4f-4b63-9a0f-0d2f0d3f8a04"
)

func TestAnUpgradeAndTheWayBackKeepEverything(t *testing.T) {
	x := newTarget(t)
	server, err := compass.Start(t.Context(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{{
		ID: tenant, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
	}}}, OnSecret: leaktest.Of(t).Add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, server)
	w.administer(x.shop(basic("first")))

	// A cluster with the module in use today.
	w.run("kubectl apply --server-side -f " + testdata(t, "operator.yaml"))
	w.run("kubectl wait --for=condition=Established --timeout=1m crd --all")
	w.must(w.kube.Create(t.Context(), operatorResource()))
	w.operate()
	w.before = newBefore(w)
	token, err := server.Admin().RuntimeToken(runtimeID)
	w.must(err)
	w.must(w.kube.Create(t.Context(), &corev1.Secret{ObjectMeta: meta(system, "compass-agent-configuration"), StringData: map[string]string{
		"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token,
	}}))
	w.must(w.before.pair())
	w.must(errors.Join(w.before.sync(), w.before.sync()))
	// What an administrator may set and no agent touches.
	w.run(`kubectl annotate applications.applicationconnector.kyma-project.io/mp-shop mine=kept
kubectl patch applications.applicationconnector.kyma-project.io/mp-shop --type=merge --patch='{"spec":{"skipVerify":true}}'`)
	w.byHand(x)
	server.Admin().ResetCounters()
	planted, installed, certificate := w.kept(), w.installed(), w.certificate()
	w.calls("the module in use today", func(path [3]string) (int, error) { return w.callAsBefore(path[0], path[1], path[2]) }, "shop")

	// The upgrade.
	w.follow("Before")
	w.follow("Upgrade")
	w.same("the upgrade", planted)
	w.upgraded("the upgrade", certificate)
	w.calls("the upgrade", w.callGateway, "shop")
	w.ignoresTheAgentOfBefore()

	// Things change while the new agent is there: a password, a system, the certificate.
	x.password.Store("second")
	w.administer(x.shop(basic("second")), x.later())
	w.eventually("the new password and the new system", func() error {
		return errors.Join(w.answers(w.callGateway, "mp-shop", "orders", "orders-api"), w.answers(w.callGateway, "mp-later", "orders", "orders-api"))
	})
	w.renew()
	w.oneRenewal(certificate)
	certificate = w.certificate()
	for name, o := range w.kept() {
		if strings.Contains(name, "later") || strings.Contains(name, laterID) {
			planted[name] = o
		}
	}

	// The way back.
	w.follow("Back")
	w.same("the way back", planted)
	if diff := cmp.Diff(installed, w.installed()); diff != "" {
		t.Errorf("what the operator put in place, before (-) and after the way back (+):\n%s", diff)
	}
	w.nothingLeft()
	if now := w.certificate(); now != certificate {
		t.Error("the certificate is another one after the way back")
	}
	w.calls("the way back", func(path [3]string) (int, error) { return w.callAsBefore(path[0], path[1], path[2]) }, "shop", "later")
	x.password.Store("third")
	w.administer(x.shop(basic("third")), x.later())
	w.must(w.before.sync())
	w.calls("a change after the way back", func(path [3]string) (int, error) { return w.callAsBefore(path[0], path[1], path[2]) }, "shop")
	// Whoever changes an Application that the new agent made, as of before.
	w.run("kubectl annotate applications.applicationconnector.kyma-project.io/mp-later mine=too")

	// Broken off in the middle, and back: what is there then is what there was.
	w.followUntil("Upgrade", "-k manifests/overlays/compass")
	w.same("an upgrade that was broken off", planted)
	w.follow("Back")
	w.same("the way back from the middle", planted)
	if diff := cmp.Diff(installed, w.installed()); diff != "" {
		t.Errorf("what the operator put in place, before (-) and after the way back from the middle (+):\n%s", diff)
	}
	w.nothingLeft()
	w.calls("the way back from the middle", func(path [3]string) (int, error) { return w.callAsBefore(path[0], path[1], path[2]) }, "shop", "later")

	// And once more, all of it twice.
	w.follow("Upgrade")
	w.follow("Upgrade")
	w.same("the second upgrade", planted)
	w.upgraded("the second upgrade", certificate)
	w.calls("the second upgrade", w.callGateway, "shop", "later")
	w.administer(x.shop(compass.Credential{OAuth: &compass.OAuth{ClientID: "client", ClientSecret: "passwd", URL: x.server.URL + "/token"}}), x.later())
	w.eventually("no key of the other kind of credentials is left, whoever wrote it", func() error {
		if keys := w.kept()["Secret kyma-system/mp-shop-"+ordersID].Keys; !slices.Equal(keys, []string{"clientId", "clientSecret"}) {
			return fmt.Errorf("the Secret has %v", keys)
		}
		return w.answers(w.callGateway, "mp-shop", "orders", "orders-api")
	})
	var user map[string]any
	w.must(json.Unmarshal([]byte(w.run("kubectl get applications.applicationconnector.kyma-project.io/mp-shop -o json")), &user))
	mine, _, _ := unstructured.NestedString(user, "metadata", "annotations", "mine")
	skip, _, _ := unstructured.NestedBool(user, "spec", "skipVerify")
	if mine != "kept" || !skip {
		t.Errorf("of what the administrator had set is left: annotation %q, skipVerify %v", mine, skip)
	}
	w.noPairing(1)

	// The next version of these manifests has other variables and other values, and so have its definitions.
	planted = w.kept()
	w.nextVersion()
	w.follow("From one version of these manifests to the next")
	w.same("the next version", planted)
	w.upgraded("the next version", certificate)
	if value := w.run(`kubectl -n kyma-system get deployment compass-runtime-agent -o jsonpath='{.spec.template.spec.containers[0].env[?(@.name=="APP_CONTROLLER_SYNC_PERIOD")].value}'`); value != "170s" {
		t.Errorf("after the next version APP_CONTROLLER_SYNC_PERIOD is %q", value)
	}
}

// nextVersion changes the manifests of the checkout as another version of them might.
func (w *world) nextVersion() {
	w.t.Helper()
	path := filepath.Join(w.checkout, "manifests", "base", "agent", "workload.yaml")
	text, err := os.ReadFile(path)
	w.must(err)
	now := string(text)
	for from, to := range map[string]string{"value: 180s": "value: 170s", "{name: APP_MINIMAL_COMPASS_SYNC_TIME,": "{name: APP_OF_THE_NEXT_VERSION,"} {
		if strings.Count(now, from) != 1 {
			w.t.Fatalf("%s does not have %q once", path, from)
		}
		now = strings.Replace(now, from, to, 1)
	}
	w.must(os.WriteFile(path, []byte(now), 0o600))
}

// ignoresTheAgentOfBefore: why the page has that agent end first. It has no right to write here, so the administrator does.
func (w *world) ignoresTheAgentOfBefore() {
	w.t.Helper()
	b := &before{t: w.t, kube: w.kube}
	w.eventually("the status to be lost that an agent of before writes", func() error { // the new agent writes side by side
		connection := object(connectionKind, "compass-connection")
		if err := w.kube.Get(w.t.Context(), client.ObjectKeyFromObject(connection), connection); err != nil {
			return err
		}
		switch err := b.report(connection); {
		case errors.Is(err, errStatusLost):
			return nil
		case err == nil:
			return errors.New("it is kept")
		default:
			return err
		}
	})
}

// upgraded: all is well with the new manifests, the certificate is the one of before, and nobody's finalizers are left.
func (w *world) upgraded(when, certificate string) {
	w.t.Helper()
	if now := w.certificate(); now != certificate {
		w.t.Errorf("after %s the certificate is another one", when)
	}
	for name, o := range w.kept() {
		if len(o.Finalizers) > 0 && o.Mine == "" {
			w.t.Errorf("after %s %s has the finalizers %v", when, name, o.Finalizers)
		}
	}
	// Fields: Applications are the agent's by server-side apply, and of the operator's manifests nothing is left.
	app := object(applicationKind, "mp-shop")
	w.must(w.kube.Get(w.t.Context(), client.ObjectKeyFromObject(app), app))
	applied := map[string]bool{}
	for _, entry := range app.GetManagedFields() {
		if entry.Manager != agentName || entry.Operation != "Apply" || entry.Subresource != "" {
			continue
		}
		var fields struct {
			Spec map[string]any `json:"f:spec"`
		}
		w.must(json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields))
		for field := range fields.Spec {
			applied[strings.TrimPrefix(field, "f:")] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{"description": true, "labels": true, "compassMetadata": true, "services": true}, applied); diff != "" {
		w.t.Errorf("after %s, fields that the agent has applied (+):\n%s", when, diff)
	}
	if diff := cmp.Diff(w.shipped(agentName), w.names(agentName)); diff != "" {
		w.t.Errorf("after %s, the agent's variables in the manifests (-) and in the cluster (+):\n%s", when, diff)
	}
	for _, gone := range []string{
		"clusterrole/application-connector-application-connector", "clusterrolebinding/application-connector-application-connector",
		"role/compass-runtime-agent-client-cert-role", "rolebinding/compass-runtime-agent-client-cert-rolebinding",
		"networkpolicy/application-connector-kyma-project.io--allow-to-dns",
	} {
		if out := w.run("kubectl -n kyma-system get --ignore-not-found -o name " + gone); out != "" {
			w.t.Errorf("after %s there still is %s", when, out)
		}
	}
	w.noPairing(-1)
}

// shipped are the names of a Deployment's variables in the manifests.
func (w *world) shipped(name string) []string {
	w.t.Helper()
	for _, o := range w.documents(w.run("kubectl kustomize manifests/overlays/compass")) {
		if o.GetKind() == "Deployment" && o.GetName() == name {
			return variables(o)
		}
	}
	return nil
}

func (w *world) names(name string) []string {
	w.t.Helper()
	o := object(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, name)
	w.must(w.kube.Get(w.t.Context(), client.ObjectKey{Namespace: system, Name: name}, o))
	return variables(o)
}

func variables(deployment *unstructured.Unstructured) (names []string) {
	containers, _, _ := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	env, _, _ := unstructured.NestedSlice(containers[0].(map[string]any), "env")
	for _, e := range env {
		names = append(names, e.(map[string]any)["name"].(string))
	}
	return names
}

// kept is what must outlive an upgrade, of each object what must not change.
type kept struct {
	UID        string
	Keys       []string
	Finalizers []string
	Mine       string // all that somebody wrote by hand; empty for other objects
}

var keptKinds = []schema.GroupVersionKind{
	{Version: "v1", Kind: "Secret"}, applicationKind, connectionKind,
	{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	{Group: "operator.kyma-project.io", Version: "v1alpha1", Kind: "ApplicationConnector"},
	{Group: "networking.istio.io", Version: "v1", Kind: "Gateway"}, {Group: "networking.istio.io", Version: "v1", Kind: "VirtualService"},
	{Group: "apps", Version: "v1", Kind: "Deployment"}, {Version: "v1", Kind: "Service"}, {Version: "v1", Kind: "ServiceAccount"},
}

func (w *world) kept() map[string]kept {
	w.t.Helper()
	all := map[string]kept{}
	for _, kind := range keptKinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		w.must(w.kube.List(w.t.Context(), list))
		for _, o := range list.Items {
			if ns := o.GetNamespace(); ns != "" && ns != system && ns != ingress || o.GetName() == "default" {
				continue
			}
			one := kept{UID: string(o.GetUID()), Finalizers: o.GetFinalizers()}
			data, _, _ := unstructured.NestedMap(o.Object, "data")
			for key := range data {
				one.Keys = append(one.Keys, key)
			}
			slices.Sort(one.Keys)
			if strings.HasPrefix(o.GetName(), "by-hand") {
				text, err := json.Marshal([]any{o.GetLabels(), o.GetAnnotations(), o.GetFinalizers(), o.Object["spec"], o.Object["data"]})
				w.must(err)
				one.Mine = string(text)
			}
			all[kind.Kind+" "+o.GetNamespace()+"/"+o.GetName()] = one
		}
	}
	return all
}

// same: everything that was there is there, the same objects with the same keys, and nothing is there besides, but what the new
// manifests have more.
func (w *world) same(when string, planted map[string]kept) {
	w.t.Helper()
	now := w.kept()
	for name, o := range planted {
		have, found := now[name]
		switch {
		case !found:
			w.t.Errorf("after %s %s is gone", when, name)
		case have.UID != o.UID:
			w.t.Errorf("after %s %s is another object", when, name)
		case have.Mine != o.Mine:
			w.t.Errorf("after %s %s is not as it was written by hand (-), but (+):\n%s", when, name, cmp.Diff(o.Mine, have.Mine))
		}
		for _, key := range o.Keys {
			if !slices.Contains(have.Keys, key) {
				w.t.Errorf("after %s %s has no key %s", when, name, key)
			}
		}
	}
	for name := range now {
		if _, was := planted[name]; !was && (strings.HasPrefix(name, "Secret ") || strings.HasPrefix(name, "Application ") || strings.HasPrefix(name, "CompassConnection ")) {
			w.t.Errorf("after %s there is %s, which was not there before", when, name)
		}
	}
}

// installed is what the operator's manifests made, as it is in the cluster.
func (w *world) installed() map[string]any {
	w.t.Helper()
	all := map[string]any{}
	for _, file := range []string{"definitions.yaml", "installed.yaml"} {
		text, err := os.ReadFile(testdata(w.t, file))
		w.must(err)
		for _, o := range w.documents(string(text)) {
			w.must(w.kube.Get(w.t.Context(), client.ObjectKeyFromObject(o), o))
			for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			delete(o.Object, "status")
			all[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = o.Object
		}
	}
	return all
}

// nothingLeft: of the objects that only the new manifests have, none is there but definitions of resources.
func (w *world) nothingLeft() {
	w.t.Helper()
	was := w.installed()
	for _, o := range w.documents(w.run("kubectl kustomize manifests/overlays/compass")) {
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if _, known := was[name]; known || o.GetKind() == "CustomResourceDefinition" {
			continue
		}
		if err := w.kube.Get(w.t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			w.t.Errorf("after the way back %s is still there: %v", name, err)
		}
	}
}

func (w *world) documents(text string) (all []*unstructured.Unstructured) {
	w.t.Helper()
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		w.must(err)
		all = append(all, o)
	}
}

// certificate is the fingerprint of the client certificate.
func (w *world) certificate() string {
	w.t.Helper()
	s := &corev1.Secret{}
	w.must(w.kube.Get(w.t.Context(), client.ObjectKey{Namespace: system, Name: "cluster-client-certificates"}, s))
	c, err := certs.DecodeClient(s.Data)
	w.must(err)
	return c.Fingerprint()
}

// renew has the agent renew the certificate.
func (w *world) renew() {
	w.t.Helper()
	w.run(`kubectl annotate --overwrite compassconnections.compass.kyma-project.io/compass-connection compass.kyma-project.io/renew-requested=now`)
	w.eventually("the renewal", func() error {
		c, err := w.connection()
		if err != nil {
			return err
		}
		if r := c.Status.RenewalRequest; r == nil || r.Requested != "now" || r.HandledAt == nil || c.Status.State != compassv1alpha1.Synchronized {
			return fmt.Errorf("not done yet: %+v", c.Status)
		}
		return nil
	})
}

func (w *world) oneRenewal(before string) {
	w.t.Helper()
	if w.certificate() == before {
		w.t.Error("the certificate was not renewed")
	}
	w.noPairing(1)
}

// noPairing: no token was used since the start, and so many certificates were asked for, if that is to be looked at.
func (w *world) noPairing(renewals int) {
	w.t.Helper()
	signed := 0
	for _, r := range w.compass.Admin().Requests() {
		if r.Endpoint == "token" || r.WithToken {
			w.t.Errorf("Compass was called with a token: %+v", r)
		}
		if slices.Contains(r.Operations, "signCertificateSigningRequest") {
			signed++
		}
	}
	if renewals >= 0 && signed != renewals {
		w.t.Errorf("%d certificates were asked for, want %d", signed, renewals)
	}
}

func (w *world) administer(apps ...compass.Application) {
	w.t.Helper()
	_, err := w.compass.Admin().PutApplications(tenant, apps...)
	w.must(err)
}

// byHand plants what people have in such a cluster besides: an Application that is not of Compass, by kubectl as it was, with a field
// that nobody knows, a label, an annotation and a finalizer of their own, and its Secret, with a key too many and no owner.
func (w *world) byHand(x *target) {
	w.t.Helper()
	text := `apiVersion: v1
kind: Secret
metadata: {name: by-hand, namespace: kyma-system, labels: {team: sales}}
stringData: {clientId: client, clientSecret: passwd, note: "asked for in March"}
---
apiVersion: applicationconnector.kyma-project.io/v1alpha1
kind: Application
metadata: {name: by-hand, labels: {team: sales, app: by-hand}, annotations: {example.com/owner: sales}, finalizers: [example.com/keep]}
spec:
  description: by hand
  unknown: {of: somebody}
  labels: {connected-app: by-hand}
  services:
  - {id: by-hand-prices, name: prices, displayName: Prices, providerDisplayName: us, description: prices, entries: [
      {type: API, id: prices-api, name: Prices API, targetUrl: "` + x.server.URL + `/prices", credentials: {type: OAuth, secretName: by-hand, authenticationUrl: "` + x.server.URL + `/token"}}]}
`
	w.must(os.WriteFile(filepath.Join(w.checkout, "by-hand.yaml"), []byte(text), 0o600))
	w.run("kubectl apply --validate=ignore -f by-hand.yaml && rm by-hand.yaml")
}

// calls makes one call of each API, and wants it answered.
func (w *world) calls(when string, do func([3]string) (int, error), systems ...string) {
	w.t.Helper()
	w.eventually("a call of the Application by hand, after "+when, func() error { return w.answers(do, "by-hand", "prices", "prices-api") })
	for _, s := range systems {
		paths := [][3]string{{"mp-" + s, "orders", "orders-api"}}
		if s == "shop" {
			paths = append(paths, [3]string{"mp-shop", "prices", "prices-api"})
		}
		for _, path := range paths {
			w.eventually(fmt.Sprintf("a call of %v with the right credentials, after %s", path, when), func() error { return w.answers(do, path[0], path[1], path[2]) })
		}
	}
}

func (w *world) answers(do func([3]string) (int, error), app, service, entry string) error {
	if status, err := do([3]string{app, service, entry}); err != nil || status != http.StatusOK {
		return fmt.Errorf("%s/%s/%s answers %d, %v", app, service, entry, status, err) //nolint:errorlint // it is told, not judged
	}
	return nil
}

func (w *world) callGateway(path [3]string) (int, error) {
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.gatewayURL+"/"+strings.Join(path[:], "/"), nil)
	if err != nil {
		return 0, err
	}
	return answer(r)
}

// target is the external systems: one password, one client of OAuth, one header.
type target struct {
	server   *httptest.Server
	password atomic.Value
}

func newTarget(t *testing.T) *target {
	x := &target{}
	x.password.Store("first")
	allow := func(rw http.ResponseWriter, ok bool) {
		if !ok {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(rw http.ResponseWriter, r *http.Request) {
		id, password, ok := r.BasicAuth()
		if !ok {
			id, password = r.FormValue("client_id"), r.FormValue("client_secret")
		}
		if id != "client" || password != "passwd" {
			allow(rw, false)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write([]byte(`{"access_token":"issued","token_type":"bearer","expires_in":3600}`))
	})
	mux.HandleFunc("/orders", func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		ok := user == "user" && password == x.password.Load() || r.Header.Get("Authorization") == "Bearer issued"
		allow(rw, ok && r.Header.Get("X-Client") == "kyma")
	})
	mux.HandleFunc("/prices", func(rw http.ResponseWriter, r *http.Request) {
		allow(rw, r.Header.Get("Authorization") == "Bearer issued")
	})
	x.server = httptest.NewServer(mux)
	t.Cleanup(x.server.Close)
	return x
}

func basic(password string) compass.Credential {
	return compass.Credential{Basic: &compass.Basic{Username: "user", Password: password}}
}

func (x *target) shop(orders compass.Credential) compass.Application {
	return compass.Application{ID: shopID, Name: "Shop", ProviderName: "ACME", Formations: []string{"default"}, Bundles: []compass.Bundle{
		{ID: ordersID, Name: "Orders", Auth: &compass.Auth{Credential: orders, Headers: map[string][]string{"X-Client": {"kyma"}}},
			APIs: []compass.API{{Name: "Orders API", TargetURL: x.server.URL + "/orders"}}},
		{ID: pricesID, Name: "Prices",
			Auth: &compass.Auth{Credential: compass.Credential{OAuth: &compass.OAuth{ClientID: "client", ClientSecret: "passwd", URL: x.server.URL + "/token"}}},
			APIs: []compass.API{{Name: "Prices API", TargetURL: x.server.URL + "/prices"}}},
	}}
}

// later is a system that comes while the new agent is there.
func (x *target) later() compass.Application {
	return compass.Application{Name: "Later", Formations: []string{"default"}, Bundles: []compass.Bundle{
		{ID: laterID, Name: "Orders", Auth: &compass.Auth{Credential: basic(x.password.Load().(string)), Headers: map[string][]string{"X-Client": {"kyma"}}},
			APIs: []compass.API{{Name: "Orders API", TargetURL: x.server.URL + "/orders"}}},
	}}
}
