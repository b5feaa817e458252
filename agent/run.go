package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/status"
	"github.com/application-connector/application-connector/agent/sync"
	"github.com/application-connector/application-connector/agent/sync/plan"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

const (
	// controllerName names the controller in logs and metrics, and the source of events.
	controllerName = "compass-connection-controller"
	// leaseName is the Lease that agents compete for.
	leaseName = "compass-runtime-agent"
	// stopTimeout bounds a graceful stop.
	stopTimeout = 20 * time.Second
)

// Labels of the runtime in Director.
const (
	labelEvents  = "runtime_eventServiceUrl"
	labelConsole = "runtime_consoleUrl"
)

// Main runs the agent until ctx ends, by the arguments, without the program's name, and the environment. It gives the exit
// code. What keeps the agent from running is told in one line.
func Main(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) int {
	err := execute(ctx, args, getenv, stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "agent: %s\n", strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
	return 1
}

func execute(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	config.RegisterFlags(flags)
	flags.SetOutput(io.Discard) // the error is printed once, by Main
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(stderr)
		flags.Usage()
		return err
	} else if err != nil {
		return fmt.Errorf("%w: the only flag is --kubeconfig, see --help", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: the agent is configured by environment variables, and by --kubeconfig", flags.Arg(0))
	}
	o, err := FromEnvironment(getenv)
	if err != nil {
		return err
	}
	o.LogTo = stderr
	log := o.logger()
	klog.SetSlogLogger(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	return Run(ctx, o)
}

func (o Options) logger() *slog.Logger {
	to := o.LogTo
	if to == nil {
		to = os.Stderr
	}
	options := &slog.HandlerOptions{Level: o.LogLevel}
	if o.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(to, options))
	}
	return slog.New(slog.NewJSONHandler(to, options))
}

