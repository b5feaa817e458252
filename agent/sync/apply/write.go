package apply

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

const applicationKind = "Application"

// stepError says why a step failed, in words that may be shown on a resource.
type stepError struct {
	reason string
	// secrets says that a Secret is to blame.
	secrets bool
	err     error
}

// Error is not longer than a reader of a condition wants to see.
func (e *stepError) Error() string {
	const most = 1024
	text := []rune(e.err.Error())
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

func (e *stepError) Unwrap() error { return e.err }

func writeFailed(what string, err error) *stepError {
	return &stepError{reason: plan.ReasonWriteFailed, err: fmt.Errorf("%s: %w", what, err)}
}

// SecretFailed says that the API server did not answer well to a request about a Secret; nil if it did. The API server's message
// is left out: it may repeat what it was sent.
func SecretFailed(what string, err error) error {
	if err == nil {
		return nil
	}
	reason := apierrors.ReasonForError(err)
	switch {
	case reason != metav1.StatusReasonUnknown:
		err = fmt.Errorf("%s: the API server answers %s", what, reason)
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
	default:
		err = fmt.Errorf("%s: the API server does not answer", what)
	}
	return &stepError{reason: plan.ReasonWriteFailed, secrets: true, err: err}
}

// step does what is planned for one Application, and shows on it how that went.
func (a *applier) step(ctx context.Context, step plan.Step) error {
	if step.Action == plan.Delete {
		return a.deleteApplication(ctx, step)
	}
	app, err := a.write(ctx, step)
	if app == nil {
		a.log.WarnContext(ctx, "Application could not be written", "application", step.Name, "id", step.ID, "error", err)
		return err
	}
	synchronized, credentials := step.Synchronized, step.CredentialsReady
	var failed *stepError
	if errors.As(err, &failed) {
		a.log.WarnContext(ctx, "Application could not be brought into place", "application", step.Name, "id", step.ID, "error", err)
		synchronized = plan.Verdict{Status: metav1.ConditionFalse, Reason: failed.reason, Message: failed.Error()}
		if failed.secrets {
			credentials = plan.Verdict{Status: metav1.ConditionFalse, Reason: plan.ReasonSecretNotWritten, Message: failed.Error()}
		}
	}
	return errors.Join(err, a.status(ctx, app, synchronized, credentials))
}

// written is the part of an Application that later writes and the status need.
type written struct {
	name       string
	uid        types.UID
	generation int64
	status     v1alpha1.ApplicationStatus
	object     runtime.Object
}

// write brings Application and Secrets into place: what is new before the Application that names it, what is obsolete
// after it. It returns nil only if there is no Application that it may write.
func (a *applier) write(ctx context.Context, step plan.Step) (*written, error) {
	var app *written
	update := step.Action == plan.Update
	if step.Action == plan.Create {
		created, existed, err := a.createApplication(ctx, step)
		if err != nil {
			return nil, err
		}
		app, update = created, existed || len(step.Secrets) > 0
	} else {
		app = &written{
			name: step.Name, uid: step.Observed.UID, generation: step.Observed.Generation, status: step.Observed.Status, object: step.Observed,
		}
	}

	if step.Action == plan.Keep && step.Synchronized.Reason != plan.ReasonPendingDeletion {
		// Compass names the system, if in a way that fails: a word about its deletion is over.
		if err := a.withdrawConfirmation(ctx, app, step.Observed); err != nil {
			return app, err
		}
	}
	for i := range step.Secrets {
		if err := a.bringSecret(ctx, app, &step.Secrets[i]); err != nil {
			return app, err
		}
	}
	if update {
		if err := a.applySpec(ctx, app, step.Wanted); err != nil {
			return app, err
		}
		if step.Action == plan.Update {
			if err := a.withdrawConfirmation(ctx, app, step.Observed); err != nil {
				return app, err
			}
			a.log.InfoContext(ctx, "Application updated", "application", step.Name, "id", step.ID, "changes", step.Changes)
		}
	}
	for _, s := range step.Secrets {
		if err := a.clearSecret(ctx, s); err != nil {
			return app, err
		}
	}
	return app, nil
}

// createApplication creates an Application, or finds one that the plan could not see.
func (a *applier) createApplication(ctx context.Context, step plan.Step) (app *written, existed bool, err error) {
	created := step.Wanted.DeepCopy()
	// Secrets can only name their owner once that has a UID. Until they are there, nothing is offered.
	if len(step.Secrets) > 0 {
		created.Spec.Services = nil
	}
	what := "creating Application " + step.Name
	a.writes.Add(1)
	err = a.Create(ctx, created, client.FieldOwner(FieldOwner))
	if apierrors.IsAlreadyExists(err) {
		existed, created = true, &v1alpha1.Application{}
		if err = a.live.Get(ctx, client.ObjectKey{Name: step.Name}, created); err == nil {
			if taken := step.Taken(created); taken != "" {
				return nil, false, &stepError{reason: plan.ReasonNameTaken, err: errors.New(taken)}
			}
		}
	}
	if err != nil {
		return nil, false, writeFailed(what, err)
	}
	if !existed {
		a.log.InfoContext(ctx, "Application created", "application", step.Name, "id", step.ID)
	}
	return &written{name: step.Name, uid: created.UID, generation: created.Generation, status: created.Status, object: created}, existed, nil
}

// applySpec writes the fields that are managed. The UID keeps the request from creating an Application that somebody
// deleted in the meantime, which would be one without the fields that are only written at creation.
func (a *applier) applySpec(ctx context.Context, app *written, wanted *v1alpha1.Application) error {
	services, err := toUnstructured(wanted.Spec.Services)
	if err != nil {
		return writeFailed("encoding Application "+app.name, err)
	}
	metadata, err := toUnstructured(wanted.Spec.CompassMetadata)
	if err != nil {
		return writeFailed("encoding Application "+app.name, err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(),
		"kind":       applicationKind,
		"metadata": map[string]any{
			"name": app.name, "uid": string(app.uid),
			"labels": map[string]any{v1alpha1.ManagedByLabel: v1alpha1.ManagedByAgent},
		},
		"spec": map[string]any{
			"description":     wanted.Spec.Description,
			"labels":          map[string]any{v1alpha1.ConnectedAppLabel: wanted.Name},
			"compassMetadata": metadata,
			"services":        services,
		},
	}}
	a.writes.Add(1)
	if err := a.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
		return writeFailed("writing Application "+app.name, err)
	}
	app.generation = object.GetGeneration()
	return nil
}

