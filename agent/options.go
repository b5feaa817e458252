package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/agent/sync/plan"
	"github.com/application-connector/application-connector/certs"
)

// Options of the agent. They come from the environment: see Variables and FromEnvironment.
type Options struct {
	// ConfigurationSecret holds the pairing data.
	ConfigurationSecret types.NamespacedName
	// ClientSecret holds the client certificate, CASecret the authorities that the ingress trusts.
	ClientSecret, CASecret types.NamespacedName
	// SyncPeriod is the time between syncs; MinimalSyncTime is the least time between two attempts at Compass.
	SyncPeriod, MinimalSyncTime time.Duration
	// RenewalThreshold is the fraction of a certificate's lifetime that is left when it is renewed.
	RenewalThreshold float64
	// KeySize of new keys, in bits.
	KeySize int
	// CertManager has cert-manager own the client certificate, and runs the issuer for it.
	CertManager bool
	// SkipCompassTLSVerify accepts any server as Compass; CompassCAFile names authorities to trust besides the system's.
	SkipCompassTLSVerify bool
	CompassCAFile        string
	// SkipAppsTLSVerify is spec.skipVerify of new Applications.
	SkipAppsTLSVerify bool
	// GatewayURL is the prefix of the URLs under which workloads call APIs.
	GatewayURL string
	// IntegrationNamespace is where the Secrets with credentials of APIs are.
	IntegrationNamespace string
	// Guard says when the loss of many Applications at once has to be confirmed.
	Guard plan.Guard
	// EventsURL and ConsoleURL are written to the labels of the runtime.
	EventsURL, ConsoleURL string
	// ReportApplications writes the results of syncs to a label of the runtime.
	ReportApplications bool
	// ListenAddress is the IP address to listen on; empty means all. Port 0 means any free one.
	ListenAddress           string
	HealthPort, MetricsPort int
	// StatusPageAddress is where people look at the status, as host:port; empty means nowhere. Port 0 means any free one.
	StatusPageAddress string
	// LeaderElection lets several agents run of which one acts.
	LeaderElection bool
	// LogLevel and LogFormat (json or text) of the log.
	LogLevel  slog.Level
	LogFormat string

	// What follows is for callers within the same process, and is not in the environment.

	// Kubernetes is the cluster; nil means that of KUBECONFIG, or the one that the process runs in.
	Kubernetes *rest.Config
	// CompassTimeout bounds one request to Compass; 0 means graphql.DefaultTimeout.
	CompassTimeout time.Duration
	// LogTo takes the log; nil means standard error.
	LogTo io.Writer
	// Listening, if set, is told the addresses once they are open. It is for callers that ask for port 0.
	Listening func(health, metrics net.Addr)
	// ListeningStatusPage, if set, is told the same of the status page, before Listening; there may be none.
	ListeningStatusPage func(net.Addr)
}

// Variable is one environment variable that the agent reads.
type Variable struct {
	// Name, with its prefix.
	Name string
	// Default is what an unset or empty variable means.
	Default string
	// Want says what values are right, Means what it is for.
	Want, Means string
	set         func(*Options, string) error
}

