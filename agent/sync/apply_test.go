package sync

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

const shopSecret, shopParameters = "mp-shop-" + systems.Bundle1, "params-mp-shop-" + systems.Bundle1

func TestASystemIsCreatedWholeAndThenLeftAlone(t *testing.T) {
	c := newCluster(t)
	result, writes := c.sync(systems.Whole(systems.Shop()))
	if diff := cmp.Diff(apply.Result{Total: 1, Synced: 1, Ready: 1, Created: 1, Writes: 5}, result); diff != "" {
		t.Error(diff)
	}
	// The Application comes first only without services: Secrets need its UID.
	if diff := cmp.Diff([]string{
		"create application mp-shop", "create secret " + shopSecret, "create secret " + shopParameters, "apply application mp-shop", "apply status application mp-shop",
	}, writes); diff != "" {
		t.Error(diff)
	}

	app := c.application("mp-shop")
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Application"))
	c.must(c.Get(t.Context(), client.ObjectKey{Name: "mp-shop"}, got))
	text, err := os.ReadFile("plan/testdata/shop.yaml")
	c.must(err)
	want := map[string]any{}
	c.must(yaml.Unmarshal(text, &want))
	if diff := cmp.Diff(want["spec"], got.Object["spec"]); diff != "" {
		t.Errorf("documented (-), stored (+):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{v1alpha1.ManagedByLabel: v1alpha1.ManagedByAgent}, app.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"Synchronized": "True/UpToDate at 2", "CredentialsReady": "True/Stored at 2"}, conditions(app)); diff != "" || app.Status.ObservedGeneration != app.Generation {
		t.Errorf("generation %d, observed %d\n%s", app.Generation, app.Status.ObservedGeneration, diff)
	}
	if diff := cmp.Diff(map[string]string{"clientId": "c", "clientSecret": "s"}, c.data(shopSecret)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"headers": `{"h1":["v1"]}`}, c.data(shopParameters)); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{shopSecret, shopParameters} {
		s := c.secret(name)
		if diff := cmp.Diff(map[string]string{"app": "mp-shop", "bundleId": systems.Bundle1}, s.Labels); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(owner(app), s.OwnerReferences); diff != "" {
			t.Error(diff)
		}
	}

	if result, writes := c.sync(systems.Whole(systems.Shop())); len(writes) != 0 || result.Synced != 1 {
		t.Errorf("a quiet sync writes %v, result %+v", writes, result)
	}
	if len(c.events) != 0 {
		t.Errorf("events without need: %v", c.events)
	}
}

