package status_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var valid = status.Certificate{Present: true, NotBefore: now.AddDate(0, 0, -10), NotAfter: now.AddDate(0, 0, 80), RenewAt: now.AddDate(0, 0, 55), Subject: "CN=me", Issuer: "CN=ca", Fingerprint: "f"}

// conditions writes conditions as "Type=Status/Reason".
func conditions(st compassv1alpha1.CompassConnectionStatus) map[string]string {
	all := map[string]string{}
	for _, c := range st.Conditions {
		all[c.Type] = string(c.Status) + "/" + c.Reason
		if c.ObservedGeneration != 7 || c.LastTransitionTime.IsZero() {
			all[c.Type] += " without generation or time"
		}
	}
	return all
}

func TestConditionsSumUpWhatWasFound(t *testing.T) {
	type S = compassv1alpha1.CompassConnectionStatus
	good := map[string]string{"Ready": "True/Ready", "Connected": "True/Connected", "CertificateReady": "True/Valid", "ApplicationsSynced": "True/Synced"}
	with := func(changes ...string) map[string]string {
		all := map[string]string{}
		for k, v := range good {
			all[k] = v
		}
		for i := 0; i < len(changes); i += 2 {
			all[changes[i]] = changes[i+1]
		}
		return all
	}
	synced := status.Facts{Now: now, Certificate: valid, Called: true, Synced: true}
	wellBefore := func(st *S) {
		status.Synced(st, true, now)
		status.Conclude(st, synced, 7)
	}
	for name, test := range map[string]struct {
		before func(*S)
		after  func(*S)
		facts  status.Facts
		want   map[string]string
	}{
		"synchronised": {after: func(st *S) { status.Synced(st, true, now) }, facts: synced, want: good},
		"paired, not synced yet": {
			after: func(st *S) { status.Paired(st, now) }, facts: status.Facts{Now: now, Certificate: valid},
			want: map[string]string{"Ready": "False/NotTriedYet", "Connected": "Unknown/NotTriedYet", "CertificateReady": "True/Valid", "ApplicationsSynced": "Unknown/NotTriedYet", "Reconciling": "True/Progressing"},
		},
		"pairing failed": {
			after: func(st *S) {
				status.ConnectionError(st, compassv1alpha1.ConnectionFailed, "no", now)
				st.ConsecutiveFailures = 1
			}, facts: status.Facts{Now: now},
			want: map[string]string{"Ready": "False/NotPaired", "Connected": "False/NotPaired", "CertificateReady": "False/Missing", "ApplicationsSynced": "Unknown/NotTriedYet", "Reconciling": "True/Retrying"},
		},
		"pairing failed, and nothing but a token helps": {
			after: func(st *S) { status.ConnectionError(st, compassv1alpha1.ConnectionFailed, "no", now) },
			facts: status.Facts{Now: now, Stalled: status.ReasonTokenNeeded, StalledMessage: "token"},
			want:  map[string]string{"Ready": "False/NotPaired", "Connected": "False/NotPaired", "CertificateReady": "False/Missing", "ApplicationsSynced": "Unknown/NotTriedYet", "Stalled": "True/TokenNeeded"},
		},
		"cert-manager does not renew the certificate": {
			after: func(st *S) { status.Synced(st, true, now) },
			facts: status.Facts{Now: now, Certificate: troubled(valid, "it does not answer"), Called: true, Synced: true},
			want:  with("CertificateReady", "True/RenewalFailing"),
		},
		"the cluster does not take the CA Secret": {
			after: func(st *S) { status.Synced(st, true, now) },
			facts: status.Facts{Now: now, Certificate: unwritten(valid, "writing Secret ca: Forbidden"), Called: true, Synced: true},
			want:  with("CertificateReady", "False/SecretNotWritten", "Ready", "False/SecretNotWritten", "Reconciling", "True/Progressing"),
		},
		"cert-manager did not renew the certificate": {
			after: func(st *S) { status.Synced(st, true, now.AddDate(0, 0, 90)) },
			facts: status.Facts{Now: now.AddDate(0, 0, 90), Certificate: troubled(valid, "it does not answer"), Called: true, Synced: true},
			want:  with("Ready", "False/Expired", "CertificateReady", "False/Expired", "Reconciling", "True/Progressing"),
		},
		"maintenance failed": {
			before: wellBefore, after: func(st *S) {
				status.ConnectionError(st, compassv1alpha1.ConnectionMaintenanceFailed, "no", now)
				st.ConsecutiveFailures = 1
			}, facts: status.Facts{Now: now, Certificate: valid, Called: true, CallError: "no"},
			want: with("Ready", "False/CallFailed", "Connected", "False/CallFailed", "Reconciling", "True/Retrying"),
		},
		"maintenance failed, but the sync after it did not": {
			before: wellBefore, after: func(st *S) {
				status.ConnectionError(st, compassv1alpha1.ConnectionMaintenanceFailed, "no", now)
				st.ConsecutiveFailures = 1
			}, facts: synced,
			want: with("Ready", "False/ConnectionMaintenanceFailed", "Reconciling", "True/Retrying"),
		},
		"the fetch failed": {
			before: wellBefore, after: func(st *S) {
				status.SyncError(st, compassv1alpha1.SynchronizationFailed, "no", false, now)
				st.ConsecutiveFailures = 1
			}, facts: status.Facts{Now: now, Certificate: valid, Called: true, CallError: "no"},
			want: with("Ready", "False/CallFailed", "Connected", "False/CallFailed", "ApplicationsSynced", "False/SyncFailed", "Reconciling", "True/Retrying"),
		},
		"the cluster did not take it": {
			before: wellBefore, after: func(st *S) {
				status.SyncError(st, compassv1alpha1.ResourceApplicationFailed, "no", true, now)
				st.ConsecutiveFailures = 1
			}, facts: status.Facts{Now: now, Certificate: valid, Called: true},
			want: with("Ready", "False/SyncFailed", "ApplicationsSynced", "False/SyncFailed", "Reconciling", "True/Retrying"),
		},
		"the labels failed": {
			before: wellBefore, after: func(st *S) {
				status.SyncError(st, compassv1alpha1.MetadataUpdateFailed, "no", true, now)
				st.ConsecutiveFailures = 1
			}, facts: synced,
			want: with("Ready", "False/MetadataUpdateFailed", "Reconciling", "True/Retrying"),
		},
		"some Applications failed": {
			after: func(st *S) {
				status.Synced(st, true, now)
				status.Counted(st, status.Applied{Total: 2, Synced: 1, Failed: 1, Failures: []compassv1alpha1.FailedApplication{{ID: "1", Name: "a", Reason: "Why"}}})
			}, facts: synced,
			want: with("Ready", "False/ApplicationsFailed", "ApplicationsSynced", "False/ApplicationsFailed", "Reconciling", "True/Progressing"),
		},
		"deletions are held back": {
			after: func(st *S) { status.Synced(st, true, now) }, facts: status.Facts{Now: now, Certificate: valid, Called: true, Synced: true, PruneBlocked: "too many"},
			want: with("PruneBlocked", "True/Guarded"),
		},
		"nothing was tried": {
			before: func(st *S) {
				wellBefore(st)
				status.Conclude(st, status.Facts{Now: now, Certificate: valid, Synced: true, PruneBlocked: "too many"}, 7)
			}, after: func(*S) {}, facts: status.Facts{Now: now, Idle: true, Certificate: valid}, want: with("PruneBlocked", "True/Guarded"),
		},
		"nothing was tried while stalled": {
			before: func(st *S) {
				status.ConnectionError(st, compassv1alpha1.ConnectionFailed, "no", now)
				status.Conclude(st, status.Facts{Now: now, Stalled: status.ReasonTokenNeeded, StalledMessage: "token"}, 7)
			}, after: func(*S) {}, facts: status.Facts{Now: now, Idle: true},
			want: map[string]string{"Ready": "False/NotPaired", "Connected": "False/NotPaired", "CertificateReady": "False/Missing", "ApplicationsSynced": "Unknown/NotTriedYet", "Stalled": "True/TokenNeeded"},
		},
		"the certificate has ended": {
			before: wellBefore, after: func(*S) {}, facts: status.Facts{Now: valid.NotAfter, Idle: true, Certificate: valid},
			want: with("Ready", "False/Expired", "CertificateReady", "False/Expired", "Reconciling", "True/Progressing"),
		},
		"the renewal is overdue": {
			before: wellBefore, after: func(*S) {}, facts: status.Facts{Now: valid.RenewAt.AddDate(0, 0, 13), Idle: true, Certificate: valid},
			want: with("Ready", "False/RenewalOverdue", "CertificateReady", "False/RenewalOverdue", "Reconciling", "True/Progressing"),
		},
		"the certificate begins later": {
			before: wellBefore, after: func(*S) {}, facts: status.Facts{Now: valid.NotBefore.Add(-time.Hour), Idle: true, Certificate: valid},
			want: with("Ready", "False/NotYetValid", "CertificateReady", "False/NotYetValid", "Reconciling", "True/Progressing"),
		},
		"no sync for long": {
			before: wellBefore, after: func(st *S) {
				status.SyncError(st, compassv1alpha1.SynchronizationFailed, "no", false, now.Add(time.Hour))
				st.ConsecutiveFailures = 9
			}, facts: status.Facts{Now: now.Add(time.Hour + time.Second), Certificate: valid, Called: true, CallError: "no", StaleAfter: time.Hour},
			want: with("Ready", "False/CallFailed", "Connected", "False/CallFailed", "ApplicationsSynced", "False/SyncFailed", "Reconciling", "True/Retrying", "Stale", "True/NotSyncedForLong"),
		},
		"no sync, but not for long": {
			before: wellBefore, after: func(*S) {}, facts: status.Facts{Now: now.Add(time.Hour), Idle: true, Certificate: valid, StaleAfter: time.Hour}, want: good,
		},
		"never a sync, for long": {
			after: func(st *S) { status.Paired(st, now) }, facts: status.Facts{Now: now.Add(2 * time.Hour), Idle: true, Certificate: valid, StaleAfter: time.Hour},
			want: map[string]string{"Ready": "False/NotTriedYet", "Connected": "Unknown/NotTriedYet", "CertificateReady": "True/Valid", "ApplicationsSynced": "Unknown/NotTriedYet", "Reconciling": "True/Progressing", "Stale": "True/NotSyncedForLong"},
		},
		"a sync after none for long": {
			before: func(st *S) {
				wellBefore(st)
				status.Conclude(st, status.Facts{Now: now.Add(2 * time.Hour), Idle: true, Certificate: valid, StaleAfter: time.Hour}, 7)
			}, after: func(st *S) { status.Synced(st, true, now.Add(2*time.Hour)) },
			facts: status.Facts{Now: now.Add(2 * time.Hour), Certificate: valid, Called: true, Synced: true, StaleAfter: time.Hour}, want: good,
		},
		"the client Secret is damaged": {
			after: func(st *S) { status.ConnectionError(st, compassv1alpha1.ConnectionFailed, "no", now) },
			facts: status.Facts{Now: now, Certificate: status.Certificate{Damaged: "no key"}},
			want:  map[string]string{"Ready": "False/NotPaired", "Connected": "False/NotPaired", "CertificateReady": "False/Damaged", "ApplicationsSynced": "Unknown/NotTriedYet", "Reconciling": "True/Progressing"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var st S
			status.Prepare(&st)
			if test.before != nil {
				test.before(&st)
			}
			test.after(&st)
			status.Conclude(&st, test.facts, 7)
			if diff := cmp.Diff(test.want, conditions(st)); diff != "" {
				t.Error(diff)
			}
			if st.ObservedGeneration != 7 {
				t.Errorf("observedGeneration %d", st.ObservedGeneration)
			}
		})
	}
}

