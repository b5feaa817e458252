// Package certmanager has cert-manager own the client certificate: it writes the Certificate, the CompassIssuer that signs
// it, and the empty Secret that it goes to, and asks for a renewal. It owns these three objects and knows nothing of Compass:
// package connection says which subject, and package certs/issuer signs.
package certmanager

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
)

// FieldOwner owns, by server-side apply, what this package writes.
const FieldOwner = "compass-runtime-agent"

// IssuerName is the name of the CompassIssuer, beside the client Secret.
const IssuerName = "compass-runtime-agent"

// reasonRequested is the reason of the condition by which cert-manager is asked for a renewal.
const reasonRequested = "RequestedByAgent"

// Owner asks cert-manager for the client certificate. It is safe for concurrent use.
type Owner struct {
	// Client writes, Reader reads from the API server.
	Client client.Client
	Reader client.Reader
	// Secret is the client Secret, and the name of the Certificate. Pairing is the Secret with the second token.
	Secret, Pairing types.NamespacedName
	// KeySize of keys, in bits.
	KeySize int
	// Threshold is the fraction of the lifetime that is left when cert-manager renews.
	Threshold float64
	// Clock is the time.
	Clock clock.PassiveClock
}

// Request asks for a certificate with exactly the subject that the Connector wrote, unless one is being issued or, after that
// was looked at, needed says no. That of a new Certificate cert-manager begins to issue by itself. trouble is what is wrong
// with what was asked for before, empty if nothing is.
func (o *Owner) Request(ctx context.Context, subject string, needed func(context.Context) (bool, error)) (trouble string, err error) {
	s, err := certs.ParseSubject(subject)
	if err != nil {
		return "", err
	}
	before, err := o.certificate(ctx)
	if err != nil {
		return "", err
	}
	if err := o.apply(ctx, s.String()); err != nil {
		return "", err
	}
	if before == nil {
		return "", nil
	}
	return o.Renew(ctx, needed)
}

// Ensure makes sure that the Certificate is there and is for the subject of the current client certificate. trouble is what has
// been wrong for a while with what cert-manager asks for.
func (o *Owner) Ensure(ctx context.Context, current *x509.Certificate) (trouble string, err error) {
	existing, err := o.certificate(ctx)
	if err != nil {
		return "", err
	}
	if existing != nil {
		// The Connector may have ordered the attributes anew: another order here would cost an issuance.
		if s, err := certs.ParseSubject(existing.Spec.LiteralSubject); err == nil && s.Check(current) == nil {
			if err := o.apply(ctx, existing.Spec.LiteralSubject); err != nil {
				return "", err
			}
			return o.trouble(ctx, existing, unhurried)
		}
	}
	rdns, err := pki.UnmarshalRawDerBytesToRDNSequence(current.RawSubject)
	if err != nil {
		return "", fmt.Errorf("subject of the client certificate: %w", err)
	}
	return "", o.apply(ctx, rdns.String())
}

// Renew asks for a new certificate at once, unless one is being issued or, after that was looked at, needed says no: as "cmctl
// renew" does it, whatever cert-manager's own back-off says. Without a Certificate it does nothing. trouble is what is wrong
// with what was asked for before.
func (o *Owner) Renew(ctx context.Context, needed func(context.Context) (bool, error)) (trouble string, err error) {
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		existing, err := o.certificate(ctx)
		if err != nil || existing == nil {
			return err
		}
		if trouble, err = o.trouble(ctx, existing, 0); err != nil || issuing(existing) != nil {
			return err
		}
		if wanted, err := needed(ctx); err != nil || !wanted {
			return err
		}
		apiutil.SetCertificateCondition(existing, existing.Generation, cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, reasonRequested, "the agent asks for a new certificate")
		return o.Client.Status().Update(ctx, existing, client.FieldOwner(FieldOwner)) // refused if cert-manager began meanwhile
	})
	if err != nil {
		return "", fmt.Errorf("asking cert-manager for a renewal by Certificate %s: %w", o.Secret, err)
	}
	return trouble, nil
}

// Release deletes the Certificate, so that cert-manager asks for no more certificates. What it stored stays, and so does the
// CompassIssuer, which asks for nothing by itself.
func (o *Owner) Release(ctx context.Context) error {
	existing, err := o.certificate(ctx)
	if err != nil || existing == nil {
		return err
	}
	stored := &corev1.Secret{}
	if err := o.Reader.Get(ctx, o.Secret, stored); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading Secret %s: %w", o.Secret, err)
	}
	policy := metav1.DeletePropagationBackground
	if slices.ContainsFunc(stored.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == existing.UID }) {
		policy = metav1.DeletePropagationOrphan // the certificate is still needed, to be revoked by
	}
	if err := o.Client.Delete(ctx, existing, client.PropagationPolicy(policy)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting Certificate %s: %w", o.Secret, err)
	}
	return nil
}

