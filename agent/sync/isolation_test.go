package sync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

func TestAnApplicationDeletedDuringASyncIsNotCreatedByTheWayWithoutItsFields(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	system := systems.Shop()
	system.Description = "new"
	c.before = func(write string) error {
		if write == "apply application mp-shop" {
			return c.Delete(t.Context(), c.application("mp-shop"))
		}
		return nil
	}
	result, _ := c.sync(systems.Whole(system))
	if len(result.Failures) != 1 || result.Failures[0].Reason != plan.ReasonWriteFailed {
		t.Errorf("result %+v", result)
	}
	if names := c.applicationNames(); len(names) != 0 {
		t.Errorf("there is %v", names)
	}
	c.before = nil
	c.sync(systems.Whole(system))
	if app := c.application("mp-shop"); app.Spec.EncodeURL || c.secret(shopSecret).OwnerReferences[0].UID != app.UID {
		t.Errorf("spec %+v", app.Spec)
	}
}

func TestAForeignSecretIsNeverTouched(t *testing.T) {
	c := newCluster(t)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "cluster-client-certificates", Namespace: c.namespace, Labels: map[string]string{"app": "mp-shop", "bundleId": systems.Bundle1}},
		Data:       map[string][]byte{"key": []byte("k")},
	}
	c.must(c.Create(t.Context(), foreign))
	crafted := &v1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Name: "mp-shop", Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.ManagedByAgent}},
		Spec: v1alpha1.ApplicationSpec{
			CompassMetadata: &v1alpha1.CompassMetadata{ApplicationID: "x", Authentication: v1alpha1.Authentication{ClientIDs: []string{}}},
			Services: []v1alpha1.Service{{ID: systems.Bundle1, Name: "n", DisplayName: "d", Entries: []v1alpha1.Entry{{
				Type: "API", TargetURL: "https://x", RequestParametersSecretName: foreign.Name,
				Credentials: v1alpha1.Credentials{Type: "Basic", SecretName: foreign.Name},
			}}}},
		},
	}
	c.must(c.Create(t.Context(), crafted))

	// Written over, then deleted: both look at the Secret that the Application names.
	c.sync(systems.Whole(systems.Shop()))
	c.confirmDeletions()
	c.sync(systems.Whole())
	if names := c.applicationNames(); len(names) != 0 {
		t.Errorf("there is %v", names)
	}
	got := c.secret(foreign.Name)
	if diff := cmp.Diff(foreign, got); diff != "" {
		t.Error(diff)
	}
}

func TestASecretThatStandsInTheWayIsReportedAndLeftAlone(t *testing.T) {
	c := newCluster(t)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: shopSecret, Namespace: c.namespace}, Data: map[string][]byte{"key": []byte("k")}}
	c.must(c.Create(t.Context(), foreign))
	other := director.Application{ID: "z", Name: "Other"}
	result, _ := c.sync(systems.Whole(systems.Shop(), other))
	message := "there is a Secret " + c.namespace + "/" + shopSecret + " that does not belong to Application mp-shop; it is left alone: delete or rename it"
	want := apply.Result{Total: 2, Synced: 1, Ready: 1, Failed: 1, Reasons: map[string]int{plan.ReasonSecretTaken: 1}, Created: 1, Writes: result.Writes,
		Failures: []compassv1alpha1.FailedApplication{{ID: systems.Shop().ID, Name: "mp-shop", Reason: plan.ReasonSecretTaken, Message: message}}}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(foreign, c.secret(shopSecret)); diff != "" {
		t.Error(diff)
	}
	app := c.application("mp-shop")
	if len(app.Spec.Services) != 0 {
		t.Errorf("services are offered whose credentials are somebody else's: %+v", app.Spec.Services)
	}
	if diff := cmp.Diff(map[string]string{"Synchronized": "False/SecretTaken at 1", "CredentialsReady": "False/SecretNotWritten at 1"}, conditions(app)); diff != "" {
		t.Error(diff)
	}

	c.must(c.Delete(t.Context(), foreign))
	if result, _ := c.sync(systems.Whole(systems.Shop(), other)); result.Synced != 2 {
		t.Errorf("result %+v", result)
	}
	if got := conditions(c.application("mp-shop"))["Synchronized"]; got != "True/UpToDate at 2" {
		t.Errorf("Synchronized=%s", got)
	}
}

