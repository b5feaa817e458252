package proxy

import (
	"log/slog"
	"sync/atomic"
)

// surplusWarning is how many requests with surplus elements it takes to say that the mesh is set up wrong. One could be a
// test; what comes through a gateway that replaces the header never has any.
const surplusWarning = 3

// surplus warns once of a mesh that forwards what clients claim about themselves. Nothing of the mesh's settings can be
// seen from here before requests come, and an ingress gateway that forwards shows only when a client sends the header.
type surplus struct{ n atomic.Int64 }

func (s *surplus) seen(log *slog.Logger) {
	if s.n.Add(1) == surplusWarning {
		log.Warn("the ingress gateway forwards X-Forwarded-Client-Cert of clients, or there are more proxies than trustedHops says: such requests are refused; set forwardClientCertDetails of the gateway to SANITIZE_SET")
	}
}
