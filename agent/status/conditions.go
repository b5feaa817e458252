package status

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// Reasons of conditions; docs/reference/agent.md explains each.
const (
	// ReasonReady of Ready: connected, certificate valid, last sync successful.
	ReasonReady = "Ready"
	// ReasonConnected of Connected: the last call to Compass with the client certificate succeeded.
	ReasonConnected = "Connected"
	// ReasonNotPaired of Connected: there was no pairing yet, or the last one failed.
	ReasonNotPaired = "NotPaired"
	// ReasonNotTriedYet of Connected and ApplicationsSynced: there was no call since the certificate became current.
	ReasonNotTriedYet = "NotTriedYet"
	// ReasonCallFailed of Connected: Compass could not be reached, or did not accept the client certificate.
	ReasonCallFailed = "CallFailed"
	// ReasonValid of CertificateReady: the certificate is valid and not overdue for renewal.
	ReasonValid = "Valid"
	// ReasonMissing of CertificateReady: there is no certificate.
	ReasonMissing = "Missing"
	// ReasonDamaged of CertificateReady: the client Secret cannot be read as a certificate with its key.
	ReasonDamaged = "Damaged"
	// ReasonExpired of CertificateReady: the certificate has ended.
	ReasonExpired = "Expired"
	// ReasonNotYetValid of CertificateReady: the validity of the certificate lies ahead.
	ReasonNotYetValid = "NotYetValid"
	// ReasonRenewalOverdue of CertificateReady: the certificate is valid, and half of the time for its renewal is gone.
	ReasonRenewalOverdue = "RenewalOverdue"
	// ReasonRenewalFailing of CertificateReady: the certificate is valid, and cert-manager gives none that can take its place.
	ReasonRenewalFailing = "RenewalFailing"
	// ReasonSecretNotWritten of CertificateReady: the certificate is there, and a Secret that it belongs into is not as it should be.
	ReasonSecretNotWritten = "SecretNotWritten"
	// ReasonSynced of ApplicationsSynced: every Application is in place.
	ReasonSynced = "Synced"
	// ReasonApplicationsFailed of ApplicationsSynced: some Applications could not be brought into place.
	ReasonApplicationsFailed = "ApplicationsFailed"
	// ReasonSyncFailed of ApplicationsSynced: the sync failed as a whole.
	ReasonSyncFailed = "SyncFailed"
	// ReasonRetrying of Reconciling: the last attempt failed, the next one is scheduled.
	ReasonRetrying = "Retrying"
	// ReasonProgressing of Reconciling: nothing failed, and not everything is done.
	ReasonProgressing = "Progressing"
	// ReasonTokenNeeded of Stalled: nothing changes before somebody writes a new one-time token.
	ReasonTokenNeeded = "TokenNeeded"
	// ReasonConfigurationInvalid of Stalled: the configuration Secret is missing or lacks something.
	ReasonConfigurationInvalid = "ConfigurationInvalid"
	// ReasonGuarded of PruneBlocked: Applications that Director no longer names are kept, the message says why.
	ReasonGuarded = "Guarded"
	// ReasonNotSyncedForLong of Stale: the Applications were last brought into place long ago, the message says when.
	ReasonNotSyncedForLong = "NotSyncedForLong"
)

// Certificate is what conditions need to know of the client certificate.
type Certificate struct {
	// Present says that there is one that can be read; Damaged holds why the Secret cannot be read, if there is one.
	Present bool
	Damaged string
	// NotBefore, NotAfter and RenewAt of the certificate.
	NotBefore, NotAfter, RenewAt time.Time
	// Subject and Issuer as RFC 4514 writes them, and the SHA-256 of the certificate in hex.
	Subject, Issuer, Fingerprint string
	// Trouble is why none can take its place; empty if nothing is known to be in the way.
	Trouble string
	// Unwritten is which Secret does not hold what it should, and why; empty if all do.
	Unwritten string
}

// Facts are what a reconcile found and did, in so far as the status does not say it itself.
type Facts struct {
	// Now is the time of the reconcile.
	Now time.Time
	// Idle says that nothing was tried: what the last attempt found stays as it is, except for the certificate's age.
	Idle bool
	// Certificate is the current one.
	Certificate Certificate
	// Called says whether Compass was called with the client certificate, and CallError how that failed, if it did.
	Called    bool
	CallError string
	// Stalled is the reason, with StalledMessage, why nothing will change without help; empty if that is not so.
	Stalled, StalledMessage string
	// Synced says that a sync ran to its end; PruneBlocked is why it kept Applications, if it did.
	Synced       bool
	PruneBlocked string
	// Progress says what is waited for, if it is neither Compass nor a person.
	Progress string
	// StaleAfter is how long after the last sync the Applications count as out of date; 0 means never.
	StaleAfter time.Duration
}

