package status

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// Note writes when the next attempt may be made, and nothing else, ahead of an attempt: whatever becomes of that, of the
// process, and of the status that tells of it, the next process knows. stored is the CompassConnection as the API server has
// it, and is kept so.
func (w *Writer) Note(ctx context.Context, stored *compassv1alpha1.CompassConnection, next time.Time) error {
	noted := stored.DeepCopy()
	Prepare(&noted.Status)
	noted.Status.NextAttempt = &metav1.Time{Time: next}
	// Patch reads the answer of the server into its argument.
	patched := noted.DeepCopy()
	if err := w.Client.Status().Patch(ctx, patched, client.MergeFrom(stored)); err != nil {
		return err
	}
	stored.Status = noted.Status
	return nil
}
