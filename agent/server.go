package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/statuspage"
	"github.com/application-connector/application-connector/version"
)

// serve adds the servers. They run whether or not this agent is the one that acts: a standby is alive and ready too.
func (o Options) serve(mgr manager.Manager, caches []cache.Cache, r *connection.Reconciler, registry prometheus.Gatherer, health, metrics net.Listener) error {
	var synced atomic.Bool
	err := mgr.Add(onEveryAgent(func(ctx context.Context) error {
		for _, c := range caches {
			if !c.WaitForCacheSync(ctx) {
				return nil
			}
		}
		synced.Store(true)
		<-ctx.Done()
		return nil
	}))
	if err != nil {
		return err
	}
	probes := http.NewServeMux()
	alive := &healthz.Handler{Checks: map[string]healthz.Checker{"worker": func(*http.Request) error { return r.Alive() }}}
	ready := &healthz.Handler{Checks: map[string]healthz.Checker{"caches": func(*http.Request) error {
		if !synced.Load() {
			return errors.New("the caches are not synced yet")
		}
		return nil
	}}}
	for path, h := range map[string]http.Handler{"/healthz": alive, "/readyz": ready} {
		probes.Handle(path, http.StripPrefix(path, h))
		probes.Handle(path+"/", http.StripPrefix(path, h))
	}
	exposition := http.NewServeMux()
	exposition.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{registry, crmetrics.Registry}, promhttp.HandlerOpts{}))
	for name, s := range map[string]struct {
		listener net.Listener
		handler  http.Handler
	}{"health": {health, probes}, "metrics": {metrics, exposition}} {
		if err := addServer(mgr, name, s.listener, s.handler); err != nil {
			return err
		}
	}
	return nil
}

// serveStatusPage adds the page for people, on standbys too.
func (o Options) serveStatusPage(mgr manager.Manager, listener net.Listener, log *slog.Logger) error {
	host, _, err := net.SplitHostPort(o.StatusPageAddress)
	if err != nil {
		return err
	}
	return addServer(mgr, "status page", listener, statuspage.New(statuspage.Options{
		Objects: mgr.GetCache(), Events: mgr.GetAPIReader(), Controller: controllerName, Host: host, Version: version.String(), Clock: clock.RealClock{}, Log: log,
		Acts: func() bool {
			select {
			case <-mgr.Elected():
				return true
			default:
				return false
			}
		},
	}))
}

func addServer(mgr manager.Manager, name string, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 64 << 10}
	return mgr.Add(&manager.Server{Name: name, Server: server, Listener: listener, ShutdownTimeout: ptr.To(time.Second)})
}

// onEveryAgent runs on standbys too.
type onEveryAgent func(context.Context) error

// Start implements manager.Runnable.
func (f onEveryAgent) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (onEveryAgent) NeedLeaderElection() bool { return false }
