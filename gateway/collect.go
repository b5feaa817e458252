package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/application-connector/application-connector/gateway/proxy"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/transport"
)

// collector reads, when it is asked, what stands in routes and caches.
type collector struct {
	snapshot func() *routes.Snapshot
	cached   map[string]func() int // by the name of the cache
	shown    func(transport.Target) (notAfter time.Time, ok bool)

	inFlight, breaker, certificate, target, entries *prometheus.Desc
}

func newCollector(snapshot func() *routes.Snapshot, cached map[string]func() int, shown func(transport.Target) (time.Time, bool)) *collector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(metricsPrefix, "", name), help, labels, nil)
	}
	api := []string{"application", "service", "entry"}
	return &collector{
		snapshot: snapshot, cached: cached, shown: shown,
		inFlight:    describe("limited_requests_in_flight", "Calls that have not ended, of APIs with limits.", api...),
		breaker:     describe("breaker_open", "1 while the circuit breaker of an API keeps calls back, else 0.", api...),
		certificate: describe("client_certificate_not_after_timestamp_seconds", "When the client certificate of an API's credentials ends.", api...),
		target:      describe("target_certificate_not_after_timestamp_seconds", "When the certificate ends that an API showed last.", api...),
		entries:     describe("cache_entries", "Tokens and CSRF sessions that are kept.", "cache"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.inFlight, c.breaker, c.certificate, c.target, c.entries} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for cache, size := range c.cached {
		gauge(c.entries, float64(size()), cache)
	}
	snapshot := c.snapshot()
	if snapshot == nil {
		return
	}
	for r := range snapshot.Routes() {
		if r.Gate != nil {
			state := r.Gate.State()
			gauge(c.inFlight, float64(state.InFlight), r.Application, r.Service, r.Entry)
			if r.Settings.Limits.Breaker.Failures > 0 {
				open := 0.0
				if state.Open {
					open = 1
				}
				gauge(c.breaker, open, r.Application, r.Service, r.Entry)
			}
		}
		if r.Credentials == nil {
			continue
		}
		if r.Refused == nil && r.Target.Scheme == "https" {
			if notAfter, ok := c.shown(proxy.Connection(r, r.Credentials.Identity)); ok {
				gauge(c.target, float64(notAfter.Unix()), r.Application, r.Service, r.Entry)
			}
		}
		identity := r.Credentials.Identity
		if identity == nil && r.Credentials.Token != nil {
			identity = r.Credentials.Token.Identity
		}
		if identity != nil {
			gauge(c.certificate, float64(identity.Certificate.Leaf.NotAfter.Unix()), r.Application, r.Service, r.Entry)
		}
	}
}