func TestEveryKindOfCredentialsIsStoredAndTakenBack(t *testing.T) {
	c := newCluster(t)
	chain, key := systems.KeyPair(t)
	for _, test := range []struct {
		name       string
		app        director.Application
		credential map[string]string
		kind       string
		ready      string
	}{
		{"Basic", systems.WithAuth(systems.Basic("p")), map[string]string{"username": "u", "password": "p"}, "Basic", "True/Stored"},
		{"OAuth", systems.WithAuth(director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://i/t"}), map[string]string{"clientId": "c", "clientSecret": "s"}, "OAuth", "True/Stored"},
		{"OAuth by certificate", systems.WithAuth(director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(chain + key), URL: "https://i/t"}), map[string]string{"clientId": "c", "crt": chain, "key": key}, "OAuthWithCert", "True/Stored"},
		{"OAuth by certificate without key", systems.WithAuth(director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(chain), URL: "https://i/t"}), map[string]string{"clientId": "c", "crt": chain}, "OAuthWithCert", "False/PrivateKeyMissing"},
		{"unknown", systems.WithAuth(director.Unknown{Typename: "Passkey"}), nil, "Passkey", "False/UnknownCredentials"},
		{"empty", systems.WithAuth(systems.Basic("")), nil, "Basic", "False/EmptyCredentials"},
		{"none", systems.WithAuth(nil), nil, "", "True/NoCredentials"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Each case also is a switch from the one before.
			result, _ := c.sync(systems.Whole(test.app))
			if result.Failed != 0 || result.Synced != 1 {
				t.Errorf("result %+v", result)
			}
			app := c.application("mp-shop")
			var unready []compassv1alpha1.FailedApplication
			if reason, is := strings.CutPrefix(test.ready, "False/"); is {
				unready = append(unready, compassv1alpha1.FailedApplication{ID: test.app.ID, Name: test.app.Name, Reason: reason, Message: meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionCredentialsReady).Message})
			}
			if diff := cmp.Diff(unready, result.NotReady); diff != "" || result.Ready+len(unready) != 1 {
				t.Errorf("result %+v, %s", result, diff)
			}
			if got := app.Spec.Services[0].Entries[0].Credentials.Type; got != test.kind {
				t.Errorf("type %q, want %q", got, test.kind)
			}
			wantSecrets := []string{}
			if test.credential != nil {
				wantSecrets = append(wantSecrets, shopSecret)
				if diff := cmp.Diff(test.credential, c.data(shopSecret)); diff != "" {
					t.Error(diff)
				}
			}
			if diff := cmp.Diff(wantSecrets, c.secretNames()); diff != "" {
				t.Error(diff)
			}
			if got, want := conditions(app)["CredentialsReady"], fmt.Sprintf("%s at %d", test.ready, app.Generation); got != want {
				t.Errorf("CredentialsReady=%s, want %s", got, want)
			}
			if _, writes := c.sync(systems.Whole(test.app)); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
		})
	}
	want := []string{
		"Warning PrivateKeyMissing mp-shop: bundle \"Bundle One\": Compass sent a client certificate without its private key; the key must stand in the same PEM text",
		"Warning UnknownCredentials mp-shop: bundle \"Bundle One\": credentials of type \"Passkey\" are not supported",
		"Warning EmptyCredentials mp-shop: bundle \"Bundle One\": the user name or the password is empty in Compass",
		"Normal NoCredentials mp-shop: Compass names no credentials",
	}
	if diff := cmp.Diff(want, c.events); diff != "" {
		t.Error(diff)
	}
}

func TestASwitchOfCredentialsLeavesOnlyTheNewKeysAndNoGap(t *testing.T) {
	oauth := director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://i/t"}
	for _, test := range []struct {
		name  string
		start func(*cluster)
	}{
		{"of our own", func(c *cluster) { c.sync(systems.Whole(systems.WithAuth(systems.Basic("p")))) }},
		{"rotated before", func(c *cluster) {
			c.sync(systems.Whole(systems.WithAuth(systems.Basic("p"))))
			c.sync(systems.Whole(systems.WithAuth(systems.Basic("p2"))))
		}},
		{"of an older agent", func(c *cluster) { c.byOlderAgent(systems.WithAuth(systems.Basic("p"))) }},
		{"of an older agent by another name", func(c *cluster) { c.byOlderAgentAs("app", systems.WithAuth(systems.Basic("p"))) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			test.start(c)
			var seen []map[string]string
			c.before = func(write string) error {
				if write == "apply application mp-shop" || strings.HasPrefix(write, "patch secret") {
					keys := c.data(shopSecret)
					seen = append(seen, keys)
					if keys["clientSecret"] != "s" || keys["username"] != "u" {
						t.Errorf("before %q the Secret holds %v", write, slices.Sorted(maps.Keys(keys)))
					}
				}
				return nil
			}
			_, writes := c.sync(systems.Whole(systems.WithAuth(oauth)))
			if diff := cmp.Diff([]string{"apply secret " + shopSecret, "apply application mp-shop", "patch secret " + shopSecret, "apply status application mp-shop"}, writes); diff != "" {
				t.Error(diff)
			}
			if len(seen) != 2 {
				t.Errorf("looked %d times", len(seen))
			}
			if diff := cmp.Diff(map[string]string{"clientId": "c", "clientSecret": "s"}, c.data(shopSecret)); diff != "" {
				t.Error(diff)
			}
			c.before = nil
			if _, writes := c.sync(systems.Whole(systems.WithAuth(oauth))); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
		})
	}
}