// troubled is a certificate that nobody can replace.
func unwritten(c status.Certificate, why string) status.Certificate {
	c.Unwritten = why
	return c
}

func troubled(c status.Certificate, trouble string) status.Certificate {
	c.Trouble = trouble
	return c
}

func TestWhatIsWaitedForAndWhatIsInTroubleIsTold(t *testing.T) {
	var st compassv1alpha1.CompassConnectionStatus
	status.Prepare(&st)
	told := func(kind string) string {
		for _, c := range st.Conditions {
			if c.Type == kind {
				return c.Message
			}
		}
		return ""
	}
	status.Conclude(&st, status.Facts{Now: now, Progress: "somebody is to come"}, 7)
	for range 2 {
		if got := told("Reconciling"); got != "somebody is to come" {
			t.Error(got)
		}
		status.Conclude(&st, status.Facts{Now: now, Idle: true}, 7) // nothing was done that would be another news
	}
	status.Conclude(&st, status.Facts{Now: now}, 7)
	if got := told("Reconciling"); got != "work is under way" {
		t.Error(got)
	}
	for at, want := range map[time.Time]string{
		now:                   "the client certificate is valid until 2026-05-20T12:00:00Z and will be renewed at 2026-04-25T12:00:00Z; cert-manager is away",
		now.AddDate(0, 0, 90): "the client certificate ended at 2026-05-20T12:00:00Z; cert-manager is away",
	} {
		status.Conclude(&st, status.Facts{Now: at, Certificate: troubled(valid, "cert-manager is away")}, 7)
		if got := told("CertificateReady"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestTransitionsKeepWhatEarlierSyncsReached(t *testing.T) {
	var st compassv1alpha1.CompassConnectionStatus
	status.Prepare(&st)
	status.Paired(&st, now)
	status.Synced(&st, true, now.Add(time.Minute))
	status.SyncError(&st, compassv1alpha1.SynchronizationFailed, strings.Repeat("x", 5000), false, now.Add(2*time.Minute))
	status.Renewed(&st, now.Add(3*time.Minute))
	at := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(d)) }
	want := compassv1alpha1.CompassConnectionStatus{
		State: compassv1alpha1.SynchronizationFailed,
		ConnectionStatus: &compassv1alpha1.ConnectionStatus{
			Established: at(0), Renewed: at(3 * time.Minute), LastSync: at(3 * time.Minute), LastSuccess: at(3 * time.Minute),
			CertificateStatus: compassv1alpha1.CertificateStatus{Acquired: at(3 * time.Minute)},
		},
		SynchronizationStatus: &compassv1alpha1.SynchronizationStatus{
			LastAttempt: at(2 * time.Minute), LastSuccessfulFetch: at(time.Minute), LastSuccessfulApplication: at(time.Minute),
			Error: strings.Repeat("x", 1000) + "…",
		},
	}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Error(diff)
	}
}

