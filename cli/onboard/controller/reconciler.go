package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// Finalizer holds a Secret back that is deleted, until its cluster is removed from Compass. It is set if that was asked for.
	Finalizer = "application-connector.kyma-project.io/offboard"
	// AnnotationCluster, on a Secret with Finalizer, is the UID of the namespace kube-system of the cluster that is removed.
	AnnotationCluster = "application-connector.kyma-project.io/cluster"
	// AnnotationTenant, on a Secret with Finalizer, is the tenant that the cluster is removed from.
	AnnotationTenant = "application-connector.kyma-project.io/tenant"
	// AnnotationAdopt, on a Secret, is the id of a runtime that was registered otherwise, and may be taken over.
	AnnotationAdopt = "application-connector.kyma-project.io/adopt-runtime"
	// LabelTenant, on a Secret, is the tenant, by its id outside of Compass.
	LabelTenant = "kyma-project.io/global-account-id"
	// LabelName, on a Secret, is the name of the runtime.
	LabelName = "operator.kyma-project.io/kyma-name"
	// LabelSource, on a runtime in Director, is the Secret that it was registered for, as namespace/name. It binds the two: a
	// cluster that claims to be another one is given no token for the runtime of that.
	LabelSource = "application_connector_kubeconfig"

	fieldOwner = "application-connector-onboard"
	// attemptTimeout bounds one attempt at one cluster. Each request has a bound of its own.
	attemptTimeout = 2 * time.Minute
)

// RuntimeLabels are the labels of a runtime in Director, by those of the Secret that they are taken from.
var RuntimeLabels = map[string]string{
	"kyma-project.io/instance-id":       "broker_instance_id",
	"kyma-project.io/shoot-name":        "gardenerClusterName",
	"kyma-project.io/global-account-id": "global_account_id",
	"kyma-project.io/subaccount-id":     "global_subaccount_id",
	"kyma-project.io/broker-plan-id":    "broker_plan_id",
	"kyma-project.io/broker-plan-name":  "broker_plan_name",
}

// Settings are how clusters are onboarded.
type Settings struct {
	// Selector selects the Secrets, and Key is that of the kubeconfig in them.
	Selector labels.Selector
	Key      string
	// Tenant is that of Secrets without LabelTenant; it may be empty. Labels are added to those of each runtime.
	Tenant string
	Labels map[string]string
	// Configuration and Certificate name Secrets in each cluster: see package enrolment.
	Configuration, Certificate types.NamespacedName
	// Offboard removes a cluster from Compass when its Secret is deleted.
	Offboard bool
	// Insecure admits kubeconfigs that do not verify the API server.
	Insecure bool
	// Loopback admits kubeconfigs that lead to this machine.
	Loopback bool
	// Poll is how often a cluster is looked at that is not connected, Resync how often one that is; Timeout bounds one request to
	// a cluster; RenewBefore is how long before its end a token is replaced.
	Poll, Resync, Timeout, RenewBefore time.Duration
}

// Reconciler brings clusters into Compass, each as its Secret says. Use NewReconciler.
type Reconciler struct {
	Settings
	// Kube is the cluster with the Secrets. It may read from a cache; Live does not, and reads kubeconfigs.
	Kube client.Client
	Live client.Reader
	// Director gives Compass as a tenant sees it.
	Director func(tenant string) Director
	Clock    clock.PassiveClock
	Log      *slog.Logger
	Metrics  *Metrics

	memory *memory
}

// NewReconciler completes a Reconciler.
func NewReconciler(r Reconciler) *Reconciler {
	r.memory = newMemory()
	r.Metrics.count(r.memory.tally)
	return &r
}

