package connection

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// request is the value of an annotation by which a person asks for something; empty if nobody does.
func request(c *compassv1alpha1.CompassConnection, annotation string) string {
	value := c.Annotations[annotation]
	return strings.ToValidUTF8(value[:min(len(value), compassv1alpha1.MaxRequest)], "")
}

// renewalUnseen: a renewal is asked for that was not acted upon yet.
func renewalUnseen(c *compassv1alpha1.CompassConnection) bool {
	asked, answer := request(c, compassv1alpha1.RenewAnnotation), c.Status.RenewalRequest
	return asked != "" && (answer == nil || answer.Requested != asked)
}

// renewalWanted: a renewal is asked for, and no certificate was issued since.
func renewalWanted(c *compassv1alpha1.CompassConnection) bool {
	answer := c.Status.RenewalRequest
	return renewalUnseen(c) || request(c, compassv1alpha1.RenewAnnotation) != "" && answer != nil && answer.HandledAt == nil
}

// renewalHandled notes that a certificate became current.
func renewalHandled(c *compassv1alpha1.CompassConnection, now time.Time) {
	if renewalUnseen(c) { // a crash came before that could be noted
		c.Status.RenewalRequest = &compassv1alpha1.RenewalRequest{Requested: request(c, compassv1alpha1.RenewAnnotation)}
	}
	if answer := c.Status.RenewalRequest; answer != nil && answer.HandledAt == nil {
		answer.HandledAt = &metav1.Time{Time: now}
	}
}

// resyncUnseen: a sync is asked for that was not acted upon yet.
func resyncUnseen(c *compassv1alpha1.CompassConnection) bool {
	asked, answer := request(c, compassv1alpha1.ResyncAnnotation), c.Status.ResyncRequest
	return asked != "" && (answer == nil || answer.Requested != asked)
}

// resyncHandled notes that a sync ended well. A request that came while it ran is not seen yet, and gets one of its own.
func resyncHandled(c *compassv1alpha1.CompassConnection, now time.Time) {
	if answer := c.Status.ResyncRequest; answer != nil && answer.HandledAt == nil {
		answer.HandledAt = &metav1.Time{Time: now}
	}
}

// acknowledge notes what is asked for: whatever comes of the attempt that begins now, it passes the waiting time no more.
func acknowledge(c *compassv1alpha1.CompassConnection) {
	if renewalUnseen(c) {
		c.Status.RenewalRequest = &compassv1alpha1.RenewalRequest{Requested: request(c, compassv1alpha1.RenewAnnotation)}
	}
	if resyncUnseen(c) {
		c.Status.ResyncRequest = &compassv1alpha1.ResyncRequest{Requested: request(c, compassv1alpha1.ResyncAnnotation)}
	}
}