func TestWhatAnOlderAgentWroteIsTakenOverAndItsSecretsSayWhatIsMeant(t *testing.T) {
	c := newCluster(t)
	c.byOlderAgent(systems.Shop())
	before := c.content()
	result, writes := c.sync(systems.Whole(systems.Shop()))
	if diff := cmp.Diff([]string{"apply secret " + shopSecret, "apply secret " + shopParameters, "apply status application mp-shop"}, writes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(apply.Result{Total: 1, Synced: 1, Ready: 1, Updated: 1, Writes: 3}, result); diff != "" {
		t.Error(diff)
	}
	for name, is := range c.content() {
		if diff := cmp.Diff(before[name].held, is.held); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	const meant = `{"type":"OAuth","authenticationUrl":"https://idp/token","csrfInfo":{"tokenEndpointURL":"https://shop/csrf"},"parameters":true}`
	for _, name := range []string{shopSecret, shopParameters} {
		if diff := cmp.Diff(map[string]string{v1alpha1.MeantAnnotation: meant, "touched": "yes"}, c.secret(name).Annotations); diff != "" {
			t.Errorf("annotations of %s: %s", name, diff)
		}
	}
	if _, writes := c.sync(systems.Whole(systems.Shop())); len(writes) != 0 {
		t.Errorf("a quiet sync writes %v", writes)
	}
}

func TestWhatUsersSetSurvivesAndWhatIsManagedIsRepaired(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	app := c.application("mp-shop")
	app.Labels["mine"], app.Annotations = "kept", map[string]string{"mine": "kept"}
	delete(app.Labels, v1alpha1.ManagedByLabel)
	app.Spec.SkipVerify, app.Spec.EncodeURL, app.Spec.Tenant, app.Spec.Group, app.Spec.Tags = true, true, "t", "g", []string{"x"}
	app.Spec.DisplayName, app.Spec.ProviderDisplayName, app.Spec.LongDescription = "d", "p", "l"
	app.Spec.Labels["mine"] = "kept"
	want := app.DeepCopy().Spec
	app.Spec.Description = "by hand"
	app.Spec.Services[0].Entries[0].TargetURL = "https://evil.example.com"
	app.Spec.CompassMetadata.Authentication.ClientIDs = []string{"another"}
	c.must(c.Update(t.Context(), app))
	s := c.secret(shopSecret)
	s.Labels["mine"], s.Annotations, s.Data["clientSecret"], s.Data["extra"] = "kept", map[string]string{"mine": "kept"}, []byte("wrong"), []byte("x")
	c.must(c.Update(t.Context(), s))

	system := systems.Shop()
	result, _ := c.sync(systems.Whole(system))
	if result.Updated != 1 || result.Synced != 1 {
		t.Errorf("result %+v", result)
	}
	app = c.application("mp-shop")
	if diff := cmp.Diff(want, app.Spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"mine": "kept", v1alpha1.ManagedByLabel: v1alpha1.ManagedByAgent}, app.Labels); diff != "" || app.Annotations["mine"] != "kept" {
		t.Errorf("annotations %v\n%s", app.Annotations, diff)
	}
	if diff := cmp.Diff(map[string]string{"clientId": "c", "clientSecret": "s"}, c.data(shopSecret)); diff != "" {
		t.Error(diff)
	}
	if s = c.secret(shopSecret); s.Labels["mine"] != "kept" || s.Annotations["mine"] != "kept" {
		t.Errorf("labels %v, annotations %v", s.Labels, s.Annotations)
	}
	system.Description = "from Compass"
	c.sync(systems.Whole(system))
	if app = c.application("mp-shop"); !app.Spec.SkipVerify || !app.Spec.EncodeURL || app.Spec.Description != "from Compass" {
		t.Errorf("spec %+v", app.Spec)
	}
}

func TestEncodeURLStaysFalseThroughEveryWrite(t *testing.T) {
	c := newCluster(t)
	c.syncer.SkipVerify = true
	system := systems.Shop()
	for i := range 3 {
		system.Description = fmt.Sprint(i)
		c.sync(systems.Whole(system))
		c.syncer.SkipVerify = false // must not reach what exists
		app := c.application("mp-shop")
		if app.Spec.EncodeURL || !app.Spec.SkipVerify {
			t.Errorf("after write %d: encodeUrl %v, skipVerify %v", i, app.Spec.EncodeURL, app.Spec.SkipVerify)
		}
		for _, entry := range app.ManagedFields {
			if entry.Operation == metav1.ManagedFieldsOperationApply && (strings.Contains(entry.FieldsV1.String(), "f:encodeUrl") || strings.Contains(entry.FieldsV1.String(), "f:skipVerify")) {
				t.Errorf("apply owns a field that is only written at creation: %s", entry.FieldsV1)
			}
		}
	}
}

func TestPendingCredentialsKeepTheFormerOnes(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	before := c.application("mp-shop").Spec
	pending := systems.Shop()
	pending.Bundles[0].Auth, pending.Bundles[0].AuthPending = nil, true
	c.sync(systems.Whole(pending))
	app := c.application("mp-shop")
	if diff := cmp.Diff(before, app.Spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"clientId": "c", "clientSecret": "s"}, c.data(shopSecret)); diff != "" {
		t.Error(diff)
	}
	c.secret(shopParameters)
	if got := conditions(app)["CredentialsReady"]; got != "True/Stored at 2" {
		t.Errorf("CredentialsReady=%s", got)
	}
	if _, writes := c.sync(systems.Whole(pending)); len(writes) != 0 {
		t.Errorf("a quiet sync writes %v", writes)
	}

	pending.ID, pending.Name = "new", "New"
	c.sync(systems.Whole(systems.Shop(), pending))
	app = c.application("mp-new")
	if got := app.Spec.Services[0].Entries[0].Credentials; got.Type != "Pending" || got.SecretName != "" {
		t.Errorf("an API whose credentials are pending is offered with %+v", got)
	}
	if got := conditions(app)["CredentialsReady"]; got != "False/Pending at 1" {
		t.Errorf("CredentialsReady=%s", got)
	}
}

