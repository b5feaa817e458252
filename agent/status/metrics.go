package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

const namespace = "compass_runtime_agent"

// Metrics of the agent. It is safe for concurrent use.
type Metrics struct {
	notBefore, notAfter, renewAt prometheus.Gauge
	renewals                     *prometheus.CounterVec
	requests                     *prometheus.CounterVec
	up                           prometheus.Gauge
	duration                     prometheus.Histogram
	lastSuccess                  prometheus.Gauge
	conditions                   *prometheus.GaugeVec
	applications                 *prometheus.GaugeVec
	failures                     *prometheus.GaugeVec
	repairs                      prometheus.Counter
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	}
	m := &Metrics{
		notBefore:   gauge("certificate_not_before_timestamp_seconds", "Start of the validity of the client certificate, in Unix time; 0 without one."),
		notAfter:    gauge("certificate_not_after_timestamp_seconds", "End of the validity of the client certificate, in Unix time; 0 without one."),
		renewAt:     gauge("certificate_renewal_timestamp_seconds", "When the client certificate will be renewed, in Unix time; 0 without one."),
		up:          gauge("connection_up", "1 if the last call to Compass with the client certificate succeeded, else 0."),
		lastSuccess: gauge("sync_last_success_timestamp_seconds", "When a sync last ran to its end, in Unix time; 0 if never."),
		conditions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "condition",
			Help: "1 while the condition of the CompassConnection is True, else 0; only where an agent acts and there is a CompassConnection."}, []string{"type"}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "renewals_total",
			Help: "Attempts to get a client certificate, by result (success, failure) and reason (pairing, due, requested)."}, []string{"result", "reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "compass_requests_total",
			Help: "Calls to Compass, by operation and code (OK, or the kind of error)."}, []string{"operation", "code"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "sync_duration_seconds",
			Help: "Time from the first query to the last write of a sync.", Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}}),
		applications: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "applications",
			Help: "Applications after the last sync, by state (total, synced, ready, failed, pending_deletion)."}, []string{"state"}),
		failures: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "failed_applications",
			Help: "Systems that the last sync could not bring into place, by reason."}, []string{"reason"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "drift_repairs_total",
			Help: "Applications that somebody changed, or whose Secrets somebody changed, and that were repaired between syncs."}),
	}
	r.MustRegister(m.conditions, m.failures, m.repairs, m.notBefore, m.notAfter, m.renewAt, m.up, m.lastSuccess, m.renewals, m.requests, m.duration, m.applications)
	return m
}

// Renewal counts an attempt to get a client certificate.
func (m *Metrics) Renewal(reason string, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	m.renewals.WithLabelValues(result, reason).Inc()
}

// Request counts a call to Compass; code is empty for success.
func (m *Metrics) Request(operation, code string) {
	if code == "" {
		code = "OK"
	}
	m.requests.WithLabelValues(operation, code).Inc()
}

// SyncTook notes how long a sync took.
func (m *Metrics) SyncTook(d time.Duration) { m.duration.Observe(d.Seconds()) }

// DriftRepaired counts an Application that was repaired between syncs.
func (m *Metrics) DriftRepaired() { m.repairs.Inc() }

// Failures shows how many systems the last sync could not bring into place, by reason.
func (m *Metrics) Failures(byReason map[string]int) {
	m.failures.Reset()
	for reason, count := range byReason {
		m.failures.WithLabelValues(reason).Set(float64(count))
	}
}

// Gone takes back what is shown of a CompassConnection and its certificate: there is none any more.
func (m *Metrics) Gone() {
	m.conditions.Reset()
	for _, g := range []prometheus.Gauge{m.notBefore, m.notAfter, m.renewAt, m.up} {
		g.Set(0)
	}
}

// conditions are the types of all conditions that a CompassConnection may have.
var conditions = []string{
	compassv1alpha1.ConditionReady, compassv1alpha1.ConditionConnected, compassv1alpha1.ConditionCertificateReady, compassv1alpha1.ConditionApplicationsSynced,
	compassv1alpha1.ConditionReconciling, compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionPruneBlocked,
	compassv1alpha1.ConditionStale,
}

// holds is 1 if a condition is True, else 0.
func holds(st *compassv1alpha1.CompassConnectionStatus, kind string) float64 {
	if isTrue(st, kind) {
		return 1
	}
	return 0
}

// observe shows a written status.
func (m *Metrics) observe(st *compassv1alpha1.CompassConnectionStatus, f Facts) {
	unix := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return float64(t.Unix())
	}
	m.notBefore.Set(unix(f.Certificate.NotBefore))
	m.notAfter.Set(unix(f.Certificate.NotAfter))
	m.renewAt.Set(unix(f.Certificate.RenewAt))
	m.up.Set(holds(st, compassv1alpha1.ConditionConnected))
	for _, kind := range conditions {
		m.conditions.WithLabelValues(kind).Set(holds(st, kind))
	}
	if s := st.SynchronizationStatus; s != nil {
		m.lastSuccess.Set(unix(s.LastSuccessfulApplication.Time))
	}
	if a := st.Applications; a != nil {
		m.applications.WithLabelValues("total").Set(float64(a.Total))
		m.applications.WithLabelValues("synced").Set(float64(a.Synced))
		m.applications.WithLabelValues("ready").Set(float64(a.Ready))
		m.applications.WithLabelValues("failed").Set(float64(a.Failed))
		m.applications.WithLabelValues("pending_deletion").Set(float64(a.PendingDeletion))
	}
}