// Variables lists every environment variable that the agent reads.
var Variables = []Variable{
	{"APP_AGENT_CONFIGURATION_SECRET", "kyma-system/compass-agent-configuration", wantName, "Secret with `CONNECTOR_URL`, `RUNTIME_ID`, `TENANT` and `TOKEN`", name(func(o *Options) *types.NamespacedName { return &o.ConfigurationSecret })},
	{"APP_CLUSTER_CERTIFICATES_SECRET", "kyma-system/cluster-client-certificates", wantName, "Secret with the client certificate", name(func(o *Options) *types.NamespacedName { return &o.ClientSecret })},
	{"APP_CA_CERTIFICATES_SECRET", "istio-system/kyma-gateway-certs-cacert", wantName, "Secret with the authorities that the ingress trusts", name(func(o *Options) *types.NamespacedName { return &o.CASecret })},
	{"APP_CONTROLLER_SYNC_PERIOD", "180s", wantDuration, "time between two syncs", duration(func(o *Options) *time.Duration { return &o.SyncPeriod })},
	{"APP_MINIMAL_COMPASS_SYNC_TIME", "15s", wantDuration, "least time between two attempts at Compass", duration(func(o *Options) *time.Duration { return &o.MinimalSyncTime })},
	{"APP_CERT_VALIDITY_RENEWAL_THRESHOLD", "0.3", "a fraction greater than 0 and less than 1", "part of the lifetime of the client certificate that is left when it is renewed", func(o *Options, s string) (err error) {
		o.RenewalThreshold, err = strconv.ParseFloat(s, 64)
		return errors.Join(err, certs.RenewalPolicy{Threshold: o.RenewalThreshold}.Validate())
	}},
	{"APP_CERT_KEY_SIZE", strconv.Itoa(certs.DefaultKeySize), "2048, 3072 or 4096, the bits of an RSA key: the Connector signs nothing else", "size of new keys", func(o *Options, s string) (err error) {
		if o.KeySize, err = strconv.Atoi(s); err == nil && !slices.Contains(certs.KeySizes, o.KeySize) {
			err = errors.New("not one of the sizes")
		}
		return err
	}},
	{"APP_CERT_MANAGER", "false", wantBool, "have cert-manager issue, renew and store the client certificate, and run the issuer for it: see [cert-manager.md](../cert-manager.md)", boolean(func(o *Options) *bool { return &o.CertManager })},
	{"APP_SKIP_COMPASS_TLS_VERIFY", "false", wantBool, "accept any server as Compass: whoever is on the way can then read and change everything", boolean(func(o *Options) *bool { return &o.SkipCompassTLSVerify })},
	{"APP_COMPASS_CA_FILE", "", "the path of a PEM file", "authorities to trust for Compass besides those of the system", text(func(o *Options) *string { return &o.CompassCAFile })},
	{"APP_SKIP_APPS_TLS_VERIFY", "false", wantBool, "`spec.skipVerify` of new Applications", boolean(func(o *Options) *bool { return &o.SkipAppsTLSVerify })},
	{"APP_CENTRAL_GATEWAY_SERVICE_URL", "http://central-application-gateway.kyma-system.svc.cluster.local:8082", wantURL, "prefix of the URLs under which workloads call APIs", address(func(o *Options) *string { return &o.GatewayURL })},
	{"APP_INTEGRATION_NAMESPACE", "kyma-system", "the name of a namespace", "where the Secrets with credentials of APIs are", func(o *Options, s string) error {
		o.IntegrationNamespace = s
		return label(s)
	}},
	{"APP_PRUNE_GUARD_COUNT", strconv.Itoa(plan.DefaultGuardCount), "a whole number from 1", "of more Applications than that, and of more than the share, a loss is large: it has to be confirmed before it is believed; the same holds for the credentials of bundles", func(o *Options, s string) (err error) {
		o.Guard.Count, err = atLeastOne(s)
		return err
	}},
	{"APP_PRUNE_GUARD_SHARE", strconv.FormatFloat(plan.DefaultGuardShare, 'g', -1, 64), "a fraction greater than 0 and not greater than 1", "part of all Applications; see `APP_PRUNE_GUARD_COUNT`", func(o *Options, s string) (err error) {
		if o.Guard.Share, err = strconv.ParseFloat(s, 64); err == nil && !(o.Guard.Share > 0 && o.Guard.Share <= 1) {
			err = errors.New("not between 0 and 1")
		}
		return err
	}},
	{"APP_PRUNE_GUARD_CONFIRMATIONS", strconv.Itoa(plan.DefaultGuardConfirmations), "a whole number from 1", "how many complete answers of Compass in a row must miss the Applications of a large loss, but for that of all of them", func(o *Options, s string) (err error) {
		o.Guard.Confirmations, err = atLeastOne(s)
		return err
	}},
	{"APP_PRUNE_GUARD_SPAN", "1h", wantDuration, "time that must lie between the first and the last of these answers", duration(func(o *Options) *time.Duration { return &o.Guard.Span })},
	{"APP_RUNTIME_EVENTS_URL", "https://gateway.kyma.local", wantURL, "label `runtime_eventServiceUrl` of the runtime", address(func(o *Options) *string { return &o.EventsURL })},
	{"APP_RUNTIME_CONSOLE_URL", "https://console.kyma.local", wantURL, "label `runtime_consoleUrl` of the runtime", address(func(o *Options) *string { return &o.ConsoleURL })},
	{"APP_REPORT_APPLICATIONS", "false", wantBool, "report the results of syncs in the label `runtime_applications` of the runtime: see [sync.md](sync.md#reports-to-compass)", boolean(func(o *Options) *bool { return &o.ReportApplications })},
	{"APP_LISTEN_ADDRESS", "", "an IP address", "address to listen on; all, if empty", func(o *Options, s string) error {
		if o.ListenAddress = s; s != "" && net.ParseIP(s) == nil {
			return errors.New("not an IP address")
		}
		return nil
	}},
	{"APP_HEALTH_PORT", "8090", wantPort, "port of `/healthz` and `/readyz`", port(func(o *Options) *int { return &o.HealthPort })},
	{"APP_METRICS_PORT", "8089", wantPort, "port of `/metrics`", port(func(o *Options) *int { return &o.MetricsPort })},
	{"APP_STATUS_PAGE_ADDRESS", "127.0.0.1:8091", "a host and a port, such as 127.0.0.1:8091, or off", "where the [status page](../status-page.md) is served, to whoever reaches it; `off`: nowhere", func(o *Options, s string) error {
		o.StatusPageAddress = s
		if s == "off" {
			o.StatusPageAddress = ""
			return nil
		}
		host, number, err := net.SplitHostPort(s)
		if err == nil && host == "" {
			err = errors.New("no host")
		}
		if err == nil && net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
			err = errors.New("neither an IP address nor a name")
		}
		return errors.Join(err, port(func(*Options) *int { return new(int) })(o, number))
	}},
	{"APP_LEADER_ELECTION", "true", wantBool, "let several agents run of which one acts, by a Lease beside the configuration Secret", boolean(func(o *Options) *bool { return &o.LeaderElection })},
	{"APP_LOG_LEVEL", "info", "debug, info, warn or error", "least level of log lines", func(o *Options, s string) error { return o.LogLevel.UnmarshalText([]byte(s)) }},
	{"APP_LOG_FORMAT", "json", "json or text", "form of log lines", func(o *Options, s string) error {
		if o.LogFormat = s; s != "json" && s != "text" {
			return errors.New("unknown format")
		}
		return nil
	}},
	{"APP_GATEWAY_PORT", "8080", wantPort, "accepted and without effect", port(func(*Options) *int { return new(int) })},
	{"APP_QUERY_LOGGING", "false", wantBool, "accepted and without effect: requests and answers hold secrets and are never logged", boolean(func(*Options) *bool { return new(bool) })},
	{"APP_METRICS_LOGGING_TIME_INTERVAL", "30m", wantDuration, "accepted and without effect: see `/metrics`", duration(func(*Options) *time.Duration { return new(time.Duration) })},
}

