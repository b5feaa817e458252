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
}

// Request asks for a certificate with exactly the subject that the Connector wrote. The first time of a pairing asks for a
// new one even if a Certificate is there and content; after that only a request that has failed is followed by another. It
// gives what is wrong with the newest request, if something is.
func (o *Owner) Request(ctx context.Context, subject string, first bool) (trouble string, err error) {
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
	trouble, failed, err := o.newest(ctx)
	if err == nil && (first || failed) {
		err = o.Renew(ctx)
	}
	return trouble, err
}

// Ensure makes sure that the Certificate is there and is for the subject of the current client certificate.
func (o *Owner) Ensure(ctx context.Context, current *x509.Certificate) error {
	existing, err := o.certificate(ctx)
	if err != nil {
		return err
	}
	if existing != nil {
		// The Connector may have ordered the attributes anew: another order here would cost an issuance.
		if s, err := certs.ParseSubject(existing.Spec.LiteralSubject); err == nil && s.Check(current) == nil {
			return o.apply(ctx, existing.Spec.LiteralSubject)
		}
	}
	rdns, err := pki.UnmarshalRawDerBytesToRDNSequence(current.RawSubject)
	if err != nil {
		return fmt.Errorf("subject of the client certificate: %w", err)
	}
	return o.apply(ctx, rdns.String())
}

// Renew asks for a new certificate at once, unless one is being issued: as "cmctl renew" does it, whatever cert-manager's
// own back-off says.
func (o *Owner) Renew(ctx context.Context) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		existing, err := o.certificate(ctx)
		if err != nil || existing == nil || apiutil.CertificateHasCondition(existing, cmapi.CertificateCondition{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue}) {
			return err
		}
		apiutil.SetCertificateCondition(existing, existing.Generation, cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, reasonRequested, "the agent asks for a new certificate")
		return o.Client.Status().Update(ctx, existing, client.FieldOwner(FieldOwner))
	})
	if err != nil {
		return fmt.Errorf("asking cert-manager for a renewal by Certificate %s: %w", o.Secret, err)
	}
	return nil
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

// newest tells what the issuer says about the newest request for the Certificate, unless that is good or still to
// come, and whether that is its end.
func (o *Owner) newest(ctx context.Context) (trouble string, failed bool, err error) {
	var all cmapi.CertificateRequestList
	if err := o.Reader.List(ctx, &all, client.InNamespace(o.Secret.Namespace)); err != nil {
		return "", false, fmt.Errorf("reading CertificateRequests of namespace %s: %w", o.Secret.Namespace, err)
	}
	all.Items = slices.DeleteFunc(all.Items, func(r cmapi.CertificateRequest) bool {
		return r.Annotations[cmapi.CertificateNameKey] != o.Secret.Name
	})
	if len(all.Items) == 0 {
		return "", false, nil
	}
	request := slices.MaxFunc(all.Items, func(a, b cmapi.CertificateRequest) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	ready := apiutil.GetCertificateRequestCondition(&request, cmapi.CertificateRequestConditionReady)
	if ready == nil || ready.Status != cmmeta.ConditionFalse {
		return "", false, nil
	}
	return fmt.Sprintf("CertificateRequest %s/%s: %s", request.Namespace, request.Name, ready.Message), ready.Reason != cmapi.CertificateRequestReasonPending, nil
}