func TestBadSystemsDoNotKeepOthersFromBeingSynced(t *testing.T) {
	c := newCluster(t)
	byHand := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "mp-by-hand"}, Spec: v1alpha1.ApplicationSpec{Description: "mine"}}
	c.must(c.Create(t.Context(), byHand))
	long := director.Application{ID: "5", Name: strings.Repeat("x", 60) + " longer than a label", Bundles: systems.WithAuth(systems.Basic("p")).Bundles}
	snap := systems.Whole(
		director.Application{ID: "1", Name: "Good"}, director.Application{ID: "2", Name: "GOOD"},
		director.Application{ID: "3", Name: strings.Repeat("x", 300)}, director.Application{ID: "4", Name: "by hand"}, long,
	)
	result, _ := c.sync(snap)
	var failures []string
	for _, f := range result.Failures {
		failures = append(failures, f.ID+" "+f.Reason)
	}
	if diff := cmp.Diff([]string{"2 DuplicateName", "3 InvalidName", "4 NameTaken"}, failures); diff != "" {
		t.Error(diff)
	}
	if result.Total != 5 || result.Synced != 2 || result.Failed != 3 || result.Created != 2 {
		t.Errorf("result %+v", result)
	}
	longName := plan.ApplicationName(long.Name, nil)
	if diff := cmp.Diff([]string{"mp-by-hand", "mp-good", longName}, c.applicationNames()); diff != "" {
		t.Error(diff)
	}
	if s := c.secret("mp-xxxxxxxxxxxxxxxxxxxxxxx-" + systems.Bundle1); s.Labels["app"] != strings.TrimRight(longName[:63], "-") {
		t.Errorf("labels %v", s.Labels)
	}
	if diff := cmp.Diff(byHand.Spec, c.application("mp-by-hand").Spec); diff != "" {
		t.Error(diff)
	}
	if _, writes := c.sync(snap); len(writes) != 0 {
		t.Errorf("a quiet sync writes %v", writes)
	}
}

func TestARefusedWriteIsReportedWithoutSecretsAndRepairedLater(t *testing.T) {
	for _, test := range []struct{ name, write, reason, credentials string }{
		{"a Secret", "create secret " + shopSecret, "writing Secret %s/" + shopSecret + ": the API server answers InternalError", "False/SecretNotWritten"},
		{"the Application", "apply application mp-shop", "writing Application mp-shop: Internal error occurred: canary", "True/Stored"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.before = func(write string) error {
				if write == test.write {
					return apierrors.NewInternalError(errors.New("canary"))
				}
				return nil
			}
			snap := systems.Whole(systems.Shop(), director.Application{ID: "z", Name: "Other"})
			result, _ := c.sync(snap)
			message := test.reason
			if strings.Contains(message, "%s") {
				message = fmt.Sprintf(message, c.namespace)
			}
			want := []compassv1alpha1.FailedApplication{{ID: systems.Shop().ID, Name: "mp-shop", Reason: plan.ReasonWriteFailed, Message: message}}
			if diff := cmp.Diff(want, result.Failures); diff != "" || result.Synced != 1 {
				t.Errorf("result %+v\n%s", result, diff)
			}
			if diff := cmp.Diff(map[string]string{"Synchronized": "False/WriteFailed at 1", "CredentialsReady": test.credentials + " at 1"}, conditions(c.application("mp-shop"))); diff != "" {
				t.Error(diff)
			}
			c.before = nil
			if result, _ := c.sync(snap); result.Synced != 2 {
				t.Errorf("result %+v", result)
			}
		})
	}
}

func TestMoreFailuresThanTheStatusHoldsAreCountedAll(t *testing.T) {
	c := newCluster(t)
	var all []director.Application
	for i := range 60 {
		all = append(all, director.Application{ID: fmt.Sprintf("%03d", i), Name: "Same"})
	}
	result, _ := c.sync(systems.Whole(all...))
	if len(result.Failures) != apply.MaxFailures || result.Failed != 59 || result.Synced != 1 {
		t.Errorf("%d listed, %d failed, %d synced", len(result.Failures), result.Failed, result.Synced)
	}
}

