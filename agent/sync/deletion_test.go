package sync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

func TestNothingIsDeletedOnAnIncompleteSnapshot(t *testing.T) {
	c := newCluster(t)
	all := append(systems.Some(8), systems.Shop())
	c.sync(systems.Whole(all...))
	for range 5 {
		result, writes := c.sync(director.Snapshot{Applications: all[:1], Incomplete: "page 2 of applications is missing"})
		if len(writes) != 0 || result.PendingDeletion != 8 || !strings.Contains(result.PruneBlocked, "page 2 of applications is missing") {
			t.Errorf("writes %v, result %+v", writes, result)
		}
	}
	if names := c.applicationNames(); len(names) != 9 {
		t.Errorf("there are %v", names)
	}
}

func TestALargeLossIsOnlyBelievedAfterThreeAnswersInAnHour(t *testing.T) {
	c := newCluster(t)
	now := testclock.NewFakePassiveClock(time.Now())
	c.syncer.Clock = now
	all := append(systems.Some(8), systems.Shop())
	c.sync(systems.Whole(all...))
	ask := func(missing, deleted int) {
		t.Helper()
		result, _ := c.sync(systems.Whole(all[:1]...))
		if result.Deleted != deleted || result.PendingDeletion != missing-deleted || (result.PruneBlocked == "") != (deleted > 0) {
			t.Errorf("result %+v", result)
		}
		now.SetTime(now.Now().Add(20 * time.Minute))
	}
	for range 2 {
		ask(8, 0)
		if got := conditions(c.application("mp-shop")); got["Synchronized"] != "False/PendingDeletion at 2" || got["CredentialsReady"] != "True/Stored at 2" {
			t.Errorf("conditions %v", got)
		}
	}
	// They come back: counting starts again.
	if result, _ := c.sync(systems.Whole(all...)); result.Synced != 9 || result.PruneBlocked != "" {
		t.Errorf("result %+v", result)
	}
	if got := conditions(c.application("mp-shop"))["Synchronized"]; got != "True/UpToDate at 2" {
		t.Errorf("Synchronized=%s", got)
	}
	for range 3 {
		ask(8, 0)
	}
	ask(8, 8)
	c.gone(shopSecret)
}

func TestEverythingGoneIsOnlyBelievedByThoseThatAPersonConfirms(t *testing.T) {
	c := newCluster(t)
	now := testclock.NewFakePassiveClock(time.Now())
	c.syncer.Clock = now
	all := append(systems.Some(2), systems.Shop())
	c.sync(systems.Whole(all...))
	for range 5 {
		if result, _ := c.sync(systems.Whole()); result.Deleted != 0 || result.PendingDeletion != 3 || !strings.Contains(result.PruneBlocked, "without your word") {
			t.Errorf("result %+v", result)
		}
		now.SetTime(now.Now().Add(24 * time.Hour))
	}
	c.confirmDeletions()
	// They come back, and the word is taken back with them.
	if result, _ := c.sync(systems.Whole(all...)); result.Synced != 3 || result.PruneBlocked != "" {
		t.Errorf("result %+v", result)
	}
	if got := c.application("mp-shop").Annotations; len(got) != 0 {
		t.Errorf("annotations %v", got)
	}
	if result, _ := c.sync(systems.Whole()); result.Deleted != 0 || result.PendingDeletion != 3 {
		t.Errorf("result %+v", result)
	}
	c.confirmDeletions()
	result, _ := c.sync(systems.Whole())
	if diff := cmp.Diff(apply.Result{Deleted: 3, Writes: 3}, result); diff != "" {
		t.Error(diff)
	}
	c.gone(shopSecret)
}

// confirmDeletions does what a person does who runs kubectl annotate applications --all.
func (c *cluster) confirmDeletions() {
	c.t.Helper()
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, v1alpha1.ConfirmDeletionAnnotation))
	for _, name := range c.applicationNames() {
		c.must(c.Patch(c.t.Context(), &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name}}, patch))
	}
}

