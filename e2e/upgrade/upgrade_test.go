package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	w := inUse(t, x)
	server := w.compass
	// What an administrator may set and no agent touches.
	w.run(`kubectl annotate applications.applicationconnector.kyma-project.io/mp-shop mine=kept
kubectl patch applications.applicationconnector.kyma-project.io/mp-shop --type=merge --patch='{"spec":{"skipVerify":true}}'`)
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

func TestAnUpgradeAfterTheCertificateHasEndedNeedsOneTokenAndKeepsTheRest(t *testing.T) {
	x := newTarget(t)
	w := inUse(t, x)
	// The certificate as it is years later, with the status of the agent that could not renew it.
	w.compass.Admin().SetCertificateValidity(2 * time.Second)
	w.must(w.kube.Delete(t.Context(), object(connectionKind, "compass-connection")))
	w.must(w.kube.Update(t.Context(), &corev1.Secret{ObjectMeta: meta(system, "compass-agent-configuration"), StringData: w.configured()}))
	w.must(w.before.pair())
	w.compass.Admin().SetCertificateValidity(24 * time.Hour)
	ended := w.certificate()
	s := &corev1.Secret{}
	w.must(w.kube.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "cluster-client-certificates"}, s))
	w.eventually("the end of the certificate", func() error {
		c, err := certs.DecodeClient(s.Data)
		w.must(err)
		if left := time.Until(c.Leaf().NotAfter); left > 0 {
			return fmt.Errorf("it is valid for another %s", left)
		}
		return nil
	})
	w.run(`kubectl patch compassconnections.compass.kyma-project.io/compass-connection --type=merge --patch='{"status":{"connectionState":"ConnectionMaintenanceFailed","connectionStatus":{"error":"Failed to connect to Compass Connector: tls: expired certificate"}}}'`)
	w.before.ended = true
	planted := w.kept()

	w.followUntil("Upgrade", "-l app=compass-runtime-agent --for=delete")
	w.must(w.kube.Update(t.Context(), &corev1.Secret{ObjectMeta: meta(system, "compass-agent-configuration"), StringData: w.configured()}))
	w.compass.Admin().ResetCounters()
	w.follow("Upgrade")
	w.same("an upgrade after the certificate's end", planted)
	if w.certificate() == ended {
		t.Error("the certificate is the one that has ended")
	}
	w.calls("an upgrade after the certificate's end", w.callGateway, "shop")
	signed := 0
	for _, r := range w.compass.Admin().Requests() {
		if slices.Contains(r.Operations, "signCertificateSigningRequest") {
			signed++
		}
	}
	if signed != 1 {
		t.Errorf("%d certificates were asked for, want one", signed)
	}
}

// inUse is a cluster with the module in use today, connected and synced.
func inUse(t *testing.T, x *target) *world {
	t.Helper()
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
	w.run("kubectl apply --server-side -f " + testdata(t, "operator.yaml"))
	w.run("kubectl wait --for=condition=Established --timeout=1m crd --all")
	w.must(w.kube.Create(t.Context(), operatorResource()))
	w.operate()
	w.before = newBefore(w)
	w.must(w.kube.Create(t.Context(), &corev1.Secret{ObjectMeta: meta(system, "compass-agent-configuration"), StringData: w.configured()}))
	w.must(w.before.pair())
	w.must(errors.Join(w.before.sync(), w.before.sync()))
	w.byHand(x)
	return w
}

// configured is a configuration with a new token.
func (w *world) configured() map[string]string {
	w.t.Helper()
	token, err := w.compass.Admin().RuntimeToken(runtimeID)
	w.must(err)
	return map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token}
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