// Run runs the agent until ctx ends, or until it cannot go on. Everything that is wrong with the options, the ports and
// the cluster is an error before anything is written.
func Run(ctx context.Context, o Options) error {
	log := o.logger()
	health, err := o.listen(o.HealthPort, "APP_HEALTH_PORT")
	if err != nil {
		return err
	}
	defer func() { _ = health.Close() }()
	metrics, err := o.listen(o.MetricsPort, "APP_METRICS_PORT")
	if err != nil {
		return err
	}
	defer func() { _ = metrics.Close() }()
	var page net.Listener // there may be none
	if o.StatusPageAddress != "" {
		if page, err = net.Listen("tcp", o.StatusPageAddress); err != nil {
			return fmt.Errorf("environment variable APP_STATUS_PAGE_ADDRESS: %w", err)
		}
		defer func() { _ = page.Close() }()
	}
	transport := graphql.Options{InsecureSkipVerify: o.SkipCompassTLSVerify, Timeout: o.CompassTimeout, UserAgent: "compass-runtime-agent", Log: log}
	if o.CompassCAFile != "" {
		if transport.RootCAs, err = graphql.RootsFromFile(o.CompassCAFile); err != nil {
			return fmt.Errorf("environment variable APP_COMPASS_CA_FILE: %w", err)
		}
	}
	config := o.Kubernetes
	if config == nil {
		if config, err = kubernetes(); err != nil {
			return err
		}
	}
	mgr, err := o.manager(config, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	compass := newCompass(transport, status.NewMetrics(registry))
	defer compass.close()
	syncer := o.syncer(mgr, log)
	reconciler := o.reconciler(mgr, compass, syncer, log)
	if o.CertManager {
		if err := o.certManager(ctx, mgr, compass, reconciler); err != nil {
			return err
		}
	}
	watched, err := o.control(mgr, config, reconciler)
	if err != nil {
		return err
	}
	if err := o.watchDrift(mgr, &drift{repairer: syncer, metrics: compass.metrics, clock: clock.RealClock{}, log: log, fights: map[string]fight{}}); err != nil {
		return err
	}
	if err := o.serve(mgr, watched, reconciler, registry, health, metrics); err != nil {
		return err
	}
	if page != nil {
		if err := o.serveStatusPage(mgr, page, log); err != nil {
			return err
		}
		if o.ListeningStatusPage != nil {
			o.ListeningStatusPage(page.Addr())
		}
		log.InfoContext(ctx, "the status page is served", "address", page.Addr().String())
	}
	if o.Listening != nil {
		o.Listening(health.Addr(), metrics.Addr())
	}
	log.InfoContext(ctx, "agent starts", "health", health.Addr().String(), "metrics", metrics.Addr().String(), "configuration", o.ConfigurationSecret.String())
	if err := mgr.Start(ctx); err != nil {
		return err
	}
	log.InfoContext(context.WithoutCancel(ctx), "agent ended")
	return nil
}

// kubernetes finds the cluster. A KUBECONFIG whose files are all missing is an error: client-go would look elsewhere.
func kubernetes() (*rest.Config, error) {
	var missing error
	for _, path := range filepath.SplitList(os.Getenv("KUBECONFIG")) {
		_, err := os.Stat(path) //nolint:gosec // whoever sets the environment runs the program
		if missing = err; err == nil {
			break
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("environment variable KUBECONFIG: %w", missing)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no Kubernetes cluster; set KUBECONFIG to a file that names one, or run within one: %w", err)
	}
	return config, nil
}

func (o Options) listen(port int, variable string) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(o.ListenAddress, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("environment variable %s: %w", variable, err)
	}
	return l, nil
}

// manager holds the caches that sync reads: all Applications, and of Secrets those that hold credentials of APIs.
func (o Options) manager(config *rest.Config, log *slog.Logger) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme, cmapi.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	credentials := labels.NewSelector()
	for _, key := range plan.SecretLabels {
		requirement, err := labels.NewRequirement(key, selection.Exists, nil)
		if err != nil {
			return nil, err
		}
		credentials = credentials.Add(*requirement)
	}
	mgr, err := manager.New(config, manager.Options{
		Scheme: scheme, Logger: logr.FromSlogHandler(log.Handler()), Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: o.LeaderElection, LeaderElectionID: leaseName, LeaderElectionNamespace: o.ConfigurationSecret.Namespace,
		LeaderElectionReleaseOnCancel: true, // the process ends with the manager
		GracefulShutdownTimeout:       ptr.To(stopTimeout),
		// Who wrote which field is more text than the fields themselves, and nobody here asks.
		Cache: cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {Namespaces: map[string]cache.Config{o.IntegrationNamespace: {LabelSelector: credentials}}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("the Kubernetes cluster at %s: %w", config.Host, err)
	}
	return mgr, nil
}

func (o Options) syncer(mgr manager.Manager, log *slog.Logger) *sync.Syncer {
	return &sync.Syncer{
		Client: mgr.GetClient(), Reader: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: o.IntegrationNamespace, GatewayURL: o.GatewayURL,
		SkipVerify: o.SkipAppsTLSVerify, Guard: o.Guard, Recorder: mgr.GetEventRecorder(controllerName), Log: log,
	}
}

func (o Options) reconciler(mgr manager.Manager, c *compass, syncer *sync.Syncer, log *slog.Logger) *connection.Reconciler {
	recorder := mgr.GetEventRecorder(controllerName)
	return &connection.Reconciler{
		Options: connection.Options{
			Secrets:  connection.Names{Configuration: o.ConfigurationSecret, Client: o.ClientSecret, CA: o.CASecret},
			Schedule: connection.Schedule{Floor: o.MinimalSyncTime, Period: o.SyncPeriod},
			// Two attempts at least must fit between renewal and end, as ever.
			Renewal:       certs.RenewalPolicy{Threshold: o.RenewalThreshold, Floor: 2 * o.MinimalSyncTime},
			KeySize:       o.KeySize,
			RuntimeLabels: map[string]string{labelEvents: o.EventsURL, labelConsole: o.ConsoleURL},
			Report:        o.ReportApplications,
		},
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Compass: c,
		Syncer:  &applications{Syncer: syncer, metrics: c.metrics, reader: mgr.GetAPIReader()},
		Cleaner: cleaner{writer: mgr.GetClient(), reader: mgr.GetClient(), namespace: o.IntegrationNamespace, forget: syncer.Forget},
		Writer:  &status.Writer{Client: mgr.GetClient(), Recorder: recorder, Metrics: c.metrics},
		Metrics: c.metrics, Clock: clock.RealClock{}, Log: log,
	}
}

// applications gives package connection what it needs of package sync.
type applications struct {
	*sync.Syncer
	metrics *status.Metrics
	reader  client.Reader
	// recalled: this process knows what the one before it remembered, if that can be known.
	recalled bool
}

func (a *applications) Sync(ctx context.Context, snapshot director.Snapshot) (connection.Result, error) {
	if !a.recalled {
		var c compassv1alpha1.CompassConnection
		if err := a.reader.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, &c); client.IgnoreNotFound(err) != nil {
			return connection.Result{}, fmt.Errorf("reading the CompassConnection: %w", err)
		}
		a.Recall(c.Status.MissingApplications)
		a.recalled = true
	}
	r, err := a.Syncer.Sync(ctx, snapshot)
	if err == nil {
		a.metrics.Failures(r.Reasons)
	}
	return connection.Result{
		Total: r.Total, Synced: r.Synced, Ready: r.Ready, Failed: r.Failed, PendingDeletion: r.PendingDeletion, Failures: r.Failures, NotReady: r.NotReady, Missing: r.Missing, PruneBlocked: r.PruneBlocked,
	}, err
}

// longestRetry bounds the waiting time after errors of the API server. An agent that waited for a quarter of an hour, as the
// default may, would be away long after the API server is back.
const longestRetry = time.Minute

func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, longestRetry)
}

