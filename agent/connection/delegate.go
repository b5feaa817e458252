package connection

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
)

// Delegate has the client certificate issued, renewed and stored by somebody else: cert-manager. Then this package asks for
// the second token and the subject, leaves both in the pending Secret, and makes current what arrives in the tls.* keys of
// the client Secret, by writing the other keys.
//
// Where needed is given, a certificate is asked for only if needed says so after it was seen that none is being issued: what
// arrives in between is not asked for again. trouble is what is wrong with what was asked for last, empty if nothing is.
type Delegate interface {
	// Request asks for a certificate with a subject as the Connector writes it.
	Request(ctx context.Context, subject string, needed func(context.Context) (bool, error)) (trouble string, err error)
	// Ensure makes sure that the current certificate will be renewed.
	Ensure(ctx context.Context, current *x509.Certificate) (trouble string, err error)
	// Renew asks for a new certificate at once, if Request or Ensure asked for one before.
	Renew(ctx context.Context, needed func(context.Context) (bool, error)) (trouble string, err error)
	// Release sees to it that no more certificates are asked for, before the cluster leaves Compass.
	Release(ctx context.Context) error
}

// delegated are the keys of the client Secret that belong to the Delegate.
var delegated = []string{certs.TLSKey, certs.TLSCertificate, certs.ClientCA}

// receive takes a certificate that arrived from the Delegate for an issued one that waits to become current. Nothing of it
// is this package's to judge but whether it is for whom it was asked.
func (r *Reconciler) receive(v *view) {
	data, p := v.client.stored, v.pending
	v.delivered = data[certs.TLSCertificate]
	if r.Delegate == nil && (p == nil || !p.pairing || p.signed == "") {
		r.tell(v)
		return // but what a Delegate was asked for before it was switched off
	}
	if len(data[certs.ClientKey]) == 0 && len(data[certs.ClientCertificate]) == 0 && len(data[certs.ClientChain]) == 0 {
		v.client.data, v.client.damaged = nil, "" // nothing became current yet
	}
	if len(data[certs.TLSKey]) == 0 && len(data[certs.TLSCertificate]) == 0 {
		return
	}
	unused := func(why string) {
		if r.Delegate != nil {
			v.unused = fmt.Sprintf("the certificate that cert-manager left in Secret %s is not used: %s", r.Secrets.Client, why)
		}
	}
	credential, err := certs.DecodeTLS(data)
	if err == nil && len(credential.CA) == 0 {
		err = fmt.Errorf("data[%q] is missing", certs.ClientCA)
	}
	if err != nil {
		unused(err.Error())
		return
	}
	fingerprint, leaf, valid := credential.Fingerprint(), credential.Leaf(), credential.ValidAt(v.now)
	current := v.client.usable() && v.client.credential.Fingerprint() == fingerprint
	asked := p != nil && p.pairing && p.signed == fingerprint
	switch {
	case current && !(asked && valid): // if it was asked for, a crash came before the end
		r.tell(v)
	case !asked && (v.underWay() || v.client.left || r.Delegate == nil): // it is from before the pairing, or from before the cluster left
	case !valid:
		unused(fmt.Sprintf("it is valid from %s to %s", formatTime(leaf.NotBefore), formatTime(leaf.NotAfter)))
	case asked:
		p.credential, p.issued, p.stored = credential, true, true
		r.arrive(v, fingerprint)
	case v.client.usable() && !sameSubject(v.client.credential.Leaf(), leaf):
		unused(fmt.Sprintf("it is for %q, and the current one for %q", leaf.Subject.String(), v.client.credential.Leaf().Subject.String()))
	default:
		v.pending = r.renewed(v, credential)
		r.arrive(v, fingerprint)
	}
}

// tell has it told that a renewal is current which was asked for, if a crash came before that and nothing is pending any more:
// else it would be done again.
func (r *Reconciler) tell(v *view) {
	if v.pending != nil && (r.Delegate == nil || v.underWay()) || !v.client.usable() || v.client.renewed.IsZero() ||
		!renewalWanted(v.connection) && !v.connection.Spec.RefreshCredentialsNow {
		return
	}
	if told := v.status().ConnectionStatus.CertificateStatus.Fingerprint; told != "" && told != v.client.credential.Fingerprint() {
		v.pending = r.renewed(v, v.client.credential)
	}
}

// renewed is a certificate from the Delegate that takes, or took, the place of the current one.
func (r *Reconciler) renewed(v *view, c certs.Credential) *pending {
	connector, director := r.urls(v)
	return &pending{credential: c, issued: true, stored: true, since: v.now, connectorURL: connector, directorURL: director}
}

// arrive notes that the pending certificate is the Delegate's. It passes the waiting time unless one was tried in vain, be that
// this or another: each that does not work has the next one asked for. What a process before this one tried is not known.
func (r *Reconciler) arrive(v *view, fingerprint string) {
	if !r.begun {
		r.tried = fingerprint
	}
	v.received, v.arrived = true, r.tried == ""
}

// underWay: a pairing was begun, and is gone on with.
func (v *view) underWay() bool {
	p := v.pending
	if p == nil || !p.pairing || v.configured && p.contradicts(v.config.identity()) {
		return false
	}
	begun := p.fingerprint != "" && p.fingerprint == v.config.fingerprint() && p.fingerprint != v.client.token && p.fingerprint != v.status().TokenFingerprint
	return p.issued || begun || p.awaited(v.now)
}

