package connection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/secret"
)

// Reasons of the metric of renewals.
const (
	forPairing   = "pairing"
	forDue       = "due"
	forRequested = "requested"
)

// adopt makes the certificate current that the cluster has. The Connector is asked for the URLs before the first sync, as
// after every start.
func (r *Reconciler) adopt(_ context.Context, v *view) error {
	status.Adopted(v.status(), v.client.established, v.client.renewed)
	v.status().TokenFingerprint = v.client.token
	v.happened(corev1.EventTypeNormal, status.EventAdopted, "Adopt", "the certificate in Secret %s is used again: the CompassConnection was missing", r.Secrets.Client)
	v.next = v.now
	return nil
}

// stall says what somebody has to do. It is called again as soon as one of the Secrets changes.
func (r *Reconciler) stall(v *view, why string) error {
	st := v.status()
	switch missing := v.config.missing(v.configured, r.Secrets.Configuration); {
	case v.foreign() && v.client.credential.ValidAt(v.now):
		v.facts.Stalled, v.facts.StalledMessage = status.ReasonTokenNeeded, r.strandedMessage(v)
		r.connectionError(v, v.facts.StalledMessage)
	case v.client.usable() && v.client.credential.ValidAt(v.now) && missing != "":
		v.facts.Stalled, v.facts.StalledMessage = status.ReasonConfigurationInvalid, missing
		status.SyncError(st, compassv1alpha1.SynchronizationFailed, "Failed to read Runtime config: "+missing, false, v.now)
	case !v.configured:
		v.facts.Stalled, v.facts.StalledMessage = status.ReasonConfigurationInvalid, missing
		r.connectionError(v, "Failed to retrieve certificate: "+missing)
	default:
		message := why + "; write a new one-time token into key " + keyToken + " of Secret " + r.Secrets.Configuration.String()
		v.facts.Stalled, v.facts.StalledMessage = status.ReasonTokenNeeded, message
		r.connectionError(v, message)
	}
	r.rest(v)
	return nil
}

// rest leaves open when Compass is called next: as soon as somebody has mended what is wrong. But that ends no waiting time:
// who takes a token out of the Secret and puts it back asks for nothing that is new.
func (r *Reconciler) rest(v *view) {
	st := v.status()
	if st.NextAttempt == nil {
		return
	}
	next := st.NextAttempt.Time
	if floor := stamp(v.now.Add(r.Schedule.Floor), v.now); next.After(floor) {
		next = floor
	}
	if st.NextAttempt = nil; next.After(v.now) {
		st.NextAttempt = &metav1.Time{Time: next}
	}
}

// strandedMessage tells somebody who changed the configuration Secret both ways out.
func (r *Reconciler) strandedMessage(v *view) string {
	key, is, says := keyRuntimeID, v.client.runtimeID, v.config.runtimeID
	if is == says {
		key, is, says = keyTenant, v.client.tenant, v.config.tenant
	}
	return fmt.Sprintf("%s in Secret %s is %q, but the client certificate was issued for %q, so Compass is not called: write a one-time token for %q into key %s of that Secret to pair anew, or %q back into %s",
		key, r.Secrets.Configuration, says, is, says, keyToken, is, key)
}

// connectionError notes an error in the state that fits: without any certificate pairing failed, with one maintenance did.
func (r *Reconciler) connectionError(v *view, message string) {
	state := compassv1alpha1.ConnectionFailed
	if v.client.usable() {
		state = compassv1alpha1.ConnectionMaintenanceFailed
	}
	// A stall that says the same again is no new attempt.
	if st := v.status(); st.State != state || st.ConnectionStatus.Error != status.Bound(message) {
		status.ConnectionError(st, state, message, v.now)
	}
}

