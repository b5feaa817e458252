package apply

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// EventAction is what events say was being done.
const EventAction = "Sync"

// maxNote is the longest note in bytes that the API server takes.
const maxNote = 1024

// Note cuts a text to what an event may hold.
func Note(text string) string {
	if len(text) > maxNote {
		text = text[:maxNote]
	}
	return strings.ToValidUTF8(text, "")
}

// status writes the agent's two conditions, if they differ from what is there. The gateway's stays the gateway's: each
// writer applies its own.
func (a *applier) status(ctx context.Context, app *written, synchronized, credentials plan.Verdict) error {
	var conditions []metav1.Condition
	changed := app.status.ObservedGeneration != app.generation
	for _, c := range []struct {
		kind    string
		verdict plan.Verdict
	}{
		{v1alpha1.ConditionSynchronized, synchronized},
		{v1alpha1.ConditionCredentialsReady, credentials},
	} {
		before := meta.FindStatusCondition(app.status.Conditions, c.kind)
		if c.verdict == (plan.Verdict{}) {
			if before == nil {
				continue
			}
			c.verdict = plan.Verdict{Status: before.Status, Reason: before.Reason, Message: before.Message}
		}
		now := metav1.Condition{
			Type: c.kind, Status: c.verdict.Status, Reason: c.verdict.Reason, Message: c.verdict.Message,
			ObservedGeneration: app.generation, LastTransitionTime: metav1.NewTime(a.clock.Now()),
		}
		if before != nil && before.Status == now.Status {
			now.LastTransitionTime = before.LastTransitionTime
		}
		if before == nil || before.Status != now.Status || before.Reason != now.Reason {
			a.event(app, before, now)
			changed = true
		} else if before.Message != now.Message || before.ObservedGeneration != now.ObservedGeneration {
			changed = true
		}
		conditions = append(conditions, now)
	}
	if !changed {
		return nil
	}
	return a.applyStatus(ctx, app, conditions)
}

func (a *applier) applyStatus(ctx context.Context, app *written, conditions []metav1.Condition) error {
	var list []any
	for _, c := range conditions {
		list = append(list, map[string]any{
			"type": c.Type, "status": string(c.Status), "reason": c.Reason, "message": c.Message,
			"observedGeneration": c.ObservedGeneration,
			"lastTransitionTime": c.LastTransitionTime.UTC().Format(time.RFC3339),
		})
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(),
		"kind":       applicationKind,
		"metadata":   map[string]any{"name": app.name, "uid": string(app.uid)},
		"status":     map[string]any{"observedGeneration": app.generation, "conditions": list},
	}}
	a.writes.Add(1)
	if err := a.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
		return writeFailed("writing the status of Application "+app.name, err)
	}
	return nil
}

// event tells of a condition that became False, or True again.
func (a *applier) event(app *written, before *metav1.Condition, now metav1.Condition) {
	if a.recorder == nil {
		return
	}
	kind := corev1.EventTypeWarning
	if now.Status == metav1.ConditionTrue {
		if before == nil || before.Status == metav1.ConditionTrue {
			return // nothing was wrong
		}
		kind = corev1.EventTypeNormal
	}
	a.recorder.Eventf(app.object, nil, kind, now.Reason, EventAction, "%s", Note(now.Message))
}
