package agent

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/application-connector/application-connector/agent/status"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// driftControllerName names the controller in logs and metrics.
const driftControllerName = "application-drift-controller"

// Bounds of a fight with somebody who changes the same Application again and again.
const (
	// patientRepairs is how many repairs of one Application come at once, each within calm of the one before.
	patientRepairs = 5
	// calm ends a fight.
	calm = time.Minute
	// longestTruce is the longest time between two repairs during a fight.
	longestTruce = 30 * time.Second
)

// repairer is what drift needs of package sync.
type repairer interface {
	Repair(ctx context.Context, name string) (bool, error)
}

// drift repairs Applications and their Secrets as soon as somebody changes them. One worker runs it.
type drift struct {
	repairer repairer
	metrics  *status.Metrics
	clock    clock.PassiveClock
	log      *slog.Logger
	// fights are the Applications that were repaired of late.
	fights map[string]fight
}

type fight struct {
	repairs int
	last    time.Time
}

// truce is until when the other side is left its way.
func (f fight) truce() time.Time {
	if f.repairs < patientRepairs {
		return f.last
	}
	return f.last.Add(min(time.Second<<min(f.repairs-patientRepairs, 10), longestTruce))
}

// Reconcile implements reconcile.Reconciler.
func (d *drift) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	now := d.clock.Now()
	before := d.fights[request.Name]
	if now.Sub(before.last) >= calm {
		before = fight{}
		delete(d.fights, request.Name)
	}
	if truce := before.truce(); now.Before(truce) {
		return reconcile.Result{RequeueAfter: truce.Sub(now)}, nil
	}
	repaired, err := d.repairer.Repair(ctx, request.Name)
	if err != nil {
		if ctx.Err() != nil {
			return reconcile.Result{}, nil //nolint:nilerr // the agent ends
		}
		return reconcile.Result{}, err // the queue tries again, later and later
	}
	if !repaired {
		return reconcile.Result{}, nil
	}
	d.metrics.DriftRepaired()
	after := fight{repairs: before.repairs + 1, last: now}
	d.fights[request.Name] = after
	if after.repairs == patientRepairs {
		d.log.WarnContext(ctx, "somebody changes this Application or its Secrets again and again; repairs come more slowly now", "application", request.Name)
	}
	return reconcile.Result{}, nil
}

// watchDrift sets the controller up. The caches are those that sync reads.
func (o Options) watchDrift(mgr manager.Manager, d *drift) error {
	changed := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	return builder.ControllerManagedBy(mgr).Named(driftControllerName).
		For(&applicationv1alpha1.Application{}, builder.WithPredicates(changed)).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(applicationsOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, SkipNameValidation: new(true)}).
		Complete(d)
}

// applicationsOf names the Applications that own a Secret, and the one that its label names: the owner may have been
// removed.
func applicationsOf(_ context.Context, secret client.Object) []reconcile.Request {
	var requests []reconcile.Request
	seen := map[string]bool{}
	add := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
		}
	}
	for _, owner := range secret.GetOwnerReferences() {
		if owner.Kind == "Application" {
			add(owner.Name)
		}
	}
	add(secret.GetLabels()["app"])
	return requests
}
