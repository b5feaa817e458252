package events

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/proxy"
	"github.com/application-connector/application-connector/events/xfcc"
	"github.com/application-connector/application-connector/version"
)

// Environment variables.
const (
	EnvLogFormat = "APP_LOG_FORMAT"
	EnvLogLevel  = "APP_LOG_LEVEL"
)

// Modes of --xfccMode.
const (
	ModeStrict     = "strict"
	ModeCompatible = "compatible"
)

// Options configure a validator. NewOptions gives values that work; docs/reference/validator.md explains each.
type Options struct {
	ProxyPort       int
	ExternalAPIPort int
	ListenAddress   string

	Paths           proxy.Paths
	PublisherHost   string
	DestinationPath string

	SyncPeriod time.Duration
	Kubeconfig string

	XFCCMode        string
	TrustedHops     int
	IngressIdentity string
	IdentityHeader  string
	// MeshConfig is namespace/name of the ConfigMap with Istio's settings, looked at once when we start; empty means not.
	MeshConfig        string
	MatchOrganization bool
	// DeniedCertificates is namespace/name of a ConfigMap; empty means none.
	DeniedCertificates string
	SourcePolicy       string
	RateLimit          float64
	RateBurst          int
	MaxInFlight        int
	MaxBodyBytes       int64

	PublisherTimeout  time.Duration
	PublisherAttempts int
	RetryWindow       time.Duration
	DrainDelay        time.Duration
	ShutdownTimeout   time.Duration

	LogFormat string
	LogLevel  string

	// Clock times the drain delay and repeats to the publisher; nil means the real clock.
	Clock clock.Clock
}

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		ProxyPort:         8081,
		ExternalAPIPort:   8080,
		Paths:             proxy.DefaultPaths,
		PublisherHost:     "eventing-event-publisher-proxy.kyma-system",
		DestinationPath:   "/publish",
		SyncPeriod:        45 * time.Second,
		XFCCMode:          ModeStrict,
		TrustedHops:       1,
		IngressIdentity:   "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account",
		IdentityHeader:    xfcc.HeaderName,
		MeshConfig:        "istio-system/istio",
		MaxInFlight:       1000,
		SourcePolicy:      string(proxy.SourceWarn),
		MaxBodyBytes:      64 << 10,
		PublisherTimeout:  30 * time.Second,
		PublisherAttempts: 10,
		RetryWindow:       10 * time.Second,
		ShutdownTimeout:   30 * time.Second,
		LogFormat:         "json",
		LogLevel:          "info",
	}
}