func toUnstructured(value any) (any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var out any
	return out, json.Unmarshal(text, &out)
}

// bringSecret writes what a Secret has to hold. Keys that are too many stay until the Application is written.
func (a *applier) bringSecret(ctx context.Context, app *written, step *plan.SecretStep) error {
	what := "writing Secret " + a.namespace + "/" + step.Name
	if step.Action == plan.Create {
		// Create refuses what exists, so that nothing that the plan could not see is written over.
		err := a.createSecret(ctx, app, step)
		if !apierrors.IsAlreadyExists(err) {
			return SecretFailed(what, err)
		}
		found, err := a.findSecret(ctx, app, step)
		if err != nil {
			return err
		}
		if !found { // it was deleted between the two requests, as the garbage collector does with what it finds left over
			return SecretFailed(what, a.createSecret(ctx, app, step))
		}
	}
	switch step.Action {
	case plan.Replace:
		a.writes.Add(1)
		err := a.Client.Delete(ctx, step.Observed, client.Preconditions{UID: &step.Observed.UID})
		if client.IgnoreNotFound(err) != nil {
			return SecretFailed(what, err)
		}
		return SecretFailed(what, a.createSecret(ctx, app, step))
	case plan.Update:
		if len(step.Changes) == len(step.Stale) {
			return nil
		}
		a.writes.Add(1)
		return SecretFailed(what, a.Apply(ctx, client.ApplyConfigurationFromUnstructured(secretApply(a.namespace, app, *step)), client.FieldOwner(FieldOwner), client.ForceOwnership))
	}
	return nil
}

func (a *applier) createSecret(ctx context.Context, app *written, step *plan.SecretStep) error {
	a.writes.Add(1)
	return a.Create(ctx, newSecret(a.namespace, app, *step), client.FieldOwner(FieldOwner))
}

// findSecret decides what to do with a Secret that the plan could not see: as the plan would have done. It says whether
// there is one.
func (a *applier) findSecret(ctx context.Context, app *written, step *plan.SecretStep) (bool, error) {
	have := &corev1.Secret{}
	err := a.live.Get(ctx, client.ObjectKey{Namespace: a.namespace, Name: step.Name}, have)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, SecretFailed("reading Secret "+a.namespace+"/"+step.Name, err)
	}
	owner := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: app.name, UID: app.uid}}
	if taken := step.Meet(owner, have); taken != "" {
		return false, &stepError{reason: plan.ReasonSecretTaken, secrets: true, err: errors.New(taken)}
	}
	return true, nil
}