// Conclude derives the conditions of a status from what else stands in it and from facts. It is the only place where
// conditions are set.
func Conclude(st *compassv1alpha1.CompassConnectionStatus, f Facts, generation int64) {
	st.ObservedGeneration = generation
	describe(&st.ConnectionStatus.CertificateStatus, f.Certificate)
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&st.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: Bound(message), ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(f.Now),
		})
	}
	whileTrue := func(kind string, holds bool, reason, message string) {
		if holds {
			set(kind, metav1.ConditionTrue, reason, message)
		} else {
			meta.RemoveStatusCondition(&st.Conditions, kind)
		}
	}

	switch connected := meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionConnected); {
	case st.State == compassv1alpha1.ConnectionFailed || !f.Certificate.Present:
		set(compassv1alpha1.ConditionConnected, metav1.ConditionFalse, ReasonNotPaired, either(errorOf(st), "the cluster is not paired with Compass"))
	case f.Called && f.CallError == "":
		set(compassv1alpha1.ConditionConnected, metav1.ConditionTrue, ReasonConnected, "Compass accepts the client certificate")
	case f.Called:
		set(compassv1alpha1.ConditionConnected, metav1.ConditionFalse, ReasonCallFailed, f.CallError)
	case connected == nil || connected.Reason == ReasonNotPaired:
		set(compassv1alpha1.ConditionConnected, metav1.ConditionUnknown, ReasonNotTriedYet, "Compass has not been called with the client certificate yet")
	default:
		set(compassv1alpha1.ConditionConnected, connected.Status, connected.Reason, connected.Message)
	}

	status, reason, message := certificate(f.Certificate, f.Now)
	if trouble := f.Certificate.Trouble; trouble != "" {
		message += "; " + trouble
		if status == metav1.ConditionTrue {
			reason = ReasonRenewalFailing
		}
	}
	if unwritten := f.Certificate.Unwritten; unwritten != "" && f.Certificate.Present {
		message = unwritten + "; " + message
		if status == metav1.ConditionTrue {
			status, reason = metav1.ConditionFalse, ReasonSecretNotWritten
		}
	}
	set(compassv1alpha1.ConditionCertificateReady, status, reason, message)

	switch synced := meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionApplicationsSynced); {
	case f.Synced && st.Applications != nil && st.Applications.Failed > 0:
		set(compassv1alpha1.ConditionApplicationsSynced, metav1.ConditionFalse, ReasonApplicationsFailed, failures(st))
	case f.Synced:
		set(compassv1alpha1.ConditionApplicationsSynced, metav1.ConditionTrue, ReasonSynced, "every Application is as Compass says")
	case st.State == compassv1alpha1.SynchronizationFailed || st.State == compassv1alpha1.ResourceApplicationFailed:
		set(compassv1alpha1.ConditionApplicationsSynced, metav1.ConditionFalse, ReasonSyncFailed, errorOf(st))
	case synced == nil:
		set(compassv1alpha1.ConditionApplicationsSynced, metav1.ConditionUnknown, ReasonNotTriedYet, "there was no sync yet")
	default:
		set(compassv1alpha1.ConditionApplicationsSynced, synced.Status, synced.Reason, synced.Message)
	}

	ready := true
	for _, kind := range []string{compassv1alpha1.ConditionConnected, compassv1alpha1.ConditionCertificateReady, compassv1alpha1.ConditionApplicationsSynced} {
		if c := meta.FindStatusCondition(st.Conditions, kind); c.Status != metav1.ConditionTrue {
			set(compassv1alpha1.ConditionReady, metav1.ConditionFalse, c.Reason, c.Message)
			ready = false
			break
		}
	}
	failing := st.State != compassv1alpha1.Synchronized && st.State != compassv1alpha1.Connected
	switch {
	case ready && failing:
		set(compassv1alpha1.ConditionReady, metav1.ConditionFalse, string(st.State), errorOf(st))
		ready = false
	case ready:
		set(compassv1alpha1.ConditionReady, metav1.ConditionTrue, ReasonReady, "connected, certificate valid, Applications in place")
	}

	if f.Idle {
		if stalled := meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionStalled); stalled != nil {
			f.Stalled, f.StalledMessage = stalled.Reason, stalled.Message
		}
	}
	whileTrue(compassv1alpha1.ConditionStalled, f.Stalled != "", f.Stalled, f.StalledMessage)
	if st.ConsecutiveFailures > 0 {
		whileTrue(compassv1alpha1.ConditionReconciling, !ready && f.Stalled == "", ReasonRetrying, either(errorOf(st), "the last attempt failed"))
	} else {
		message := either(f.Progress, "work is under way")
		if was := meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionReconciling); f.Idle && was != nil && was.Reason == ReasonProgressing {
			message = was.Message
		}
		whileTrue(compassv1alpha1.ConditionReconciling, !ready && f.Stalled == "", ReasonProgressing, message)
	}
	if f.Synced || f.PruneBlocked != "" {
		whileTrue(compassv1alpha1.ConditionPruneBlocked, f.PruneBlocked != "", ReasonGuarded, f.PruneBlocked)
	}
	since := syncedAt(st)
	// The message does not grow older, so that the status is not written again and again.
	whileTrue(compassv1alpha1.ConditionStale, f.StaleAfter > 0 && !since.IsZero() && f.Now.Sub(since) > f.StaleAfter, ReasonNotSyncedForLong,
		fmt.Sprintf("no sync has brought the Applications into place since %s, for more than %s: they and their credentials may be out of date", since.UTC().Format(time.RFC3339), f.StaleAfter))
}

