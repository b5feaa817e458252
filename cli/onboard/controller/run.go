package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/application-connector/application-connector/graphql"
)

const (
	// controllerName names the controller in logs and metrics.
	controllerName = "onboarding"
	// leaseName is the Lease that controllers compete for.
	leaseName = "application-connector-onboarding"
	// stopTimeout bounds a graceful stop.
	stopTimeout = 20 * time.Second
)

// NewCommand makes "controller".
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	o := NewOptions(streams)
	cmd := &cobra.Command{
		Use: "controller", Short: "Register and pair many clusters, by Secrets with their kubeconfigs", Args: cobra.NoArgs,
		Long: "Register the cluster of each Secret with a kubeconfig in a namespace, and keep a valid one-time token in it until its agent has connected it.\n\n" +
			"It runs until it is ended, and goes on where it was when it is started again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			if err := o.Complete(); err != nil {
				return err
			}
			log := o.logger()
			klog.SetSlogLogger(log)
			ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
			return o.Run(cmd.Context())
		},
	}
	o.BindFlags(cmd.Flags())
	return cmd
}

// Run runs the controller until ctx ends, or until it cannot go on. Options are to be validated and complete.
func (o *Options) Run(ctx context.Context) error {
	log := o.logger()
	health, err := net.Listen("tcp", o.HealthAddress)
	if err != nil {
		return fmt.Errorf("--health-probe-bind-address: %w", err)
	}
	defer func() { _ = health.Close() }()
	metrics, err := net.Listen("tcp", o.MetricsAddress)
	if err != nil {
		return fmt.Errorf("--metrics-bind-address: %w", err)
	}
	defer func() { _ = metrics.Close() }()
	options := graphql.Options{UserAgent: "appconn", Log: log}
	if o.CAFile != "" {
		if options.RootCAs, err = graphql.RootsFromFile(o.CAFile); err != nil {
			return fmt.Errorf("--director-ca-file: %w", err)
		}
	}
	transport := graphql.NewTransport(options)
	defer transport.CloseIdleConnections()
	registry := prometheus.NewRegistry()
	measured := NewMetrics(registry)
	director := &gate{
		transport: transport, url: o.DirectorURL, credentials: o.CredentialsFile, roots: options.RootCAs,
		limiter: rate.NewLimiter(rate.Limit(o.DirectorRate), o.DirectorBurst), clock: o.Clock, metrics: measured,
	}

	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	records, err := labels.Parse(statusLabel)
	if err != nil {
		return err
	}
	mgr, err := manager.New(o.Kubernetes, manager.Options{
		Scheme: scheme, Logger: logr.FromSlogHandler(log.Handler()), Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: o.LeaderElect, LeaderElectionID: leaseName, LeaderElectionNamespace: o.Namespace,
		LeaderElectionReleaseOnCancel: true, // the process ends with the manager
		GracefulShutdownTimeout:       ptr.To(stopTimeout),
		// Of Secrets the metadata is held, and no kubeconfig.
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{o.Namespace: {}}, DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {Label: records}},
		},
	})
	if err != nil {
		return fmt.Errorf("the Kubernetes cluster at %s: %w", o.Kubernetes.Host, err)
	}
	r := NewReconciler(Reconciler{
		Settings: o.settings, Kube: mgr.GetClient(), Live: mgr.GetAPIReader(), Director: director.tenant, Clock: o.Clock, Log: log, Metrics: measured,
	})
	err = builder.ControllerManagedBy(mgr).Named(controllerName).
		For(&corev1.Secret{}, builder.OnlyMetadata).
		// A record is written anew if somebody deletes it, and not when it has just been written.
		Owns(&corev1.ConfigMap{}, builder.MatchEveryOwner, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false }, UpdateFunc: func(event.UpdateEvent) bool { return false },
			GenericFunc: func(event.GenericEvent) bool { return false },
		})).
		WithOptions(controller.Options{MaxConcurrentReconciles: o.Concurrency, SkipNameValidation: ptr.To(true)}).
		Complete(r)
	if err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(func(context.Context) error { // of the one that is elected
		measured.leads()
		return nil
	})); err != nil {
		return err
	}
	if err := serve(mgr, registry, health, metrics); err != nil {
		return err
	}
	if o.Listening != nil {
		o.Listening(health.Addr(), metrics.Addr())
	}
	log.InfoContext(ctx, "the controller starts", "health", health.Addr().String(), "metrics", metrics.Addr().String(), "namespace", o.Namespace, "selector", o.Selector)
	if o.AllowInsecure {
		log.WarnContext(ctx, "--allow-insecure-clusters: kubeconfigs are admitted that do NOT verify the API server")
	}
	if err := mgr.Start(ctx); err != nil {
		return err
	}
	log.InfoContext(context.WithoutCancel(ctx), "the controller ended")
	return nil
}

// serve adds the servers. They run whether or not this controller is the one that acts: a standby is alive and ready too.
func serve(mgr manager.Manager, registry prometheus.Gatherer, health, metrics net.Listener) error {
	var synced atomic.Bool
	err := mgr.Add(always(func(ctx context.Context) error {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			synced.Store(true)
			<-ctx.Done()
		}
		return nil
	}))
	if err != nil {
		return err
	}
	ready := func(*http.Request) error {
		if !synced.Load() {
			return errors.New("the caches are not synced yet")
		}
		return nil
	}
	probes := http.NewServeMux()
	for path, check := range map[string]healthz.Checker{"/healthz": healthz.Ping, "/readyz": ready} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: map[string]healthz.Checker{"controller": check}})
		probes.Handle(path, handler)
		probes.Handle(path+"/", handler)
	}
	exposition := http.NewServeMux()
	exposition.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{registry, crmetrics.Registry}, promhttp.HandlerOpts{}))
	for name, s := range map[string]struct {
		listener net.Listener
		handler  http.Handler
	}{"health": {health, probes}, "metrics": {metrics, exposition}} {
		server := &http.Server{Handler: s.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 64 << 10}
		if err := mgr.Add(&manager.Server{Name: name, Server: server, Listener: s.listener, ShutdownTimeout: ptr.To(time.Second)}); err != nil {
			return err
		}
	}
	return nil
}

// always runs on standbys too.
type always func(context.Context) error

// Start implements manager.Runnable.
func (f always) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (always) NeedLeaderElection() bool { return false }
