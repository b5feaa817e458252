// Package events is the validator: the process that takes events from external systems behind the ingress gateway,
// proves which Application sent each, and hands it to the Eventing publisher. It owns the process: options, the watch on
// Applications, both listeners, health and the drain. What happens to a request is in package proxy.
//
// It knows Compass only through Application objects, and writes nothing to the cluster.
package events

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/application-connector/application-connector/events/binding"
	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/proxy"
	"github.com/application-connector/application-connector/tracing"
	"github.com/application-connector/application-connector/version"
)

// Time-outs of the listeners. A client has readTimeout for a whole event of at most MaxBodyBytes.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 128 << 10 // a forwarded chain of RSA-4096 certificates is about 20 KiB
)

// Execute is the program: it reads arguments and environment, logs to w and serves until ctx ends. The error is one
// line for the user; flag.ErrHelp says that only help was asked for, which is on w.
func Execute(ctx context.Context, args []string, lookup func(string) (string, bool), w io.Writer) error {
	o := NewOptions()
	fs := flag.NewFlagSet("validator", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // the error alone is the one line that a user needs
	fs.Usage = func() {}
	o.BindFlags(fs)
	showVersion := fs.Bool("version", false, "print the version and end")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(w, "Usage: validator [flags]\n\nEnvironment: %s=json|text, %s=debug|info|warn|error|fatal\n\nFlags:\n", EnvLogFormat, EnvLogLevel)
		fs.SetOutput(w)
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w (--help lists the flags)", err)
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q (--help lists the flags)", fs.Arg(0))
	}
	if *showVersion {
		_, err := fmt.Fprintln(w, version.Line("validator"))
		return err
	}
	o.Complete(lookup)
	if err := o.Validate(); err != nil {
		return err
	}
	log := o.newLog(w)
	adopt(log)
	// Until the last event is delivered, not until ctx ends.
	end, err := tracing.Start(context.WithoutCancel(ctx), "central-application-connectivity-validator", log)
	if err != nil {
		return err
	}
	defer end()
	return Run(ctx, *o, log)
}

// Run serves until ctx ends and everything is drained.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	s, err := Start(ctx, o, log)
	if err != nil {
		return err
	}
	return s.Wait()
}

// Server is a running validator.
type Server struct {
	proxy, admin net.Listener
	group        *errgroup.Group
	draining     atomic.Bool
	applications *applications
	log          *slog.Logger
}

// Start listens and returns; the server ends when ctx does. Options must have passed Complete and Validate.
func Start(ctx context.Context, o Options, log *slog.Logger) (_ *Server, err error) {
	config, err := o.restConfig()
	if err != nil {
		return nil, err
	}
	s := &Server{log: log}
	deniedBy, err := o.denied()
	if err != nil {
		return nil, err
	}
	if s.applications, err = newApplications(ctx, config, o.SyncPeriod, deniedBy, log); err != nil {
		return nil, err
	}
	if s.proxy, err = listen(ctx, "proxyPort", o.ListenAddress, o.ProxyPort); err != nil {
		return nil, err
	}
	if s.admin, err = listen(ctx, "externalAPIPort", o.ListenAddress, o.ExternalAPIPort); err != nil {
		return nil, errors.Join(err, s.proxy.Close())
	}
	mesh, err := o.meshConfig()
	if err != nil {
		return nil, errors.Join(err, s.proxy.Close(), s.admin.Close())
	}
	warn(o, log)
	log.Info("validator listens", "proxy", s.proxy.Addr().String(), "admin", s.admin.Addr().String(), "options", o)
	s.serve(ctx, o, func(ctx context.Context) {
		// Trusted hops are what the mesh adds. With none there is no mesh to look at.
		if mesh != nil && o.TrustedHops > 0 && s.applications.cache.WaitForCacheSync(ctx) {
			checkMesh(ctx, config, *mesh, log)
		}
	})
	return s, nil
}

// ProxyAddr is where events come in.
func (s *Server) ProxyAddr() net.Addr { return s.proxy.Addr() }

// AdminAddr is where health and metrics are.
func (s *Server) AdminAddr() net.Addr { return s.admin.Addr() }

// Wait returns when the server has ended.
func (s *Server) Wait() error { return s.group.Wait() }

func listen(ctx context.Context, flagName, address string, port int) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("--%s=%d: can't listen, choose a free port: %w", flagName, port, err)
	}
	return l, nil
}

