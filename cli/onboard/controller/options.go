// Package controller is "appconn onboard controller": it takes many clusters into Compass, one for each Secret with a kubeconfig
// in a namespace, and keeps a valid one-time token in each as long as it is not connected. It owns which cluster is looked at
// when, what is admitted of a kubeconfig, whose a runtime is, and the records by which people see how it goes on; the steps
// themselves are those of package enrolment. It never sees a cluster's private key, and tells nobody of kubeconfigs and tokens.
package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/cli/kubeconfig"
	"github.com/application-connector/application-connector/cli/onboard/enrolment"
)

// Values of --on-delete.
const (
	OnDeleteKeep     = "keep"
	OnDeleteOffboard = "offboard"
)

// Options of the command.
type Options struct {
	genericiooptions.IOStreams
	// Config says which cluster has the Secrets; it takes the same flags as kubectl. Namespace is theirs.
	Config    *genericclioptions.ConfigFlags
	Namespace string
	// Selector is a label selector of the Secrets, and Key that of the kubeconfig in them.
	Selector, Key string
	// DirectorURL is the URL of the Director's GraphQL API for administrators, https. Tenant is that of Secrets that name none.
	// CredentialsFile holds the OAuth 2.0 client. CAFile names authorities to trust besides the system's.
	DirectorURL, Tenant, CredentialsFile, CAFile string
	// DirectorRate is how many requests a second Director gets at most, and DirectorBurst how many at once.
	DirectorRate  float64
	DirectorBurst int
	// Labels that each runtime gets when it is registered.
	Labels map[string]string
	// Secret and ClientSecret are those in each cluster, as namespace/name.
	Secret, ClientSecret string
	// OnDelete is what becomes of a cluster whose Secret is deleted.
	OnDelete string
	// AllowInsecure admits kubeconfigs that do not verify the API server.
	AllowInsecure bool
	// AllowLoopback admits kubeconfigs that lead to this machine.
	AllowLoopback bool
	// Concurrency is how many clusters are attended to at the same time.
	Concurrency int
	// PollInterval, ResyncInterval, ClusterTimeout and RenewBefore are those of Settings.
	PollInterval, ResyncInterval, ClusterTimeout, RenewBefore time.Duration
	// LeaderElect lets several run of which one acts.
	LeaderElect bool
	// HealthAddress and MetricsAddress are listened on, as host:port; port 0 means any free one.
	HealthAddress, MetricsAddress string
	// LogLevel and LogFormat (json or text) of the log.
	LogLevel, LogFormat string

	// What follows is for callers within the same process, and is not on the command line.

	// Clock is the real one, but in tests.
	Clock clock.PassiveClock
	// Kubernetes is the cluster, instead of that of Config; Listening is told the addresses once they are open.
	Kubernetes *rest.Config
	Listening  func(health, metrics net.Addr)

	settings Settings
	level    slog.Level
}

// NewOptions are the defaults.
func NewOptions(streams genericiooptions.IOStreams) *Options {
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil // it is an option of the command's own
	return &Options{
		IOStreams: streams, Config: config, Clock: clock.RealClock{},
		Namespace: "application-connector-onboarding", Selector: LabelName, Key: "config", DirectorRate: 5, DirectorBurst: 10,
		Secret: "kyma-system/compass-agent-configuration", ClientSecret: "kyma-system/cluster-client-certificates",
		OnDelete: OnDeleteKeep, Concurrency: 10, PollInterval: 30 * time.Second, ResyncInterval: 10 * time.Minute, ClusterTimeout: 15 * time.Second,
		RenewBefore: 10 * time.Minute, LeaderElect: true, HealthAddress: ":8081", MetricsAddress: ":8080", LogLevel: "info", LogFormat: "json",
	}
}