// pair gets the second token for the first one. Key and second token are stored before the second is spent: Compass
// burns a token with the first request that carries it, whatever becomes of the answer.
func (r *Reconciler) pair(ctx context.Context, v *view) error {
	token, fingerprint := v.config.token, v.config.fingerprint()
	if v.config.connectorURL == "" {
		v.facts.Stalled, v.facts.StalledMessage = status.ReasonConfigurationInvalid, fmt.Sprintf("Secret %s has no %s", r.Secrets.Configuration, keyConnectorURL)
		r.connectionError(v, "Failed to retrieve certificate: Failed to establish connection. Connector URL is empty")
		r.rest(v)
		return nil
	}
	p := pending{keyed: true, pairing: true, fingerprint: fingerprint, tokenURL: v.config.connectorURL, since: v.now, identity: v.config.identity()}
	if r.Delegate != nil {
		if err := r.forget(ctx, v); err != nil { // with what an issuer may have left of an earlier pairing
			return err
		}
	} else if err := r.key(v, &p); err != nil {
		return err
	}
	if err := r.store().savePending(ctx, p); err != nil {
		return err // the token is not spent yet
	}
	r.held = nil
	v.status().TokenFingerprint = fingerprint
	r.tokens.add(fingerprint)
	configuration, err := r.Compass.TokenConnector(v.config.connectorURL).Configuration(ctx, token)
	if err != nil {
		return r.pairingFailed(ctx, v, err, false)
	}
	p.token, p.subject = configuration.Token, configuration.Subject
	p.directorURL, p.connectorURL = configuration.DirectorURL, configuration.ConnectorURL
	v.pending = &p
	if err := r.keep(ctx, p); err != nil {
		return r.pairingFailed(ctx, v, err, false)
	}
	if r.Delegate != nil {
		return r.handOver(ctx, v, true)
	}
	return r.sign(ctx, v)
}

// keepTimeout bounds the writing of what cannot be had again.
const keepTimeout = 10 * time.Second

// keep writes what Compass gives once into the pending Secret. The agent being told to end does not keep it from that, and
// what cannot be written stays in memory for the next attempt.
func (r *Reconciler) keep(ctx context.Context, p pending) error {
	r.held = &p
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	if err := r.store().savePending(ctx, p); err != nil {
		return err
	}
	r.held = nil
	return nil
}

// keepIssued writes an issued certificate into the pending Secret unless it is there. That it cannot be written is no
// reason not to make it current: the client Secret may take it.
func (r *Reconciler) keepIssued(ctx context.Context, p *pending) {
	if r.held == nil && p.stored {
		return
	}
	if err := r.keep(ctx, *p); err != nil {
		r.Log.WarnContext(ctx, "an issued certificate is kept in memory", "error", err)
		return
	}
	p.stored = true
}

// sign spends the second token.
func (r *Reconciler) sign(ctx context.Context, v *view) error {
	p := v.pending
	if !p.keyed { // it was damaged, or a Delegate that is switched off now was to make it
		if err := r.key(v, p); err != nil {
			return err
		}
		p.keyed, r.held = true, p
	}
	if r.held != nil { // the second token is spent only when it is stored
		if err := r.keep(ctx, *p); err != nil {
			return r.pairingFailed(ctx, v, err, false)
		}
	}
	if err := r.issue(ctx, v, p, r.Compass.TokenConnector(p.tokenURL), p.token); err != nil {
		// What did not reach Compass left the token good, and what may be an outage perhaps too. Everything else is final.
		kind := graphql.KindOf(err)
		return r.pairingFailed(ctx, v, err, !kind.Transient() && kind != graphql.ServerUntrusted && kind != graphql.TLS && kind != graphql.Canceled)
	}
	return r.promote(ctx, v, p)
}

// issue has the key of p signed, checks the answer and stores it. Its errors are about Compass and the answer: an issued
// certificate that cannot be stored is no failure of its issuance.
func (r *Reconciler) issue(ctx context.Context, v *view, p *pending, c Connector, token secret.Value) error {
	subject, err := certs.ParseSubject(p.subject)
	if err != nil {
		return err
	}
	csr, err := certs.NewRequest(p.credential.Key, subject)
	if err != nil {
		return err
	}
	issued, err := c.Sign(ctx, token, csr)
	if err != nil {
		return err
	}
	credential, err := certs.Verify(certs.Issuance{
		Key: p.credential.Key, Subject: subject, Certificate: issued.Certificate, Chain: issued.Chain, CA: issued.CA,
		Now: r.Clock.Now(), MinValidity: r.Renewal.Floor,
	})
	if err != nil {
		return err
	}
	p.credential, p.issued, p.stored = credential, true, false
	r.keepIssued(ctx, p)
	return nil
}

