// Package apply brings a plan into the cluster: Applications and their Secrets, in an order in which no credentials lack that
// an Application names, and the conditions that say on each Application how that went.
//
// It owns what is written, as which field owner, and what became of it. It refuses to decide what is to be done, and knows
// nothing of Compass.
package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// FieldOwner is the name under which everything here is written.
const FieldOwner = "compass-runtime-agent"

// MaxFailures is how many failures a Result lists; its Failed counts them all.
const MaxFailures = 50

// defaultConcurrency is enough to keep an API server busy that answers in some ten milliseconds, and leaves most of its
// default share of requests in flight to others.
const defaultConcurrency = 8

// Recorder records events about objects; an EventRecorder of client-go's tools/events is one.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// Applier brings plans into the cluster. It keeps nothing between them.
type Applier struct {
	// Client writes. Its scheme must know Secrets and Applications.
	Client client.Client
	// Live reads from the API server what the plan could not see and that yet is there.
	Live client.Reader
	// Namespace of the Secrets.
	Namespace string
	// Concurrency is how many Applications are written at a time; zero means 8.
	Concurrency int
	// Clock gives the times of conditions.
	Clock clock.PassiveClock
	// Recorder may be nil.
	Recorder Recorder
	// Log may be nil.
	Log *slog.Logger
}

// Result is what became of a plan.
type Result struct {
	// Total is how many systems Compass named; each of them is either Synced or Failed.
	Total, Synced, Failed int
	// Ready is how many of the Synced have every credential that Compass means them to have. NotReady are the others, with
	// the reason of CredentialsReady, in the order of ids, MaxFailures at most.
	Ready    int
	NotReady []compassv1alpha1.FailedApplication
	// Reasons counts the Failed by reason; nil if there are none.
	Reasons map[string]int
	// PendingDeletion is how many Applications are kept although Compass does not name them. PruneBlocked says why, and
	// what a person can do; of those whose deletion the API server refused, Failures tell, and one that somebody changed
	// in the same moment is looked at again by the next sync.
	PendingDeletion int
	PruneBlocked    string
	// Missing tells of those that wait for further answers of Compass: plan.Recall takes it.
	Missing []compassv1alpha1.MissingApplications
	// Failures in the order of ids, MaxFailures at most; last those to delete an Application.
	Failures []compassv1alpha1.FailedApplication
	// Created, Updated and Deleted count Applications; Writes counts requests to the API server that change something.
	Created, Updated, Deleted, Writes int
}

// Apply does what a plan says. What fails for one Application is in the Result and does not keep the others from being
// written; an error means that ctx ended.
func (a Applier) Apply(ctx context.Context, p plan.Plan) (Result, error) {
	w := &applier{Client: a.Client, live: a.Live, namespace: a.Namespace, clock: a.Clock, recorder: a.Recorder, log: a.Log}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	concurrency := a.Concurrency
	if concurrency <= 0 {
		concurrency = defaultConcurrency
	}
	o := newOutcome(p)
	// What is new comes before what goes: a system that got another name is never without an Application. If the new one
	// could not be brought into place, the old one stays.
	for _, deletes := range []bool{false, true} {
		var group errgroup.Group
		group.SetLimit(concurrency)
		for _, step := range p.Steps {
			if (step.Action == plan.Delete) != deletes || ctx.Err() != nil {
				continue
			}
			if deletes && o.absent[step.ID] {
				w.log.WarnContext(ctx, "Application is kept: the one of its system's new name could not be brought into place", "application", step.Name, "id", step.ID)
				o.standIns = append(o.standIns, step.Observed)
				continue
			}
			group.Go(func() error {
				o.note(step, w.step(ctx, step))
				return nil
			})
		}
		_ = group.Wait() // its functions return no error
	}
	o.result.Writes = int(w.writes.Load())
	if err := ctx.Err(); err != nil {
		return o.result, fmt.Errorf("sync was interrupted: %w", err)
	}
	return o.sum(), nil
}

// outcome is what became of the steps so far.
type outcome struct {
	mu     sync.Mutex
	result Result
	// failures and unready by the id of the system, undeleted by the name of the Application.
	failures, undeleted, unready map[string]plan.Failure
	// absent are the systems whose Application could not be brought into place; one with ambiguous APIs is in place.
	absent map[string]bool
	// standIns are Applications that stay because those in their place are absent.
	standIns []*v1alpha1.Application
}

func newOutcome(p plan.Plan) *outcome {
	o := &outcome{
		result:   Result{Total: p.Total, PendingDeletion: p.Kept, PruneBlocked: p.PruneBlocked, Missing: p.Missing},
		failures: map[string]plan.Failure{}, undeleted: map[string]plan.Failure{}, unready: map[string]plan.Failure{}, absent: map[string]bool{},
	}
	for _, f := range p.Failures {
		o.failures[f.ID] = f
		o.absent[f.ID] = !plan.InPlace(f.Reason)
	}
	return o
}

// note takes down what became of one step.
func (o *outcome) note(step plan.Step, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && step.Synchronized.Status == metav1.ConditionTrue {
		if step.CredentialsReady.Status == metav1.ConditionTrue {
			o.result.Ready++
		} else {
			o.unready[step.ID] = plan.Failure{ID: step.ID, System: step.System, Reason: step.CredentialsReady.Reason, Message: step.CredentialsReady.Message}
		}
	}
	var failed *stepError
	switch {
	case errors.Is(err, errChanged):
		o.result.PendingDeletion++
	case errors.As(err, &failed):
		failure := plan.Failure{ID: step.ID, System: step.System, Reason: failed.reason, Message: failed.Error()}
		if step.Action == plan.Delete {
			o.undeleted[step.Name] = failure
			return
		}
		o.absent[step.ID] = true
		if _, known := o.failures[step.ID]; !known && step.Synchronized.Reason != plan.ReasonPendingDeletion { // else it is counted already
			o.failures[step.ID] = failure
		}
	case step.Action == plan.Create:
		o.result.Created++
	case step.Action == plan.Delete:
		o.result.Deleted++
	case step.Action == plan.Update || len(step.Secrets) > 0:
		o.result.Updated++
	}
}

// sum gives the Result.
func (o *outcome) sum() Result {
	r := o.result
	listed := map[string]bool{}
	for _, list := range []map[string]plan.Failure{o.failures, o.undeleted} {
		for _, key := range slices.Sorted(maps.Keys(list)) {
			if f := list[key]; len(r.Failures) < MaxFailures && !listed[f.ID] {
				listed[f.ID] = true // the status lists each id once
				r.Failures = append(r.Failures, f.Told())
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(o.unready))[:min(len(o.unready), MaxFailures)] {
		r.NotReady = append(r.NotReady, o.unready[id].Told())
	}
	for _, f := range o.failures {
		if r.Reasons == nil {
			r.Reasons = map[string]int{}
		}
		r.Reasons[f.Reason]++
	}
	r.Failed = len(o.failures)
	r.Synced = r.Total - r.Failed
	r.PendingDeletion += len(o.undeleted) + len(o.standIns)
	if len(o.standIns) > 0 {
		if r.PruneBlocked != "" {
			r.PruneBlocked += "; "
		}
		r.PruneBlocked += "their systems have other names now, but could not be brought into place under these, so the former Applications are kept until the failures are mended: " + plan.Names(o.standIns)
	}
	return r
}

// applier does the steps of one plan.
type applier struct {
	client.Client
	live      client.Reader
	namespace string
	clock     clock.PassiveClock
	recorder  Recorder
	log       *slog.Logger
	writes    atomic.Int64
}
