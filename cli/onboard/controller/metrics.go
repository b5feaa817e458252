package controller

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/application-connector/application-connector/graphql"
)

const namespace = "appconn_onboard"

// Values of the label action.
const (
	actionRegister = "register"
	actionAdopt    = "adopt"
	actionToken    = "token"
	actionOffboard = "offboard"
)

// Metrics of the controller. It is safe for concurrent use.
type Metrics struct {
	clusters, reasons, unverified, acting *prometheus.Desc
	memory                                func() tally // nil until there is something to count
	acts                                  atomic.Bool

	actions  *prometheus.CounterVec
	failures *prometheus.CounterVec
	requests *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m := &Metrics{
		clusters:   prometheus.NewDesc(namespace+"_clusters", "Clusters by state; only where a controller acts.", []string{"state"}, nil),
		reasons:    prometheus.NewDesc(namespace+"_cluster_reasons", "Clusters by the reason of their state; only where a controller acts.", []string{"reason"}, nil),
		unverified: prometheus.NewDesc(namespace+"_unverified_clusters", "Clusters whose kubeconfig does not verify the API server; only where a controller acts.", nil, nil),
		acting:     prometheus.NewDesc(namespace+"_acting", "1 where a controller acts, 0 where it waits for the Lease.", nil, nil),
		actions:    counter("actions_total", "What was done in Compass and in clusters, by action (register, adopt, token, offboard).", "action"),
		failures:   counter("failures_total", "Attempts at clusters that failed, by reason.", "reason"),
		requests:   counter("director_requests_total", "Requests to Director, by operation and code (OK, or the kind of error).", "operation", "code"),
	}
	for _, action := range []string{actionRegister, actionAdopt, actionToken, actionOffboard} {
		m.actions.WithLabelValues(action)
	}
	r.MustRegister(m, m.actions, m.failures, m.requests)
	return m
}

// count tells where the clusters are to be had. It is called before anything is collected.
func (m *Metrics) count(memory func() tally) { m.memory = memory }

// leads notes that this controller acts.
func (m *Metrics) leads() { m.acts.Store(true) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.clusters, m.reasons, m.unverified, m.acting} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	acts := 0
	if m.acts.Load() {
		acts = 1
	}
	gauge(m.acting, acts)
	if m.memory == nil {
		return
	}
	found := m.memory()
	for _, state := range States() {
		gauge(m.clusters, found.states[state], string(state))
	}
	for _, reason := range Reasons() {
		gauge(m.reasons, found.reasons[reason], string(reason))
	}
	gauge(m.unverified, found.unverified)
}

func (m *Metrics) did(action string) { m.actions.WithLabelValues(action).Inc() }

func (m *Metrics) failed(reason Reason) { m.failures.WithLabelValues(string(reason)).Inc() }

// requested counts a request to Director.
func (m *Metrics) requested(operation string, err error) {
	code := "OK"
	if err != nil {
		code = string(graphql.KindOf(err))
	}
	m.requests.WithLabelValues(operation, code).Inc()
}