func TestFailedApplicationsAreBoundedAndNamedOnce(t *testing.T) {
	var st compassv1alpha1.CompassConnectionStatus
	var failures []compassv1alpha1.FailedApplication
	for i := range 120 {
		failures = append(failures, compassv1alpha1.FailedApplication{ID: fmt.Sprintf("%03d", (119-i)/2), Message: strings.Repeat("x", 2000)})
	}
	unready := []compassv1alpha1.FailedApplication{{ID: "b", Name: "B", Reason: "Pending", Message: "not yet"}, {ID: "a", Name: "A", Reason: "PrivateKeyMissing", Message: "no key"}}
	status.Counted(&st, status.Applied{Total: 200, Synced: 140, Ready: 138, Failed: 60, PendingDeletion: 3, Failures: failures, NotReady: unready})
	want := compassv1alpha1.CompassConnectionStatus{
		Applications:        &compassv1alpha1.ApplicationCounts{Total: 200, Synced: 140, Ready: 138, Failed: 60, PendingDeletion: 3},
		UnreadyApplications: []compassv1alpha1.FailedApplication{unready[1], unready[0]},
	}
	for i := range status.MaxFailedApplications {
		want.FailedApplications = append(want.FailedApplications, compassv1alpha1.FailedApplication{ID: fmt.Sprintf("%03d", i), Message: strings.Repeat("x", 1000) + "…"})
	}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	status.Counted(&st, status.Applied{NotReady: failures})
	if len(st.UnreadyApplications) != status.MaxFailedApplications || st.FailedApplications != nil {
		t.Errorf("%d unready applications, failed: %+v", len(st.UnreadyApplications), st.FailedApplications)
	}
}