// control sets up the one controller. Of the Secrets only those are watched that have a name in the options, and of these
// only the metadata is held: the content is read when it is needed.
func (o Options) control(mgr manager.Manager, config *rest.Config, r *connection.Reconciler) ([]cache.Cache, error) {
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: compassv1alpha1.ConnectionName}}
	b := builder.ControllerManagedBy(mgr).Named(controllerName).
		For(&compassv1alpha1.CompassConnection{}, builder.WithPredicates(predicate.Or(
			predicate.GenerationChangedPredicate{},
			predicate.AnnotationChangedPredicate{},
		))).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, SkipNameValidation: ptr.To(true), RateLimiter: retries()}).
		// There may be no CompassConnection to begin with.
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			queue.Add(request)
			return nil
		}))
	caches := []cache.Cache{mgr.GetCache()}
	for _, name := range []types.NamespacedName{r.Secrets.Configuration, r.Secrets.Client, r.Secrets.Pending(), r.Secrets.CA} {
		secret := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
		c, err := cache.New(config, cache.Options{
			Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
			ByObject: map[client.Object]cache.ByObject{secret: {Namespaces: map[string]cache.Config{
				name.Namespace: {FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name.Name)},
			}}},
		})
		if err != nil {
			return nil, err
		}
		if err := mgr.Add(cached{c}); err != nil {
			return nil, err
		}
		caches = append(caches, c)
		b = b.WatchesRawSource(source.Kind(c, secret, handler.TypedEnqueueRequestsFromMapFunc(
			func(context.Context, *metav1.PartialObjectMetadata) []reconcile.Request {
				return []reconcile.Request{request}
			},
		)))
	}
	return caches, b.Complete(r)
}

// cached makes the manager start a cache before what needs it.
type cached struct{ cache.Cache }

// GetCache is what the manager knows caches by.
func (c cached) GetCache() cache.Cache { return c.Cache }
