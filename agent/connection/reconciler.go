package connection

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/secret"
)

// attemptTimeout bounds one attempt, whatever its parts do.
const attemptTimeout = 10 * time.Minute

// tellTimeout is what is left, after an attempt that took all of its time, to write what became of it.
const tellTimeout = 30 * time.Second

// Options of a Reconciler.
type Options struct {
	// Secrets that are read and written.
	Secrets Names
	// Schedule of attempts at Compass.
	Schedule Schedule
	// Renewal says when certificates are renewed; its Identity is set from the certificate.
	Renewal certs.RenewalPolicy
	// KeySize of new keys, in bits. NewKey makes them; nil means certs.GenerateKey.
	KeySize int
	NewKey  func(bits int) (*rsa.PrivateKey, error)
	// RuntimeLabels that the runtime must have in Director.
	RuntimeLabels map[string]string
	// Report the results of syncs in the label ReportLabel.
	Report bool
}

// Reconciler brings the connection to what it should be. One worker runs it: see Table for what it decides.
type Reconciler struct {
	Options
	// Client writes; Reader reads from the API server, not from a cache: see store.
	Client client.Client
	Reader client.Reader
	// Compass is called, and Syncer given what it says.
	Compass Compass
	Syncer  Syncer
	// Cleaner deletes what Syncer brought into place, when the cluster leaves Compass.
	Cleaner Cleaner
	// Status leaves by Writer.
	Writer *status.Writer
	// Metrics count renewals and time syncs.
	Metrics *status.Metrics
	// Delegate, if set, has certificates issued instead of this package.
	Delegate Delegate
	// Clock is the time.
	Clock clock.PassiveClock
	// Log is for people.
	Log *slog.Logger

	// What the worker remembers between reconciles. Nothing of it is needed after a restart.
	current    *clientSecret // the client Secret last seen whole
	inUse      string        // fingerprint of the certificate that calls are made with
	recognised string        // fingerprint of the certificate that Director said is this runtime's
	revoked    string        // fingerprint of the certificate that was revoked to leave Compass
	located    time.Time     // when the Connector was asked for the URLs; zero before that, and after they failed
	tokens     tokens        // that were tried
	begun      bool          // this process has looked at the connection
	moment     time.Time     // of the first sync, if that was overdue when this process began
	quiet      time.Time     // until when Compass is not called, because the last attempt could not be written down
	attempted  time.Time     // when the last attempt began; the status may be deleted with the CompassConnection
	held       *pending      // what Compass issued and the pending Secret could not take; not needed once it did
	tried      string        // fingerprint of a certificate that may have been tried to be made current, and none was since
	trouble    string        // why the Delegate does not renew the current certificate, when it was last asked
	unreported string        // report that Director refused

	busySince atomic.Int64 // Unix nanoseconds; 0 while the worker is idle
}

// Alive reports an error when the worker has been at one attempt for longer than any attempt may take.
func (r *Reconciler) Alive() error {
	if since := r.busySince.Load(); since != 0 && r.Clock.Since(time.Unix(0, since)) > attemptTimeout+time.Minute {
		return errors.New("the worker hangs")
	}
	return nil
}

// foreign: the certificate was issued for another runtime or tenant than the configuration Secret names.
func (v *view) foreign() bool {
	return v.client.usable() && v.configured && v.client.contradicts(v.config.identity())
}

// view is what a reconcile found and did.
type view struct {
	now        time.Time
	before     *compassv1alpha1.CompassConnection // as read; nil if missing
	connection *compassv1alpha1.CompassConnection // as it will be; empty if missing
	generation int64                              // of the spec that this reconcile answers
	overtaken  bool                               // somebody changed the spec meanwhile: it is not answered as it is now
	config     configuration
	configured bool
	client     clientSecret
	pending    *pending
	authority  []*x509.Certificate
	unread     error  // why authority is not known, though the CA Secret may hold some
	unwritten  string // which Secret is not as it should be, and why
	received   bool   // the pending certificate came from the Delegate
	arrived    bool   // and is worth an attempt at once
	delivered  []byte // what the Delegate has left in the client Secret, PEM
	unused     string // why that is not used

	facts  status.Facts
	events []status.Event
	next   time.Time // of the next attempt; zero leaves it
	again  bool      // there is more to decide at once, whenever Compass may be called next
	// discard: the pending Secret is to be deleted when the status is written.
	discard bool
	left    bool // nothing keeps the CompassConnection any more
}

