package connection

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
)

// outage: Director gave no answer of its own.
func outage(err error) bool {
	switch graphql.KindOf(err) {
	case graphql.Unreachable, graphql.Timeout, graphql.Throttled, graphql.Malformed:
		return true
	case graphql.Server:
		var failed *graphql.Error
		return errors.As(err, &failed) && len(failed.Errors) == 0
	}
	return false
}

// trialsOfPending is after how many failures in a row an issued certificate is given up that Compass does not accept.
const trialsOfPending = 4

// renew gets a new certificate, with a new key, by the current one. The new key is stored before it is signed, so that a
// crash in between goes on with it.
func (r *Reconciler) renew(ctx context.Context, v *view) error {
	if r.Delegate != nil {
		return r.handRenewal(ctx, v)
	}
	status.Attempted(v.status(), v.now)
	connectorURL, _ := r.urls(v)
	c := r.Compass.Connector(connectorURL)
	configuration, err := c.Configuration(ctx, "")
	if err != nil {
		return r.renewalFailed(ctx, v, "Failed to connect to Compass Connector: ", err)
	}
	r.located = r.Clock.Now()
	p := &pending{keyed: true, since: v.now, subject: configuration.Subject, directorURL: configuration.DirectorURL, connectorURL: configuration.ConnectorURL}
	if err := r.key(v, p); err != nil {
		return err
	}
	if err := r.store().savePending(ctx, *p); err != nil {
		return err
	}
	if err := r.issue(ctx, v, p, c, ""); err != nil {
		return r.renewalFailed(ctx, v, "", err)
	}
	v.pending = p
	return r.promote(ctx, v, p)
}

// renewalFailed notes a failed renewal, and syncs meanwhile with the certificate that there is: it is good for a while, and
// Director may answer while the Connector does not.
func (r *Reconciler) renewalFailed(ctx context.Context, v *view, what string, err error) error {
	r.Metrics.Renewal(renewalReason(v), err)
	r.Log.WarnContext(ctx, "renewal failed, the current certificate stays", "error", err)
	message := "Error while trying to maintain connection: " + what + cause(err) + hint(err, false, r.Secrets)
	v.happened(corev1.EventTypeWarning, status.EventRenewalFailed, "Renew", "%s", message)
	r.maintenanceFailed(ctx, v, err, message)
	if graphql.KindOf(err) == graphql.Throttled || !r.canSync(v) {
		return nil
	}
	st := v.status()
	failures, next, last := st.ConsecutiveFailures, v.next, *st.ConnectionStatus
	asked := r.fetch(ctx, v)
	st.State, st.ConsecutiveFailures = compassv1alpha1.ConnectionMaintenanceFailed, failures
	v.next = latest(next, r.Clock.Now().Add(min(asked, maxRetryAfter)))
	st.ConnectionStatus.LastSuccess, st.ConnectionStatus.Error = last.LastSuccess, last.Error
	return nil
}

// canSync: there is what a sync needs.
func (r *Reconciler) canSync(v *view) bool {
	return v.config.missing(v.configured, r.Secrets.Configuration) == "" && !v.foreign() && v.client.usable() && v.client.credential.ValidAt(v.now)
}

// maintenanceFailed notes that a call failed that was made with the client certificate.
func (r *Reconciler) maintenanceFailed(ctx context.Context, v *view, err error, message string) {
	status.ConnectionError(v.status(), compassv1alpha1.ConnectionMaintenanceFailed, message, v.now)
	v.facts.Called, v.facts.CallError = true, message
	r.suspect(ctx, v, err)
	r.failed(v, err)
}

func (r *Reconciler) renewAt(c certs.Credential) time.Time {
	policy := r.Renewal
	policy.Identity = c.Leaf().Subject.CommonName
	return policy.RenewAt(c.Leaf(), c.Chain[1:]...)
}

func renewalReason(v *view) string {
	if v.connection.Spec.RefreshCredentialsNow || renewalWanted(v.connection) {
		return forRequested
	}
	return forDue
}

