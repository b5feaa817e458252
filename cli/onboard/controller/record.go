package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// State sums a cluster up in one word.
type State string

// States of a cluster; docs/reference/appconn-onboard.md explains each.
const (
	// Waiting for the agent of the cluster to connect it; there is a token for it.
	Waiting State = "WaitingForAgent"
	// Connected to Compass.
	Connected State = "Connected"
	// Failed is tried again, or waits for somebody to change something.
	Failed State = "Failed"
	// Offboarding: its Secret is deleted, and it could not be removed from Compass yet.
	Offboarding State = "Offboarding"
)

// States gives all states.
func States() []State { return []State{Waiting, Connected, Failed, Offboarding} }

// maxMessage bounds the message of a record, in bytes.
const maxMessage = 1024

// statusLabel is on every ConfigMap with a record.
const statusLabel = "application-connector.kyma-project.io/onboarding"

// record is what is known of a cluster, for people. Nothing of it is secret.
type record struct {
	state   State
	reason  Reason
	message string
	// cluster is the UID of its namespace kube-system, runtime the id of its runtime in Director, tenant that of the Director.
	cluster, runtime, tenant string
	// expires is when the token in the cluster ends, next when a failure is tried again; zero if there is none.
	expires, next time.Time
	// unverified: the kubeconfig does not verify the API server.
	unverified bool
}

// data is what the ConfigMap holds.
func (r record) data() map[string]string {
	data := map[string]string{"state": string(r.state)}
	add := func(key, value string) {
		if value != "" {
			data[key] = value
		}
	}
	add("reason", string(r.reason))
	add("message", r.message)
	add("cluster", r.cluster)
	add("runtime", r.runtime)
	add("tenant", r.tenant)
	if r.unverified {
		data["unverified"] = "true"
	}
	for key, at := range map[string]time.Time{"tokenExpires": r.expires, "nextAttempt": r.next} {
		if !at.IsZero() {
			data[key] = at.UTC().Format(time.RFC3339)
		}
	}
	return data
}

// recordName is the name of the ConfigMap for a Secret: its own with an ending, so that it is no other's by chance.
func recordName(secret string) string {
	const ending = "-onboarding"
	if len(secret)+len(ending) <= 253 { // a DNS subdomain
		return secret + ending
	}
	sum := sha256.Sum256([]byte(secret))
	return "cluster-" + hex.EncodeToString(sum[:]) + ending
}

// tell writes the record into the cluster, if it says anything new. It goes with the Secret.
func (r *Reconciler) tell(ctx context.Context, secret *corev1.Secret, told record) error {
	name := types.NamespacedName{Namespace: secret.Namespace, Name: recordName(secret.Name)}
	var found corev1.ConfigMap
	err := r.Kube.Get(ctx, name, &found)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading ConfigMap %s: %w", name, err)
	}
	data := told.data()
	if err == nil && maps.Equal(found.Data, data) {
		return nil
	}
	wanted := applycorev1.ConfigMap(name.Name, name.Namespace).
		WithLabels(map[string]string{statusLabel: "true"}).
		WithOwnerReferences(applymetav1.OwnerReference().WithAPIVersion("v1").WithKind("Secret").WithName(secret.Name).WithUID(secret.UID)).
		WithData(data)
	if err := r.Kube.Apply(ctx, wanted, client.FieldOwner(fieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("writing ConfigMap %s: %w", name, err)
	}
	return nil
}

// untell removes the record of a Secret that is not onboarded any more.
func (r *Reconciler) untell(ctx context.Context, secret types.NamespacedName) error {
	var found corev1.ConfigMap
	name := types.NamespacedName{Namespace: secret.Namespace, Name: recordName(secret.Name)}
	err := r.Kube.Get(ctx, name, &found)
	if err == nil && found.Labels[statusLabel] != "" {
		err = r.Kube.Delete(ctx, &found)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting ConfigMap %s: %w", name, err)
	}
	return nil
}
