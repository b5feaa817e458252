package sync

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// repair runs one repair and returns whether there was anything to do, and what it wrote.
func (c *cluster) repair(name string) (bool, []string) {
	c.t.Helper()
	c.mu.Lock()
	c.writes = nil
	c.mu.Unlock()
	repaired, err := c.syncer.Repair(c.t.Context(), name)
	if err != nil {
		c.t.Fatal(err)
	}
	return repaired, c.writes
}

func TestWhatSomebodyChangesIsRepairedFromMemory(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*cluster)
		writes []string
	}{
		"nothing": {func(*cluster) {}, nil},
		"a user's label": {func(c *cluster) {
			app := c.application("mp-shop")
			app.Labels["mine"] = "kept"
			c.must(c.Update(t.Context(), app))
		}, nil},
		"a deleted Secret": {func(c *cluster) { c.must(c.Delete(t.Context(), c.secret(shopSecret))) }, []string{"create secret " + shopSecret}},
		"a changed key": {func(c *cluster) {
			s := c.secret(shopSecret)
			s.Data["clientSecret"] = []byte("wrong")
			c.must(c.Update(t.Context(), s))
		}, []string{"apply secret " + shopSecret}},
		"a key too many": {func(c *cluster) {
			s := c.secret(shopSecret)
			s.Data["extra"] = []byte("x")
			c.must(c.Update(t.Context(), s))
		}, []string{"patch secret " + shopSecret}},
		"removed labels of a Secret": {func(c *cluster) {
			s := c.secret(shopSecret)
			s.Labels = nil
			c.must(c.Update(t.Context(), s))
		}, []string{"apply secret " + shopSecret}},
		"a removed owner of a Secret": {func(c *cluster) {
			s := c.secret(shopSecret)
			s.OwnerReferences = nil
			c.must(c.Update(t.Context(), s))
		}, []string{"apply secret " + shopSecret}},
		"a removed annotation of a Secret": {func(c *cluster) {
			s := c.secret(shopSecret)
			s.Annotations = nil
			c.must(c.Update(t.Context(), s))
		}, []string{"apply secret " + shopSecret}},
		"a changed target": {func(c *cluster) {
			app := c.application("mp-shop")
			app.Spec.Services[0].Entries[0].TargetURL = "https://evil.example.com"
			c.must(c.Update(t.Context(), app))
		}, []string{"apply application mp-shop", "apply status application mp-shop"}},
		"a deleted Application": {func(c *cluster) {
			c.must(c.Delete(t.Context(), c.application("mp-shop")))
			for _, name := range []string{shopSecret, shopParameters} { // as the garbage collector does, or has done
				secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace}}
				c.must(client.IgnoreNotFound(c.Delete(t.Context(), secret)))
			}
		}, []string{
			"create application mp-shop", "create secret " + shopSecret, "create secret " + shopParameters, "apply application mp-shop", "apply status application mp-shop",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.sync(systems.Whole(systems.Shop()))
			want := c.application("mp-shop").Spec
			wantData, wantParameters := c.data(shopSecret), c.data(shopParameters)
			c.events = nil
			test.change(c)
			repaired, writes := c.repair("mp-shop")
			if diff := cmp.Diff(test.writes, writes); diff != "" || repaired != (len(test.writes) > 0) {
				t.Errorf("repaired %v, writes:\n%s", repaired, diff)
			}
			app := c.application("mp-shop")
			if diff := cmp.Diff(want, app.Spec); diff != "" {
				t.Error(diff)
			}
			if name == "a user's label" && app.Labels["mine"] != "kept" {
				t.Error("a user's label is gone")
			}
			if diff := cmp.Diff(wantData, c.data(shopSecret)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(wantParameters, c.data(shopParameters)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(map[string]string{"app": "mp-shop", "bundleId": systems.Bundle1}, c.secret(shopSecret).Labels); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(owner(app), c.secret(shopSecret).OwnerReferences); diff != "" {
				t.Error(diff)
			}
			if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
				t.Errorf("a second repair writes %v", writes)
			}
			if _, writes := c.sync(systems.Whole(systems.Shop())); len(writes) != 0 {
				t.Errorf("a sync afterwards writes %v", writes)
			}
			told := strings.Join(c.events, "\n")
			if strings.Contains(told, "wrong") || (len(test.writes) > 0 && name != "a deleted Application") != strings.Contains(told, "Normal DriftRepaired mp-shop: it differed from what Compass says: ") {
				t.Errorf("events %q", told)
			}
		})
	}
}

func TestOnlyWhatTheLastSnapshotNamesIsRepaired(t *testing.T) {
	c := newCluster(t)
	if repaired, _ := c.repair("mp-shop"); repaired {
		t.Error("repaired without a snapshot")
	}
	c.sync(systems.Whole(systems.Shop()))
	c.must(c.Delete(t.Context(), c.application("mp-shop")))
	c.syncer.Forget()
	if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
		t.Errorf("repaired what is forgotten: %v", writes)
	}
	c.sync(systems.Whole(systems.Shop()))
	c.confirmDeletions()
	c.sync(systems.Whole())
	if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
		t.Errorf("repaired what Compass does not name: %v", writes)
	}
}