func TestARenamedSystemKeepsItsOldApplicationUntilTheNewOneIsThere(t *testing.T) {
	for _, refused := range []string{"create application mp-new", "create secret mp-new-" + systems.Bundle1} {
		t.Run(refused, func(t *testing.T) {
			c := newCluster(t)
			system := systems.WithAuth(systems.Basic("p"))
			c.sync(systems.Whole(append(systems.Some(2), system)...))
			system.Name = "New"
			snap := systems.Whole(append(systems.Some(2), system)...)
			c.before = func(write string) error {
				if write == refused {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "things"}, "mp-new", errors.New("exceeded quota"))
				}
				return nil
			}
			result, writes := c.sync(snap)
			if result.Synced != 2 || result.Failed != 1 || result.Deleted != 0 || result.PendingDeletion != 1 || len(result.Failures) != 1 ||
				result.PruneBlocked != "their systems have other names now, but could not be brought into place under these, so the former Applications are kept until the failures are mended: mp-shop" {
				t.Errorf("result %+v", result)
			}
			if slices.Contains(writes, "delete application mp-shop") || c.application("mp-shop").UID == "" {
				t.Errorf("writes %v", writes)
			}
			c.before = nil
			if result, _ := c.sync(snap); result.Synced != 3 || result.Deleted != 1 || result.PendingDeletion != 0 || result.PruneBlocked != "" {
				t.Errorf("result %+v", result)
			}
			if diff := cmp.Diff([]string{"mp-app-00", "mp-app-01", "mp-new"}, c.applicationNames()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnApplicationThatSomebodyMadeTheirOwnIsNotDeleted(t *testing.T) {
	c := newCluster(t)
	all := append(systems.Some(2), systems.Shop())
	c.sync(systems.Whole(all...))
	c.before = func(write string) error {
		if write != "delete application mp-shop" {
			return nil
		}
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:null}}}`, v1alpha1.ManagedByLabel))
		return c.Patch(t.Context(), &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "mp-shop"}}, patch)
	}
	result, _ := c.sync(systems.Whole(all[:2]...))
	if diff := cmp.Diff(apply.Result{Total: 2, Synced: 2, Ready: 2, PendingDeletion: 1, Writes: 1}, result); diff != "" {
		t.Error(diff)
	}
	c.before = nil
	result, _ = c.sync(systems.Whole(all[:2]...))
	if diff := cmp.Diff(apply.Result{Total: 2, Synced: 2, Ready: 2}, result); diff != "" {
		t.Error(diff)
	}
	if got := c.application("mp-shop").Labels[v1alpha1.ManagedByLabel]; got != "" {
		t.Errorf("label %q", got)
	}
}

// gone waits until the garbage collector has deleted a Secret.
func (c *cluster) gone(name string) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := c.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: name}, &corev1.Secret{})
		if apierrors.IsNotFound(err) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			c.t.Fatalf("Secret %s is still there: %v", name, err)
		}
	}
}

func TestASystemThatLeavesTakesItsSecretsAlong(t *testing.T) {
	c := newCluster(t)
	all := append(systems.Some(2), systems.Shop())
	c.sync(systems.Whole(all...))
	result, writes := c.sync(systems.Whole(all[:2]...))
	if diff := cmp.Diff(apply.Result{Total: 2, Synced: 2, Ready: 2, Deleted: 1, Writes: 1}, result); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"delete application mp-shop"}, writes); diff != "" {
		t.Error(diff)
	}
	c.gone(shopSecret)
	c.gone(shopParameters)
}

func TestADeletionThatFailsIsReported(t *testing.T) {
	c := newCluster(t)
	all := append(systems.Some(2), systems.Shop())
	c.sync(systems.Whole(all...))
	c.before = func(write string) error {
		if write == "delete application mp-shop" {
			return apierrors.NewInternalError(errors.New("no"))
		}
		return nil
	}
	result, _ := c.sync(systems.Whole(all[:2]...))
	want := apply.Result{Total: 2, Synced: 2, Ready: 2, PendingDeletion: 1, Writes: 1, Failures: []compassv1alpha1.FailedApplication{
		{ID: systems.Shop().ID, Name: "mp-shop", Reason: plan.ReasonWriteFailed, Message: "deleting Application mp-shop: Internal error occurred: no"}}}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Error(diff)
	}
}

func TestAnApplicationThatAFinalizerHoldsIsDeletedOnce(t *testing.T) {
	c := newCluster(t)
	all := append(systems.Some(2), systems.Shop())
	c.sync(systems.Whole(all...))
	app := c.application("mp-shop")
	app.Finalizers = []string{"example.com/hold"}
	c.must(c.Update(t.Context(), app))
	for i, want := range []apply.Result{{Total: 2, Synced: 2, Ready: 2, Deleted: 1, Writes: 1}, {Total: 2, Synced: 2, Ready: 2}, {Total: 2, Synced: 2, Ready: 2}} {
		result, _ := c.sync(systems.Whole(all[:2]...))
		if diff := cmp.Diff(want, result); diff != "" {
			t.Errorf("sync %d: %s", i+1, diff)
		}
	}
	app = c.application("mp-shop")
	app.Finalizers = nil
	c.must(c.Update(t.Context(), app))
	if result, writes := c.sync(systems.Whole(all...)); result.Created != 1 {
		t.Errorf("named again, and not created again: %v", writes)
	}
}
