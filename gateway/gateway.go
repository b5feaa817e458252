// Package gateway is the outbound gateway: workloads call external APIs through it by plain HTTP, and it adds the
// credentials that each API's Application names. It owns the process: settings, ports, start, drain. It knows Compass only
// through Applications and Secrets.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/admin"
	"github.com/application-connector/application-connector/gateway/callers"
	"github.com/application-connector/application-connector/gateway/conditions"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/csrf"
	"github.com/application-connector/application-connector/gateway/proxy"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/tokens"
	"github.com/application-connector/application-connector/gateway/transport"
	"github.com/application-connector/application-connector/tracing"
)

const (
	// drainTimeout is how long calls in flight may go on when the gateway ends. Kubernetes gives a pod 30 seconds.
	drainTimeout = 25 * time.Second
	// keepAlive is how long a caller's idle connection stays open: longer than callers keep theirs, for what a server
	// closes first, a client may just have used.
	keepAlive   = 2 * time.Minute
	headerLimit = http.DefaultMaxHeaderBytes // bytes of a request's header: what the gateway before this one took
)

// Addresses are where a Gateway listens.
type Addresses struct {
	Services, Entries, Admin string // host:port
}

// Gateway is one process's worth of gateway. It listens from New on and serves from Run on.
type Gateway struct {
	options   Options
	log       *slog.Logger
	metrics   *metrics
	watcher   *routes.Watcher
	writer    *conditions.Writer
	pool      *transport.Pool
	tokens    *tokens.Manager
	sessions  *csrf.Manager
	engine    *proxy.Engine
	listeners [3]net.Listener
	draining  atomic.Bool
}

// Run is New and Gateway.Run. o must be complete.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	g, err := New(o, log)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// New builds a gateway and opens its ports. It does not call the API server.
func New(o Options, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{options: o, log: log, metrics: newMetrics()}
	g.pool = transport.New(transport.Options{Roots: o.roots, Guard: o.guard, Shaken: g.metrics.shaken})
	var err error
	if g.watcher, err = routes.NewWatcher(o.Config, routes.Options{Namespace: o.SecretsNamespace, Log: log, Changed: g.changed}); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	if g.writer, err = conditions.NewWriter(o.Config, conditions.Options{
		Source: g.watcher, Namespace: o.SecretsNamespace, Identity: host + "_" + uuid.NewString(), Clock: clock.RealClock{}, Log: log,
	}); err != nil {
		return nil, err
	}
	timeout := time.Duration(o.ProxyTimeout) * time.Second
	through := func(direct bool) func(string, *credentials.Identity, credentials.Trust) http.RoundTripper {
		return func(host string, identity *credentials.Identity, trust credentials.Trust) http.RoundTripper {
			return g.pool.For(transport.Target{Host: host, Identity: identity, Trust: trust, Direct: direct})
		}
	}
	g.tokens = tokens.New(tokens.Options{Transports: through(true), Timeout: timeout, Clock: clock.RealClock{}, Fetched: g.metrics.tokenFetched, Looked: g.metrics.looked("token")})
	g.sessions = csrf.New(csrf.Options{Transports: through(false), Timeout: timeout, Clock: clock.RealClock{}, Fetched: g.metrics.csrfFetched, Looked: g.metrics.looked("csrf")})
	g.metrics.registry.MustRegister(newCollector(g.watcher.Snapshot, map[string]func() int{"token": g.tokens.Len, "csrf": g.sessions.Len}, g.pool.NotAfter))
	proxies, err := callers.ParseProxies(o.MeshProxies)
	if err != nil {
		return nil, fmt.Errorf("-meshProxies: %w", err)
	}
	g.engine = proxy.New(proxy.Options{
		Mesh:     callers.Mesh{Proxies: proxies},
		Snapshot: g.watcher.Snapshot, Resolver: &credentials.Resolver{Tokens: g.tokens, Sessions: g.sessions}, Transports: g.pool,
		Timeout: timeout, RequestTimeout: time.Duration(o.RequestTimeout) * time.Second, Log: log, Observer: g.metrics, Tracers: tracing.Provider(),
	})
	for i, port := range []int{o.ProxyPort, o.ProxyPortCompass, o.ExternalAPIPort} {
		if g.listeners[i], err = net.Listen("tcp", net.JoinHostPort(o.ListenAddress, strconv.Itoa(port))); err != nil {
			g.close()
			return nil, fmt.Errorf("port %d cannot be opened, choose another one by a flag or end what uses it: %w", port, err)
		}
	}
	return g, nil
}

// Addresses are where it listens.
func (g *Gateway) Addresses() Addresses {
	return Addresses{g.listeners[0].Addr().String(), g.listeners[1].Addr().String(), g.listeners[2].Addr().String()}
}