// tenant that calls with the current certificate are for: its own, even if the configuration names another.
func (v *view) tenant() string {
	if v.foreign() {
		return v.client.tenant
	}
	return v.config.tenant
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (view) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

func (v *view) happened(kind, reason, action, format string, args ...any) {
	v.events = append(v.events, status.Event{Type: kind, Reason: reason, Action: action, Message: fmt.Sprintf(format, args...)})
}

// lacks notes that a Secret is not as it should be. What works without it goes on.
func (v *view) lacks(err error) {
	if v.unwritten == "" {
		v.unwritten = err.Error()
	}
}

func (v *view) status() *compassv1alpha1.CompassConnectionStatus { return &v.connection.Status }

// Reconcile implements reconcile.Reconciler. Errors that it returns come from the API server, and are retried by the
// queue; everything about Compass ends in the status and in the time of the next attempt.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if req.Name != compassv1alpha1.ConnectionName {
		r.Log.WarnContext(ctx, "this CompassConnection is ignored: there is one connection only", "name", req.Name, "used", compassv1alpha1.ConnectionName)
		return reconcile.Result{}, nil
	}
	r.busySince.Store(r.Clock.Now().UnixNano())
	defer r.busySince.Store(0)
	whole, cancel := context.WithTimeout(ctx, attemptTimeout+tellTimeout)
	defer cancel()

	result, err := r.reconcile(whole)
	if err != nil && ctx.Err() != nil {
		return reconcile.Result{}, nil // the agent ends; whoever comes next goes on
	}
	return result, err
}

func (r *Reconciler) reconcile(ctx context.Context) (reconcile.Result, error) {
	v, err := r.observe(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.repair(ctx, v); err != nil {
		return reconcile.Result{}, err
	}
	row := Decide(r.situation(v))
	r.Log.DebugContext(ctx, "decided", "action", row.Do, "because", row.Name)
	if row.Do == Rest {
		r.Metrics.Gone()
		return reconcile.Result{}, nil
	}
	if row.Do.calls() && v.now.Before(r.quiet) {
		return reconcile.Result{RequeueAfter: r.quiet.Sub(v.now)}, nil
	}
	if v.before == nil {
		if err := r.create(ctx, v); err != nil {
			return reconcile.Result{}, err
		}
	}
	if row.Do.calls() {
		if err := r.announce(ctx, v); err != nil {
			return retried(fmt.Errorf("writing the status: %w", err))
		}
	}
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if err := r.act(attempt, row, v); err != nil {
		if row.Do.calls() && ctx.Err() == nil {
			// Compass may have been called: that must not happen again at once, whoever looks next.
			r.connectionError(v, "Failed to write what belongs to the connection: "+err.Error())
			r.failed(v, err)
			if _, noted := r.conclude(ctx, v, row); noted != nil {
				err = errors.Join(err, noted)
			}
		}
		return reconcile.Result{}, err
	}
	// What became of an attempt is told even if its time ran out.
	result, err := r.conclude(ctx, v, row)
	if err == nil && v.left {
		return reconcile.Result{}, r.release(ctx, v)
	}
	return result, err
}

func (r *Reconciler) store() store {
	return store{reader: r.Reader, writer: r.Client, names: r.Secrets, delegated: r.Delegate != nil}
}

// observe reads everything that the decision depends on.
func (r *Reconciler) observe(ctx context.Context) (*view, error) {
	v := &view{now: r.Clock.Now(), connection: &compassv1alpha1.CompassConnection{}}
	err := r.Reader.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, v.connection)
	switch {
	case err == nil:
		v.before, v.generation = v.connection.DeepCopy(), v.connection.Generation
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("reading the CompassConnection: %w", err)
	}
	status.Prepare(v.status())
	s := r.store()
	if v.config, v.configured, err = s.configuration(ctx); err != nil {
		return nil, err
	}
	if v.client, err = s.client(ctx, r.current); err != nil {
		return nil, err
	}
	if v.pending, err = s.pending(ctx, v.now); err != nil {
		return nil, err
	}
	if r.held != nil {
		held := *r.held
		held.age(v.now)
		v.pending = &held
	}
	r.receive(v)
	if v.authority, err = s.authorities(ctx); apierrors.IsForbidden(err) {
		v.unread, err = err, nil // Compass is called without that Secret, too
		v.lacks(v.unread)
	}
	return v, err
}

