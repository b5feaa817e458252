package connection

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

// sync reads a snapshot and has it brought into place.
func (r *Reconciler) sync(ctx context.Context, v *view) error {
	// Reset before the attempt, not after it: a request that lasts as long as syncs fail would be a loop.
	if err := r.respec(ctx, v, func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = false }); err != nil {
		return err
	}
	r.entrust(ctx, v)
	if r.located.IsZero() || v.now.Sub(r.located) >= locateEvery || v.now.Before(r.located) {
		if done, err := r.locate(ctx, v); done || err != nil {
			return err
		}
	}
	r.fetch(ctx, v)
	return nil
}

// fetch reads a snapshot, has it brought into place, and schedules what follows. It gives for how long Director wants to be
// left alone.
func (r *Reconciler) fetch(ctx context.Context, v *view) time.Duration {
	started := r.Clock.Now()
	_, directorURL := r.urls(v)
	d := r.Compass.Director(directorURL, v.config.tenant)
	if known, err := r.recognise(ctx, v, d); err != nil || !known {
		if err != nil {
			r.fetchFailed(ctx, v, err)
		}
		return retryAfter(err)
	}
	snapshot, err := d.Snapshot(ctx, v.config.runtimeID)
	if err != nil {
		r.fetchFailed(ctx, v, err)
		return retryAfter(err)
	}
	accepted(v)
	v.facts.Called = true
	status.Maintained(v.status(), r.Clock.Now())
	result, err := r.bring(ctx, v, snapshot)
	if err != nil {
		r.Log.WarnContext(ctx, "the Applications could not be brought into place", "error", err)
		status.SyncError(v.status(), compassv1alpha1.ResourceApplicationFailed, "Failed to apply configuration: "+err.Error(), snapshot.Complete, r.Clock.Now())
		r.failed(v, err)
		return 0
	}
	st := v.status()
	status.Counted(st, status.Applied{
		Total: result.Total, Synced: result.Synced, Ready: result.Ready, Failed: result.Failed, PendingDeletion: result.PendingDeletion, Failures: result.Failures, NotReady: result.NotReady, Missing: result.Missing,
	})
	if !snapshot.Complete && result.PruneBlocked == "" {
		result.PruneBlocked = "the answer of Compass was incomplete; it misses no Application, and if it did, that one would be kept; Compass: " + snapshot.Incomplete
	}
	v.facts.Synced, v.facts.PruneBlocked = true, result.PruneBlocked
	if err := r.label(ctx, v, d, snapshot); err != nil {
		r.Log.WarnContext(ctx, "the labels of the runtime could not be set", "error", err)
		status.Applying(st, r.Clock.Now())
		status.SyncError(st, compassv1alpha1.MetadataUpdateFailed, "Failed to reconcile Runtime labels with proper URLs: "+cause(err), snapshot.Complete, r.Clock.Now())
		r.failed(v, err)
		return retryAfter(err)
	}
	now := r.Clock.Now()
	status.Synced(st, snapshot.Complete, now)
	resyncHandled(v.connection, now)
	st.ConsecutiveFailures = 0
	r.Metrics.SyncTook(now.Sub(started))
	v.next = r.Schedule.AfterSuccess(now, v.config.runtimeID)
	if renewAt := r.renewAt(v.client.credential); renewAt.Before(v.next) {
		v.next = latest(renewAt, now.Add(r.Schedule.Floor))
	}
	asked := r.report(ctx, v, d, snapshot, result)
	v.next = latest(v.next, now.Add(min(asked, maxRetryAfter)))
	r.Log.InfoContext(ctx, "synchronised", "applications", result.Total, "failed", result.Failed, "queries", snapshot.Queries, "took", now.Sub(started))
	return asked
}

// recognise asks Director once per process and certificate whose it is: the one-time token may have been that of another
// runtime than RUNTIME_ID says. If it was, the client Secret says so from then on, and Table decides by it.
func (r *Reconciler) recognise(ctx context.Context, v *view, d Director) (bool, error) {
	fingerprint := v.client.credential.Fingerprint()
	if r.recognised == fingerprint {
		return true, nil
	}
	id, err := d.Viewer(ctx)
	if err != nil {
		return false, err
	}
	if id == v.config.runtimeID {
		r.recognised = fingerprint
		return true, nil
	}
	r.Log.WarnContext(ctx, "the client certificate belongs to another runtime", "runtime", id, "configured", v.config.runtimeID)
	other := v.client
	other.runtimeID = id
	if err := r.store().saveClient(ctx, other); err != nil {
		return false, err
	}
	v.client, r.current = other, &other
	v.again = true
	return false, nil
}

