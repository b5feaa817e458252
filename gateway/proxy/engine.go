// Package proxy carries calls from workloads to external APIs. It owns paths, header fields, streaming, the second attempt
// after a refusal, timeouts and the errors that callers see. It applies credentials as values and knows nothing of where
// they come from, nor of Kubernetes.
package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/callers"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/settings"
	"github.com/application-connector/application-connector/gateway/transport"
	"github.com/application-connector/application-connector/secret"
)

// Header fields of the gateway's own.
const (
	// HeaderAccessToken, in a request, takes the place of the configured credential as Authorization.
	HeaderAccessToken = "Access-Token"
	// HeaderTargetStatus, in an answer 502, is the target's own status.
	HeaderTargetStatus = "Target-System-Status"
)

// Transports gives connections to targets.
type Transports interface {
	For(transport.Target) *transport.Transport
}

// Options of an Engine.
type Options struct {
	// Snapshot is the routes in force; nil while they are not known yet.
	Snapshot   func() *routes.Snapshot
	Resolver   *credentials.Resolver
	Transports Transports
	// Timeout bounds the time until a target's answer begins, and each pause in its body.
	Timeout time.Duration
	// RequestTimeout bounds the time in which a request's body must arrive; zero for no bound.
	RequestTimeout time.Duration
	Log            *slog.Logger
	// Tracers makes spans; with nil there are none, and trace contexts pass as they came.
	Tracers trace.TracerProvider
	// Mesh says which workload a call comes from.
	Mesh callers.Mesh
	// Observer is told of every call; may be nil.
	Observer Observer
	// Clock is for the pauses between renewals of credentials; nil for the real one.
	Clock clock.PassiveClock
}

// Engine carries calls. It is safe for concurrent use.
type Engine struct {
	options  Options
	tracer   trace.Tracer
	proxy    *httputil.ReverseProxy
	upgrades *upgrades
	renewals *renewals
}

// New returns an Engine.
func New(o Options) *Engine {
	e := &Engine{options: o, tracer: tracer(o.Tracers), upgrades: newUpgrades(), renewals: newRenewals(o.Clock)}
	e.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      e,
		ModifyResponse: modify,
		ErrorHandler:   e.proxyError,
		ErrorLog:       slog.NewLogLogger(discardHandler{}, slog.LevelDebug), // errors are in the access line
		BufferPool:     &buffers{},
	}
	return e
}

// discardHandler drops what ReverseProxy logs: it can quote URLs, and says nothing that the access line does not.
type discardHandler struct{}

func (discardHandler) Enabled(context.Context, slog.Level) bool  { return false }
func (discardHandler) Handle(context.Context, slog.Record) error { return nil }
func (d discardHandler) WithAttrs([]slog.Attr) slog.Handler      { return d }
func (d discardHandler) WithGroup(string) slog.Handler           { return d }

// buffers implements httputil.BufferPool.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// Services is the handler for /{application}/{service}[/path].
func (e *Engine) Services() http.Handler { return &handler{engine: e, segments: 2} }

// Entries is the handler for /{application}/{service}/{entry}[/path].
func (e *Engine) Entries() http.Handler { return &handler{engine: e, segments: 3} }

var errNotReady = errors.New("the Applications have not been read yet")

// find looks an address up.
func (e *Engine) find(a address) (*routes.Route, error) {
	snapshot := e.options.Snapshot()
	if snapshot == nil {
		return nil, errNotReady
	}
	if a.entries {
		return snapshot.Entry(a.application, a.service, a.entry)
	}
	return snapshot.Service(a.application, a.service)
}

// rewrite makes the request for the target out of the caller's. Hop-by-hop fields are gone already, so that no caller can
// name a field of ours in Connection; the credential is added later, for each attempt.
func rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In.Context())
	target := x.route.Target
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = target.Scheme, target.Host, ""
	p.Out.URL.Path, p.Out.URL.RawPath = joinPath(target, x.address.rest, x.route.EncodeURL)
	x.callersQuery = p.In.URL.RawQuery
	p.Out.URL.RawQuery, p.Out.URL.ForceQuery = joinQuery(target.RawQuery, x.callersQuery), false
	p.Out.Trailer = p.In.Trailer // not a copy: values come after the body, into this one
	if x.external {
		p.Out.Header.Del(HeaderAccessToken)
	}
	onlyWebSocket(p.Out.Header)
	// Identities of the mesh are nobody's business outside of it.
	p.Out.Header.Del("X-Forwarded-Client-Cert")
	for _, name := range []string{"Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := p.In.Header[name]; ok && !hopByHop(p.In.Header, name) {
			p.Out.Header[name] = values
		}
	}
	if ip, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil {
		chain := p.In.Header["X-Forwarded-For"]
		p.Out.Header["X-Forwarded-For"] = []string{strings.Join(append(chain[:len(chain):len(chain)], ip), ", ")}
	}
}

// hopByHop says whether the caller named a field in Connection.
func hopByHop(h http.Header, name string) bool {
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}

// modify makes the caller's answer out of the target's.
func modify(r *http.Response) error {
	x := exchangeOf(r.Request.Context())
	x.source = SourceNone
	r.Header.Del(HeaderReason) // it is ours to say
	rewriteHeader(r, "Location", x, r.StatusCode == http.StatusCreated || r.StatusCode >= 300 && r.StatusCode < 400)
	rewriteHeader(r, "Content-Location", x, true)
	for i, line := range r.Header["Set-Cookie"] {
		r.Header["Set-Cookie"][i] = rewriteCookiePath(line, x.route.Target, x.address.prefix)
	}
	if policy := x.route.Settings.Response; policy != nil {
		policy.Apply(r.Header)
		policy.Strip(r.Trailer)
		if r.StatusCode != http.StatusSwitchingProtocols {
			r.Body = &strippedTrailers{r.Body, r, policy}
		}
	}
	if r.StatusCode >= 500 && r.StatusCode < 600 {
		x.source, x.reason = SourceTarget, FailureTarget
		r.Header.Set(HeaderReason, FailureTarget)
		r.Header.Set(HeaderTargetStatus, strconv.Itoa(r.StatusCode))
		r.StatusCode, r.Status = http.StatusBadGateway, "502 Bad Gateway"
	}
	return nil
}

// rewriteHeader changes every value: how many a caller looks at, it decides itself.
func rewriteHeader(r *http.Response, name string, x *exchange, rewrite bool) {
	for i, value := range r.Header[name] {
		if value != "" {
			r.Header[name][i] = x.location(value, r.Request.URL, rewrite)
		}
	}
}

// strippedTrailers is the body of an answer, whose trailers are there when it is closed.
type strippedTrailers struct {
	io.ReadCloser
	of     *http.Response
	policy *settings.HeaderPolicy
}

// Close implements io.Closer.
func (s *strippedTrailers) Close() error {
	err := s.ReadCloser.Close()
	s.policy.Strip(s.of.Trailer)
	return err
}

// pauses says whether it is in an answer's nature to pause as long as it likes.
func pauses(r *http.Response) bool {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "text/event-stream" || strings.HasPrefix(kind, "application/grpc")
}

// externalToken is what the caller wants to be sent as Authorization in place of the configured credential.
func externalToken(h http.Header) secret.Value {
	if values := h[HeaderAccessToken]; len(values) > 0 {
		return secret.Value(values[0])
	}
	return ""
}