// Ready says why the gateway should get no calls; nil if it should.
func (g *Gateway) Ready() error {
	switch {
	case g.draining.Load():
		return errors.New("the gateway is ending")
	case g.watcher.Snapshot() == nil:
		return errors.New("the Applications and their Secrets have not been read yet")
	}
	return nil
}

// Run serves until ctx ends, then lets calls in flight finish, up to a bound, and returns nil.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.close()
	var work errgroup.Group
	background, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx, so that draining calls find routes
	defer stop()
	failed := make(chan error, 5)
	start := func(what string, f func() error) {
		work.Go(func() error {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	start("routes", func() error { return g.watcher.Run(background) })
	start("conditions", func() error { return g.writer.Run(background) })
	servers := g.servers()
	for i, s := range servers {
		start(g.listeners[i].Addr().String(), func() error { return s.Serve(g.listeners[i]) })
	}
	a := g.Addresses()
	g.log.Info("listening", "services", a.Services, "entries", a.Entries, "admin", a.Admin)

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	g.draining.Store(true)
	if err == nil {
		g.log.Info("not ready any more", "delay", g.options.DrainDelay.String())
		select {
		case <-g.options.Clock.After(g.options.DrainDelay):
		case err = <-failed:
		}
	}
	g.drain(servers)
	stop()
	g.tokens.Close()
	g.sessions.Close()
	_ = work.Wait() // its functions report through failed
	return err
}

func (g *Gateway) servers() []*http.Server {
	handlers := []http.Handler{
		g.leaving(g.engine.Services()), g.leaving(g.engine.Entries()),
		admin.New(admin.Options{Level: g.options.level, Ready: g.Ready, Metrics: g.metrics.handler()}),
	}
	// HTTP/2 without TLS for those who know that it is spoken here, such as gRPC.
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	timeout := time.Duration(g.options.RequestTimeout) * time.Second
	var servers []*http.Server
	for i, h := range handlers {
		s := &http.Server{
			Handler: h, ReadHeaderTimeout: timeout, IdleTimeout: max(timeout, keepAlive), MaxHeaderBytes: headerLimit,
			Protocols: protocols, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		}
		if i == len(handlers)-1 { // the admin port carries no streams
			s.ReadTimeout, s.WriteTimeout = timeout, timeout
		}
		servers = append(servers, s)
	}
	return servers
}

// leaving closes each connection with its answer once the gateway is ending, so that its caller makes the next one elsewhere
// before it meets a connection that is closed. A WebSocket has no next call.
func (g *Gateway) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.draining.Load() && !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// drain lets the two proxy ports finish side by side, and WebSockets, then closes the admin port.
func (g *Gateway) drain(servers []*http.Server) {
	g.log.Info("draining", "timeout", drainTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	proxies, admin := servers[:len(servers)-1], servers[len(servers)-1]
	for _, s := range proxies {
		wg.Go(func() {
			if err := s.Shutdown(ctx); err != nil {
				g.log.Warn("calls were cut off, for they did not finish in time", "error", err)
				_ = s.Close()
			}
		})
	}
	wg.Wait()
	if n := g.engine.Drain(ctx); n > 0 {
		g.log.Warn("WebSockets were closed", "connections", n)
	}
	_ = admin.Close()
}

// close gives up what New opened.
func (g *Gateway) close() {
	for _, l := range g.listeners {
		if l != nil {
			_ = l.Close() // closing twice is an error that means nothing here
		}
	}
	g.writer.Close()
	g.tokens.Close()
	g.sessions.Close()
	g.pool.CloseIdleConnections()
}

// changed follows a new snapshot.
func (g *Gateway) changed(names []string) {
	snapshot := g.watcher.Snapshot()
	g.metrics.snapshotChanged(snapshot)
	for _, name := range names {
		r, ok := snapshot.Report(name)
		if !ok {
			continue
		}
		if r.SkipVerify {
			g.log.Warn("TLS verification is off for this Application (spec.skipVerify): whoever stands between can read its credentials", "application", name)
		}
		for _, p := range r.Problems {
			if p.Reason == routes.ReasonCallersUnused {
				g.log.Warn("an API may be open to more callers than was meant", "application", name, "problem", p.Message)
			}
		}
	}
	g.writer.Changed(names)
}

// Knows says why a generation of an Application, or a later one, is not in force yet; nil if it is.
func (g *Gateway) Knows(application string, generation int64) error {
	snapshot := g.watcher.Snapshot()
	if snapshot == nil {
		return errors.New("the Applications have not been read yet")
	}
	report, ok := snapshot.Report(application)
	if !ok || report.Generation < generation {
		return fmt.Errorf("generation %d of %s is in force, not %d yet", report.Generation, application, generation)
	}
	return nil
}
