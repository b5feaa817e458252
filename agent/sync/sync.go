package sync

import (
	"context"
	"fmt"
	"log/slog"
	stdsync "sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

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
	Guard plan.Guard
	// Concurrency is how many Applications are written at a time; zero means 8.
	Concurrency int
	// Clock gives the times of conditions and of the Guard; nil means the system's.
	Clock clock.PassiveClock
	// Recorder may be nil.
	Recorder apply.Recorder
	// Log may be nil.
	Log *slog.Logger

	mu       stdsync.Mutex
	absences plan.Absences
	losses   plan.Losses
	recalled []compassv1alpha1.MissingApplications // not looked at yet
	last     memory
}

// Sync brings a snapshot into the cluster. What fails for one Application is in the Result and does not keep the others
// from being written; an error means that the cluster could not be read, or that ctx ended.
func (s *Syncer) Sync(ctx context.Context, snap director.Snapshot) (apply.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.plan(ctx, snap)
	if err != nil {
		return apply.Result{}, err
	}
	s.last = remember(snap, p, s.last)
	result, err := s.applier().Apply(ctx, p)
	// Only what was seen through counts as a confirmation.
	if err == nil {
		s.absences, s.losses = p.Absences, p.Losses
	}
	return result, err
}

// Recall gives a Syncer what another one remembered, as the Missing of its last Result told. It counts for the next Plan or Sync.
func (s *Syncer) Recall(missing []compassv1alpha1.MissingApplications) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recalled = missing
}

// Plan computes what Sync would do, without doing it.
func (s *Syncer) Plan(ctx context.Context, snap director.Snapshot) (plan.Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan(ctx, snap)
}

func (s *Syncer) plan(ctx context.Context, snap director.Snapshot) (plan.Plan, error) {
	// Of a cache the objects themselves are taken: nothing here changes them, and copies of thousands cost more than all of
	// the planning.
	var applications v1alpha1.ApplicationList
	if err := s.Reader.List(ctx, &applications, client.UnsafeDisableDeepCopy); err != nil {
		return plan.Plan{}, fmt.Errorf("listing Applications: %w", err)
	}
	var secrets corev1.SecretList
	if err := s.Reader.List(ctx, &secrets, client.InNamespace(s.Namespace), client.HasLabels(plan.SecretLabels), client.UnsafeDisableDeepCopy); err != nil {
		return plan.Plan{}, fmt.Errorf("listing Secrets in namespace %s: %w", s.Namespace, err)
	}
	if s.recalled != nil {
		s.absences, s.recalled = plan.Recall(s.recalled, applications.Items), nil
	}
	return plan.New(snap, plan.Observed{Applications: applications.Items, Secrets: secrets.Items, Former: s.last.former, Losses: s.losses}, s.settings(), s.absences), nil
}

func (s *Syncer) settings() plan.Settings {
	return plan.Settings{Namespace: s.Namespace, GatewayURL: s.GatewayURL, SkipVerify: s.SkipVerify, Guard: s.Guard, Now: s.now().Now()}
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

func (s *Syncer) applier() apply.Applier {
	return apply.Applier{
		Client: s.Client, Live: s.live(), Namespace: s.Namespace, Concurrency: s.Concurrency, Clock: s.now(), Recorder: s.Recorder, Log: s.Log,
	}
}