const (
	wantName     = "namespace/name"
	wantDuration = "a positive duration with its unit, such as 15s or 3m"
	wantBool     = "true or false"
	wantURL      = "an http or https URL"
	wantPort     = "a port from 0 to 65535"
)

// FromEnvironment reads the options. Each variable has four spellings: as it is, with the underscores after the prefix left
// out, and both in lower case; an empty one counts as unset. The error names, in one line, every variable that is wrong, and
// what would be right.
func FromEnvironment(getenv func(string) string) (Options, error) {
	var o Options
	var wrong []string
	for _, v := range Variables {
		name, value := v.Name, v.Default
		for _, spelling := range v.Spellings() {
			if found := getenv(spelling); found != "" {
				name, value = spelling, found
				break
			}
		}
		if err := v.set(&o, value); err != nil {
			wrong = append(wrong, fmt.Sprintf("environment variable %s: %q is not %s", name, value, v.Want))
		}
	}
	if len(wrong) > 0 {
		return o, errors.New(strings.Join(wrong, "; "))
	}
	return o, nil
}

// Spellings of the variable, in the order in which they count.
func (v Variable) Spellings() []string {
	joined := "APP_" + strings.ReplaceAll(strings.TrimPrefix(v.Name, "APP_"), "_", "")
	return []string{v.Name, joined, strings.ToLower(v.Name), strings.ToLower(joined)}
}

// name reads "namespace/name"; without a namespace it is default, and what follows a second slash is ignored.
func name(field func(*Options) *types.NamespacedName) func(*Options, string) error {
	return func(o *Options, s string) error {
		parts := strings.Split(s, "/")
		n := types.NamespacedName{Namespace: "default", Name: parts[0]}
		if len(parts) > 1 && parts[1] != "" {
			n.Name = parts[1]
			if parts[0] != "" {
				n.Namespace = parts[0]
			}
		}
		*field(o) = n
		if problems := validation.IsDNS1123Subdomain(n.Name); len(problems) > 0 {
			return errors.New(problems[0])
		}
		return label(n.Namespace)
	}
}

func label(s string) error {
	if problems := validation.IsDNS1123Label(s); len(problems) > 0 {
		return errors.New(problems[0])
	}
	return nil
}

func duration(field func(*Options) *time.Duration) func(*Options, string) error {
	return func(o *Options, s string) error {
		d, err := time.ParseDuration(s)
		if err == nil && d <= 0 {
			err = errors.New("not positive")
		}
		*field(o) = d
		return err
	}
}

func atLeastOne(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && n < 1 {
		err = errors.New("less than 1")
	}
	return n, err
}

func boolean(field func(*Options) *bool) func(*Options, string) error {
	return func(o *Options, s string) (err error) {
		*field(o), err = strconv.ParseBool(s)
		return err
	}
}

func text(field func(*Options) *string) func(*Options, string) error {
	return func(o *Options, s string) error {
		*field(o) = s
		return nil
	}
}

func address(field func(*Options) *string) func(*Options, string) error {
	return func(o *Options, s string) error {
		u, err := url.Parse(s)
		if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			err = errors.New("no http URL")
		}
		*field(o) = s
		return err
	}
}

func port(field func(*Options) *int) func(*Options, string) error {
	return func(o *Options, s string) error {
		p, err := strconv.ParseUint(s, 10, 16)
		*field(o) = int(p)
		return err
	}
}
