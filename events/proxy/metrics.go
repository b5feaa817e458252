package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// unknown is the label under which all names that are no Application's are counted: callers choose the name, so it must
// not become a label.
const unknown = "(unknown)"

// Metrics are the numbers of one Handler.
type Metrics struct {
	requests   *prometheus.CounterVec
	publisher  *prometheus.HistogramVec
	retries    *prometheus.CounterVec
	inFlight   prometheus.Gauge
	violations *prometheus.CounterVec
	surplus    prometheus.Counter

	certificates *certificates
}

// NewMetrics registers the metrics; it panics if they are registered already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "validator_requests_total",
			Help: "Requests answered, by Application, route, status code, decision and reason.",
		}, []string{"application", "route", "code", "decision", "reason"}),
		publisher: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "validator_publisher_duration_seconds",
			Help:    "Time until the publisher answered with a header, or did not answer (code 0), by route and code.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}, []string{"route", "code"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "validator_publisher_retries_total",
			Help: "Attempts to deliver an event after the first, by route.",
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "validator_requests_in_flight",
			Help: "Requests that are being served.",
		}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "validator_source_violations_total",
			Help: "Events whose source is not the Application's, or can't be read, by Application and by what was done.",
		}, []string{"application", "action"}),
		surplus: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "validator_surplus_elements_total",
			Help: "Requests refused since the ingress gateway forwarded elements of X-Forwarded-Client-Cert that it should replace.",
		}),
	}
	m.certificates = newCertificates()
	for _, route := range []Route{RouteV1, RouteV2, RouteEvents} {
		m.retries.WithLabelValues(string(route)) // so that an alert sees 0 before it sees 1
	}
	registry.MustRegister(m.requests, m.publisher, m.retries, m.inFlight, m.violations, m.surplus, m.certificates)
	return m
}

func (m *Metrics) request(d decision) {
	m.requests.WithLabelValues(d.label(), string(d.route), strconv.Itoa(d.status), d.outcome, string(d.reason)).Inc()
}

func (m *Metrics) published(route Route, code int, took time.Duration) {
	m.publisher.WithLabelValues(string(route), strconv.Itoa(code)).Observe(took.Seconds())
}
