package status

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// Event is one thing that people should see happening. docs/reference/agent.md lists the reasons.
type Event struct {
	// Type is corev1.EventTypeNormal or corev1.EventTypeWarning.
	Type string
	// Reason in one word, Action that the agent took, Message for people.
	Reason, Action, Message string
	// Part of the CompassConnection that it is about, as a field path; empty for all of it. Events that differ in nothing but
	// their message are taken for one that happened again, and only the first message is kept.
	Part string
}

// Reasons of events, besides the connection states, each of which is the reason of the event about entering it, and
// besides Stalled and PruneBlocked.
const (
	// EventPaired: the cluster was paired by a one-time token.
	EventPaired = "Paired"
	// EventAdopted: a certificate that the cluster had was taken over, because the CompassConnection was missing.
	EventAdopted = "CertificateAdopted"
	// EventRenewed: a new client certificate is current.
	EventRenewed = "CertificateRenewed"
	// EventRenewalFailed: a client certificate could not be renewed; the old one stays.
	EventRenewalFailed = "RenewalFailed"
	// EventSecretRestored: a Secret was deleted or damaged, and was written again.
	EventSecretRestored = "SecretRestored"
	// EventURLsChanged: the Connector named other URLs of Compass.
	EventURLsChanged = "URLsChanged"
	// EventAuthoritiesChanged: the Connector sent other authorities; old ones stay trusted until they end.
	EventAuthoritiesChanged = "AuthoritiesChanged"
	// EventApplicationFailed: a system could not be brought into place, or not for the same reason as before.
	EventApplicationFailed = "ApplicationFailed"
	// EventLeft: the certificate is revoked, and what came from Compass is deleted, because the CompassConnection was.
	EventLeft = "Left"
	// EventLeavingFailed: the CompassConnection cannot go yet; it is tried again.
	EventLeavingFailed = "LeavingFailed"
)

// EventReasons lists every reason that an event can have.
func EventReasons() []string {
	return []string{
		EventPaired, EventAdopted, EventRenewed, EventRenewalFailed, EventSecretRestored, EventURLsChanged, EventAuthoritiesChanged, EventApplicationFailed,
		EventLeft, EventLeavingFailed,
		string(compassv1alpha1.Connected), string(compassv1alpha1.ConnectionFailed), string(compassv1alpha1.ConnectionMaintenanceFailed),
		string(compassv1alpha1.SynchronizationFailed), string(compassv1alpha1.ResourceApplicationFailed),
		string(compassv1alpha1.MetadataUpdateFailed), string(compassv1alpha1.Synchronized),
		compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionPruneBlocked,
	}
}

// changes gives the events about the difference between two statuses.
func changes(before, after *compassv1alpha1.CompassConnectionStatus) []Event {
	var events []Event
	if before.State != after.State {
		e := Event{Type: corev1.EventTypeNormal, Reason: string(after.State), Action: "Connect", Message: "the connection is " + string(after.State)}
		if err := errorOf(after); err != "" {
			e.Type, e.Message = corev1.EventTypeWarning, err
		}
		events = append(events, e)
	}
	for _, kind := range []string{compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionPruneBlocked} {
		if isTrue(after, kind) && !isTrue(before, kind) {
			events = append(events, Event{Type: corev1.EventTypeWarning, Reason: kind, Action: "Wait", Message: meta.FindStatusCondition(after.Conditions, kind).Message})
		}
	}
	return append(events, failed(before, after)...)
}

// maxFailedEvents bounds the events about systems that one sync could not bring into place.
const maxFailedEvents = 10

// failed gives events about systems that fail now, or fail by another reason than before.
func failed(before, after *compassv1alpha1.CompassConnectionStatus) []Event {
	known := map[string]string{}
	for _, f := range before.FailedApplications {
		known[f.ID] = f.Reason
	}
	var events []Event
	for _, f := range after.FailedApplications {
		if known[f.ID] == f.Reason {
			continue
		}
		if len(events) == maxFailedEvents {
			break
		}
		events = append(events, Event{
			Type: corev1.EventTypeWarning, Reason: EventApplicationFailed, Action: "Sync", Message: fmt.Sprintf("%s (%s): %s: %s", f.Name, f.ID, f.Reason, f.Message),
			Part: fmt.Sprintf("status.failedApplications{id=%s,reason=%s}", f.ID, f.Reason),
		})
	}
	return events
}

func isTrue(st *compassv1alpha1.CompassConnectionStatus, kind string) bool {
	return meta.IsStatusConditionPresentAndEqual(st.Conditions, kind, metav1.ConditionTrue)
}
