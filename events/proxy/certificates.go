package proxy

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/application-connector/application-connector/events/binding"
	"github.com/application-connector/application-connector/events/identity"
)

// maxCertificates is how many clients' certificates are told of; beyond it, those not seen for the longest are left out.
const maxCertificates = 10_000

var certificateEnd = prometheus.NewDesc("validator_client_certificate_not_after_timestamp_seconds",
	"When the certificate ends that a client showed last, by Application and common name; only of those seen since the start.",
	[]string{"application", "client"}, nil)

// certificates tells when those of clients end. It implements prometheus.Collector.
type certificates struct {
	applications Applications // nil until the Handler is made
	ends         *lru.Cache[speaker, time.Time]
}

// speaker is a client that may speak for an Application.
type speaker struct{ application, client string }

func newCertificates() *certificates {
	ends, _ := lru.New[speaker, time.Time](maxCertificates) // fails only for a size of 0
	return &certificates{ends: ends}
}

// saw remembers the certificate of a client that may speak for an Application. So labels are what the cluster names, not what
// callers choose.
func (c *certificates) saw(application string, client identity.Identity) {
	if client.Certificate != nil {
		c.ends.Add(speaker{application, client.CommonName}, client.Certificate.NotAfter)
	}
}

// Describe implements prometheus.Collector.
func (c *certificates) Describe(to chan<- *prometheus.Desc) { to <- certificateEnd }

// Collect implements prometheus.Collector. It leaves out, and forgets, who may not speak for the Application any more.
func (c *certificates) Collect(to chan<- prometheus.Metric) {
	if c.applications == nil || !c.applications.Synced() {
		return
	}
	for _, s := range c.ends.Keys() {
		end, ok := c.ends.Peek(s)
		if !ok {
			continue
		}
		if err := (binding.Policy{}).Authorize(c.applications.Application(s.application), identity.Identity{CommonName: s.client}); err != nil {
			c.ends.Remove(s)
			continue
		}
		to <- prometheus.MustNewConstMetric(certificateEnd, prometheus.GaugeValue, float64(end.Unix()), s.application, s.client)
	}
}
