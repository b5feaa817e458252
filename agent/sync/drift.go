package sync

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// EventDriftRepaired is the reason of the event about an Application that was changed, or whose Secrets were, and that is
// again what Compass says.
const EventDriftRepaired = "DriftRepaired"

// memory is what the last snapshot said, by the names of the Applications that stand for its systems. A system that got no
// Application is not in it.
type memory struct {
	labels  map[string]any
	systems map[string]director.Application
	// former are the Applications of which Director does not tell all, as they were meant to be: what a user wrote over
	// pending credentials, or over hidden client ids, cannot be asked for again.
	former map[string]*v1alpha1.Application
	// withheld are losses of credentials that were not believed.
	withheld map[plan.Loss]bool
}

func remember(snap director.Snapshot, p plan.Plan) memory {
	m := memory{labels: snap.RuntimeLabels, systems: map[string]director.Application{}, former: map[string]*v1alpha1.Application{}, withheld: p.Withheld}
	byID := make(map[string]*director.Application, len(snap.Applications))
	for i := range snap.Applications {
		byID[snap.Applications[i].ID] = &snap.Applications[i]
	}
	for _, step := range p.Steps {
		system := byID[step.ID]
		if step.Wanted == nil || system == nil {
			continue
		}
		m.systems[step.Name] = *system
		known := !system.AuthsUnknown
		for _, bundle := range system.Bundles {
			known = known && !bundle.AuthPending && (step.Observed == nil || !p.Withheld[plan.Loss{Application: step.Observed.UID, Bundle: bundle.ID}])
		}
		if !known {
			m.former[step.Name] = step.Wanted
		}
	}
	return m
}

// Forget makes Repair do nothing until the next Sync: what the last one brought is to go.
func (s *Syncer) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = memory{}
}

// Repair brings one Application and its Secrets back to what the last snapshot says, if somebody changed or deleted them,
// and says whether there was anything to do. It asks Compass nothing, and deletes no Application. What the last snapshot
// does not name it leaves alone. It waits for a Sync that runs.
func (s *Syncer) Repair(ctx context.Context, name string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	system, known := s.last.systems[name]
	if !known {
		return false, ctx.Err()
	}
	// Nearly always there is nothing to do, and the cache shows it. Where it shows something, that may be because it
	// lags behind what was written a moment ago.
	var p plan.Plan
	for _, reader := range []client.Reader{s.Reader, s.live()} {
		observed, going, err := s.observe(ctx, reader, name, system)
		if err != nil || going {
			return false, err
		}
		p = plan.New(director.Snapshot{RuntimeLabels: s.last.labels, Applications: []director.Application{system}}, observed, s.settings(), nil)
		if len(p.Steps) == 0 || p.Steps[0].Idle() {
			return false, nil
		}
	}
	step := p.Steps[0]
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
