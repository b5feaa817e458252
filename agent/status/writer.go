package status

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// Writer is the one place where status, events and metrics leave the agent.
type Writer struct {
	// Client patches the status subresource.
	Client client.Client
	// Recorder takes the events.
	Recorder events.EventRecorder
	// Metrics show what the status says.
	Metrics *Metrics
}

// Write patches the status of connection from what it was (before) to what it is, if there is a difference, and then
// tells of it: the given events first, those about the change of the status after them.
func (w *Writer) Write(ctx context.Context, before, connection *compassv1alpha1.CompassConnection, f Facts, happened []Event) error {
	if !equality.Semantic.DeepEqual(before.Status, connection.Status) {
		// Patch reads the answer of the server into its argument.
		patched := connection.DeepCopy()
		if err := w.Client.Status().Patch(ctx, patched, client.MergeFrom(before)); err != nil {
			return err
		}
	}
	w.Metrics.observe(&connection.Status, f)
	for _, e := range append(happened, changes(&before.Status, &connection.Status)...) {
		w.Recorder.Eventf(connection, part(connection, e.Part), e.Type, e.Reason, e.Action, "%s", Bound(e.Message))
	}
	return nil
}

// part refers to a part of a CompassConnection; nil for all of it.
func part(connection *compassv1alpha1.CompassConnection, path string) runtime.Object {
	if path == "" {
		return nil
	}
	return &corev1.ObjectReference{
		APIVersion: compassv1alpha1.GroupVersion.String(), Kind: "CompassConnection", Name: connection.Name, UID: connection.UID, FieldPath: path,
	}
}
