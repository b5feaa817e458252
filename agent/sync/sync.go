package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	stdsync "sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
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

// Syncer brings snapshots into the cluster. Its methods may be called concurrently; syncs run one after the other.
type Syncer struct {
	// Client writes. Its scheme must know Secrets and Applications.
	Client client.Client
	// Reader reads: the API server, or a cache that holds all Applications and, of Namespace, at least the Secrets with
	// the labels app and bundleId.
	Reader client.Reader
	// Live reads from the API server what Reader does not show and that yet is there: a cache lags, and does not hold
	// the Secrets of others. Nil means Reader.
	Live client.Reader
	// Namespace of the Secrets.
	Namespace string
	// GatewayURL is the prefix of the URLs under which workloads call APIs.
	GatewayURL string
	// SkipVerify is written into Applications when they are created, and never again.
	SkipVerify bool
	// Guard against large losses; its zero value has defaults.
	Guard Guard
	// Concurrency is how many Applications are written at a time; zero means 8.
	Concurrency int
	// Clock gives the times of conditions and of the Guard; nil means the system's.
	Clock clock.PassiveClock
	// Recorder may be nil.
	Recorder Recorder
	// Log may be nil.
	Log *slog.Logger

	mu       stdsync.Mutex
	absences Absences
	recalled []compassv1alpha1.MissingApplications // not looked at yet
	last     memory
}

// Result is what a sync came to.
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
	// Missing tells of those that wait for further answers of Compass: Syncer.Recall takes it.
	Missing []compassv1alpha1.MissingApplications
	// Failures in the order of ids, MaxFailures at most; last those to delete an Application.
	Failures []compassv1alpha1.FailedApplication
	// Created, Updated and Deleted count Applications; Writes counts requests to the API server that change something.
	Created, Updated, Deleted, Writes int
}

// Sync brings a snapshot into the cluster. What fails for one Application is in the Result and does not keep the others
// from being written; an error means that the cluster could not be read, or that ctx ended.
func (s *Syncer) Sync(ctx context.Context, snap director.Snapshot) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	plan, err := s.plan(ctx, snap)
	if err != nil {
		return Result{}, err
	}
	s.last = remember(snap, plan)
	result, err := s.apply(ctx, plan)
	// Only what was seen through counts as a confirmation.
	if err == nil {
		s.absences = plan.Absences
	}
	return result, err
}

// Plan computes what Sync would do, without doing it.
func (s *Syncer) Plan(ctx context.Context, snap director.Snapshot) (Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan(ctx, snap)
}

func (s *Syncer) plan(ctx context.Context, snap director.Snapshot) (Plan, error) {
	// Of a cache the objects themselves are taken: nothing here changes them, and copies of thousands cost more than all of
	// the planning.
	var applications v1alpha1.ApplicationList
	if err := s.Reader.List(ctx, &applications, client.UnsafeDisableDeepCopy); err != nil {
		return Plan{}, fmt.Errorf("listing Applications: %w", err)
	}
	var secrets corev1.SecretList
	if err := s.Reader.List(ctx, &secrets, client.InNamespace(s.Namespace), client.HasLabels{labelApplication, labelBundle}, client.UnsafeDisableDeepCopy); err != nil {
		return Plan{}, fmt.Errorf("listing Secrets in namespace %s: %w", s.Namespace, err)
	}
	if s.recalled != nil {
		s.absences, s.recalled = recall(s.recalled, applications.Items), nil
	}
	return NewPlan(snap, Observed{Applications: applications.Items, Secrets: secrets.Items, Former: s.last.former}, s.settings(), s.absences), nil
}

func (s *Syncer) settings() Settings {
	return Settings{Namespace: s.Namespace, GatewayURL: s.GatewayURL, SkipVerify: s.SkipVerify, Guard: s.Guard, Now: s.now().Now()}
}

func (s *Syncer) live() client.Reader {
	if s.Live == nil {
		return s.Reader
	}
	return s.Live
}

func (s *Syncer) now() clock.PassiveClock {
	if s.Clock == nil {
		return clock.RealClock{}
	}
	return s.Clock
}

