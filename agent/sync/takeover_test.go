package sync

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/graphql/director"
)

// byOlderAgent writes an Application and its Secrets as agents before this one did: whole, by create and update.
func (c *cluster) byOlderAgent(system director.Application) {
	c.t.Helper()
	c.byOlderAgentAs(FieldOwner, system)
}

// byOlderAgentAs is byOlderAgent where the program had another name, which clients take for that of the owner.
func (c *cluster) byOlderAgentAs(owner client.FieldOwner, system director.Application) {
	c.t.Helper()
	name := normalizeApplicationName(system.Name)
	w := mapApplication(name, system, nil, gateway, false)
	app := w.application.DeepCopy()
	c.must(c.Create(c.t.Context(), app, owner))
	app.Annotations = map[string]string{"touched": "yes"}
	c.must(c.Update(c.t.Context(), app, owner))
	for secretName, s := range w.secrets {
		object := newSecret(c.namespace, &written{name: name, uid: app.UID}, SecretStep{Name: secretName, BundleID: s.bundleID, Data: s.data})
		c.must(c.Create(c.t.Context(), object, owner))
		object.Annotations = map[string]string{"touched": "yes"}
		c.must(c.Update(c.t.Context(), object, owner))
	}
}

// ownersOfData gives, for each key of a Secret, who owns it and by which operation.
func ownersOfData(t *testing.T, s *corev1.Secret) map[string][]string {
	t.Helper()
	owners := map[string][]string{}
	for _, entry := range s.ManagedFields {
		var fields struct {
			Data map[string]any `json:"f:data"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			t.Fatal(err)
		}
		for key := range s.Data {
			if _, owned := fields.Data["f:"+key]; owned {
				owners[key] = append(owners[key], entry.Manager+" "+string(entry.Operation))
			}
		}
	}
	for key := range owners {
		slices.Sort(owners[key])
	}
	return owners
}

// upgradeAndApply is the other way to the same end: to upgrade the ownership of those who updated the Secret, and then to apply
// it. It takes a read and a write more for each Secret, has to be told by which names it was updated, and leaves no time in
// which the Secret holds both what the Application names before and what it names after.
func (c *cluster) upgradeAndApply(owners []string, system director.Application) {
	c.t.Helper()
	app := c.application("mp-shop")
	for name, want := range mapApplication("mp-shop", system, nil, gateway, false).secrets {
		s := c.secret(name)
		c.must(csaupgrade.UpgradeManagedFields(s, sets.New(owners...), FieldOwner))
		c.must(c.Update(c.t.Context(), s))
		step := SecretStep{Name: name, BundleID: want.bundleID, Data: want.data, Observed: s}
		object := secretApply(c.namespace, &written{name: app.Name, uid: app.UID}, step)
		c.must(c.Apply(c.t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(FieldOwner), client.ForceOwnership))
	}
}

func TestASecretOfAnOlderAgentEndsAsIfItsOwnershipHadBeenUpgraded(t *testing.T) {
	type ending struct {
		Labels map[string]string
		Data   []map[string]string // after each change
		Owners map[string][]string // at the end
	}
	oauth := director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://i/t"}
	want := ending{
		Labels: map[string]string{"app": "mp-shop", "bundleId": bundle1},
		Data:   []map[string]string{{"username": "u", "password": "p2"}, {"clientId": "c", "clientSecret": "s"}, {"username": "u", "password": "p3"}},
		Owners: map[string][]string{"username": {"compass-runtime-agent Apply"}, "password": {"compass-runtime-agent Apply"}},
	}
	for _, owner := range []string{FieldOwner, "app", "Go-http-client"} {
		for name, bring := range map[string]func(*cluster, director.Application){
			"by its ownership": func(c *cluster, system director.Application) { c.upgradeAndApply([]string{owner}, system) },
			"by a sync":        func(c *cluster, system director.Application) { c.sync(whole(system)) },
		} {
			t.Run("written by "+owner+", taken over "+name, func(t *testing.T) {
				c := newCluster(t)
				c.byOlderAgentAs(client.FieldOwner(owner), withAuth(basic("p")))
				var got ending
				for _, credential := range []director.Credential{basic("p2"), oauth, basic("p3")} {
					bring(c, withAuth(credential))
					got.Data = append(got.Data, c.data(shopSecret))
				}
				got.Labels, got.Owners = c.secret(shopSecret).Labels, ownersOfData(t, c.secret(shopSecret))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestAnApplicationOfAnOlderAgentBecomesWhatANewOneIs(t *testing.T) {
	before := described()
	before.Description, before.ProviderName, before.Labels = "of before", "", nil
	before.Bundles[0].AuthRequestSchema = ptr(`{"type":"object"}`)
	second := before.Bundles[0]
	second.ID, second.Name = bundle2, "Bundle Two"
	before.Bundles = append(before.Bundles, second)
	for _, owner := range []string{FieldOwner, "app"} {
		t.Run("written by "+owner, func(t *testing.T) {
			c := newCluster(t)
			c.byOlderAgentAs(client.FieldOwner(owner), before)
			c.sync(whole(shop()))
			app := c.application("mp-shop")
			want := mapApplication("mp-shop", shop(), nil, gateway, false).application
			if diff := cmp.Diff(want.Spec, app.Spec); diff != "" {
				t.Errorf("of a new one (-), of the older agent's (+):\n%s", diff)
			}
			if diff := cmp.Diff(want.Labels, app.Labels); diff != "" || app.Annotations["touched"] != "yes" {
				t.Errorf("annotations %v, labels: %s", app.Annotations, diff)
			}
			if diff := cmp.Diff([]string{shopSecret, shopParameters}, c.secretNames()); diff != "" {
				t.Error(diff)
			}
			if _, writes := c.sync(whole(shop())); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
		})
	}
}
