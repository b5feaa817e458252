package gateway

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/admin"
	"github.com/application-connector/application-connector/gateway/callers"
	"github.com/application-connector/application-connector/gateway/transport"
)

// Options are the gateway's settings: BindFlags, then Complete, then Validate.
type Options struct {
	ProxyPort        int // calls by application and service
	ProxyPortCompass int // calls by application, service and entry
	ExternalAPIPort  int // health, metrics, log level
	// ListenAddress is the address of all three ports; empty for all interfaces.
	ListenAddress string
	// ProxyTimeout, in seconds, bounds the time until a target's answer begins, each pause in its body, and each call for
	// a token.
	ProxyTimeout int
	// RequestTimeout, in seconds, bounds the time for a request's header, and each pause in its body; zero for no bound.
	RequestTimeout int
	// ProxyCacheTTL is accepted and ignored: changes are in force when they are made.
	ProxyCacheTTL int
	// SecretsNamespace is the only namespace from which Secrets are read.
	SecretsNamespace string
	APIServerURL     string
	KubeConfig       string
	LogLevel         string
	// TargetCAFile is a PEM file of certificates that are trusted, besides the system's, for targets and token endpoints.
	TargetCAFile string

	// AllowedTargets are addresses, ranges and host names, separated by commas, that may be called although they are
	// loopback, link-local, or the API server's.
	AllowedTargets string
	// MeshProxies are addresses and ranges, separated by commas, of the mesh's proxies: what connections from there say in
	// X-Forwarded-Client-Cert of the caller is believed.
	MeshProxies string
	// DrainDelay is how long the gateway serves on after it was asked to end, while it is not ready: until then it gets calls.
	DrainDelay time.Duration

	// Clock times DrainDelay; nil means the real clock.
	Clock clock.Clock

	// Config of the API server; Complete sets it.
	Config *rest.Config

	level *admin.Level
	roots *x509.CertPool
	guard *transport.Guard
}

// BindFlags declares the flags, with their defaults.
func (o *Options) BindFlags(f *flag.FlagSet) {
	f.IntVar(&o.ProxyPort, "proxyPort", 8080, "port for calls to /{application}/{service}")
	f.IntVar(&o.ProxyPortCompass, "proxyPortCompass", 8082, "port for calls to /{application}/{service}/{entry}")
	f.IntVar(&o.ExternalAPIPort, "externalAPIPort", 8081, "port for health, readiness, metrics and the log level")
	f.StringVar(&o.ListenAddress, "listenAddress", "", "address to listen on; empty means all interfaces")
	f.IntVar(&o.ProxyTimeout, "proxyTimeout", 10, "seconds until an API's answer must begin, of each pause in it, and of each call for a token")
	f.IntVar(&o.RequestTimeout, "requestTimeout", 10, "seconds for a request's header and for each pause in its body; 0 means no bound")
	f.IntVar(&o.ProxyCacheTTL, "proxyCacheTTL", 120, "accepted and ignored: changes are in force when they are made")
	f.StringVar(&o.SecretsNamespace, "applicationSecretsNamespace", "kyma-system", "namespace of the Secrets that Applications name")
	f.StringVar(&o.APIServerURL, "apiServerURL", "", "URL of the Kubernetes API server, over that of the kubeconfig")
	f.StringVar(&o.KubeConfig, "kubeConfig", "", "path of a kubeconfig; empty means $KUBECONFIG, and without that the cluster that the gateway runs in")
	f.StringVar(&o.LogLevel, "logLevel", "info", "debug, info, warn, error, dpanic, panic or fatal")
	f.StringVar(&o.TargetCAFile, "targetCAFile", "", "PEM file of certificates to trust, besides the system's, for APIs and token endpoints")
	f.StringVar(&o.AllowedTargets, "allowedTargets", "", "IP addresses, ranges (CIDR) and host names, separated by commas, that may be called although they are loopback, link-local or the API server's")
	f.DurationVar(&o.DrainDelay, "drainDelay", 0, "after SIGTERM: time of serving on while not ready, so that the Pod leaves its Service first")
	f.StringVar(&o.MeshProxies, "meshProxies", "127.0.0.0/8,::1/128", "IP addresses and ranges (CIDR), separated by commas, from which the mesh's proxy connects; what it says of callers is believed")
}