// situation is what Table decides on.
func (r *Reconciler) situation(v *view) Situation {
	st, spec := v.status(), v.connection.Spec
	fingerprint := v.config.fingerprint()
	s := Situation{
		ConfigurationMissing: v.config.missing(v.configured, r.Secrets.Configuration),
		Token:                fingerprint != "",
		TokenSpent:           fingerprint != "" && fingerprint == v.client.token,
		Certificate:          v.client.usable() && v.client.credential.ValidAt(v.now),
		Rejected:             r.rejected(v),
		Foreign:              v.foreign(),
		Connection:           v.before != nil,
		Told:                 v.before != nil && v.before.Status.State != "",
		RenewalAsked:         spec.RefreshCredentialsNow || renewalWanted(v.connection),
		Leaving:              leaving(v.connection),
		Left:                 v.client.left,
	}
	r.tokens.add(st.TokenFingerprint)
	r.tokens.add(v.client.token)
	s.TokenNew = s.Token && !s.TokenSpent && (v.pending == nil || fingerprint != v.pending.fingerprint) && !r.tokens.has(fingerprint)
	// What was begun for another runtime than the one that is configured now is not gone on with.
	if p := v.pending; p != nil && !(p.pairing && v.configured && p.contradicts(v.config.identity())) && (p.pairing || !s.Foreign) {
		s.PendingIssued = p.issued
		s.PendingToken = p.pairing && p.token != ""
		s.PendingBegun = p.pairing && !p.issued && s.Token && !s.TokenSpent && p.fingerprint == fingerprint && fingerprint != st.TokenFingerprint
	}
	s.PendingCurrent = v.pending != nil && v.pending.issued && v.client.usable() && v.pending.credential.Fingerprint() == v.client.credential.Fingerprint()
	connector, director := r.urls(v)
	s.URLs = connector != "" && director != ""
	s.Asked = (spec.ResyncNow || spec.RefreshCredentialsNow || s.Leaving) && v.connection.Generation != st.ObservedGeneration ||
		renewalUnseen(v.connection) || resyncUnseen(v.connection) || s.TokenNew && !s.usable() && !s.PendingIssued || !s.Connection
	if s.Certificate {
		s.RenewalDue = !v.now.Before(r.renewAt(v.client.credential))
	}
	s.Due = r.due(v, s.usable() && !s.RenewalDue && !s.PendingIssued && !s.Leaving)
	r.delegate(&s, v)
	return s
}

// due: the next attempt is due. If it is a mere sync, and was overdue already when this process began, it waits for its
// moment: see Schedule.AfterStart.
func (r *Reconciler) due(v *view, mereSync bool) bool {
	st := v.status()
	began := !r.begun
	r.begun = true
	if st.NextAttempt == nil || st.NextAttempt.Time.After(v.now.Add(r.Schedule.Longest())) {
		floor := r.attempted.Add(r.Schedule.Floor)
		if v.now.Before(floor) && !v.now.Before(r.attempted) {
			v.next = floor
			return false
		}
		return true
	}
	if began && st.State == compassv1alpha1.Synchronized && v.now.After(st.NextAttempt.Time) {
		r.moment = r.inTime(v, r.Schedule.AfterStart(v.now, v.config.runtimeID), 0)
	}
	next := st.NextAttempt.Time
	if mereSync && r.moment.After(next) {
		next = r.moment
		v.next = next // for the status, unless something is done meanwhile
	}
	return !v.now.Before(next)
}

// urls are where Compass is called with the certificate: as the CompassConnection says, or else the client Secret.
func (r *Reconciler) urls(v *view) (connector, director string) {
	if info := v.connection.Spec.ManagementInfo; info.ConnectorURL != "" && info.DirectorURL != "" {
		return info.ConnectorURL, info.DirectorURL
	}
	return v.client.connectorURL, v.client.directorURL
}

// act does what the row says.
func (r *Reconciler) act(ctx context.Context, row Row, v *view) error {
	if row.Do.calls() {
		v.next, r.moment = time.Time{}, time.Time{}
		acknowledge(v.connection)
	}
	switch row.Do {
	case Adopt:
		return r.adopt(ctx, v)
	case Stall:
		return r.stall(v, row.Why)
	case Pair:
		return r.pair(ctx, v)
	case Sign:
		if r.Delegate != nil {
			return r.handOver(ctx, v, false)
		}
		return r.sign(ctx, v)
	case Finish:
		return r.finish(ctx, v)
	case Promote:
		r.tried = v.pending.credential.Fingerprint()
		r.keepIssued(ctx, v.pending)
		return r.promote(ctx, v, v.pending)
	case Renew:
		return r.renew(ctx, v)
	case Leave:
		return r.leave(ctx, v)
	case Sync:
		return r.sync(ctx, v)
	}
	return nil
}