// promote makes an issued certificate current. One that takes the place of another that works must first make a real call:
// until then the old one stays in the Secret.
func (r *Reconciler) promote(ctx context.Context, v *view, p *pending) error {
	now := r.Clock.Now()
	next := clientSecret{
		credential: p.credential, connectorURL: p.connectorURL, directorURL: p.directorURL, token: v.client.token,
		established: v.client.established, renewed: v.client.renewed,
		identity: v.client.identity, tokenURL: v.client.tokenURL, applied: v.client.applied,
	}
	tenant := v.tenant()
	if p.pairing {
		next.token, next.established, next.renewed = p.fingerprint, now, time.Time{}
		next.identity, next.tokenURL, tenant = p.identity, p.tokenURL, p.tenant
	} else {
		next.renewed = now
	}
	next.ours = v.client.ours
	tried := "" // whose the certificate is, if that was asked for
	if !p.pairing || r.works(v) && v.client.credential.Fingerprint() != p.credential.Fingerprint() {
		id, err := r.try(ctx, tenant, p)
		if is := v.client.runtimeID; err == nil && v.received && !p.pairing && v.client.usable() && is != "" && id != is {
			err = fmt.Errorf("it is that of runtime %q, and the current one that of %q", id, is)
		}
		if err != nil {
			// An outage says nothing about the certificate, however long it lasts.
			final := v.status().ConsecutiveFailures >= trialsOfPending && !outage(err)
			err = fmt.Errorf("the new certificate does not work: %w", err)
			if p.pairing {
				return r.pairingFailed(ctx, v, err, final)
			}
			if final {
				if err := r.forget(ctx, v); err != nil {
					return err
				}
				r.replace(ctx, v)
			}
			return r.renewalFailed(ctx, v, "", err)
		}
		switch {
		case !p.pairing:
			next.runtimeID = id
		case p.runtimeID != "" && id != p.runtimeID:
			return r.pairingFailed(ctx, v, &WrongRuntimeError{Is: id, Configured: p.runtimeID}, true)
		}
		tried = id
	}
	if old := v.client.credential.CA; len(old) > 0 && !sameAuthorities(old, p.credential.CA) {
		next.credential.CA = certs.MergeCA(old, p.credential.CA, now)
		if !containsAll(old, p.credential.CA) {
			v.happened(corev1.EventTypeNormal, status.EventAuthoritiesChanged, "Renew", "Compass has other authorities now; the old ones stay trusted in Secret %s until they end", r.Secrets.CA)
		}
	}
	s := r.store()
	if err := s.saveClient(ctx, next); err != nil {
		return r.notPreserved(ctx, v, p, err)
	}
	if v.unread != nil { // what others wrote there must not get lost
		return r.notPreserved(ctx, v, p, v.unread)
	}
	if err := s.saveAuthorities(ctx, certs.MergeCA(v.authority, next.credential.CA, now)); err != nil {
		return r.notPreserved(ctx, v, p, err)
	}
	data, err := s.encode(next)
	if err != nil {
		return err
	}
	next.data = data
	v.client, r.current = next, &next
	r.Compass.Use(next.credential.TLS())
	r.inUse, r.located, r.trouble = next.credential.Fingerprint(), now, ""
	accepted(v)
	if tried != "" && tried == v.config.runtimeID {
		r.recognised = r.inUse
	}
	return r.promoted(ctx, v, p, now)
}

// finish tells what a crash kept from being told after the certificate became current, and deletes the pending Secret.
func (r *Reconciler) finish(ctx context.Context, v *view) error {
	noted := v.status().NextAttempt
	accepted(v) // as when the certificate became current
	r.located = v.now
	if err := r.promoted(ctx, v, v.pending, v.now); err != nil {
		return err
	}
	if noted != nil {
		v.next = latest(v.next, noted.Time) // an attempt that broke off may have called Compass with the certificate already
	}
	status.Dated(v.status(), v.client.established, v.client.renewed)
	return nil
}

// promoted notes everywhere but in the client Secret that the certificate of p is current.
func (r *Reconciler) promoted(ctx context.Context, v *view, p *pending, now time.Time) error {
	r.tried = ""
	leaf := v.client.credential.Leaf()
	reason := renewalReason(v)
	renewalHandled(v.connection, now)
	if err := r.respec(ctx, v, func(spec *compassv1alpha1.CompassConnectionSpec) {
		spec.ManagementInfo = compassv1alpha1.ManagementInfo{ConnectorURL: p.connectorURL, DirectorURL: p.directorURL}
		spec.RefreshCredentialsNow = false
	}); err != nil {
		return err
	}
	st := v.status()
	if p.pairing {
		reason = forPairing
		status.Paired(st, now)
		st.TokenFingerprint = p.fingerprint
		v.happened(corev1.EventTypeNormal, status.EventPaired, "Pair", "the cluster is paired with Compass; the client certificate is valid until %s", formatTime(leaf.NotAfter))
	} else {
		status.Renewed(st, now)
		v.facts.Called = true
		v.happened(corev1.EventTypeNormal, status.EventRenewed, "Renew", "a new client certificate is in use, valid until %s", formatTime(leaf.NotAfter))
	}
	r.Metrics.Renewal(reason, nil)
	r.Log.InfoContext(ctx, "client certificate issued", "reason", reason, "certificate", v.client.credential)
	st.ConsecutiveFailures = 0
	if v.again = true; !v.foreign() && now.Before(r.renewAt(v.client.credential)) {
		v.next = now // the sync follows at once, and nothing else does
	}
	return r.forget(ctx, v)
}

// works: there is a certificate that it would be a loss to replace by one that does not work.
func (r *Reconciler) works(v *view) bool {
	return v.client.usable() && v.client.credential.ValidAt(v.now) && !r.rejected(v)
}

// try makes a real call with the new certificate, which tells whose it is.
func (r *Reconciler) try(ctx context.Context, tenant string, p *pending) (string, error) {
	d, end := r.Compass.Try(p.credential.TLS(), p.directorURL, tenant)
	defer end()
	return d.Viewer(ctx)
}

// notPreserved notes that the cluster did not take the new Secrets. The issued certificate stays pending, so that the next
// attempt costs nothing.
func (r *Reconciler) notPreserved(ctx context.Context, v *view, p *pending, err error) error {
	r.Log.WarnContext(ctx, "the certificate could not be stored", "error", err)
	if p.pairing {
		r.Metrics.Renewal(forPairing, err)
		status.ConnectionError(v.status(), compassv1alpha1.ConnectionFailed, "Failed to preserve certificate: "+err.Error(), v.now)
		r.failed(v, err)
		return nil
	}
	return r.renewalFailed(ctx, v, "Failed to preserve certificate: ", err)
}
