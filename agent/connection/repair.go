package connection

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/agent/status"
	"github.com/application-connector/application-connector/certs"
)

// usable: there is a credential that can be read.
func (c clientSecret) usable() bool { return c.data != nil && c.damaged == "" }

// repair takes over the credential as it is stored, and restores Secrets that were deleted or damaged from what is known.
// It never calls Compass: a missing copy must not cost an issuance. That the cluster does not take a Secret is told, and keeps
// nothing else from being done: else the certificate would end for want of a Secret that it does not need.
func (r *Reconciler) repair(ctx context.Context, v *view) error {
	if err := r.hold(ctx, v); err != nil {
		return err
	}
	if leaving(v.connection) {
		// What is missing may be gone because it was deleted on purpose.
		if v.client.usable() && v.client.credential.Fingerprint() != r.inUse {
			r.use(ctx, v.client.credential)
		}
		return nil
	}
	s := r.store()
	if !v.client.usable() && r.current != nil {
		v.client = *r.current
		if err := s.saveClient(ctx, v.client); err != nil {
			r.lacks(ctx, v, err)
		} else {
			v.happened(corev1.EventTypeNormal, status.EventSecretRestored, "Restore", "Secret %s was restored from memory: it was deleted or damaged", r.Secrets.Client)
		}
	}
	if !v.client.usable() {
		return nil
	}
	if v.client.credential.Fingerprint() != r.inUse {
		r.use(ctx, v.client.credential)
	}
	recorded := r.record(v)
	// A crash may have come between the Secret and the status: the Secret is right.
	status.Dated(v.status(), v.client.established, v.client.renewed)
	if st := v.status(); st.TokenFingerprint == "" {
		st.TokenFingerprint = v.client.token
	}
	// Agents before this one wrote three keys only; others may have changed some.
	if recorded || !v.client.unchanged {
		if data, err := s.encode(v.client); err == nil && (recorded || !holds(v.client.data, data)) {
			if err := s.saveClient(ctx, v.client); err != nil {
				r.lacks(ctx, v, err)
			} else {
				v.client.data = data
			}
		}
	}
	current := v.client
	r.current = &current

	wanted := slices.DeleteFunc(slices.Clone(v.client.credential.CA), func(c *x509.Certificate) bool { return !v.now.Before(c.NotAfter) })
	if v.unread == nil && !containsAll(v.authority, wanted) {
		r.trust(ctx, v, certs.MergeCA(v.authority, wanted, v.now)) // authorities that somebody else added stay
	}
	return nil
}

// trust restores the CA Secret.
func (r *Reconciler) trust(ctx context.Context, v *view, authorities []*x509.Certificate) {
	if err := r.store().saveAuthorities(ctx, authorities); err != nil {
		r.lacks(ctx, v, err)
		return
	}
	v.happened(corev1.EventTypeNormal, status.EventSecretRestored, "Restore", "Secret %s was restored from Secret %s: it was deleted or lacked an authority", r.Secrets.CA, r.Secrets.Client)
}

// lacks notes that the cluster did not take a Secret; the next reconcile writes it again.
func (r *Reconciler) lacks(ctx context.Context, v *view, err error) {
	r.Log.WarnContext(ctx, "a Secret of the connection is not as it should be", "error", err)
	v.lacks(err)
}

func (r *Reconciler) use(ctx context.Context, c certs.Credential) {
	r.Compass.Use(c.TLS())
	r.inUse = c.Fingerprint()
	r.Log.InfoContext(ctx, "client certificate in use", "certificate", c)
}

// record notes what the client Secret does not say of its certificate: for whom it was issued. Agents before this one did
// not write that down; what is configured when this one first sees the Secret is taken for it. It reports a change.
func (r *Reconciler) record(v *view) bool {
	c, configured := &v.client, v.config.identity()
	if known := r.current; c.runtimeID == "" && known != nil && known.runtimeID != "" && known.credential.Fingerprint() == c.credential.Fingerprint() {
		data := c.data
		*c = *known // somebody took the annotations away
		c.data = data
		return true
	}
	if configured.runtimeID == "" || c.contradicts(configured) {
		return false
	}
	before := *c
	if c.runtimeID == "" {
		c.identity, c.applied = configured, configured.String()
		if v.before != nil && c.token == "" && c.credential.ValidAt(v.now) {
			c.token = v.config.fingerprint() // a connection was had by it
		}
	}
	if c.tenant == "" && configured.tenant != "" {
		if c.applied == c.identity.String() {
			c.applied = configured.String()
		}
		c.tenant = configured.tenant
	}
	if c.tokenURL == "" {
		c.tokenURL = v.config.connectorURL
	}
	return c.identity != before.identity || c.applied != before.applied || c.token != before.token || c.tokenURL != before.tokenURL
}

func holds(stored, wanted map[string][]byte) bool {
	for key, value := range wanted {
		if !bytes.Equal(stored[key], value) {
			return false
		}
	}
	return true
}

func containsAll(stored, wanted []*x509.Certificate) bool {
	return !slices.ContainsFunc(wanted, func(c *x509.Certificate) bool { return !slices.ContainsFunc(stored, c.Equal) })
}

// describeCertificate tells what the status and the conditions need to know of the current certificate.
func (r *Reconciler) describeCertificate(v *view) status.Certificate {
	if !v.client.usable() {
		return status.Certificate{Damaged: v.client.damaged, Trouble: r.troubles(v), Unwritten: v.unwritten}
	}
	leaf := v.client.credential.Leaf()
	return status.Certificate{
		Present: true, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, RenewAt: r.renewAt(v.client.credential),
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Fingerprint: v.client.credential.Fingerprint(),
		Trouble: r.troubles(v), Unwritten: v.unwritten,
	}
}
