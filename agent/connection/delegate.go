package connection

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"time"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
)

// Delegate has the client certificate issued, renewed and stored by somebody else: cert-manager. Then this package asks for
// the second token and the subject, leaves both in the pending Secret, and makes current what arrives in the tls.* keys of
// the client Secret, by writing the other keys.
type Delegate interface {
	// Request asks for a certificate with a subject as the Connector writes it, unless one is being issued; first says that
	// it was not asked for before. trouble is what is wrong so far, empty if nothing is.
	Request(ctx context.Context, subject string, first bool) (trouble string, err error)
	// Ensure makes sure that the current certificate will be renewed.
	Ensure(ctx context.Context, current *x509.Certificate) error
	// Renew asks for a new certificate at once.
	Renew(ctx context.Context) error
}

// delegated are the keys of the client Secret that belong to the Delegate.
var delegated = []string{certs.TLSKey, certs.TLSCertificate, certs.ClientCA}

// encode gives the data of the client Secret that this package writes.
func (s store) encode(c certs.Credential) (map[string][]byte, error) {
	data, err := certs.EncodeClient(c)
	if err == nil && s.delegated {
		maps.DeleteFunc(data, func(key string, _ []byte) bool {
			for _, other := range delegated {
				if key == other {
					return true
				}
			}
			return false
		})
	}
	return data, err
}

// receive takes a certificate that arrived from the Delegate for an issued one that waits to become current. Nothing of it
// is this package's to judge but whether it is for whom it was asked.
func (r *Reconciler) receive(v *view) {
	if r.Delegate == nil || v.client.data == nil {
		return
	}
	data := v.client.data
	if len(data[certs.ClientKey]) == 0 && len(data[certs.ClientCertificate]) == 0 && len(data[certs.ClientChain]) == 0 {
		v.client.data, v.client.damaged = nil, "" // nothing became current yet
	}
	credential, err := certs.DecodeTLS(data)
	if err != nil || len(credential.CA) == 0 || !credential.ValidAt(v.now) {
		return
	}
	fingerprint := credential.Fingerprint()
	current := v.client.usable() && v.client.credential.Fingerprint() == fingerprint
	switch p := v.pending; {
	case p != nil && p.pairing && p.signed == fingerprint: // current already, if a crash came before the end
		p.credential, p.issued, p.stored = credential, true, true
	case current:
		return
	case p != nil && p.pairing:
		return // it is from before the pairing that is under way
	case v.client.usable() && !sameSubject(v.client.credential.Leaf(), credential.Leaf()):
		v.strange = fmt.Sprintf("the certificate in key %s of Secret %s is for %q, the current one for %q: it is not used",
			certs.TLSCertificate, r.Secrets.Client, credential.Leaf().Subject.String(), v.client.credential.Leaf().Subject.String())
		return
	default:
		connector, director := r.urls(v)
		v.pending = &pending{credential: credential, issued: true, stored: true, since: v.now, connectorURL: connector, directorURL: director}
	}
	v.arrived = fingerprint != r.tried
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
	if p := v.pending; p != nil && p.pairing && !p.issued && !(v.configured && p.contradicts(v.config.identity())) {
		s.PendingToken = p.token != "" || p.signed != ""
	}
	s.Asked = s.Asked || s.PendingIssued && v.arrived
}

// handOver asks the Delegate for the certificate of a pairing, and waits for it: it comes as a change of the client Secret.
func (r *Reconciler) handOver(ctx context.Context, v *view, first bool) error {
	if v.pending.signed != "" { // it is on its way
		v.next = r.Clock.Now().Add(max(r.Schedule.Floor, time.Second))
		return nil
	}
	if r.held != nil { // the Delegate reads the pending Secret
		if err := r.keep(ctx, *v.pending); err != nil {
			return r.pairingFailed(ctx, v, err, false)
		}
	}
	trouble, err := r.Delegate.Request(ctx, v.pending.subject, first)
	if err != nil {
		return r.pairingFailed(ctx, v, err, false)
	}
	if trouble != "" {
		status.ConnectionError(v.status(), compassv1alpha1.ConnectionFailed, "Failed to retrieve certificate: cert-manager: "+trouble, v.now)
		r.failed(v, nil)
		return nil
	}
	v.next = r.Clock.Now().Add(max(r.Schedule.Floor, time.Second))
	return nil
}

// handRenewal asks the Delegate for a new certificate because a person did.
func (r *Reconciler) handRenewal(ctx context.Context, v *view) error {
	if err := r.Delegate.Renew(ctx); err != nil {
		return r.renewalFailed(ctx, v, "", err)
	}
	v.next = r.Clock.Now().Add(r.Schedule.Floor)
	return r.respec(ctx, v, func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = false })
}

// entrust makes sure, before each sync, that the Delegate will renew the current certificate.
func (r *Reconciler) entrust(ctx context.Context, v *view) {
	if r.Delegate == nil || !v.client.usable() || v.pending != nil && v.pending.pairing {
		return // a pairing may ask for another subject
	}
	if v.strange != "" {
		r.Log.WarnContext(ctx, "a certificate is left alone", "reason", v.strange)
	}
	if err := r.Delegate.Ensure(ctx, v.client.credential.Leaf()); err != nil {
		r.Log.WarnContext(ctx, "cert-manager could not be asked to renew the client certificate", "error", err)
	}
}