// create makes the CompassConnection, with the URLs as far as they are known.
func (r *Reconciler) create(ctx context.Context, v *view) error {
	connector, director := r.urls(v)
	object := &compassv1alpha1.CompassConnection{
		ObjectMeta: metav1.ObjectMeta{Name: compassv1alpha1.ConnectionName},
		Spec:       compassv1alpha1.CompassConnectionSpec{ManagementInfo: compassv1alpha1.ManagementInfo{ConnectorURL: connector, DirectorURL: director}},
	}
	if err := r.Client.Create(ctx, object, client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("creating the CompassConnection: %w", err)
	}
	object.Status = v.connection.Status
	v.connection = object
	v.before = object.DeepCopy()
	v.before.Status = compassv1alpha1.CompassConnectionStatus{}
	v.generation = object.Generation
	return nil
}

// respec changes the spec of the CompassConnection, if there is a difference, and keeps the status at hand.
func (r *Reconciler) respec(ctx context.Context, v *view, edit func(*compassv1alpha1.CompassConnectionSpec)) error {
	wanted := v.before.DeepCopy()
	edit(&wanted.Spec)
	if wanted.Spec == v.before.Spec {
		return nil
	}
	written := wanted.Spec
	if err := r.Client.Patch(ctx, wanted, client.MergeFrom(v.before), client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("writing the CompassConnection: %w", err)
	}
	if v.overtaken = v.overtaken || wanted.Spec != written; !v.overtaken {
		v.generation = wanted.Generation
	}
	// The answer holds the status as stored; what this reconcile has found so far stands in v.connection.
	st := v.connection.Status
	v.before.ObjectMeta, v.before.Spec = *wanted.ObjectMeta.DeepCopy(), wanted.Spec
	v.connection = wanted
	v.connection.Status = st
	return nil
}

// announce writes, before Compass is called, that it will not be called again sooner than the floor. Without that it is not
// called at all: a process that ends in the middle of an attempt, be it again and again, must not be followed at once by one
// that knows nothing of it.
func (r *Reconciler) announce(ctx context.Context, v *view) error {
	floor := v.now.Add(r.Schedule.Floor)
	if err := r.Writer.Note(ctx, v.before, stamp(floor, v.now)); err != nil {
		return err
	}
	v.status().NextAttempt = v.before.Status.NextAttempt.DeepCopy()
	r.quiet, r.attempted = floor, v.now
	return nil
}

// retried is the end of a reconcile for an error of the API server. That the CompassConnection was deleted meanwhile means
// to begin again.
func retried(err error) (reconcile.Result, error) {
	if apierrors.IsNotFound(err) {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	}
	return reconcile.Result{}, err
}

// conclude writes the status and says when the worker is needed again.
func (r *Reconciler) conclude(ctx context.Context, v *view, row Row) (reconcile.Result, error) {
	st := v.status()
	if !v.next.IsZero() {
		st.NextAttempt = &metav1.Time{Time: stamp(v.next, r.Clock.Now())}
	}
	v.facts.Now = v.now
	v.facts.Certificate = r.describeCertificate(v)
	v.facts.Idle = row.Do == Wait
	v.facts.StaleAfter = r.Schedule.StaleAfter()
	status.Conclude(st, v.facts, v.generation)
	if err := r.Writer.Write(ctx, v.before, v.connection, v.facts, v.events); err != nil {
		return retried(fmt.Errorf("writing the status: %w", err))
	}
	if row.Do.calls() {
		r.quiet = time.Time{} // from here on the status says when
	}
	if v.discard {
		if err := r.store().dropPending(ctx); err != nil {
			return reconcile.Result{}, err
		}
	}
	if v.again {
		return reconcile.Result{RequeueAfter: time.Millisecond}, nil
	}
	wait := heartbeat
	if st.NextAttempt != nil {
		wait = min(wait, max(st.NextAttempt.Sub(r.Clock.Now()), time.Millisecond))
	} else if renewal := v.facts.Certificate.RenewAt.Sub(r.Clock.Now()); renewal > 0 {
		wait = min(wait, renewal) // waiting for a person must not delay a renewal
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}