// key gives p a key: that of an attempt which got no certificate for it, or else a new one.
func (r *Reconciler) key(v *view, p *pending) error {
	if old := v.pending; old != nil && old.keyed && !old.issued {
		p.credential.Key = old.credential.Key
		return nil
	}
	generate := r.NewKey
	if generate == nil {
		generate = certs.GenerateKey
	}
	key, err := generate(r.KeySize)
	if err != nil {
		return err
	}
	p.credential.Key = key
	return nil
}

// pairingFailed notes a failed pairing; final says that what is pending is worth nothing any more. It is deleted when the status
// says that its token was tried: one of the two must.
func (r *Reconciler) pairingFailed(ctx context.Context, v *view, err error, final bool) error {
	r.Metrics.Renewal(forPairing, err)
	r.Log.WarnContext(ctx, "pairing failed", "error", err)
	if p := v.pending; p != nil && p.pairing {
		v.status().TokenFingerprint = p.fingerprint // the process that spent it may have died
	}
	if final {
		v.pending, v.discard, r.held = nil, true, nil
	}
	message := "Failed to retrieve certificate: " + traced(err) + hint(err, true, r.Secrets)
	status.ConnectionError(v.status(), compassv1alpha1.ConnectionFailed, message, v.now)
	if needsToken(err) {
		v.facts.Stalled, v.facts.StalledMessage = status.ReasonTokenNeeded, message
	}
	r.failed(v, err)
	return nil
}

// tokens are the fingerprints of the tokens that this process knows to be tried, the last ones of many. The status and the client
// Secret hold one each, for the next process: without more, tokens that take turns in the configuration Secret would be new for
// ever.
type tokens [16]string

func (t *tokens) has(fingerprint string) bool { return slices.Contains(t[:], fingerprint) }

func (t *tokens) add(fingerprint string) {
	if fingerprint != "" && !t.has(fingerprint) {
		copy(t[1:], t[:])
		t[0] = fingerprint
	}
}

// forget deletes the pending Secret; that a token was tried stays on the status.
func (r *Reconciler) forget(ctx context.Context, v *view) error {
	if err := r.store().dropPending(ctx); err != nil {
		return err // what is in memory only is still needed: the Secret may hold a token that is spent
	}
	v.pending, r.held = nil, nil
	return nil
}

// failed schedules the next attempt after a failure.
func (r *Reconciler) failed(v *view, err error) {
	st := v.status()
	st.ConsecutiveFailures++
	asked := retryAfter(err)
	v.next = r.inTime(v, r.Schedule.AfterFailure(r.Clock.Now(), st.ConsecutiveFailures, asked), asked)
}

// inTime keeps a waiting time from outlasting a short certificate: while a renewal lies ahead it ends there, and when one is due,
// it is a quarter of what is left at most. The floor holds, and what Compass asked for.
func (r *Reconciler) inTime(v *view, next time.Time, asked time.Duration) time.Time {
	now := r.Clock.Now()
	if !v.client.usable() || !v.client.credential.ValidAt(now) {
		return next
	}
	limit := r.renewAt(v.client.credential)
	if !now.Before(limit) {
		limit = now.Add(v.client.credential.Leaf().NotAfter.Sub(now) / 4)
	}
	if limit = latest(limit, now.Add(max(r.Schedule.Floor, time.Second, min(asked, maxRetryAfter)))); limit.Before(next) {
		return limit
	}
	return next
}

// WrongRuntimeError says that a one-time token was that of another runtime than the configuration Secret names.
type WrongRuntimeError struct {
	// Is the runtime's id, by Director, and Configured that of the configuration Secret.
	Is, Configured string
}

// Error implements error.
func (e *WrongRuntimeError) Error() string {
	return fmt.Sprintf("the one-time token was that of runtime %q, and %s is %q: the current certificate stays; write a token for %q into %s, or %q into %s with another token for it",
		e.Is, keyRuntimeID, e.Configured, e.Configured, keyToken, e.Is, keyRuntimeID)
}

// needsToken: this token will not be accepted any more, whatever time passes.
func needsToken(err error) bool {
	var refused *certs.IssuanceError
	var wrong *WrongRuntimeError
	if errors.As(err, &refused) || errors.As(err, &wrong) {
		return true
	}
	switch graphql.KindOf(err) {
	case graphql.Ambiguous, graphql.Refused, graphql.ScopeMissing, graphql.Rejected:
		return true
	}
	return false
}
