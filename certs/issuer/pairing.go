package issuer

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/secret"
)

// Keys of a pairing Secret. Who pairs writes the first three; the issuer takes the token out and writes the others.
const (
	// KeyToken holds the second one-time token.
	KeyToken = "token"
	// KeyTokenURL holds the URL of the Connector for calls with a token.
	KeyTokenURL = "tokenConnectorURL"
	// KeySubject holds the subject that the Connector demands, as it writes it.
	KeySubject = "subject"
	// KeyIssuedRequest holds the SHA-256, in hex, of the request that was signed by the token.
	KeyIssuedRequest = "issuedRequest"
	// KeyIssuedCertificate and KeyIssuedCA hold the answer, PEM: it cannot be had again.
	KeyIssuedCertificate = "issuedCertificate"
	KeyIssuedCA          = "issuedCA"
)

// Keys lists the keys of a pairing Secret.
func Keys() []string {
	return []string{KeyToken, KeyTokenURL, KeySubject, KeyIssuedRequest, KeyIssuedCertificate, KeyIssuedCA}
}

// AnnotationConnectorURL of a client Secret says where the Connector is called with its certificate.
const AnnotationConnectorURL = "compass.kyma-project.io/connector-url"

// pairing is what a pairing Secret holds.
type pairing struct {
	object            *corev1.Secret // nil if there is none
	token             secret.Value
	tokenURL, subject string
	request           string // that was signed
	certificate, ca   []byte
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (pairing) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

func (i *Issuer) get(ctx context.Context, name types.NamespacedName) (*corev1.Secret, error) {
	found := &corev1.Secret{}
	if err := i.Reader.Get(ctx, name, found); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	return found, nil
}

func (i *Issuer) pairing(ctx context.Context, name types.NamespacedName) (pairing, error) {
	if name.Name == "" {
		return pairing{}, nil
	}
	found, err := i.get(ctx, name)
	if err != nil || found == nil {
		return pairing{}, err
	}
	return pairing{
		object: found, token: secret.Value(found.Data[KeyToken]), tokenURL: string(found.Data[KeyTokenURL]), subject: string(found.Data[KeySubject]),
		request: string(found.Data[KeyIssuedRequest]), certificate: found.Data[KeyIssuedCertificate], ca: found.Data[KeyIssuedCA],
	}, nil
}

// Writing bounds the attempts at a write of what cannot be had again: five within some four seconds.
var Writing = wait.Backoff{Steps: 5, Duration: 100 * time.Millisecond, Factor: 3, Jitter: 0.2}

// Momentary says whether the API server, or the way to it, may be well again in a moment.
func Momentary(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err) || utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err)
}

// spent takes the token out of the pairing Secret, unless another one was put there meanwhile, and puts in what it bought.
func (i *Issuer) spent(ctx context.Context, p pairing, bought map[string][]byte) error {
	stored := p.object
	again := func(err error) bool { return apierrors.IsConflict(err) || Momentary(err) }
	err := retry.OnError(Writing, again, func() error {
		changed := stored.DeepCopy()
		delete(changed.Data, KeyToken)
		for key, value := range bought {
			changed.Data[key] = value
		}
		err := i.Client.Patch(ctx, changed, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}), client.FieldOwner(FieldOwner))
		if !apierrors.IsConflict(err) {
			return err
		}
		found, unread := i.get(ctx, client.ObjectKeyFromObject(stored))
		switch {
		case unread != nil:
			return unread
		case found == nil || secret.Value(found.Data[KeyToken]) != p.token:
			return apierrors.NewNotFound(corev1.Resource("secrets"), stored.Name) // that Secret is not there any more
		}
		stored = found
		return err
	})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("writing Secret %s: it was changed meanwhile", client.ObjectKeyFromObject(p.object))
	case err != nil:
		// The message of the API server may repeat what it was sent.
		return fmt.Errorf("writing Secret %s: the API server answers %q", client.ObjectKeyFromObject(p.object), apierrors.ReasonForError(err))
	}
	return nil
}
