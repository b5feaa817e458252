package connection

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
)

// leaving: the CompassConnection is being deleted, and its farewell is to revoke.
func leaving(c *compassv1alpha1.CompassConnection) bool {
	return c.DeletionTimestamp != nil && c.Spec.Farewell == compassv1alpha1.FarewellRevoke && controllerutil.ContainsFinalizer(c, compassv1alpha1.FarewellFinalizer)
}

// hold keeps the finalizer of the CompassConnection as its spec wants it.
func (r *Reconciler) hold(ctx context.Context, v *view) error {
	if v.before == nil {
		return nil
	}
	has, wants := controllerutil.ContainsFinalizer(v.before, compassv1alpha1.FarewellFinalizer), v.before.Spec.Farewell == compassv1alpha1.FarewellRevoke
	switch {
	case wants && !has && v.before.DeletionTimestamp == nil:
		return r.refinalize(ctx, v, controllerutil.AddFinalizer)
	case !wants && has:
		if err := r.refinalize(ctx, v, controllerutil.RemoveFinalizer); client.IgnoreNotFound(err) != nil {
			return err
		}
		if v.before.DeletionTimestamp != nil && len(v.before.Finalizers) == 0 { // it is gone now
			v.before, v.connection = nil, &compassv1alpha1.CompassConnection{}
			status.Prepare(v.status())
		}
	}
	return nil
}

// release lets a CompassConnection go that is being deleted, and whose status was just written.
func (r *Reconciler) release(ctx context.Context, v *view) error {
	v.before = &compassv1alpha1.CompassConnection{}
	err := r.Reader.Get(ctx, client.ObjectKeyFromObject(v.connection), v.before)
	if err == nil {
		err = r.refinalize(ctx, v, controllerutil.RemoveFinalizer)
	}
	return client.IgnoreNotFound(err)
}

func (r *Reconciler) refinalize(ctx context.Context, v *view, edit func(client.Object, string) bool) error {
	wanted := v.before.DeepCopy()
	edit(wanted, compassv1alpha1.FarewellFinalizer)
	// Somebody else's finalizers must not get lost.
	patch := client.MergeFromWithOptions(v.before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, wanted, patch, client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("writing the finalizers of the CompassConnection: %w", err)
	}
	v.before.ObjectMeta, v.connection.ObjectMeta = *wanted.ObjectMeta.DeepCopy(), wanted.ObjectMeta
	return nil
}

// leave has the certificate revoked, and deletes what came from Compass. Each part may be done already.
func (r *Reconciler) leave(ctx context.Context, v *view) error {
	if r.Delegate != nil { // else it would go on asking for certificates
		if err := r.Delegate.Release(ctx); err != nil {
			r.leavingFailed(ctx, v, err, "Failed to take the client certificate back from cert-manager: "+err.Error())
			return nil
		}
	}
	if err := r.revoke(ctx, v); err != nil {
		message := "Failed to revoke the client certificate: " + cause(err) + "; set spec.farewell to Keep to let the CompassConnection go without that"
		r.leavingFailed(ctx, v, err, message)
		v.facts.Called, v.facts.CallError = true, message
		return nil
	}
	if err := r.clean(ctx, v); err != nil {
		r.leavingFailed(ctx, v, err, "Failed to delete what came from Compass: "+err.Error())
		return nil
	}
	r.Compass.Use(nil)
	r.inUse, r.current, r.held, r.trouble = "", nil, nil, ""
	accepted(v)
	v.client, v.pending, v.left = clientSecret{left: true}, nil, true
	v.status().ConsecutiveFailures, v.status().ConnectionStatus.Error = 0, ""
	v.happened(corev1.EventTypeNormal, status.EventLeft, "Leave", "the client certificate is revoked, and what came from Compass is deleted")
	r.Log.InfoContext(ctx, "the cluster left Compass")
	return nil
}

func (r *Reconciler) leavingFailed(ctx context.Context, v *view, err error, message string) {
	r.Log.WarnContext(ctx, "the cluster could not leave Compass", "error", err)
	status.ConnectionError(v.status(), compassv1alpha1.ConnectionMaintenanceFailed, message, v.now)
	v.happened(corev1.EventTypeWarning, status.EventLeavingFailed, "Leave", "%s", message)
	r.failed(v, err)
}

// revoke has the certificate revoked, unless there is none that Compass accepts. One that waits in the pending Secret is
// made current or given up within minutes; Compass forgets it with the runtime.
func (r *Reconciler) revoke(ctx context.Context, v *view) error {
	connectorURL, _ := r.urls(v)
	if !v.client.usable() || !v.client.credential.ValidAt(v.now) || connectorURL == "" || v.client.credential.Fingerprint() == r.revoked {
		return nil
	}
	err := r.Compass.Connector(connectorURL).Revoke(ctx)
	if err == nil {
		r.revoked = v.client.credential.Fingerprint()
		return nil
	}
	r.suspect(ctx, v, err)
	if kind := graphql.KindOf(err); r.rejected(v) && (kind == graphql.CertificateExpired || kind == graphql.CertificateRefused || kind == graphql.Ambiguous || kind == graphql.Refused) {
		r.Log.InfoContext(ctx, "Compass does not accept the client certificate any more, so there is nothing to revoke", "error", err)
		return nil
	}
	return err
}

// clean deletes the Applications, the authorities and the credential; the latter last, since it says where Compass is.
func (r *Reconciler) clean(ctx context.Context, v *view) error {
	if err := r.Cleaner.Clean(ctx); err != nil {
		return err
	}
	if v.unread != nil {
		return v.unread
	}
	s := r.store()
	others := slices.DeleteFunc(slices.Clone(v.authority), func(c *x509.Certificate) bool {
		return slices.ContainsFunc(v.client.credential.CA, c.Equal)
	})
	switch {
	case len(others) == len(v.authority):
	case len(others) == 0:
		if err := s.strip(ctx, r.Secrets.CA, certs.CACert); err != nil {
			return err
		}
	default:
		if err := s.saveAuthorities(ctx, others); err != nil {
			return err
		}
	}
	if err := s.dropPending(ctx); err != nil {
		return err
	}
	token := v.config.fingerprint()
	if token == "" {
		token = v.client.token
	}
	return s.clearClient(ctx, token, v.now)
}
