package gateway

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/application-connector/application-connector/gateway/proxy"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/transport"
)

const metricsPrefix = "central_application_gateway"

// metrics are what /metrics shows. Labels hold names of Applications and services that exist, never what a caller sent.
type metrics struct {
	registry      *prometheus.Registry
	requests      *prometheus.CounterVec
	errors        *prometheus.CounterVec
	lookups       *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	inFlight      prometheus.Gauge
	tokenFetches  *prometheus.CounterVec
	csrfFetches   *prometheus.CounterVec
	handshakes    *prometheus.CounterVec
	snapshots     prometheus.Counter
	applications  prometheus.Gauge
	problems      *prometheus.GaugeVec
	verifyOff     prometheus.Gauge
	routesUpdated prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: metricsPrefix, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: metricsPrefix, Name: name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("requests_total", "Calls that ended, by what the caller got.", "application", "service", "entry", "code", "source"),
		errors:   counter("errors_total", "Calls that ended by an error, by its reason.", "application", "service", "entry", "reason"),
		lookups:  counter("cache_lookups_total", "Times that a token or a CSRF session was asked for.", "cache", "result"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: metricsPrefix, Name: "request_duration_seconds", Help: "Time from a call's header to the end of its answer.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"application", "service"}),
		inFlight:     gauge("requests_in_flight", "Calls that have not ended."),
		tokenFetches: counter("token_fetches_total", "Calls to token endpoints.", "type", "result"),
		csrfFetches:  counter("csrf_fetches_total", "Calls to CSRF token endpoints.", "result"),
		handshakes:   counter("tls_handshakes_total", "TLS handshakes with APIs and token endpoints, by how they came out.", "outcome"),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metricsPrefix, Name: "route_snapshots_total", Help: "Times that changed Applications or Secrets were put in force.",
		}),
		applications: gauge("applications", "Applications that are known."),
		problems: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: metricsPrefix, Name: "route_problems", Help: "Faults in Applications and their Secrets, as in the condition RoutesReady.",
		}, []string{"reason"}),
		verifyOff:     gauge("applications_without_tls_verification", "Applications with spec.skipVerify."),
		routesUpdated: gauge("route_snapshot_timestamp_seconds", "When changed Applications or Secrets were last put in force."),
	}
	m.registry.MustRegister(
		m.requests, m.errors, m.lookups, m.duration, m.inFlight, m.tokenFetches, m.csrfFetches, m.handshakes, m.snapshots, m.applications, m.problems, m.verifyOff, m.routesUpdated,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Begin implements proxy.Observer.
func (m *metrics) Begin() func(proxy.Call) {
	m.inFlight.Inc()
	return func(c proxy.Call) {
		m.inFlight.Dec()
		m.requests.WithLabelValues(c.Application, c.Service, c.Entry, code(c.Status), string(c.Source)).Inc()
		if c.Reason != "" {
			m.errors.WithLabelValues(c.Application, c.Service, c.Entry, c.Reason).Inc()
		}
		m.duration.WithLabelValues(c.Application, c.Service).Observe(c.Duration.Seconds())
	}
}

// code is a status as a label: itself if it has a name, or is the one for callers who left; else, for targets can make up as many
// as they like, its class, such as 2xx.
func code(status int) string {
	if http.StatusText(status) != "" || status == 499 {
		return strconv.Itoa(status)
	}
	return strconv.Itoa(status/100) + "xx"
}

func result(err error) string {
	if err != nil {
		return "failure"
	}
	return "success"
}

func (m *metrics) tokenFetched(kind string, err error) {
	m.tokenFetches.WithLabelValues(kind, result(err)).Inc()
}

func (m *metrics) csrfFetched(err error) { m.csrfFetches.WithLabelValues(result(err)).Inc() }

func (m *metrics) shaken(o transport.Outcome) { m.handshakes.WithLabelValues(string(o)).Inc() }

// looked returns what counts look-ups in a cache.
func (m *metrics) looked(cache string) func(found bool) {
	hit, miss := m.lookups.WithLabelValues(cache, "hit"), m.lookups.WithLabelValues(cache, "miss")
	return func(found bool) {
		if found {
			hit.Inc()
		} else {
			miss.Inc()
		}
	}
}

// snapshotChanged counts anew what a snapshot holds.
func (m *metrics) snapshotChanged(s *routes.Snapshot) {
	m.snapshots.Inc()
	m.routesUpdated.SetToCurrentTime()
	names := s.Applications()
	m.applications.Set(float64(len(names)))
	problems := map[routes.Reason]int{}
	unverified := 0
	for _, name := range names {
		report, _ := s.Report(name)
		if report.SkipVerify {
			unverified++
		}
		for _, p := range report.Problems {
			problems[p.Reason]++
		}
	}
	m.verifyOff.Set(float64(unverified))
	m.problems.Reset()
	for reason, n := range problems {
		m.problems.WithLabelValues(string(reason)).Set(float64(n))
	}
}