// Reconcile brings the cluster of one Secret a step on. What fails of that is told in the record of the cluster and tried again
// later and later; only what fails at home is an error.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	// Most Secrets are none of ours: their content is not read.
	seen := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
	if err := r.Kube.Get(ctx, request.NamespacedName, seen); apierrors.IsNotFound(err) {
		r.memory.forget(request.NamespacedName)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading Secret %s: %w", request, err)
	}
	if !r.Selector.Matches(labels.Set(seen.Labels)) {
		r.memory.forget(request.NamespacedName)
		return reconcile.Result{}, errors.Join(r.free(ctx, seen), r.untell(ctx, request.NamespacedName))
	}
	secret := &corev1.Secret{}
	if err := r.Live.Get(ctx, request.NamespacedName, secret); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("reading Secret %s: %w", request, err)
	} else if err != nil || !r.Selector.Matches(labels.Set(secret.Labels)) {
		return reconcile.Result{}, nil // the cache learns of it in a moment
	}
	deleted := !secret.DeletionTimestamp.IsZero()
	if deleted && !slices.Contains(secret.Finalizers, Finalizer) {
		r.memory.forget(request.NamespacedName)
		return reconcile.Result{}, nil // it is held back by others
	}
	e, err := r.remember(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	now := r.Clock.Now()
	if e.seen == fingerprint(secret, r.Key) && (e.next.IsZero() || now.Before(e.next)) {
		return after(e.next, now), r.tell(ctx, secret, e.told) // somebody may have deleted it
	}

	a := &attempt{Reconciler: r, entry: e, secret: secret, name: request.NamespacedName, told: e.told}
	a.log = r.Log.With("secret", request.String())
	bounded, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var again time.Duration
	if deleted {
		again, err = a.offboard(bounded)
	} else {
		again, err = a.onboard(bounded)
	}
	r.memory.release(a.name, e.proven)
	if ctx.Err() != nil {
		return reconcile.Result{}, nil // the process ends: who comes next tells how it went on
	}
	if a.gone {
		r.memory.forget(request.NamespacedName)
		return reconcile.Result{}, nil
	}
	a.conclude(bounded, again, err, deleted)
	return after(e.next, now), r.tell(ctx, secret, e.told)
}

// after waits until a time, of which zero is never.
func after(next, now time.Time) reconcile.Result {
	if next.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(next.Sub(now), time.Millisecond)}
}

// remember gives the entry of a Secret; in a new process, with what the record of before says.
func (r *Reconciler) remember(ctx context.Context, name types.NamespacedName) (*entry, error) {
	e := r.memory.of(name)
	if e.told.state != "" {
		return e, nil
	}
	var found corev1.ConfigMap
	err := r.Kube.Get(ctx, types.NamespacedName{Namespace: name.Namespace, Name: recordName(name.Name)}, &found)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading the record of Secret %s: %w", name, err)
	}
	e.told.cluster, e.told.runtime, e.told.tenant = found.Data["cluster"], found.Data["runtime"], found.Data["tenant"]
	return e, nil
}

// attempt is one at one cluster.
type attempt struct {
	*Reconciler
	*entry
	name   types.NamespacedName
	secret *corev1.Secret
	log    *slog.Logger
	// told becomes the record.
	told record
	// gone: the Secret is free to go.
	gone bool
}

// conclude notes how the attempt ended.
func (a *attempt) conclude(ctx context.Context, again time.Duration, err error, deleted bool) {
	now := a.Clock.Now()
	a.seen, a.told.next = fingerprint(a.secret, a.Key), time.Time{}
	if err == nil {
		a.failures, a.next = 0, now.Add(again)
	} else {
		f := judge(ctx, err)
		a.failures++
		a.told.state, a.told.reason, a.told.message = Failed, f.reason, message(f.text)
		if deleted {
			a.told.state = Offboarding
		}
		a.next = time.Time{}
		if !f.forGood {
			a.next = now.Add(backoff(a.failures, firstPause, longestPause))
			if !f.after.IsZero() && a.next.Before(f.after) {
				a.next = f.after.Add(backoff(1, firstPause, firstPause)) // not all at once
			}
			a.told.next = a.next
		}
		a.Metrics.failed(f.reason)
		next := "when the Secret is changed"
		if !a.next.IsZero() {
			next = a.next.UTC().Format(time.RFC3339)
		}
		a.log.WarnContext(ctx, "a cluster could not be brought on", "state", a.told.state, "reason", f.reason, "error", a.told.message, "next", next)
	}
	if a.told.state != a.entry.told.state {
		a.log.InfoContext(ctx, "a cluster has a new state", "state", a.told.state, "reason", a.told.reason, "cluster", a.told.cluster, "runtime", a.told.runtime)
	}
	a.memory.note(a.entry, a.told)
}

// free takes the finalizer off a Secret, and what belongs to it.
func (r *Reconciler) free(ctx context.Context, secret client.Object) error {
	if !slices.Contains(secret.GetFinalizers(), Finalizer) {
		return nil
	}
	before := secret.DeepCopyObject().(client.Object)
	secret.SetFinalizers(slices.DeleteFunc(slices.Clone(secret.GetFinalizers()), func(f string) bool { return f == Finalizer }))
	annotations := map[string]string{}
	for key, value := range secret.GetAnnotations() {
		if key != AnnotationCluster && key != AnnotationTenant {
			annotations[key] = value
		}
	}
	secret.SetAnnotations(annotations)
	err := r.Kube.Patch(ctx, secret, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return &failure{reason: ReasonSecretNotWritable, text: fmt.Sprintf("taking the finalizer off Secret %s: %v", client.ObjectKeyFromObject(secret), err)}
	}
	return nil
}