// A cache that lags shows neither the Application nor the Secrets that the sync before wrote.
func TestWhatACacheDoesNotShowYetIsFoundAtTheServer(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.WithAuth(systems.Basic("p"))))
	byHand := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "mp-by-hand"}}
	c.must(c.Create(t.Context(), byHand))

	c.syncer.Live = c.syncer.Reader
	c.syncer.Reader = interceptor.NewClient(c.Client.(client.WithWatch), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil },
	})
	oauth := director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://i/t"}
	result, _ := c.sync(systems.Whole(systems.WithAuth(oauth), director.Application{ID: "x", Name: "By hand"}))
	want := []compassv1alpha1.FailedApplication{{ID: "x", Name: "By hand", Reason: plan.ReasonNameTaken, Message: `there is an Application "mp-by-hand" that does not come from Compass; rename or delete one of the two`}}
	if diff := cmp.Diff(want, result.Failures); diff != "" || result.Synced != 1 {
		t.Errorf("result %+v\n%s", result, diff)
	}
	if got := c.application("mp-shop").Spec.Services[0].Entries[0].Credentials.Type; got != "OAuth" {
		t.Errorf("type %q", got)
	}
	if diff := cmp.Diff(map[string]string{"clientId": "c", "clientSecret": "s"}, c.data(shopSecret)); diff != "" {
		t.Error(diff)
	}

	// A Secret that a former Application of that name left over.
	left := c.secret(shopSecret).DeepCopy()
	c.must(c.Delete(t.Context(), left))
	left.ObjectMeta = metav1.ObjectMeta{Name: left.Name, Namespace: left.Namespace, Labels: left.Labels, OwnerReferences: left.OwnerReferences}
	left.OwnerReferences[0].UID = byHand.UID
	c.must(c.Create(t.Context(), left))
	if result, _ := c.sync(systems.Whole(systems.WithAuth(oauth))); result.Synced != 1 {
		t.Errorf("result %+v", result)
	}
	if diff := cmp.Diff(owner(c.application("mp-shop")), c.secret(shopSecret).OwnerReferences); diff != "" {
		t.Error(diff)
	}
}

// The garbage collector may delete a Secret after creating it was refused, and before it is looked at.
func TestASecretDeletedBetweenTwoRequestsIsCreated(t *testing.T) {
	c := newCluster(t)
	c.must(c.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: shopSecret, Namespace: c.namespace}}))
	c.syncer.Live = interceptor.NewClient(c.Client.(client.WithWatch), interceptor.Funcs{
		Get: func(ctx context.Context, inner client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if s, ok := o.(*corev1.Secret); ok {
				s.Name, s.Namespace = key.Name, key.Namespace
				c.must(inner.Delete(ctx, s))
			}
			return inner.Get(ctx, key, o, opts...)
		},
	})
	if result, _ := c.sync(systems.Whole(systems.WithAuth(systems.Basic("p")))); result.Synced != 1 {
		t.Errorf("result %+v", result)
	}
	if diff := cmp.Diff(map[string]string{"username": "u", "password": "p"}, c.data(shopSecret)); diff != "" {
		t.Error(diff)
	}
}

func TestAFailingSystemDoesNotKeepTheFormerApplicationOfOneWithAnotherNameNow(t *testing.T) {
	c := newCluster(t)
	renamed := director.Application{ID: "id-1", Name: "mp-former"}
	c.sync(systems.Whole(renamed))
	renamed.Name = "mp-latter"
	snap := systems.Whole(renamed)
	snap.Invalid = []director.InvalidApplication{{ID: "id-2", Name: "mp-former", Reason: "Bundles[0].Name: want required"}}
	result, _ := c.sync(snap)
	if diff := cmp.Diff([]string{"mp-latter"}, c.applicationNames()); diff != "" {
		t.Error(diff)
	}
	if result.Synced != 1 || result.Failed != 1 || result.Deleted != 1 {
		t.Errorf("result %+v", result)
	}
}

func TestAWordAboutDeletionIsOverForASystemThatIsNamedAndFails(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Some(1)...))
	c.confirmDeletions()
	snap := systems.Whole()
	snap.Invalid = []director.InvalidApplication{{ID: "id-00", Name: "mp-app-00", Reason: "Bundles[0].Name: want required"}}
	if result, _ := c.sync(snap); result.Failed != 1 || result.Deleted != 0 {
		t.Errorf("result %+v", result)
	}
	if got := c.application("mp-app-00").Annotations; len(got) != 0 {
		t.Errorf("annotations %v", got)
	}
	if result, _ := c.sync(systems.Whole()); result.Deleted != 0 || result.PendingDeletion != 1 {
		t.Errorf("result %+v", result)
	}
}