// BindFlags registers the flags, with the present values as defaults.
func (o *Options) BindFlags(fs *flag.FlagSet) {
	fs.IntVar(&o.ProxyPort, "proxyPort", o.ProxyPort, "port on which events come in")
	fs.IntVar(&o.ExternalAPIPort, "externalAPIPort", o.ExternalAPIPort, "port of health and metrics")
	fs.StringVar(&o.Paths.V1, "eventingPathPrefixV1", o.Paths.V1, "path of legacy events; must contain appNamePlaceholder")
	fs.StringVar(&o.Paths.V2, "eventingPathPrefixV2", o.Paths.V2, "path of CloudEvents; must contain appNamePlaceholder")
	fs.StringVar(&o.Paths.Events, "eventingPathPrefixEvents", o.Paths.Events, "path of CloudEvents; must contain appNamePlaceholder")
	fs.StringVar(&o.PublisherHost, "eventingPublisherHost", o.PublisherHost, "host or host:port of the Eventing publisher (plain HTTP)")
	fs.StringVar(&o.DestinationPath, "eventingDestinationPath", o.DestinationPath, "the publisher's path for CloudEvents")
	fs.StringVar(&o.Paths.Placeholder, "appNamePlaceholder", o.Paths.Placeholder, "text in the paths that stands for the Application's name; empty: the paths are literal")
	fs.DurationVar(&o.SyncPeriod, "syncPeriod", o.SyncPeriod, "how often the informer replays its objects; nothing waits for it")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "kubeconfig file; empty: KUBECONFIG, else ~/.kube/config, else the service account of the Pod")
	fs.StringVar(&o.XFCCMode, "xfccMode", o.XFCCMode, "strict, or compatible (status codes of the older validator; lets tests without a mesh in, not for production)")
	fs.IntVar(&o.TrustedHops, "trustedHops", o.TrustedHops, "elements that our own proxies add to X-Forwarded-Client-Cert behind the client's; 0 trusts the direct peer")
	fs.StringVar(&o.IngressIdentity, "ingressIdentity", o.IngressIdentity, "URI that the last element of X-Forwarded-Client-Cert must carry")
	fs.StringVar(&o.IdentityHeader, "identityHeader", o.IdentityHeader, "header that tells the client: X-Forwarded-Client-Cert, or Client-Cert (RFC 9440)")
	fs.StringVar(&o.MeshConfig, "meshConfig", o.MeshConfig, "namespace/name of the ConfigMap with Istio's settings, which are checked at the start; empty: they are not")
	fs.BoolVar(&o.MatchOrganization, "matchOrganization", o.MatchOrganization, "ask that a certificate's organisation and unit are spec.tenant and spec.group of the Application")
	fs.StringVar(&o.DeniedCertificates, "deniedCertificates", o.DeniedCertificates, "namespace/name of a ConfigMap with certificates that are refused; empty: none")
	fs.Float64Var(&o.RateLimit, "rateLimit", o.RateLimit, "events that each Application may send a second, on average; 0: any number")
	fs.IntVar(&o.RateBurst, "rateBurst", o.RateBurst, "events that each Application may send at once; 0: as many as in a second")
	fs.IntVar(&o.MaxInFlight, "maxInFlight", o.MaxInFlight, "requests that are served at once; 0: any number")
	fs.StringVar(&o.SourcePolicy, "sourcePolicy", o.SourcePolicy, "for a CloudEvent whose source is not the Application: off, warn, rewrite or enforce")
	fs.Int64Var(&o.MaxBodyBytes, "maxBodyBytes", o.MaxBodyBytes, "largest event in bytes")
	fs.StringVar(&o.ListenAddress, "listenAddress", o.ListenAddress, "IP address to listen on; empty: all")
	fs.DurationVar(&o.PublisherTimeout, "publisherTimeout", o.PublisherTimeout, "longest time of one attempt: for the publisher to take an event and answer")
	fs.IntVar(&o.PublisherAttempts, "publisherAttempts", o.PublisherAttempts, "how often an event is sent at most while the publisher is away; 1: no repeats")
	fs.DurationVar(&o.RetryWindow, "retryWindow", o.RetryWindow, "time after the first attempt in which further ones begin")
	fs.DurationVar(&o.DrainDelay, "drainDelay", o.DrainDelay, "after SIGTERM: time of serving on while not ready, so that the Pod leaves its Service first")
	fs.DurationVar(&o.ShutdownTimeout, "shutdownTimeout", o.ShutdownTimeout, "after the drain delay: longest wait for requests in flight")
}

// Complete takes over the environment and fills in what can't be a flag.
func (o *Options) Complete(lookup func(string) (string, bool)) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if v, ok := lookup(EnvLogFormat); ok && v != "" {
		o.LogFormat = v
	}
	if v, ok := lookup(EnvLogLevel); ok && v != "" {
		o.LogLevel = v
	}
}