// issuing is the condition that a certificate is being issued; nil if none is.
func issuing(c *cmapi.Certificate) *cmapi.CertificateCondition {
	condition := apiutil.GetCertificateCondition(c, cmapi.CertificateConditionIssuing)
	if condition == nil || condition.Status != cmmeta.ConditionTrue {
		return nil
	}
	return condition
}

func (o *Owner) certificate(ctx context.Context) (*cmapi.Certificate, error) {
	found := &cmapi.Certificate{}
	if err := o.Reader.Get(ctx, o.Secret, found); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading Certificate %s: %w", o.Secret, err)
	}
	return found, nil
}

// apply writes Secret, issuer and Certificate, in this order: cert-manager keeps the type of a Secret that is there, and the
// client Secret has always been Opaque.
func (o *Owner) apply(ctx context.Context, literalSubject string) error {
	empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.Secret.Namespace, Name: o.Secret.Name}, Type: corev1.SecretTypeOpaque}
	if err := o.Client.Create(ctx, empty, client.FieldOwner(FieldOwner)); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating Secret %s: %w", o.Secret, err)
	}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: o.Secret.Namespace, Name: name}
	}
	for _, object := range []client.Object{
		&compassv1alpha1.CompassIssuer{
			TypeMeta:   metav1.TypeMeta{APIVersion: compassv1alpha1.GroupVersion.String(), Kind: "CompassIssuer"},
			ObjectMeta: meta(IssuerName),
			Spec:       compassv1alpha1.CompassIssuerSpec{ClientSecretName: o.Secret.Name, PairingSecretName: o.Pairing.Name},
		},
		&cmapi.Certificate{
			TypeMeta:   metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind},
			ObjectMeta: meta(o.Secret.Name),
			Spec: cmapi.CertificateSpec{
				SecretName: o.Secret.Name, LiteralSubject: literalSubject,
				IssuerRef:             cmmeta.IssuerReference{Group: compassv1alpha1.GroupVersion.Group, Kind: "CompassIssuer", Name: IssuerName},
				PrivateKey:            &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Encoding: cmapi.PKCS1, Size: o.KeySize, RotationPolicy: cmapi.RotationPolicyAlways},
				Usages:                []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageClientAuth},
				EncodeUsagesInRequest: ptr.To(false), // the Connector drops extensions
				RenewBeforePercentage: ptr.To(min(max(int32(o.Threshold*100), 1), 99)),
			},
		},
	} {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return err
		}
		u := &unstructured.Unstructured{Object: fields}
		unstructured.RemoveNestedField(u.Object, "status")
		unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
		if err := o.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
			return fmt.Errorf("writing %s %s: %w", u.GetKind(), client.ObjectKeyFromObject(u), err)
		}
	}
	return nil
}

// unhurried is for how long cert-manager and the issuer may take without that being trouble.
const unhurried = time.Minute

// trouble tells what keeps the certificate that was last asked for from being issued; empty if nothing does. A request that
// waits is trouble only when it has for some time.
func (o *Owner) trouble(ctx context.Context, certificate *cmapi.Certificate, patience time.Duration) (string, error) {
	var all cmapi.CertificateRequestList
	if err := o.Reader.List(ctx, &all, client.InNamespace(o.Secret.Namespace)); err != nil {
		return "", fmt.Errorf("reading CertificateRequests of namespace %s: %w", o.Secret.Namespace, err)
	}
	now, newest := o.Clock.Now(), (*cmapi.CertificateRequest)(nil)
	for i := range all.Items {
		r := &all.Items[i]
		if r.Annotations[cmapi.CertificateNameKey] == o.Secret.Name && (newest == nil || cmp.Or(r.CreationTimestamp.Compare(newest.CreationTimestamp.Time), cmp.Compare(r.Name, newest.Name)) > 0) {
			newest = r
		}
	}
	old := func(t *metav1.Time, limit time.Duration) bool { return t != nil && now.Sub(t.Time) >= limit }
	begun := issuing(certificate)
	if begun != nil && old(begun.LastTransitionTime, unhurried) && (newest == nil || newest.CreationTimestamp.Before(begun.LastTransitionTime)) {
		return fmt.Sprintf("Certificate %s is to be issued since %s, and there is no CertificateRequest for that: is cert-manager running?",
			o.Secret, begun.LastTransitionTime.UTC().Format(time.RFC3339)), nil
	}
	if newest == nil {
		return "", nil
	}
	told := func(message string) (string, error) {
		return fmt.Sprintf("CertificateRequest %s/%s: %s", newest.Namespace, newest.Name, message), nil
	}
	ready := apiutil.GetCertificateRequestCondition(newest, cmapi.CertificateRequestConditionReady)
	switch {
	case ready != nil && ready.Status == cmmeta.ConditionFalse && (ready.Reason != cmapi.CertificateRequestReasonPending || old(&newest.CreationTimestamp, patience)):
		return told(ready.Message)
	case ready == nil && !apiutil.CertificateRequestIsApproved(newest) && old(&newest.CreationTimestamp, unhurried):
		return told("nobody has approved it")
	}
	return "", nil
}