// BindFlags ties o to the command line.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&o.Namespace, "namespace", "n", o.Namespace, "namespace of the Secrets with kubeconfigs, of the records and of the Lease")
	fs.StringVar(&o.Selector, "selector", o.Selector, "label selector of the Secrets with kubeconfigs")
	fs.StringVar(&o.Key, "key", o.Key, "key of the kubeconfig in each Secret")
	fs.StringVar(&o.DirectorURL, "director-url", o.DirectorURL, "URL of the Director's GraphQL API for administrators (https)")
	fs.StringVar(&o.Tenant, "tenant", o.Tenant, "the tenant of Secrets without label "+LabelTenant+", by its id outside of Compass")
	fs.StringVar(&o.CredentialsFile, "credentials", o.CredentialsFile, "YAML file with client_id, client_secret and tokens_endpoint of an OAuth 2.0 client that may register runtimes; it is read again for each access token")
	fs.StringVar(&o.CAFile, "director-ca-file", o.CAFile, "PEM file of authorities to trust for the Director and the token endpoint, besides the system's")
	fs.Float64Var(&o.DirectorRate, "director-qps", o.DirectorRate, "most requests a second at the Director, for all clusters together")
	fs.IntVar(&o.DirectorBurst, "director-burst", o.DirectorBurst, "most requests at the Director at once")
	fs.StringToStringVar(&o.Labels, "label", o.Labels, "label of each runtime when it is registered, KEY=VALUE; may be repeated")
	fs.StringVar(&o.Secret, "secret", o.Secret, "the agent's configuration Secret in each cluster, as namespace/name")
	fs.StringVar(&o.ClientSecret, "client-secret", o.ClientSecret, "Secret with the client certificate in each cluster, as namespace/name; its identity is never deleted")
	fs.StringVar(&o.OnDelete, "on-delete", o.OnDelete, "what becomes of the runtime when a Secret is deleted: keep, or offboard, which holds the Secret back by a finalizer until the runtime is unregistered")
	fs.BoolVar(&o.AllowInsecure, "allow-insecure-clusters", o.AllowInsecure, "admit kubeconfigs with insecure-skip-tls-verify: whoever is on the way gets their credentials, and the tokens for Compass")
	fs.BoolVar(&o.AllowLoopback, "allow-loopback-clusters", o.AllowLoopback, "admit kubeconfigs that lead to a loopback address, such as the end of a tunnel beside the controller")
	fs.IntVar(&o.Concurrency, "concurrency", o.Concurrency, "how many clusters are attended to at the same time")
	fs.DurationVar(&o.PollInterval, "poll-interval", o.PollInterval, "how often a cluster is looked at that is not connected")
	fs.DurationVar(&o.ResyncInterval, "resync-interval", o.ResyncInterval, "how often a cluster is looked at that is connected")
	fs.DurationVar(&o.ClusterTimeout, "cluster-timeout", o.ClusterTimeout, "longest time of one request to a cluster")
	fs.DurationVar(&o.RenewBefore, "renew-before", o.RenewBefore, "how long before its end a token that was not used is replaced; half of its life at most")
	fs.BoolVar(&o.LeaderElect, "leader-elect", o.LeaderElect, "let several run of which one acts, by a Lease")
	fs.StringVar(&o.HealthAddress, "health-probe-bind-address", o.HealthAddress, "address of /healthz and /readyz, as host:port")
	fs.StringVar(&o.MetricsAddress, "metrics-bind-address", o.MetricsAddress, "address of /metrics, as host:port")
	fs.StringVar(&o.LogLevel, "log-level", o.LogLevel, "least level of log lines: debug, info, warn or error")
	fs.StringVar(&o.LogFormat, "log-format", o.LogFormat, "form of log lines: json or text")
	o.Config.AddFlags(fs)
}

// labelKey is what Director admits.
var labelKey = regexp.MustCompile(`^[a-zA-Z0-9_]{1,256}$`)