func TestRequestsAndRenewalsAreCountedByWhatBecameOfThem(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := status.NewMetrics(registry)
	m.Request("viewer", "")
	m.Request("viewer", "Throttled")
	m.Renewal("due", nil)
	m.Renewal("due", errors.New("no"))
	m.SyncTook(time.Second)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetCounter() == nil {
				continue
			}
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetName() + "=" + label.GetValue()
			}
			got[name] = metric.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"compass_runtime_agent_compass_requests_total code=OK operation=viewer":        1,
		"compass_runtime_agent_compass_requests_total code=Throttled operation=viewer": 1,
		"compass_runtime_agent_drift_repairs_total":                                    0,
		"compass_runtime_agent_renewals_total reason=due result=failure":               1,
		"compass_runtime_agent_renewals_total reason=due result=success":               1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEachConditionIsShownAsANumber(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	writer := status.Writer{Metrics: status.NewMetrics(registry)}
	show := func(facts status.Facts) map[string]float64 {
		t.Helper()
		connection := &compassv1alpha1.CompassConnection{}
		status.Prepare(&connection.Status)
		status.Synced(&connection.Status, true, now)
		status.Conclude(&connection.Status, facts, 7)
		// Without a difference nothing is patched and no event sent.
		if err := writer.Write(t.Context(), connection, connection, facts, nil); err != nil {
			t.Fatal(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				switch family.GetName() {
				case "compass_runtime_agent_condition":
					got[metric.GetLabel()[0].GetValue()] = metric.GetGauge().GetValue()
				case "compass_runtime_agent_connection_up":
					got["up"] = metric.GetGauge().GetValue()
				}
			}
		}
		return got
	}
	held := status.Facts{Now: now, Certificate: valid, Called: true, Synced: true, PruneBlocked: "too many"}
	want := map[string]float64{"Ready": 1, "Connected": 1, "CertificateReady": 1, "ApplicationsSynced": 1, "Reconciling": 0, "Stalled": 0, "PruneBlocked": 1, "Stale": 0, "up": 1}
	if diff := cmp.Diff(want, show(held)); diff != "" {
		t.Error(diff)
	}
	broken := status.Facts{Now: now, Certificate: valid, Called: true, CallError: "refused", Synced: true, Stalled: status.ReasonTokenNeeded}
	want = map[string]float64{"Ready": 0, "Connected": 0, "CertificateReady": 1, "ApplicationsSynced": 1, "Reconciling": 0, "Stalled": 1, "PruneBlocked": 0, "Stale": 0, "up": 0}
	if diff := cmp.Diff(want, show(broken)); diff != "" {
		t.Error(diff)
	}
}
