package sync

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

func TestNothingIsDeletedOnAnIncompleteSnapshot(t *testing.T) {
	c := newCluster(t)
	all := append(systems(8), shop())
	c.sync(whole(all...))
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

func TestEverythingGoneIsOnlyBelievedAfterThreeAnswers(t *testing.T) {
	c := newCluster(t)
	all := append(systems(8), shop())
	c.sync(whole(all...))
	for n := 1; n <= 2; n++ {
		result, _ := c.sync(whole())
		if result.Deleted != 0 || result.PendingDeletion != 9 || !strings.Contains(result.PruneBlocked, fmt.Sprintf("(%d so far)", n)) {
			t.Errorf("answer %d: %+v", n, result)
		}
		if got := conditions(c.application("mp-shop")); got["Synchronized"] != "False/PendingDeletion at 2" || got["CredentialsReady"] != "True/Stored at 2" {
			t.Errorf("conditions %v", got)
		}
	}
	// They come back: counting starts again.
	if result, _ := c.sync(whole(all...)); result.Synced != 9 || result.PruneBlocked != "" {
		t.Errorf("result %+v", result)
	}
	if got := conditions(c.application("mp-shop"))["Synchronized"]; got != "True/UpToDate at 2" {
		t.Errorf("Synchronized=%s", got)
	}
	for range 2 {
		c.sync(whole())
	}
	result, _ := c.sync(whole())
	if diff := cmp.Diff(Result{Deleted: 9, Writes: 9}, result); diff != "" {
		t.Error(diff)
	}
	c.gone(shopSecret)
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
	all := append(systems(2), shop())
	c.sync(whole(all...))
	result, writes := c.sync(whole(all[:2]...))
	if diff := cmp.Diff(Result{Total: 2, Synced: 2, Deleted: 1, Writes: 1}, result); diff != "" {
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
	all := append(systems(2), shop())
	c.sync(whole(all...))
	c.before = func(write string) error {
		if write == "delete application mp-shop" {
			return apierrors.NewInternalError(errors.New("no"))
		}
		return nil
	}
	result, _ := c.sync(whole(all[:2]...))
	want := Result{Total: 2, Synced: 2, PendingDeletion: 1, Writes: 1, Failures: []compassv1alpha1.FailedApplication{
		{ID: shop().ID, Name: "mp-shop", Reason: ReasonWriteFailed, Message: "deleting Application mp-shop: Internal error occurred: no"}}}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Error(diff)
	}
}