// awaited: the second token may still give a certificate, or gave one that is on its way.
func (p *pending) awaited(now time.Time) bool {
	return p.token != "" || p.signed != "" && now.Sub(p.since) <= tokenLife
}

func sameSubject(a, b *x509.Certificate) bool {
	s, err := certs.ParseSubject(a.Subject.String())
	return err == nil && s.Check(b) == nil
}

// delegate changes what Table decides on, where another one has certificates issued.
func (r *Reconciler) delegate(s *Situation, v *view) {
	if r.Delegate == nil {
		return
	}
	s.RenewalDue = false // the Delegate renews
	if v.received && !v.pending.pairing {
		s.PendingIssued = true // the Delegate renews the certificate of another runtime too, until there is one of this
	}
	if p := v.pending; v.underWay() && !p.issued {
		s.PendingToken = p.awaited(v.now)
	}
	s.Asked = s.Asked || s.PendingIssued && v.arrived
}

// handOver asks the Delegate for the certificate of a pairing, and waits for it: it comes as a change of the client Secret.
// first says that nothing was asked for in this pairing yet, so that trouble is from before.
func (r *Reconciler) handOver(ctx context.Context, v *view, first bool) error {
	if r.held != nil { // the Delegate reads the pending Secret
		if err := r.keep(ctx, *v.pending); err != nil {
			return r.pairingFailed(ctx, v, err, false)
		}
	}
	trouble, err := r.Delegate.Request(ctx, v.pending.subject, r.unspent)
	if err != nil {
		return r.pairingFailed(ctx, v, err, false)
	}
	if trouble != "" && !first {
		status.ConnectionError(v.status(), compassv1alpha1.ConnectionFailed, "Failed to retrieve certificate: cert-manager: "+trouble, v.now)
		r.failed(v, nil)
		return nil
	}
	v.facts.Progress = fmt.Sprintf("cert-manager is to issue a certificate into Secret %s", r.Secrets.Client)
	v.next = r.Clock.Now().Add(max(r.Schedule.Floor, time.Second))
	return nil
}

// unspent: the second token of the pairing waits to be spent.
func (r *Reconciler) unspent(ctx context.Context) (bool, error) {
	p, err := r.store().pending(ctx, r.Clock.Now())
	return p != nil && p.token != "", err
}

// undelivered: nothing arrived from the Delegate since v was seen.
func (r *Reconciler) undelivered(v *view) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		found, err := r.store().get(ctx, r.Secrets.Client)
		if err != nil || found == nil {
			return err == nil, err
		}
		return bytes.Equal(found.Data[certs.TLSCertificate], v.delivered), nil
	}
}

// handRenewal asks the Delegate for a new certificate because a person did, and syncs meanwhile with the one that there is.
func (r *Reconciler) handRenewal(ctx context.Context, v *view) error {
	first := v.before.Spec.RefreshCredentialsNow || renewalUnseen(v.before)
	if _, err := r.Delegate.Ensure(ctx, v.client.credential.Leaf()); err != nil {
		return r.renewalFailed(ctx, v, "", err)
	}
	trouble, err := r.Delegate.Renew(ctx, r.undelivered(v))
	if err != nil {
		return r.renewalFailed(ctx, v, "", err)
	}
	if err := r.respec(ctx, v, func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = false }); err != nil {
		return err
	}
	if trouble != "" && !first {
		return r.renewalFailed(ctx, v, "cert-manager: ", errors.New(trouble))
	}
	v.next = r.Schedule.AfterSuccess(r.Clock.Now(), v.config.runtimeID)
	if r.canSync(v) {
		r.fetch(ctx, v)
	}
	return nil
}

// entrust makes sure, before each sync, that the Delegate will renew the current certificate.
func (r *Reconciler) entrust(ctx context.Context, v *view) {
	if r.Delegate == nil || !v.client.usable() || v.underWay() {
		return // a pairing may ask for another subject
	}
	trouble, err := r.Delegate.Ensure(ctx, v.client.credential.Leaf())
	switch {
	case err != nil:
		r.trouble = "cert-manager could not be asked to renew it: " + err.Error()
	case trouble != "":
		r.trouble = "cert-manager does not renew it: " + trouble
	default:
		r.trouble = ""
	}
	if r.trouble != "" {
		r.Log.WarnContext(ctx, "the client certificate may not be renewed", "reason", r.trouble)
	}
}

// replace has the Delegate issue another certificate instead of one that does not work.
func (r *Reconciler) replace(ctx context.Context, v *view) {
	if r.Delegate == nil {
		return
	}
	if _, err := r.Delegate.Renew(ctx, r.undelivered(v)); err != nil {
		r.Log.WarnContext(ctx, "cert-manager could not be asked for another certificate", "error", err)
	}
}

// troubles says why no certificate takes the place of the current one; empty if nothing is in the way.
func (r *Reconciler) troubles(v *view) string {
	if v.unused != "" {
		return v.unused
	}
	return r.trouble
}

// ours gives those keys of the Delegate that this package wrote, before the Delegate was switched on, and still owns.
// Somebody who writes them takes them over.
func ours(owned map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(delegated), func(key string) bool { return !owned[key] })
}