// syncedAt is when the Applications were last brought into place, or, if they never were, when the cluster was paired.
func syncedAt(st *compassv1alpha1.CompassConnectionStatus) time.Time {
	if s := st.SynchronizationStatus; s != nil && !s.LastSuccessfulApplication.IsZero() {
		return s.LastSuccessfulApplication.Time
	}
	return st.ConnectionStatus.Established.Time
}

func certificate(c Certificate, now time.Time) (metav1.ConditionStatus, string, string) {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case c.Damaged != "":
		return metav1.ConditionFalse, ReasonDamaged, "the client Secret cannot be used: " + c.Damaged
	case !c.Present:
		return metav1.ConditionFalse, ReasonMissing, "there is no client certificate"
	case !now.Before(c.NotAfter):
		return metav1.ConditionFalse, ReasonExpired, "the client certificate ended at " + at(c.NotAfter)
	case now.Add(5 * time.Minute).Before(c.NotBefore):
		return metav1.ConditionFalse, ReasonNotYetValid, "the client certificate is valid from " + at(c.NotBefore) + " only: compare the clocks"
	case now.After(c.RenewAt.Add(c.NotAfter.Sub(c.RenewAt) / 2)):
		return metav1.ConditionFalse, ReasonRenewalOverdue, "the client certificate was to be renewed at " + at(c.RenewAt) + " and ends at " + at(c.NotAfter)
	}
	return metav1.ConditionTrue, ReasonValid, "the client certificate is valid until " + at(c.NotAfter) + " and will be renewed at " + at(c.RenewAt)
}

// errorOf is the error that belongs to the state.
func errorOf(st *compassv1alpha1.CompassConnectionStatus) string {
	switch st.State {
	case compassv1alpha1.ConnectionFailed, compassv1alpha1.ConnectionMaintenanceFailed:
		if st.ConnectionStatus != nil {
			return st.ConnectionStatus.Error
		}
	case compassv1alpha1.SynchronizationFailed, compassv1alpha1.ResourceApplicationFailed, compassv1alpha1.MetadataUpdateFailed:
		if st.SynchronizationStatus != nil {
			return st.SynchronizationStatus.Error
		}
	}
	return ""
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// describe copies what there is to know of the certificate; acquired is set by who acquires.
func describe(to *compassv1alpha1.CertificateStatus, c Certificate) {
	*to = compassv1alpha1.CertificateStatus{Acquired: to.Acquired}
	if !c.Present {
		return
	}
	renewAt := metav1.NewTime(c.RenewAt)
	to.NotBefore, to.NotAfter, to.RenewAt = metav1.NewTime(c.NotBefore), metav1.NewTime(c.NotAfter), &renewAt
	to.Subject, to.Issuer, to.Fingerprint = c.Subject, c.Issuer, c.Fingerprint
}
