package issuer

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
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

// spent takes the token out of the pairing Secret, unless another one was put there meanwhile, and puts in what it bought.
func (i *Issuer) spent(ctx context.Context, p pairing, bought map[string][]byte) error {
	changed := p.object.DeepCopy()
	delete(changed.Data, KeyToken)
	for key, value := range bought {
		changed.Data[key] = value
	}
	err := i.Client.Patch(ctx, changed, client.MergeFromWithOptions(p.object, client.MergeFromWithOptimisticLock{}), client.FieldOwner(FieldOwner))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return fmt.Errorf("writing Secret %s: it was changed meanwhile", client.ObjectKeyFromObject(p.object))
	case err != nil:
		// The message of the API server may repeat what it was sent.
		return fmt.Errorf("writing Secret %s: the API server answers %q", client.ObjectKeyFromObject(p.object), apierrors.ReasonForError(err))
	}
	return nil
}