// Validate names every option that cannot work and what would.
func (o *Options) Validate() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(len(validation.IsDNS1123Label(o.Namespace)) > 0, "--namespace=%q: the name of a namespace is needed", o.Namespace)
	var err error
	o.settings.Selector, err = labels.Parse(o.Selector)
	wrong(err != nil || o.Selector == "", "--selector=%q: a label selector is needed, such as %s", o.Selector, LabelName)
	wrong(len(validation.IsConfigMapKey(o.Key)) > 0, "--key=%q: a key of a Secret is needed, such as config", o.Key)
	u, err := url.Parse(o.DirectorURL)
	wrong(err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil, "--director-url: an https URL without credentials is needed")
	wrong(o.CredentialsFile == "", "--credentials: the path of a file is needed")
	wrong(!(o.DirectorRate > 0 && o.DirectorRate <= 1000), "--director-qps=%v: a number above 0 and not above 1000 is needed", o.DirectorRate)
	wrong(o.DirectorBurst < 1, "--director-burst=%d: a number from 1 is needed", o.DirectorBurst)
	for key, value := range o.Labels {
		wrong(!labelKey.MatchString(key) || key == enrolment.Label || key == LabelSource || value == "",
			"--label %s=%s: a key of letters, digits and _, neither %s nor %s, and a value are needed", key, value, enrolment.Label, LabelSource)
	}
	for _, s := range []struct {
		flag, value string
		into        *types.NamespacedName
	}{{"--secret", o.Secret, &o.settings.Configuration}, {"--client-secret", o.ClientSecret, &o.settings.Certificate}} {
		namespace, name, ok := strings.Cut(s.value, "/")
		wrong(!ok || namespace == "" || name == "" || strings.Contains(name, "/"), "%s=%q: namespace/name of a Secret is needed", s.flag, s.value)
		*s.into = types.NamespacedName{Namespace: namespace, Name: name}
	}
	wrong(o.OnDelete != OnDeleteKeep && o.OnDelete != OnDeleteOffboard, "--on-delete=%q: %s or %s is needed", o.OnDelete, OnDeleteKeep, OnDeleteOffboard)
	wrong(o.Concurrency < 1 || o.Concurrency > 100, "--concurrency=%d: a number from 1 to 100 is needed", o.Concurrency)
	for _, d := range []struct {
		flag          string
		value, atMost time.Duration
	}{
		{"--poll-interval", o.PollInterval, time.Hour}, {"--resync-interval", o.ResyncInterval, 24 * time.Hour},
		{"--cluster-timeout", o.ClusterTimeout, time.Minute}, {"--renew-before", o.RenewBefore, time.Hour},
	} {
		wrong(d.value < time.Second || d.value > d.atMost, "%s=%s: a duration from 1s to %s is needed", d.flag, d.value, d.atMost)
	}
	for _, a := range []struct{ flag, value string }{{"--health-probe-bind-address", o.HealthAddress}, {"--metrics-bind-address", o.MetricsAddress}} {
		_, _, err := net.SplitHostPort(a.value)
		wrong(err != nil, "%s=%q: host:port is needed, such as :8081", a.flag, a.value)
	}
	wrong(o.level.UnmarshalText([]byte(o.LogLevel)) != nil, "--log-level=%q: debug, info, warn or error is needed", o.LogLevel)
	wrong(o.LogFormat != "json" && o.LogFormat != "text", "--log-format=%q: json or text is needed", o.LogFormat)
	return errors.Join(errs...)
}

// Complete reads the kubeconfig, of the cluster with the Secrets.
func (o *Options) Complete() error {
	s := &o.settings
	s.Key, s.Tenant, s.Labels, s.Offboard = o.Key, o.Tenant, o.Labels, o.OnDelete == OnDeleteOffboard
	s.Insecure, s.Loopback = o.AllowInsecure, o.AllowLoopback
	s.Poll, s.Resync, s.Timeout, s.RenewBefore = o.PollInterval, o.ResyncInterval, o.ClusterTimeout, o.RenewBefore
	if o.Kubernetes != nil {
		return nil
	}
	var err error
	if o.Kubernetes, err = kubeconfig.Config(o.Config); err != nil {
		return err
	}
	o.Kubernetes.QPS, o.Kubernetes.Burst = 50, 100 // each attempt reads a Secret and may write a record
	return nil
}

func (o *Options) logger() *slog.Logger {
	options := &slog.HandlerOptions{Level: o.level}
	if o.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(o.ErrOut, options))
	}
	return slog.New(slog.NewJSONHandler(o.ErrOut, options))
}