func TestTheGatewaysConditionStaysTheGateways(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "Application", "metadata": map[string]any{"name": "mp-shop"},
		"status": map[string]any{"conditions": []any{map[string]any{
			"type": v1alpha1.ConditionRoutesReady, "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z",
		}}},
	}}
	c.must(c.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("central-application-gateway")))
	if _, writes := c.sync(systems.Whole(systems.Shop())); len(writes) != 0 {
		t.Errorf("writes %v", writes)
	}
	c.sync(systems.Whole(systems.WithAuth(systems.Basic("p"))))
	if diff := cmp.Diff(map[string]string{"Synchronized": "True/UpToDate at 3", "CredentialsReady": "True/Stored at 3", "RoutesReady": "True/Ready at 0"}, conditions(c.application("mp-shop"))); diff != "" {
		t.Error(diff)
	}
}

func TestTargetSettingsStayTheClusters(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	want := []v1alpha1.TargetSettings{{Target: v1alpha1.AllTargets, MaxConcurrent: 5}, {Target: "no/such", Timeouts: &v1alpha1.TimeoutSettings{Header: "5s"}}}
	app := c.application("mp-shop")
	app.Spec.TargetSettings = want
	c.must(c.Update(t.Context(), app, client.FieldOwner("a person")))
	// The generation is another one now, and that is all that there is to say.
	if _, writes := c.sync(systems.Whole(systems.Shop())); cmp.Diff([]string{"apply status application mp-shop"}, writes) != "" {
		t.Errorf("a sync without news writes %v", writes)
	}
	renamed := systems.WithAuth(systems.Basic("p"))
	renamed.Description = "another description"
	if _, writes := c.sync(systems.Whole(renamed)); len(writes) == 0 {
		t.Error("nothing was written")
	}
	if diff := cmp.Diff(want, c.application("mp-shop").Spec.TargetSettings); diff != "" {
		t.Error(diff)
	}
	for _, f := range c.application("mp-shop").ManagedFields {
		if f.Manager == apply.FieldOwner && f.FieldsV1 != nil && strings.Contains(f.FieldsV1.String(), "targetSettings") {
			t.Error("the agent owns spec.targetSettings")
		}
	}
}