// bring has a snapshot brought into place.
func (r *Reconciler) bring(ctx context.Context, v *view, snapshot director.Snapshot) (Result, error) {
	runtime, st := v.config.identity().String(), v.status()
	if v.client.applied == runtime {
		st.Settling = nil
		return r.Syncer.Sync(ctx, snapshot)
	}
	complete, answers := snapshot.Complete, settlingOf(*st)
	blocked := answers.hold(runtime, &snapshot, r.Clock.Now())
	result, err := r.Syncer.Sync(ctx, snapshot)
	if err != nil {
		return result, err
	}
	st.Settling = answers.told()
	if blocked != "" && result.PruneBlocked != "" {
		result.PruneBlocked = blocked
		return result, nil
	}
	if !complete {
		return result, nil
	}
	// Either there is nothing to lose, or the loss was confirmed.
	applied := v.client
	applied.applied = runtime
	if err := r.store().saveClient(ctx, applied); err != nil {
		return result, err
	}
	v.client, r.current, st.Settling = applied, &applied, nil
	return result, nil
}

// locate asks the Connector where Compass is: at the start, and after Director could not be reached. done says that the
// attempt ends here.
func (r *Reconciler) locate(ctx context.Context, v *view) (done bool, err error) {
	status.Attempted(v.status(), v.now)
	connectorURL, directorURL := r.urls(v)
	configuration, err := r.Compass.Connector(connectorURL).Configuration(ctx, "")
	if err != nil && !r.located.IsZero() && graphql.KindOf(err) != graphql.Throttled {
		// It was to be asked only because a day is over. Director, where it is known to be, tells how the connection is.
		r.Log.WarnContext(ctx, "the Connector could not be asked, and will be asked again tomorrow", "error", err)
		r.located = r.Clock.Now()
		return false, nil
	}
	if err != nil {
		r.Log.WarnContext(ctx, "the Connector could not be asked", "error", err)
		r.maintenanceFailed(ctx, v, err, "Error while trying to maintain connection: Failed to connect to Compass Connector: "+cause(err)+hint(err, false, r.Secrets))
		return true, nil
	}
	r.located = r.Clock.Now()
	status.Maintained(v.status(), r.Clock.Now())
	v.facts.Called = true
	if configuration.ConnectorURL != connectorURL || configuration.DirectorURL != directorURL {
		v.happened(corev1.EventTypeNormal, status.EventURLsChanged, "Locate", "Compass is at %s and %s now", configuration.ConnectorURL, configuration.DirectorURL)
	}
	if err := r.respec(ctx, v, func(spec *compassv1alpha1.CompassConnectionSpec) {
		spec.ManagementInfo = compassv1alpha1.ManagementInfo{ConnectorURL: configuration.ConnectorURL, DirectorURL: configuration.DirectorURL}
	}); err != nil {
		return true, err
	}
	if v.client.connectorURL == configuration.ConnectorURL && v.client.directorURL == configuration.DirectorURL {
		return false, nil
	}
	// The client Secret holds them too, for the day on which the CompassConnection is deleted.
	v.client.connectorURL, v.client.directorURL = configuration.ConnectorURL, configuration.DirectorURL
	if err := r.store().saveClient(ctx, v.client); err != nil {
		return true, err
	}
	current := v.client
	r.current = &current
	return false, nil
}

func (r *Reconciler) fetchFailed(ctx context.Context, v *view, err error) {
	r.Log.WarnContext(ctx, "Director did not give a snapshot", "error", err)
	message := "Failed to fetch configuration: " + cause(err) + hint(err, false, r.Secrets)
	status.SyncError(v.status(), compassv1alpha1.SynchronizationFailed, message, false, r.Clock.Now())
	v.facts.Called, v.facts.CallError = true, message
	switch graphql.KindOf(err) {
	case graphql.Unreachable, graphql.Timeout, graphql.ServerUntrusted, graphql.TLS, graphql.Invalid:
		r.located = time.Time{} // perhaps it has moved
	}
	r.suspect(ctx, v, err)
	r.failed(v, err)
}

// label sets the labels that differ, in a fixed order.
func (r *Reconciler) label(ctx context.Context, v *view, d Director, snapshot director.Snapshot) error {
	for _, key := range slices.Sorted(maps.Keys(r.RuntimeLabels)) {
		if snapshot.RuntimeLabels[key] == r.RuntimeLabels[key] {
			continue
		}
		if err := d.SetRuntimeLabel(ctx, v.config.runtimeID, key, r.RuntimeLabels[key]); err != nil {
			return fmt.Errorf("label %s: %w", key, err)
		}
	}
	return nil
}
