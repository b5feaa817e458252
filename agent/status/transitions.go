package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// MaxFailedApplications bounds status.failedApplications, and status.unreadyApplications.
const MaxFailedApplications = 50

// maxMessage bounds texts that come from outside, in bytes. The note of an event may have 1024.
const maxMessage = 1000

// Bound cuts a text to what a status may hold.
func Bound(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "…"
}

// Prepare fills in what the resource definition requires.
func Prepare(st *compassv1alpha1.CompassConnectionStatus) {
	if st.ConnectionStatus == nil {
		st.ConnectionStatus = &compassv1alpha1.ConnectionStatus{}
	}
}

// Attempted notes a call to the Connector, or with a new certificate.
func Attempted(st *compassv1alpha1.CompassConnectionStatus, now time.Time) {
	st.ConnectionStatus.LastSync = metav1.NewTime(now)
}

// Paired notes that a certificate is current that was had by a token.
func Paired(st *compassv1alpha1.CompassConnectionStatus, now time.Time) {
	st.State = compassv1alpha1.Connected
	c := st.ConnectionStatus
	c.Established, c.LastSync, c.LastSuccess, c.Error = metav1.NewTime(now), metav1.NewTime(now), metav1.NewTime(now), ""
	c.Renewed = metav1.Time{}
	c.CertificateStatus.Acquired = metav1.NewTime(now)
}

// Adopted notes that a certificate which the cluster had is current again.
func Adopted(st *compassv1alpha1.CompassConnectionStatus, established, renewed time.Time) {
	st.State = compassv1alpha1.Connected
	st.ConnectionStatus.Error = ""
	Dated(st, established, renewed)
}

// Dated notes when the current certificate was had, as far as that is known.
func Dated(st *compassv1alpha1.CompassConnectionStatus, established, renewed time.Time) {
	c := st.ConnectionStatus
	if !established.IsZero() {
		c.Established = metav1.NewTime(established)
		c.CertificateStatus.Acquired = metav1.NewTime(established)
	}
	if !renewed.IsZero() {
		c.Renewed = metav1.NewTime(renewed)
		c.CertificateStatus.Acquired = metav1.NewTime(renewed)
	}
}

// Renewed notes that a certificate is current that was had over mTLS.
func Renewed(st *compassv1alpha1.CompassConnectionStatus, now time.Time) {
	Maintained(st, now)
	st.ConnectionStatus.Renewed = metav1.NewTime(now)
	st.ConnectionStatus.CertificateStatus.Acquired = metav1.NewTime(now)
}

// Maintained notes a successful call with the client certificate.
func Maintained(st *compassv1alpha1.CompassConnectionStatus, now time.Time) {
	c := st.ConnectionStatus
	c.LastSync, c.LastSuccess, c.Error = metav1.NewTime(now), metav1.NewTime(now), ""
	if st.State == compassv1alpha1.ConnectionMaintenanceFailed || st.State == compassv1alpha1.ConnectionFailed || st.State == "" {
		st.State = compassv1alpha1.Connected
	}
}

// ConnectionError notes a failed pairing (state ConnectionFailed) or a failed maintenance (ConnectionMaintenanceFailed).
func ConnectionError(st *compassv1alpha1.CompassConnectionStatus, state compassv1alpha1.ConnectionState, message string, now time.Time) {
	st.State = state
	st.ConnectionStatus.LastSync = metav1.NewTime(now)
	st.ConnectionStatus.Error = Bound(message)
}

// SyncError notes a sync that failed as a whole; fetched says whether Director's answer was whole. What earlier syncs reached
// stays.
func SyncError(st *compassv1alpha1.CompassConnectionStatus, state compassv1alpha1.ConnectionState, message string, fetched bool, now time.Time) {
	st.State = state
	s := synchronization(st)
	s.LastAttempt, s.Error = metav1.NewTime(now), Bound(message)
	if fetched {
		s.LastSuccessfulFetch = metav1.NewTime(now)
	}
}

// Applied is what a sync did to the Applications.
type Applied struct {
	// Total, Synced, Failed and PendingDeletion count Applications; Ready those of Synced that have all credentials.
	Total, Synced, Ready, Failed, PendingDeletion int
	// Failures names those that failed.
	Failures []compassv1alpha1.FailedApplication
	// NotReady names those of Synced that are not of Ready.
	NotReady []compassv1alpha1.FailedApplication
	// Missing tells of those that are kept until further answers confirm their absence.
	Missing []compassv1alpha1.MissingApplications
}

// Counted notes how many Applications are in place.
func Counted(st *compassv1alpha1.CompassConnectionStatus, a Applied) {
	st.Applications = &compassv1alpha1.ApplicationCounts{
		Total: int32(a.Total), Synced: int32(a.Synced), Ready: int32(a.Ready), Failed: int32(a.Failed), PendingDeletion: int32(a.PendingDeletion),
	}
	st.MissingApplications = a.Missing
	st.FailedApplications, st.UnreadyApplications = listed(a.Failures), listed(a.NotReady)
}

// listed is a list as a status may hold it: in the order of ids, each once.
func listed(all []compassv1alpha1.FailedApplication) []compassv1alpha1.FailedApplication {
	list := slices.Clone(all)
	slices.SortFunc(list, func(a, b compassv1alpha1.FailedApplication) int { return strings.Compare(a.ID, b.ID) })
	list = slices.CompactFunc(list, func(a, b compassv1alpha1.FailedApplication) bool { return a.ID == b.ID })
	list = list[:min(len(list), MaxFailedApplications)]
	for i := range list {
		list[i].Message = Bound(list[i].Message)
	}
	return list
}

// Synced notes a sync that ran to its end; complete says whether Director's answer was whole.
func Synced(st *compassv1alpha1.CompassConnectionStatus, complete bool, now time.Time) {
	st.State = compassv1alpha1.Synchronized
	s := synchronization(st)
	s.LastAttempt, s.LastSuccessfulApplication, s.Error = metav1.NewTime(now), metav1.NewTime(now), ""
	if complete {
		s.LastSuccessfulFetch = metav1.NewTime(now)
	}
}

// Applying notes that Applications are in place although what follows them failed.
func Applying(st *compassv1alpha1.CompassConnectionStatus, now time.Time) {
	synchronization(st).LastSuccessfulApplication = metav1.NewTime(now)
}

func synchronization(st *compassv1alpha1.CompassConnectionStatus) *compassv1alpha1.SynchronizationStatus {
	if st.SynchronizationStatus == nil {
		st.SynchronizationStatus = &compassv1alpha1.SynchronizationStatus{}
	}
	return st.SynchronizationStatus
}

func failures(st *compassv1alpha1.CompassConnectionStatus) string {
	var names []string
	for i, f := range st.FailedApplications {
		if i == 3 {
			names = append(names, "…")
			break
		}
		names = append(names, fmt.Sprintf("%s (%s)", f.Name, f.Reason))
	}
	return fmt.Sprintf("%d of %d Applications failed: %s; see status.failedApplications", st.Applications.Failed, st.Applications.Total, strings.Join(names, ", "))
}