func TestWhatABadAnswerKeepsIsRepairedAllTheSame(t *testing.T) {
	others := systems.Some(2)
	all := append(systems.Some(2), systems.Shop())
	invalid := systems.Whole(others...)
	invalid.Invalid = []director.InvalidApplication{{ID: all[2].ID, Name: all[2].Name, Reason: "Bundles[0].APIs[0].TargetURL: want required"}}
	for name, test := range map[string]struct {
		bad          director.Snapshot
		synchronized string
	}{
		"an incomplete one without the system":        {director.Snapshot{Applications: others, Incomplete: "page lost"}, "True/UpToDate at 2"},
		"one in which the system cannot be used":      {invalid, "False/InvalidData at 2"},
		"one that could not be read to the last page": {director.Snapshot{Applications: others, Invalid: invalid.Invalid, Incomplete: "APIs"}, "False/InvalidData at 2"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.sync(systems.Whole(all...))
			want := c.content()
			for range 2 { // what is remembered outlives more than one of them
				c.sync(test.bad)
			}
			c.must(c.Delete(t.Context(), c.secret(shopSecret)))
			app := c.application("mp-shop")
			app.Spec.Services[0].Entries[0].TargetURL = "https://evil.example.com"
			c.must(c.Update(t.Context(), app))
			repaired, writes := c.repair("mp-shop")
			if diff := cmp.Diff([]string{"create secret " + shopSecret, "apply application mp-shop", "apply status application mp-shop"}, writes); diff != "" || !repaired {
				t.Errorf("repaired %v, writes:\n%s", repaired, diff)
			}
			got := c.content()
			for _, content := range []map[string]object{want, got} {
				for name, o := range content {
					content[name] = object{o.application, o.system, o.held, ""}
				}
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(object{})); diff != "" {
				t.Errorf("before (-), after (+):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"Synchronized": strings.Replace(test.synchronized, "2", "4", 1), "CredentialsReady": "True/Stored at 4"}, conditions(c.application("mp-shop"))); diff != "" {
				t.Error(diff)
			}
			if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
				t.Errorf("a second repair writes %v", writes)
			}
			// A complete answer without it ends that, while it is kept, too.
			c.syncer.Guard.Count = 1
			c.syncer.Guard.Share = 0.1
			c.sync(systems.Whole(others[:1]...))
			c.must(c.Delete(t.Context(), c.application("mp-shop")))
			if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
				t.Errorf("a person's deletion of what Compass does not name is undone: %v", writes)
			}
		})
	}
}

func TestAnApplicationThatIsBeingDeletedIsRepairedWhenItIsGone(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	app := c.application("mp-shop")
	app.Finalizers = []string{"example.com/hold"}
	c.must(c.Update(t.Context(), app))
	c.must(c.Delete(t.Context(), app))
	c.must(c.Delete(t.Context(), c.secret(shopSecret)))
	if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
		t.Errorf("writes %v", writes)
	}
	app = c.application("mp-shop")
	app.Finalizers = nil
	c.must(c.Update(t.Context(), app))
	if repaired, _ := c.repair("mp-shop"); !repaired || c.secret(shopSecret).OwnerReferences[0].UID != c.application("mp-shop").UID {
		t.Error("not created again")
	}
}

// A cache that lags shows what a sync found, not what it wrote.
func TestALaggingCacheIsNoDrift(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.WithAuth(systems.Basic("p"))))
	var old v1alpha1.Application
	c.application("mp-shop").DeepCopyInto(&old)
	oldSecret := c.secret(shopSecret)
	c.sync(systems.Whole(systems.Shop()))

	live := c.syncer.Reader
	c.syncer.Live = live
	c.syncer.Reader = interceptor.NewClient(c.Client.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, inner client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			switch o := o.(type) {
			case *v1alpha1.Application:
				old.DeepCopyInto(o)
				return nil
			case *corev1.Secret:
				if key.Name == shopSecret {
					oldSecret.DeepCopyInto(o)
					return nil
				}
			}
			return inner.Get(ctx, key, o, opts...)
		},
	})
	if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
		t.Errorf("writes %v", writes)
	}
}

func TestPendingCredentialsThatSomebodyOverwroteAreRepaired(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.WithAuth(systems.Basic("p"))))
	pending := systems.Shop()
	pending.Bundles[0].Auth, pending.Bundles[0].AuthPending = nil, true
	c.sync(systems.Whole(pending))
	want := c.application("mp-shop").Spec
	overwrite := func() {
		app := c.application("mp-shop")
		app.Spec.Services[0].Entries[0].Credentials = v1alpha1.Credentials{}
		c.must(c.Update(t.Context(), app))
	}
	overwrite()
	if repaired, _ := c.repair("mp-shop"); !repaired {
		t.Error("not repaired")
	}
	if diff := cmp.Diff(want, c.application("mp-shop").Spec); diff != "" {
		t.Error(diff)
	}
	overwrite()
	c.sync(systems.Whole(pending))
	if diff := cmp.Diff(want, c.application("mp-shop").Spec); diff != "" {
		t.Error(diff)
	}
}

func TestARepairLeavesForeignSecretsAlone(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	c.must(c.Delete(t.Context(), c.secret(shopSecret)))
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: shopSecret, Namespace: c.namespace}, Data: map[string][]byte{"key": []byte("k")}}
	c.must(c.Create(t.Context(), foreign))
	if repaired, writes := c.repair("mp-shop"); repaired || len(writes) != 0 {
		t.Errorf("writes %v", writes)
	}
	if diff := cmp.Diff(foreign, c.secret(shopSecret)); diff != "" {
		t.Error(diff)
	}
}

func TestARepairThatIsRefusedIsAnErrorWithoutSecrets(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.WithAuth(systems.Basic("hush"))))
	c.must(c.Delete(t.Context(), c.secret(shopSecret)))
	c.before = func(write string) error {
		if write == "create secret "+shopSecret {
			return apierrors.NewBadRequest("hush is no good")
		}
		return nil
	}
	_, err := c.syncer.Repair(t.Context(), "mp-shop")
	if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "BadRequest") {
		t.Errorf("error %v", err)
	}
	c.before = nil
	if repaired, _ := c.repair("mp-shop"); !repaired {
		t.Error("not repaired")
	}
}
