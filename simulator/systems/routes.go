package systems

import (
	"net/http"
	"strings"
)

// Listener is one of the sockets.
type Listener string

// The sockets.
const (
	Plain   Listener = "http"
	TLS     Listener = "https"
	MTLS    Listener = "mtls"
	Expired Listener = "expired"
	Admin   Listener = "admin"
)

// Route is one line of the table of endpoints in docs/reference/simulator-systems.md.
type Route struct {
	// Method is the HTTP method, or "any".
	Method string
	// Path is a pattern; one that ends in "/…" takes everything below, untouched.
	Path string
	// Listeners are where it is served.
	Listeners []Listener
}

type route struct {
	Route
	serve http.HandlerFunc
}

var (
	open  = []Listener{Plain, TLS, MTLS, Expired}
	clear = []Listener{Plain, TLS}
	certs = []Listener{MTLS, Expired}
	admin = []Listener{Admin}
)

func (s *Server) routes() []route {
	r := func(method, path string, on []Listener, serve http.HandlerFunc) route {
		return route{Route{method, path, on}, serve}
	}
	return []route{
		// What the tour calls, one per kind of credential.
		r("any", "/api/none/…", open, s.api("none", s.anyone)),
		r("any", "/api/basic/…", open, s.api("basic", s.basic)),
		r("any", "/api/oauth/…", open, s.api("oauth", s.bearer)),
		r("any", "/api/oauth-mtls/…", open, s.api("oauth-mtls", s.bearerOfCertificate)),
		r("any", "/api/certificate/…", certs, s.api("certificate", s.certificate)),
		r("any", "/api/csrf/…", open, s.api("csrf", s.csrf)),
		r("any", "/api/parameters/…", open, s.api("parameters", s.parameters)),
		r("POST", "/oauth/token", open, s.tokenEndpoint),
		r("POST", "/oauth-mtls/token", certs, s.mtlsTokenEndpoint),

		// Odd answers.
		r("any", "/echo/…", open, s.api("echo", s.anyone)),
		r("any", "/redirect/{code}", open, redirect),
		r("any", "/status/{code}", open, status),
		r("GET", "/sse", open, s.sse),
		r("GET", "/websocket", open, s.websocket),
		r("any", "/slow", open, s.slow),
		r("GET", "/large/{bytes}", open, large),

		// What the gateway's conformance cases call.
		r("GET", "/v1/health", open, ok),
		r("POST", "/v1/api/oauth/token", clear, s.conformanceToken),
		r("POST", "/v1/api/oauth/bad-token", clear, s.conformanceBadToken),
		r("GET", "/v1/api/csrf/token", clear, s.conformanceCSRF),
		r("GET", "/v1/api/csrf/bad-token", clear, s.conformanceBadCSRF),
		r("GET", "/v1/api/unsecure/ok", clear, ok),
		r("PUT", "/v1/api/unsecure/echo", clear, echo),
		r("POST", "/v1/api/unsecure/echo", clear, echo),
		r("DELETE", "/v1/api/unsecure/echo", clear, echo),
		r("GET", "/v1/api/unsecure/code/{code}", clear, status),
		r("GET", "/v1/api/unsecure/timeout", clear, timeout),
		r("GET", "/v1/api/basic/ok", clear, s.needsBasic(ok)),
		r("GET", "/v1/api/oauth/ok", clear, s.needsToken(ok)),
		r("GET", "/v1/api/csrf-basic/ok", clear, s.needsCSRF(s.needsBasic(ok))),
		r("GET", "/v1/api/csrf-oauth/ok", clear, s.needsCSRF(s.needsToken(ok))),
		r("GET", "/v1/api/request-parameters-basic/ok", clear, needsParameters(s.needsBasic(ok))),
		r("GET", "/v1/api/redirect/ok", clear, redirectTo("/v1/api/redirect/ok/target")),
		r("GET", "/v1/api/redirect/ok/target", clear, ok),
		r("GET", "/v1/api/redirect/basic", clear, redirectTo("/v1/api/redirect/basic/target")),
		r("GET", "/v1/api/redirect/basic/target", clear, s.needsBasic(ok)),
		r("GET", "/v1/api/redirect/external", clear, redirectTo(s.o.ExternalRedirect)),
		r("POST", "/v1/api/mtls-oauth/token", certs, s.conformanceMTLSToken),
		r("GET", "/v1/api/mtls/ok", certs, ok),
		r("GET", "/v1/api/csrf-mtls/ok", certs, s.needsCSRF(ok)),

		r("GET", "/counts", admin, s.adminCounts),
		r("GET", "/ca", admin, s.adminCA),
		r("PUT", "/credentials", admin, s.adminCredentials),
		r("PUT", "/token-lifetime", admin, s.adminTokenLifetime),
		r("DELETE", "/tokens", admin, s.adminDo(s.RevokeTokens)),
		r("DELETE", "/sessions", admin, s.adminDo(s.ExpireSessions)),
		r("POST", "/client-certificates/{cn}", admin, s.adminIssue),
		r("DELETE", "/client-certificates/{cn}", admin, s.adminRevoke),
	}
}

// Routes lists the endpoints.
func (s *Server) Routes() []Route {
	var out []Route
	for _, r := range s.routes() {
		out = append(out, r.Route)
	}
	return out
}

// handler serves the routes of one listener. Those that take everything below stand before the mux, which would redirect
// requests whose path is not clean: what the gateway made of a path is to be seen as it is.
func (s *Server) handler(on Listener) http.Handler {
	type prefix struct {
		path  string
		serve http.Handler
	}
	var prefixes []prefix
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		for _, l := range r.Listeners {
			if l != on {
				continue
			}
			serve := s.counted(r)
			if path, below := strings.CutSuffix(r.Path, "/…"); below {
				prefixes = append(prefixes, prefix{path, serve})
			} else if r.Method == "any" {
				mux.Handle(r.Path, serve)
			} else {
				mux.Handle(r.Method+" "+r.Path, serve)
			}
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.o.Log.Debug("request", "listener", on, "method", r.Method, "path", r.URL.EscapedPath(), "proto", r.Proto)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		for _, p := range prefixes {
			if rest, below := strings.CutPrefix(r.URL.EscapedPath(), p.path); below && (rest == "" || rest[0] == '/') {
				p.serve.ServeHTTP(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) counted(r route) http.Handler {
	name := r.Method + " " + r.Path
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		watched := &watchedWriter{ResponseWriter: w}
		defer func() { s.state.count(name, watched.status >= http.StatusBadRequest) }()
		r.serve(watched, req)
	})
}

// watchedWriter remembers the status. Unwrap lets http.ResponseController reach Flush and Hijack.
type watchedWriter struct {
	http.ResponseWriter
	status int
}

func (w *watchedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
