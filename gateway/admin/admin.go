// Package admin is what the gateway tells operators over HTTP: health, readiness, metrics, and the log level. It knows
// nothing of what the gateway does.
package admin

import (
	"net/http"
	"path"
	"strings"

	"github.com/application-connector/application-connector/gateway/proxy"
)

// Options of the handler.
type Options struct {
	Level *Level
	// Ready says why the gateway should get no calls; nil if it should.
	Ready func() error
	// Metrics serves /metrics.
	Metrics http.Handler
}

// New returns the handler of the admin port.
func New(o Options) http.Handler {
	alive := get(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	endpoints := map[string]http.Handler{
		"/v1/health":   alive,
		"/v1/loglevel": o.Level,
		"/livez":       alive,
		"/readyz": get(func(w http.ResponseWriter, _ *http.Request) {
			if err := o.Ready(); err != nil {
				proxy.WriteError(w, http.StatusServiceUnavailable, err.Error())
			}
		}),
		"/metrics": get(o.Metrics.ServeHTTP),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := path.Clean(r.URL.Path)
		if strings.HasSuffix(r.URL.Path, "/") && clean != "/" {
			clean += "/"
		}
		if clean != r.URL.Path && strings.HasPrefix(clean, "/") {
			http.Redirect(w, r, clean, http.StatusMovedPermanently) //nolint:gosec // a clean path begins with one slash: it stays on this host
			return
		}
		endpoint, ok := endpoints[r.URL.Path]
		if !ok {
			proxy.WriteError(w, http.StatusNotFound, "Requested resource could not be found.")
			return
		}
		endpoint.ServeHTTP(w, r)
	})
}

func get(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			notAllowed(w)
			return
		}
		f(w, r)
	})
}

func notAllowed(w http.ResponseWriter) {
	proxy.WriteError(w, http.StatusMethodNotAllowed, "Method not allowed.")
}