// Validate says what is wrong with the settings and what would be right.
func (o *Options) Validate() error {
	var errs []error
	for _, p := range []struct {
		flag string
		port int
	}{{"proxyPort", o.ProxyPort}, {"proxyPortCompass", o.ProxyPortCompass}, {"externalAPIPort", o.ExternalAPIPort}} {
		if p.port < 0 || p.port > 65535 {
			errs = append(errs, fmt.Errorf("-%s=%d: use a port from 0 to 65535", p.flag, p.port))
		}
	}
	const longest = int(24 * time.Hour / time.Second)
	if o.ProxyTimeout < 1 || o.ProxyTimeout > longest {
		errs = append(errs, fmt.Errorf("-proxyTimeout=%d: use whole seconds from 1 to %d", o.ProxyTimeout, longest))
	}
	if o.RequestTimeout < 0 || o.RequestTimeout > longest {
		errs = append(errs, fmt.Errorf("-requestTimeout=%d: use whole seconds from 0 to %d", o.RequestTimeout, longest))
	}
	if longest := time.Hour; o.DrainDelay < 0 || o.DrainDelay > longest {
		errs = append(errs, fmt.Errorf("-drainDelay=%s: use a time from 0s to %s", o.DrainDelay, longest))
	}
	if o.ListenAddress != "" && net.ParseIP(o.ListenAddress) == nil && o.ListenAddress != "localhost" {
		errs = append(errs, fmt.Errorf("-listenAddress=%q: use an IP address without a port, for example 127.0.0.1", o.ListenAddress))
	}
	if o.SecretsNamespace == "" {
		errs = append(errs, errors.New("-applicationSecretsNamespace is empty: name the namespace of the Secrets, for example kyma-system"))
	}
	if _, err := transport.ParseAllowed(o.AllowedTargets); err != nil {
		errs = append(errs, fmt.Errorf("-allowedTargets: %w", err))
	}
	if _, err := callers.ParseProxies(o.MeshProxies); err != nil {
		errs = append(errs, fmt.Errorf("-meshProxies: %w", err))
	}
	return errors.Join(errs...)
}

// Complete reads what the settings name: the kubeconfig, the certificates, the level. Call it after Validate.
func (o *Options) Complete() error {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	var err error
	if o.level, err = admin.NewLevel(o.LogLevel); err != nil {
		return fmt.Errorf("-logLevel=%q: use debug, info, warn, error, dpanic, panic or fatal", o.LogLevel)
	}
	if o.TargetCAFile != "" {
		if o.roots, err = transport.Roots(o.TargetCAFile); err != nil {
			return fmt.Errorf("-targetCAFile: %w", err)
		}
	}
	if o.Config == nil {
		if o.Config, err = o.kubernetes(); err != nil {
			return err
		}
	}
	allowed, err := transport.ParseAllowed(o.AllowedTargets)
	if err != nil {
		return fmt.Errorf("-allowedTargets: %w", err)
	}
	api, err := transport.APIServerOf(o.Config, os.Getenv)
	if err != nil {
		return err
	}
	o.guard, err = transport.NewGuard(allowed, api, clock.RealClock{})
	return err
}

func (o *Options) kubernetes() (*rest.Config, error) {
	path := o.KubeConfig
	if path == "" {
		path = os.Getenv(clientcmd.RecommendedConfigPathEnvVar)
	}
	if path == "" && o.APIServerURL == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("no Kubernetes cluster: set -kubeConfig or $KUBECONFIG, or run in a cluster: %w", err)
		}
		return unthrottled(config), nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{}
	if o.KubeConfig != "" {
		rules.ExplicitPath = o.KubeConfig
	} else {
		rules = clientcmd.NewDefaultClientConfigLoadingRules()
	}
	overrides := &clientcmd.ConfigOverrides{}
	overrides.ClusterInfo.Server = o.APIServerURL
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", strconv.Quote(path), err)
	}
	return unthrottled(config), nil
}

// unthrottled leaves fairness to the API server: a limit here would delay rotated credentials.
func unthrottled(c *rest.Config) *rest.Config {
	c.QPS = -1
	c.UserAgent = "central-application-gateway"
	return c
}