func newSecret(namespace string, app *written, step plan.SecretStep) *corev1.Secret {
	data := map[string][]byte{}
	for key, value := range step.Data {
		data[key] = []byte(value.Reveal())
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: step.Name, Namespace: namespace,
			Labels: step.Labels(app.name), Annotations: map[string]string{v1alpha1.MeantAnnotation: step.Meant},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: applicationKind, Name: app.name, UID: app.uid,
			}},
		},
		Data: data,
	}
}

// secretApply is the Secret as it is written while the Application still names what it held before: with both the new
// keys and the stale ones.
func secretApply(namespace string, app *written, step plan.SecretStep) *unstructured.Unstructured {
	data := map[string]any{}
	for _, key := range step.Stale {
		data[key] = base64.StdEncoding.EncodeToString(step.Observed.Data[key])
	}
	for key, value := range step.Data {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value.Reveal()))
	}
	labels := map[string]any{}
	for key, value := range step.Labels(app.name) {
		labels[key] = value
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Secret",
		"metadata": map[string]any{
			"name": step.Name, "namespace": namespace, "uid": string(step.Observed.UID),
			"labels": labels, "annotations": map[string]any{v1alpha1.MeantAnnotation: step.Meant},
			"ownerReferences": []any{map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": applicationKind, "name": app.name, "uid": string(app.uid),
			}},
		},
		"data": data,
	}}
}

// clearSecret removes what nothing names any more: a Secret, or keys of one. Keys are removed one by one, whoever
// wrote them, because an apply would leave those that another writer put there, such as an older agent by its updates. To
// upgrade their ownership first (client-go/util/csaupgrade) comes to the same end, for a read and a write more.
func (a *applier) clearSecret(ctx context.Context, step plan.SecretStep) error {
	what := "removing from Secret " + a.namespace + "/" + step.Name
	switch {
	case step.Action == plan.Delete:
		a.writes.Add(1)
		err := a.Client.Delete(ctx, step.Observed, client.Preconditions{UID: &step.Observed.UID})
		return SecretFailed(what, client.IgnoreNotFound(err))
	case len(step.Stale) > 0:
		operations := []map[string]string{{"op": "test", "path": "/metadata/uid", "value": string(step.Observed.UID)}}
		for _, key := range step.Stale { // keys of Secrets have no character that a JSON pointer escapes
			operations = append(operations, map[string]string{"op": "remove", "path": "/data/" + key})
		}
		patch, err := json.Marshal(operations)
		if err != nil {
			return SecretFailed(what, err)
		}
		target := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: step.Name, Namespace: a.namespace}}
		a.writes.Add(1)
		return SecretFailed(what, a.Patch(ctx, target, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(FieldOwner)))
	}
	return nil
}

// withdrawConfirmation removes the word of a person that the Application may be deleted.
func (a *applier) withdrawConfirmation(ctx context.Context, app *written, observed *v1alpha1.Application) error {
	if _, confirmed := observed.Annotations[v1alpha1.ConfirmDeletionAnnotation]; !confirmed {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": string(app.uid), "annotations": map[string]any{v1alpha1.ConfirmDeletionAnnotation: nil},
	}})
	if err != nil {
		return writeFailed("encoding Application "+app.name, err)
	}
	target := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: app.name}}
	a.writes.Add(1)
	if err := a.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner)); err != nil {
		return writeFailed("writing Application "+app.name, err)
	}
	return nil
}

// errChanged says that an Application is not the one any more that was to be deleted.
var errChanged = errors.New("changed since it was looked at")

// deleteApplication leaves its Secrets to the garbage collector: they name it as their owner, and as long as it is
// there they are needed. It deletes nothing but what the plan has seen: somebody may have made the Application their own
// in the meantime, by removing the label.
func (a *applier) deleteApplication(ctx context.Context, step plan.Step) error {
	a.writes.Add(1)
	err := a.Client.Delete(ctx, step.Observed, client.Preconditions{UID: &step.Observed.UID, ResourceVersion: &step.Observed.ResourceVersion})
	if apierrors.IsConflict(err) {
		a.log.InfoContext(ctx, "Application changed while it was to be deleted; the next sync looks again", "application", step.Name, "id", step.ID)
		return errChanged
	}
	if client.IgnoreNotFound(err) != nil {
		a.log.WarnContext(ctx, "Application could not be deleted", "application", step.Name, "id", step.ID, "error", err)
		return writeFailed("deleting Application "+step.Name, err)
	}
	a.log.InfoContext(ctx, "Application deleted", "application", step.Name, "id", step.ID, "why", step.Changes)
	return nil
}
