package sync

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	"github.com/application-connector/application-connector/agent/sync/plan"
	"github.com/application-connector/application-connector/graphql/director"
)

// wanted is what a sync does for a system that the cluster knows nothing of.
func wanted(system director.Application) plan.Step {
	return plan.New(systems.Whole(system), plan.Observed{}, plan.Settings{GatewayURL: systems.Gateway}, nil).Steps[0]
}

func revealed(s plan.SecretStep) map[string][]byte {
	data := map[string][]byte{}
	for key, value := range s.Data {
		data[key] = []byte(value.Reveal())
	}
	return data
}

// byOlderAgent writes an Application and its Secrets as agents before this one did: whole, by create and update.
func (c *cluster) byOlderAgent(system director.Application) {
	c.t.Helper()
	c.byOlderAgentAs(apply.FieldOwner, system)
}

// byOlderAgentAs is byOlderAgent where the program had another name, which clients take for that of the owner.
func (c *cluster) byOlderAgentAs(by client.FieldOwner, system director.Application) {
	c.t.Helper()
	w := wanted(system)
	app := w.Wanted.DeepCopy()
	c.must(c.Create(c.t.Context(), app, by))
	app.Annotations = map[string]string{"touched": "yes"}
	c.must(c.Update(c.t.Context(), app, by))
	for _, s := range w.Secrets {
		object := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: c.namespace, Labels: s.Labels(app.Name), OwnerReferences: owner(app)},
			Data:       revealed(s),
		}
		c.must(c.Create(c.t.Context(), object, by))
		object.Annotations = map[string]string{"touched": "yes"}
		c.must(c.Update(c.t.Context(), object, by))
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
	for _, want := range wanted(system).Secrets {
		s := c.secret(want.Name)
		c.must(csaupgrade.UpgradeManagedFields(s, sets.New(owners...), apply.FieldOwner))
		c.must(c.Update(c.t.Context(), s))
		object := corev1ac.Secret(want.Name, c.namespace).WithUID(s.UID).WithLabels(want.Labels(app.Name)).WithData(revealed(want)).WithOwnerReferences(
			metav1ac.OwnerReference().WithAPIVersion("applicationconnector.kyma-project.io/v1alpha1").WithKind("Application").WithName(app.Name).WithUID(app.UID))
		c.must(c.Apply(c.t.Context(), object, client.FieldOwner(apply.FieldOwner), client.ForceOwnership))
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
		Labels: map[string]string{"app": "mp-shop", "bundleId": systems.Bundle1},
		Data:   []map[string]string{{"username": "u", "password": "p2"}, {"clientId": "c", "clientSecret": "s"}, {"username": "u", "password": "p3"}},
		Owners: map[string][]string{"username": {"compass-runtime-agent Apply"}, "password": {"compass-runtime-agent Apply"}},
	}
	for _, owner := range []string{apply.FieldOwner, "app", "Go-http-client"} {
		for name, bring := range map[string]func(*cluster, director.Application){
			"by its ownership": func(c *cluster, system director.Application) { c.upgradeAndApply([]string{owner}, system) },
			"by a sync":        func(c *cluster, system director.Application) { c.sync(systems.Whole(system)) },
		} {
			t.Run("written by "+owner+", taken over "+name, func(t *testing.T) {
				c := newCluster(t)
				c.byOlderAgentAs(client.FieldOwner(owner), systems.WithAuth(systems.Basic("p")))
				var got ending
				for _, credential := range []director.Credential{systems.Basic("p2"), oauth, systems.Basic("p3")} {
					bring(c, systems.WithAuth(credential))
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
	before := systems.Described()
	before.Description, before.ProviderName, before.Labels = "of before", "", nil
	before.Bundles[0].AuthRequestSchema = new(`{"type":"object"}`)
	second := before.Bundles[0]
	second.ID, second.Name = systems.Bundle2, "Bundle Two"
	before.Bundles = append(before.Bundles, second)
	for _, owner := range []string{apply.FieldOwner, "app"} {
		t.Run("written by "+owner, func(t *testing.T) {
			c := newCluster(t)
			c.byOlderAgentAs(client.FieldOwner(owner), before)
			c.sync(systems.Whole(systems.Shop()))
			app := c.application("mp-shop")
			want := wanted(systems.Shop()).Wanted
			if diff := cmp.Diff(want.Spec, app.Spec); diff != "" {
				t.Errorf("of a new one (-), of the older agent's (+):\n%s", diff)
			}
			if diff := cmp.Diff(want.Labels, app.Labels); diff != "" || app.Annotations["touched"] != "yes" {
				t.Errorf("annotations %v, labels: %s", app.Annotations, diff)
			}
			if diff := cmp.Diff([]string{shopSecret, shopParameters}, c.secretNames()); diff != "" {
				t.Error(diff)
			}
			if _, writes := c.sync(systems.Whole(systems.Shop())); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
		})
	}
}
