package sync

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// EventDriftRepaired is the reason of the event about an Application that was changed, or whose Secrets were, and that is
// again what Compass says.
const EventDriftRepaired = "DriftRepaired"

// memory is what snapshots said, by the names of the Applications that stand for their systems. A system that got no
// Application is not in it.
type memory struct {
	systems map[string]remembered
	// former are the Applications of which Director does not tell all, as they were meant to be: what a user wrote over
	// pending credentials, or over hidden client ids, cannot be asked for again.
	former map[string]*v1alpha1.Application
	// withheld are losses of credentials that were not believed.
	withheld map[plan.Loss]bool
}

// remembered is what was last heard of a system that could be used.
type remembered struct {
	system director.Application
	// labels are those of the runtime in the same snapshot.
	labels map[string]any
	// kept says that a later snapshot did not tell of it, or nothing that can be used, and that its Application stays.
	kept bool
}

func remember(snap director.Snapshot, p plan.Plan, before memory) memory {
	m := memory{systems: map[string]remembered{}, former: map[string]*v1alpha1.Application{}, withheld: maps.Clone(p.Withheld)}
	byID := make(map[string]*director.Application, len(snap.Applications))
	for i := range snap.Applications {
		byID[snap.Applications[i].ID] = &snap.Applications[i]
	}
	decided := map[types.UID]bool{}
	for _, step := range p.Steps {
		system := byID[step.ID]
		if step.Wanted == nil || system == nil {
			continue
		}
		m.systems[step.Name] = remembered{system: *system, labels: snap.RuntimeLabels}
		known := !system.AuthsUnknown
		for _, bundle := range system.Bundles {
			known = known && !bundle.AuthPending && (step.Observed == nil || !p.Withheld[plan.Loss{Application: step.Observed.UID, Bundle: bundle.ID}])
		}
		if !known {
			m.former[step.Name] = step.Wanted
		}
		if step.Observed != nil {
			decided[step.Observed.UID] = true
		}
	}
	m.keep(snap, p, before)
	for loss := range before.withheld {
		if !decided[loss.Application] {
			m.withheld[loss] = true
		}
	}
	return m
}

// keep remembers of before what the snapshot does not tell anew, as long as its Application stays because nothing is known: the
// system cannot be used as it came, or the snapshot is not complete. What a complete one does not name, a person may delete.
func (m *memory) keep(snap director.Snapshot, p plan.Plan, before memory) {
	failed := map[string]bool{}
	for _, f := range p.Failures {
		failed[f.ID] = true
	}
	goes := map[string]bool{}
	for _, step := range p.Steps {
		goes[step.Name] = step.Action == plan.Delete
	}
	for name, was := range before.systems {
		if _, told := m.systems[name]; told || goes[name] || snap.Complete && !failed[was.system.ID] {
			continue
		}
		was.kept = true
		m.systems[name] = was
		if meant := before.former[name]; meant != nil {
			m.former[name] = meant
		}
	}
}

// Forget makes Repair do nothing until the next Sync: what the last one brought is to go.
func (s *Syncer) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = memory{}
}

// Repair brings one Application and its Secrets back to what was last heard of its system, if somebody changed or deleted them,
// and says whether there was anything to do. It asks Compass nothing, and deletes no Application. What a complete
// snapshot did not name it leaves alone. It waits for a Sync that runs.
func (s *Syncer) Repair(ctx context.Context, name string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.last.systems[name]
	if !known {
		return false, ctx.Err()
	}
	system := last.system
	// Nearly always there is nothing to do, and the cache shows it. Where it shows something, that may be because it
	// lags behind what was written a moment ago.
	var p plan.Plan
	for _, reader := range []client.Reader{s.Reader, s.live()} {
		observed, going, err := s.observe(ctx, reader, name, system)
		if err != nil || going {
			return false, err
		}
		p = plan.New(director.Snapshot{RuntimeLabels: last.labels, Applications: []director.Application{system}}, observed, s.settings(), nil)
		if len(p.Steps) == 0 || p.Steps[0].Idle() {
			return false, nil
		}
	}
	step := &p.Steps[0]
	if last.kept {
		step.Synchronized = plan.Verdict{} // the last snapshot has the word
	}
	result, err := s.applier().Apply(ctx, p)
	if err != nil {
		return false, err
	}
	for _, f := range result.Failures {
		if f.Reason == plan.ReasonWriteFailed {
			return false, fmt.Errorf("repairing Application %s: %s", name, f.Message)
		}
	}
	if s.Recorder != nil && step.Observed != nil {
		s.Recorder.Eventf(step.Observed, nil, corev1.EventTypeNormal, EventDriftRepaired, apply.EventAction, "%s", apply.Note("it differed from what Compass says: "+step.Differences()))
	}
	if s.Log != nil {
		s.Log.InfoContext(ctx, "Application was changed by somebody, and is what Compass says again", "application", name, "changes", step.Differences())
	}
	return true, nil
}

// observe reads one Application and the Secrets that it may have. Going says that it is being deleted: it is created again
// when it is gone.
func (s *Syncer) observe(ctx context.Context, reader client.Reader, name string, system director.Application) (observed plan.Observed, going bool, err error) {
	observed.Former, observed.Withheld = s.last.former, s.last.withheld
	var app v1alpha1.Application
	err = reader.Get(ctx, client.ObjectKey{Name: name}, &app)
	switch {
	case err == nil:
		observed.Applications = []v1alpha1.Application{app}
	case !apierrors.IsNotFound(err):
		return observed, false, fmt.Errorf("reading Application %s: %w", name, err)
	}
	if app.DeletionTimestamp != nil {
		return observed, true, nil
	}
	for _, bundle := range system.Bundles {
		for _, secretName := range plan.SecretNames(name, bundle.ID) {
			var found corev1.Secret
			err := reader.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: secretName}, &found)
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return observed, false, apply.SecretFailed("reading Secret "+s.Namespace+"/"+secretName, err)
			}
			observed.Secrets = append(observed.Secrets, found)
		}
	}
	return observed, false, nil
}