// Validate names every value that can't work and what would.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	const maxPort = 1<<16 - 1
	check(o.ProxyPort >= 0 && o.ProxyPort <= maxPort, "--proxyPort=%d: must be 0 to %d", o.ProxyPort, maxPort)
	check(o.ExternalAPIPort >= 0 && o.ExternalAPIPort <= maxPort, "--externalAPIPort=%d: must be 0 to %d", o.ExternalAPIPort, maxPort)
	check(o.ProxyPort != o.ExternalAPIPort || o.ProxyPort == 0, "--proxyPort and --externalAPIPort are both %d: must differ", o.ProxyPort)
	check(o.ListenAddress == "" || net.ParseIP(o.ListenAddress) != nil, "--listenAddress=%q: must be an IP address or empty", o.ListenAddress)
	for _, p := range []struct{ flag, value string }{
		{"eventingPathPrefixV1", o.Paths.V1}, {"eventingPathPrefixV2", o.Paths.V2}, {"eventingPathPrefixEvents", o.Paths.Events},
	} {
		check(strings.HasPrefix(p.value, "/"), "--%s=%q: must start with \"/\"", p.flag, p.value)
		check(strings.Contains(p.value, o.Paths.Placeholder), "--%s=%q: must contain --appNamePlaceholder %q", p.flag, p.value, o.Paths.Placeholder)
	}
	u, err := url.Parse("http://" + o.PublisherHost)
	check(err == nil && u.Host == o.PublisherHost && u.Hostname() != "", "--eventingPublisherHost=%q: must be host or host:port", o.PublisherHost)
	check(strings.HasPrefix(o.DestinationPath, "/"), "--eventingDestinationPath=%q: must start with \"/\"", o.DestinationPath)
	check(o.SyncPeriod > 0, "--syncPeriod=%s: must be more than 0", o.SyncPeriod)
	check(slices.Contains([]string{ModeStrict, ModeCompatible}, o.XFCCMode), "--xfccMode=%q: must be strict or compatible", o.XFCCMode)
	check(o.TrustedHops >= 0, "--trustedHops=%d: must not be negative", o.TrustedHops)
	check(o.TrustedHops == 0 || strings.Contains(o.IngressIdentity, "://"), "--ingressIdentity=%q: must be a URI, as spiffe://cluster.local/ns/…/sa/…", o.IngressIdentity)
	policies := []proxy.SourcePolicy{proxy.SourceOff, proxy.SourceWarn, proxy.SourceRewrite, proxy.SourceEnforce}
	check(slices.Contains(policies, proxy.SourcePolicy(o.SourcePolicy)), "--sourcePolicy=%q: must be off, warn, rewrite or enforce", o.SourcePolicy)
	check(o.MaxBodyBytes > 0, "--maxBodyBytes=%d: must be more than 0", o.MaxBodyBytes)
	check(o.PublisherTimeout > 0, "--publisherTimeout=%s: must be more than 0", o.PublisherTimeout)
	check(slices.Contains([]string{xfcc.HeaderName, identity.ClientCertHeader}, o.IdentityHeader), "--identityHeader=%q: must be %s or %s", o.IdentityHeader, xfcc.HeaderName, identity.ClientCertHeader)
	check(o.IdentityHeader == xfcc.HeaderName || o.XFCCMode != ModeCompatible, "--identityHeader=%s: needs --xfccMode=strict", o.IdentityHeader)
	_, err = o.meshConfig()
	check(err == nil, "--meshConfig=%q: must be namespace/name of a ConfigMap, or empty", o.MeshConfig)
	_, err = o.denied()
	check(err == nil, "--deniedCertificates=%q: must be namespace/name of a ConfigMap, or empty", o.DeniedCertificates)
	check(o.RateLimit >= 0 && o.RateLimit < 1e9, "--rateLimit=%v: must be 0 or more, and less than 1e9", o.RateLimit)
	check(o.RateBurst >= 0, "--rateBurst=%d: must not be negative", o.RateBurst)
	check(o.MaxInFlight >= 0, "--maxInFlight=%d: must not be negative", o.MaxInFlight)
	check(o.PublisherAttempts > 0, "--publisherAttempts=%d: must be more than 0", o.PublisherAttempts)
	check(o.RetryWindow >= 0, "--retryWindow=%s: must not be negative", o.RetryWindow)
	check(o.DrainDelay >= 0, "--drainDelay=%s: must not be negative", o.DrainDelay)
	check(o.ShutdownTimeout > 0, "--shutdownTimeout=%s: must be more than 0", o.ShutdownTimeout)
	_, ok := levels[strings.ToLower(o.LogLevel)]
	check(ok, "%s=%q: must be debug, info, warn, error, fatal or panic", EnvLogLevel, o.LogLevel)
	check(o.LogFormat == "json" || o.LogFormat == "text", "%s=%q: must be json or text", EnvLogFormat, o.LogFormat)
	return oneLine(errs)
}

// denied is the ConfigMap of denied certificates, nil if there is none.
func (o *Options) denied() (*types.NamespacedName, error) { return configMap(o.DeniedCertificates) }

// meshConfig is the ConfigMap of the mesh's settings, nil if they are not to be checked.
func (o *Options) meshConfig() (*types.NamespacedName, error) { return configMap(o.MeshConfig) }

// configMap reads namespace/name; empty is nil.
func configMap(text string) (*types.NamespacedName, error) {
	if text == "" {
		return nil, nil
	}
	namespace, name, _ := strings.Cut(text, "/")
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return nil, errors.New("no namespace/name")
	}
	return &types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// limits fills in the burst.
func (o *Options) limits() proxy.Limits {
	burst := o.RateBurst
	if burst == 0 {
		burst = max(1, int(math.Ceil(o.RateLimit)))
	}
	return proxy.Limits{Rate: o.RateLimit, Burst: burst, InFlight: o.MaxInFlight}
}

func oneLine(errs []error) error {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

// restConfig says how to reach the API server.
func (o *Options) restConfig() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no way to the Kubernetes API server, set --kubeconfig or KUBECONFIG to a readable kubeconfig: %w", err)
	}
	config.UserAgent = "application-connector-validator/" + version.String()
	return config, nil
}
