package controller

import (
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
	clusters *prometheus.Desc
	states   func() map[State]int // nil until there is something to count
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
		clusters: prometheus.NewDesc(namespace+"_clusters", "Clusters by state; only where a controller acts.", []string{"state"}, nil),
		actions:  counter("actions_total", "What was done in Compass and in clusters, by action (register, adopt, token, offboard).", "action"),
		failures: counter("failures_total", "Attempts at clusters that failed, by reason.", "reason"),
		requests: counter("director_requests_total", "Requests to Director, by operation and code (OK, or the kind of error).", "operation", "code"),
	}
	for _, action := range []string{actionRegister, actionAdopt, actionToken, actionOffboard} {
		m.actions.WithLabelValues(action)
	}
	r.MustRegister(m, m.actions, m.failures, m.requests)
	return m
}

// count tells where the states are to be had. It is called before anything is collected.
func (m *Metrics) count(states func() map[State]int) { m.states = states }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) { to <- m.clusters }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	if m.states == nil {
		return
	}
	found := m.states()
	for _, state := range States() {
		to <- prometheus.MustNewConstMetric(m.clusters, prometheus.GaugeValue, float64(found[state]), string(state))
	}
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