func TestClientsThatCompassHidesStay(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	want := c.application("mp-shop").Spec
	hidden := systems.Shop()
	hidden.AuthIDs, hidden.AuthsUnknown = nil, true
	snap := director.Snapshot{Applications: []director.Application{hidden}, Incomplete: "auths: null instead of a list"}
	result, writes := c.sync(snap)
	if diff := cmp.Diff([]string{"apply status application mp-shop"}, writes); diff != "" || result.Synced != 1 {
		t.Errorf("%+v, writes:\n%s", result, diff)
	}
	app := c.application("mp-shop")
	if diff := cmp.Diff(want, app.Spec); diff != "" {
		t.Error(diff)
	}
	if got, want := app.Status.Conditions[0].Message, "the Application holds what Compass says; which client certificates the system has is hidden in Compass, so those of before stay"; got != want {
		t.Errorf("Synchronized says %q, want %q", got, want)
	}
	// What somebody writes over them in the meantime does not last.
	app.Spec.CompassMetadata.Authentication.ClientIDs = []string{"mine"}
	c.must(c.Update(t.Context(), app))
	c.sync(snap)
	if diff := cmp.Diff(want, c.application("mp-shop").Spec); diff != "" {
		t.Error(diff)
	}
	// Those of another system by the same name are none of this one's.
	other := hidden
	other.ID = "1"
	c.sync(systems.Whole(other))
	if got := c.application("mp-shop").Spec.CompassMetadata.Authentication.ClientIDs; len(got) != 0 {
		t.Errorf("client ids %q", got)
	}
}

func TestALossOfCredentialsThatIsNotBelievedLeavesThemInPlace(t *testing.T) {
	two := func(auth *director.Auth) director.Snapshot {
		app := systems.Shop()
		second := app.Bundles[0]
		second.ID, second.Name = systems.Bundle2, "Bundle Two"
		app.Bundles = append(app.Bundles, second)
		if auth == nil {
			app.Description = "without credentials"
			app.Bundles[0].Auth, app.Bundles[1].Auth = nil, nil
		}
		return systems.Whole(app)
	}
	c := newCluster(t)
	c.sync(two(systems.Shop().Bundles[0].Auth))
	before := c.content()
	result, writes := c.sync(two(nil))
	if diff := cmp.Diff([]string{"apply application mp-shop", "apply status application mp-shop"}, writes); diff != "" {
		t.Errorf("writes:\n%s", diff)
	}
	if !strings.HasPrefix(result.PruneBlocked, "none of the 2 bundles with credentials has them in Compass any more") || result.Ready != 0 || len(result.NotReady) != 1 {
		t.Errorf("result %+v", result)
	}
	want := before["application mp-shop"]
	want.held = strings.Replace(want.held, "Description not provided", "without credentials", 1)
	before["application mp-shop"] = want
	same := func() {
		t.Helper()
		after := c.content()
		for name, is := range after {
			if diff := cmp.Diff(before[name].held, is.held); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if len(after) != len(before) {
			t.Errorf("%d objects, before %d", len(after), len(before))
		}
	}
	same()
	if _, writes := c.sync(two(nil)); len(writes) != 0 {
		t.Errorf("a quiet sync writes %v", writes)
	}
	// What somebody changes is repaired to the same end.
	app := c.application("mp-shop")
	app.Spec.Services[0].Entries[0].Credentials = v1alpha1.Credentials{}
	c.must(c.Update(t.Context(), app))
	if repaired, writes := c.repair("mp-shop"); !repaired || len(writes) != 2 {
		t.Errorf("repaired %v, writes %v", repaired, writes)
	}
	same()
	if result, _ := c.sync(two(systems.Shop().Bundles[0].Auth)); result.Ready != 1 || result.PruneBlocked != "" {
		t.Errorf("result after recovery %+v", result)
	}
	c.confirmDeletions()
	c.sync(two(nil))
	if left := c.secretNames(); len(left) != 0 {
		t.Errorf("Secrets %v are left although their end was confirmed", left)
	}
}

func TestHeadersThatAreAllThereIsStayWhileCompassHidesThem(t *testing.T) {
	c := newCluster(t)
	system := systems.WithAuth(nil)
	system.Bundles[0].Auth.Headers = map[string][]string{"h": {"v"}}
	c.sync(systems.Whole(system))
	before, held := c.secretNames(), c.content()
	system.Bundles[0].Auth, system.Bundles[0].AuthPending = nil, true
	if _, writes := c.sync(systems.Whole(system)); len(before) != 1 || len(writes) != 1 || !strings.HasPrefix(writes[0], "apply status application ") {
		t.Errorf("Secrets %v, writes %v", before, writes)
	}
	for name, is := range c.content() {
		if diff := cmp.Diff(held[name].held, is.held); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