func (s *Syncer) apply(ctx context.Context, plan Plan) (Result, error) {
	a := &applier{Client: s.Client, live: s.live(), namespace: s.Namespace, clock: s.now(), recorder: s.Recorder, log: s.Log}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	concurrency := s.Concurrency
	if concurrency <= 0 {
		concurrency = defaultConcurrency
	}

	failures, undeleted, unready := map[string]Failure{}, map[string]Failure{}, map[string]Failure{}
	// absent are the systems whose Application could not be brought into place; one with ambiguous APIs is in place.
	absent := map[string]bool{}
	for _, f := range plan.Failures {
		failures[f.ID] = f
		absent[f.ID] = f.Reason != ReasonAmbiguousAPIs
	}
	result := Result{Total: plan.Total, PendingDeletion: plan.Kept, PruneBlocked: plan.PruneBlocked, Missing: plan.Missing}
	var mu stdsync.Mutex
	var standIns []*v1alpha1.Application
	// What is new comes before what goes: a system that got another name is never without an Application. If the new one
	// could not be brought into place, the old one stays.
	for _, deletes := range []bool{false, true} {
		var group errgroup.Group
		group.SetLimit(concurrency)
		for _, step := range plan.Steps {
			if (step.Action == Delete) != deletes || ctx.Err() != nil {
				continue
			}
			if deletes && absent[step.ID] {
				a.log.WarnContext(ctx, "Application is kept: the one of its system's new name could not be brought into place", "application", step.Name, "id", step.ID)
				standIns = append(standIns, step.Observed)
				continue
			}
			group.Go(func() error {
				err := a.step(ctx, step)
				mu.Lock()
				defer mu.Unlock()
				if err == nil && step.Synchronized.Status == metav1.ConditionTrue {
					if step.CredentialsReady.Status == metav1.ConditionTrue {
						result.Ready++
					} else {
						unready[step.ID] = Failure{step.ID, step.System, step.CredentialsReady.Reason, step.CredentialsReady.Message}
					}
				}
				var failed *stepError
				switch {
				case errors.Is(err, errChanged):
					result.PendingDeletion++
				case errors.As(err, &failed) && deletes:
					undeleted[step.Name] = Failure{step.ID, step.System, failed.reason, failed.Error()}
				case errors.As(err, &failed):
					absent[step.ID] = true
					if _, known := failures[step.ID]; known || step.Synchronized.Reason == ReasonPendingDeletion {
						return nil // counted already
					}
					failures[step.ID] = Failure{step.ID, step.System, failed.reason, failed.Error()}
				case step.Action == Create:
					result.Created++
				case step.Action == Update || len(step.Secrets) > 0:
					result.Updated++
				case step.Action == Delete:
					result.Deleted++
				}
				return nil
			})
		}
		_ = group.Wait() // its functions return no error
	}
	result.Writes = int(a.writes.Load())
	if err := ctx.Err(); err != nil {
		return result, fmt.Errorf("sync was interrupted: %w", err)
	}
	listed := map[string]bool{}
	for _, list := range []map[string]Failure{failures, undeleted} {
		for _, key := range sortedKeys(list) {
			if f := list[key]; len(result.Failures) < MaxFailures && !listed[f.ID] {
				listed[f.ID] = true // the status lists each id once
				result.Failures = append(result.Failures, f.told())
			}
		}
	}
	for _, id := range sortedKeys(unready)[:min(len(unready), MaxFailures)] {
		result.NotReady = append(result.NotReady, unready[id].told())
	}
	for _, f := range failures {
		if result.Reasons == nil {
			result.Reasons = map[string]int{}
		}
		result.Reasons[f.Reason]++
	}
	result.Failed = len(failures)
	result.Synced = result.Total - result.Failed
	result.PendingDeletion += len(undeleted) + len(standIns)
	if len(standIns) > 0 {
		if result.PruneBlocked != "" {
			result.PruneBlocked += "; "
		}
		result.PruneBlocked += "their systems have other names now, but could not be brought into place under these, so the former Applications are kept until the failures are mended: " + names(standIns)
	}
	return result, nil
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
