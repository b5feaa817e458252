package status_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// teller is a Writer with what it told.
type teller struct {
	status.Writer
	t          *testing.T
	connection *compassv1alpha1.CompassConnection
	registry   *prometheus.Registry
	recorder   *events.FakeRecorder
}

func newTeller(t *testing.T) *teller {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := compassv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	connection := &compassv1alpha1.CompassConnection{}
	connection.Name = compassv1alpha1.ConnectionName
	client := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(connection).WithObjects(connection.DeepCopy()).Build()
	w := &teller{t: t, connection: connection, registry: prometheus.NewPedanticRegistry(), recorder: events.NewFakeRecorder(100)}
	w.Writer = status.Writer{Client: client, Recorder: w.recorder, Metrics: status.NewMetrics(w.registry)}
	return w
}

// synced writes the status of a sync, and gives the events about it.
func (w *teller) synced(applied status.Applied) []string {
	w.t.Helper()
	before := w.connection.DeepCopy()
	status.Prepare(&w.connection.Status)
	status.Synced(&w.connection.Status, true, now)
	status.Counted(&w.connection.Status, applied)
	facts := status.Facts{Now: now, Certificate: valid, Called: true, Synced: true}
	status.Conclude(&w.connection.Status, facts, 1)
	if err := w.Write(w.t.Context(), before, w.connection, facts, nil); err != nil {
		w.t.Fatal(err)
	}
	var told []string
	for len(w.recorder.Events) > 0 {
		told = append(told, <-w.recorder.Events)
	}
	return told
}

func failure(id, reason string) compassv1alpha1.FailedApplication {
	return compassv1alpha1.FailedApplication{ID: id, Name: "System " + id, Reason: reason, Message: "why"}
}

func TestAnEventTellsOfASystemThatFailsOrFailsForAnotherReason(t *testing.T) {
	w := newTeller(t)
	several := func(n int) (all []compassv1alpha1.FailedApplication) {
		for i := range n {
			all = append(all, failure(fmt.Sprintf("%02d", i), "WriteFailed"))
		}
		return all
	}
	for _, test := range []struct {
		name     string
		failures []compassv1alpha1.FailedApplication
		want     []string
	}{
		{"none fails", nil, []string{"Normal Synchronized the connection is Synchronized"}},
		{"two fail", []compassv1alpha1.FailedApplication{failure("a", "InvalidName"), failure("b", "NameTaken")},
			[]string{"Warning ApplicationFailed System a (a): InvalidName: why", "Warning ApplicationFailed System b (b): NameTaken: why"}},
		{"the same two fail", []compassv1alpha1.FailedApplication{failure("a", "InvalidName"), failure("b", "NameTaken")}, nil},
		{"one has another reason", []compassv1alpha1.FailedApplication{failure("a", "WriteFailed"), failure("b", "NameTaken")}, []string{"Warning ApplicationFailed System a (a): WriteFailed: why"}},
		{"one is mended", []compassv1alpha1.FailedApplication{failure("b", "NameTaken")}, nil},
		{"it fails again", []compassv1alpha1.FailedApplication{failure("a", "WriteFailed"), failure("b", "NameTaken")}, []string{"Warning ApplicationFailed System a (a): WriteFailed: why"}},
	} {
		if diff := cmp.Diff(test.want, w.synced(status.Applied{Total: 2, Failed: len(test.failures), Failures: test.failures})); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
	if got := w.synced(status.Applied{Total: 20, Failed: 20, Failures: several(20)}); len(got) != 10 {
		t.Errorf("20 fail at once, and %d events tell of it: %q", len(got), got)
	}
}

// values are those of all gauges, by name and labels.
func (w *teller) values() map[string]float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if metric.GetGauge() == nil || family.GetName() == "compass_runtime_agent_condition" {
				continue
			}
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = metric.GetGauge().GetValue()
		}
	}
	return got
}

func TestGaugesShowTheLastSync(t *testing.T) {
	w := newTeller(t)
	w.Metrics.Failures(map[string]int{"InvalidName": 2, "NameTaken": 1})
	w.synced(status.Applied{Total: 12, Synced: 9, Ready: 7, Failed: 3, PendingDeletion: 2, Failures: []compassv1alpha1.FailedApplication{failure("a", "InvalidName")}})
	want := map[string]float64{
		"compass_runtime_agent_applications total":                       12,
		"compass_runtime_agent_applications synced":                      9,
		"compass_runtime_agent_applications ready":                       7,
		"compass_runtime_agent_applications failed":                      3,
		"compass_runtime_agent_applications pending_deletion":            2,
		"compass_runtime_agent_failed_applications InvalidName":          2,
		"compass_runtime_agent_failed_applications NameTaken":            1,
		"compass_runtime_agent_connection_up":                            1,
		"compass_runtime_agent_sync_last_success_timestamp_seconds":      float64(now.Unix()),
		"compass_runtime_agent_certificate_not_before_timestamp_seconds": float64(valid.NotBefore.Unix()),
		"compass_runtime_agent_certificate_not_after_timestamp_seconds":  float64(valid.NotAfter.Unix()),
		"compass_runtime_agent_certificate_renewal_timestamp_seconds":    float64(valid.RenewAt.Unix()),
	}
	if diff := cmp.Diff(want, w.values()); diff != "" {
		t.Error(diff)
	}

	w.Metrics.Failures(nil)
	w.synced(status.Applied{Total: 1, Synced: 1, Ready: 1})
	for _, gone := range []string{"InvalidName", "NameTaken"} {
		delete(want, "compass_runtime_agent_failed_applications "+gone)
	}
	for state, value := range map[string]float64{"total": 1, "synced": 1, "ready": 1, "failed": 0, "pending_deletion": 0} {
		want["compass_runtime_agent_applications "+state] = value
	}
	if diff := cmp.Diff(want, w.values()); diff != "" {
		t.Error(diff)
	}
}

func TestAnAnswerThatIsNotWholeIsNoFetchThatSucceeded(t *testing.T) {
	var st compassv1alpha1.CompassConnectionStatus
	status.Prepare(&st)
	status.Synced(&st, true, now)
	status.Synced(&st, false, now.Add(time.Hour))
	s := st.SynchronizationStatus
	if !s.LastSuccessfulFetch.Time.Equal(now) || !s.LastSuccessfulApplication.Time.Equal(now.Add(time.Hour)) || !s.LastAttempt.Time.Equal(now.Add(time.Hour)) {
		t.Errorf("status %+v", s)
	}
}