// warn says aloud what weakens the proof of identity.
func warn(o Options, log *slog.Logger) {
	if o.XFCCMode == ModeCompatible {
		log.Warn("xfccMode=compatible: whoever reaches the proxy port can choose an identity; use strict in production")
	}
	if o.TrustedHops == 0 {
		log.Warn("trustedHops=0: the direct peer's word is taken for the client's identity; let nothing but the TLS terminator reach the proxy port")
	}
	if o.IdentityHeader == identity.ClientCertHeader && o.TrustedHops > 0 {
		log.Info("identityHeader=Client-Cert: the ingress gateway must set it on each request, and so remove what a client sends")
	}
	if o.SourcePolicy == string(proxy.SourceOff) {
		log.Warn("sourcePolicy=off: an Application can send events in the name of another one")
	}
}

// serve runs begin once, beside everything else.
func (s *Server) serve(ctx context.Context, o Options, begin func(context.Context)) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.register(registry)
	transport := proxy.NewTransport()
	proxied := proxy.Config{
		Applications: s.applications,
		Verifier: identity.Verifier{
			TrustedHops: o.TrustedHops, IngressIdentity: o.IngressIdentity, Compatible: o.XFCCMode == ModeCompatible, Header: o.IdentityHeader,
		},
		Policy: binding.Policy{MatchOrganization: o.MatchOrganization}, Limits: o.limits(),
		Compatible: o.XFCCMode == ModeCompatible, Paths: o.Paths, PublisherHost: o.PublisherHost,
		DestinationPath: o.DestinationPath, SourcePolicy: proxy.SourcePolicy(o.SourcePolicy), MaxBodyBytes: o.MaxBodyBytes,
		Timeout: o.PublisherTimeout, Attempts: o.PublisherAttempts, RetryWindow: o.RetryWindow, Clock: o.Clock, Metrics: proxy.NewMetrics(registry), Log: s.log, Transport: tracedTransport(transport),
	}
	if s.applications.denied != nil {
		proxied.Denied = s.applications.denied
	}
	events := s.server(s.leaving(traced(proxy.New(proxied))), o)
	admin := s.server(s.adminHandler(registry), o)

	// Listeners and informer outlive ctx until the drain is over.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.group, running = errgroup.WithContext(running)
	s.group.Go(func() error { return s.applications.cache.Start(running) })
	s.group.Go(func() error { begin(running); return nil })
	s.group.Go(func() error { return ended(events.Serve(s.proxy)) })
	s.group.Go(func() error { return ended(admin.Serve(s.admin)) })
	s.group.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
		case <-running.Done(): // one of the others failed
		}
		s.draining.Store(true)
		s.log.Info("validator drains", "delay", o.DrainDelay.String(), "timeout", o.ShutdownTimeout.String())
		select {
		case <-o.Clock.After(o.DrainDelay):
		case <-running.Done():
		}
		err := errors.Join(shutdown(events, o.ShutdownTimeout), shutdown(admin, o.ShutdownTimeout))
		transport.CloseIdleConnections()
		return err
	})
}

// leaving closes each connection with its answer once the validator drains, so that its client sends the next event elsewhere
// before it meets a connection that is closed.
func (s *Server) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) server(handler http.Handler, o Options) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + o.PublisherTimeout + o.RetryWindow + 10*time.Second, // counts from the end of the request's header
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown waits for requests in flight, and breaks those that outlast the timeout.
func shutdown(server *http.Server, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests in flight were cut after %s: %w", timeout, err), server.Close())
	}
	return nil
}

func (s *Server) register(registry prometheus.Registerer) {
	registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "validator_applications", Help: "Applications known, 0 until they are loaded.",
		}, s.applications.count),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "validator_denied_certificates", Help: "Certificates on the list of denied ones.",
		}, func() float64 { n, _ := s.applications.denied.count(); return n }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "validator_denied_certificates_unreadable", Help: "Lines of the list of denied certificates that can't be read and deny nothing.",
		}, func() float64 { _, n := s.applications.denied.count(); return n }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "validator_ready", Help: "1 if the validator is ready, else 0.",
		}, func() float64 {
			if s.notReady() == "" {
				return 1
			}
			return 0
		}),
	)
}

// notReady is why the Pod should get no traffic, or empty.
func (s *Server) notReady() string {
	switch {
	case s.draining.Load():
		return "draining"
	case !s.applications.informer.HasSynced():
		return "Applications are not loaded yet"
	case !s.applications.Synced():
		return "denied certificates are not loaded yet"
	}
	return ""
}

func (s *Server) adminHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	// The older path says only that the process answers, as it always did.
	mux.HandleFunc("/v1/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := s.notReady(); reason != "" {
			http.Error(w, reason, http.StatusServiceUnavailable)
		}
	})
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
