package agent_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/agent/sync/plan"
)

var defaults = agent.Options{
	ConfigurationSecret:  types.NamespacedName{Namespace: "kyma-system", Name: "compass-agent-configuration"},
	ClientSecret:         types.NamespacedName{Namespace: "kyma-system", Name: "cluster-client-certificates"},
	CASecret:             types.NamespacedName{Namespace: "istio-system", Name: "kyma-gateway-certs-cacert"},
	SyncPeriod:           3 * time.Minute,
	MinimalSyncTime:      15 * time.Second,
	RenewalThreshold:     0.3,
	KeySize:              4096,
	GatewayURL:           "http://central-application-gateway.kyma-system.svc.cluster.local:8082",
	IntegrationNamespace: "kyma-system",
	Guard:                plan.Guard{Count: 5, Share: 0.5, Confirmations: 3, Span: time.Hour},
	EventsURL:            "https://gateway.kyma.local",
	ConsoleURL:           "https://console.kyma.local",
	HealthPort:           8090,
	MetricsPort:          8089,
	StatusPageAddress:    "127.0.0.1:8091",
	LeaderElection:       true,
	LogLevel:             slog.LevelInfo,
	LogFormat:            "json",
}

func TestOptionsComeFromTheEnvironment(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		edit func(*agent.Options)
	}{
		"nothing is set":                {nil, func(*agent.Options) {}},
		"empty counts as unset":         {map[string]string{"APP_HEALTH_PORT": "", "APP_SKIP_COMPASS_TLS_VERIFY": ""}, func(*agent.Options) {}},
		"as written":                    {map[string]string{"APP_SKIP_COMPASS_TLS_VERIFY": "true"}, func(o *agent.Options) { o.SkipCompassTLSVerify = true }},
		"without underscores":           {map[string]string{"APP_SKIPCOMPASSTLSVERIFY": "true"}, func(o *agent.Options) { o.SkipCompassTLSVerify = true }},
		"in lower case":                 {map[string]string{"app_skip_compass_tls_verify": "true"}, func(o *agent.Options) { o.SkipCompassTLSVerify = true }},
		"in lower case, no underscores": {map[string]string{"app_skipcompasstlsverify": "true"}, func(o *agent.Options) { o.SkipCompassTLSVerify = true }},
		"the first spelling counts":     {map[string]string{"APP_HEALTH_PORT": "1", "app_healthport": "2"}, func(o *agent.Options) { o.HealthPort = 1 }},
		"a name without a namespace":    {map[string]string{"APP_CA_CERTIFICATES_SECRET": "ca"}, func(o *agent.Options) { o.CASecret = types.NamespacedName{Namespace: "default", Name: "ca"} }},
		"a name after a slash":          {map[string]string{"APP_CA_CERTIFICATES_SECRET": "/ca"}, func(o *agent.Options) { o.CASecret = types.NamespacedName{Namespace: "default", Name: "ca"} }},
		"a name before a slash":         {map[string]string{"APP_CA_CERTIFICATES_SECRET": "ca/"}, func(o *agent.Options) { o.CASecret = types.NamespacedName{Namespace: "default", Name: "ca"} }},
		"segments beyond are ignored":   {map[string]string{"APP_CA_CERTIFICATES_SECRET": "a/b/c"}, func(o *agent.Options) { o.CASecret = types.NamespacedName{Namespace: "a", Name: "b"} }},
		"no status page":                {map[string]string{"APP_STATUS_PAGE_ADDRESS": "off"}, func(o *agent.Options) { o.StatusPageAddress = "" }},
		"a status page by name":         {map[string]string{"APP_STATUS_PAGE_ADDRESS": "localhost:1"}, func(o *agent.Options) { o.StatusPageAddress = "localhost:1" }},
		"everything": {map[string]string{
			"APP_AGENT_CONFIGURATION_SECRET": "a/b", "APP_CLUSTER_CERTIFICATES_SECRET": "c/d", "APP_CA_CERTIFICATES_SECRET": "e/f",
			"APP_CONTROLLER_SYNC_PERIOD": "1m", "APP_MINIMAL_COMPASS_SYNC_TIME": "2s", "APP_CERT_VALIDITY_RENEWAL_THRESHOLD": "0.5", "APP_CERT_KEY_SIZE": "3072",
			"APP_COMPASS_CA_FILE": "/ca.pem", "APP_SKIP_APPS_TLS_VERIFY": "true", "APP_CENTRAL_GATEWAY_SERVICE_URL": "http://g:1", "APP_INTEGRATION_NAMESPACE": "n",
			"APP_PRUNE_GUARD_COUNT": "1", "APP_PRUNE_GUARD_SHARE": "1", "APP_PRUNE_GUARD_CONFIRMATIONS": "7", "APP_PRUNE_GUARD_SPAN": "1m",
			"APP_RUNTIME_EVENTS_URL": "https://e", "APP_RUNTIME_CONSOLE_URL": "https://c", "APP_REPORT_APPLICATIONS": "true", "APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "1", "APP_METRICS_PORT": "2", "APP_STATUS_PAGE_ADDRESS": "[::1]:3",
			"APP_LEADER_ELECTION": "false", "APP_LOG_LEVEL": "debug", "APP_LOG_FORMAT": "text", "APP_GATEWAY_PORT": "9", "APP_QUERY_LOGGING": "true", "APP_METRICS_LOGGING_TIME_INTERVAL": "1h",
		}, func(o *agent.Options) {
			*o = agent.Options{
				ConfigurationSecret: types.NamespacedName{Namespace: "a", Name: "b"}, ClientSecret: types.NamespacedName{Namespace: "c", Name: "d"}, CASecret: types.NamespacedName{Namespace: "e", Name: "f"},
				SyncPeriod: time.Minute, MinimalSyncTime: 2 * time.Second, RenewalThreshold: 0.5, KeySize: 3072, CompassCAFile: "/ca.pem", SkipAppsTLSVerify: true,
				GatewayURL: "http://g:1", IntegrationNamespace: "n", Guard: plan.Guard{Count: 1, Share: 1, Confirmations: 7, Span: time.Minute}, EventsURL: "https://e", ConsoleURL: "https://c", ReportApplications: true, ListenAddress: "127.0.0.1", HealthPort: 1, MetricsPort: 2, StatusPageAddress: "[::1]:3",
				LogLevel: slog.LevelDebug, LogFormat: "text",
			}
		}},
	} {
		want := defaults
		test.edit(&want)
		got, err := agent.FromEnvironment(func(name string) string { return test.env[name] })
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(agent.Options{}, "Kubernetes", "LogTo", "Listening", "ListeningStatusPage")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAWrongOptionNamesTheVariableAndWhatWouldBeRight(t *testing.T) {
	for variable, values := range map[string][]string{
		"APP_PRUNE_GUARD_COUNT":               {"0", "-1", "x", "1.5"},
		"APP_PRUNE_GUARD_SHARE":               {"0", "1.1", "-0.5", "NaN", "half"},
		"APP_PRUNE_GUARD_CONFIRMATIONS":       {"0", "x"},
		"APP_PRUNE_GUARD_SPAN":                {"0s", "1"},
		"APP_AGENT_CONFIGURATION_SECRET":      {"/", "UPPER/name", "ns/Name_"},
		"APP_CONTROLLER_SYNC_PERIOD":          {"180", "-1s", "0s", "x"},
		"APP_MINIMAL_COMPASS_SYNC_TIME":       {"10"},
		"APP_CERT_VALIDITY_RENEWAL_THRESHOLD": {"7", "0", "-0.3", "1", "NaN", "x"},
		"APP_CERT_KEY_SIZE":                   {"1024", "ecdsa"},
		"APP_SKIP_COMPASS_TLS_VERIFY":         {"yes"},
		"APP_CENTRAL_GATEWAY_SERVICE_URL":     {"gateway:8080", "ftp://x", "http://"},
		"APP_INTEGRATION_NAMESPACE":           {"Not A Namespace"},
		"APP_LISTEN_ADDRESS":                  {"localhost", "127.0.0.1:80"},
		"APP_HEALTH_PORT":                     {"-1", "65536", "http"},
		"APP_STATUS_PAGE_ADDRESS":             {"8091", ":8091", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536", "no name:1", "none"},
		"APP_LOG_LEVEL":                       {"loud"},
		"APP_LOG_FORMAT":                      {"xml"},
		"APP_METRICS_LOGGING_TIME_INTERVAL":   {"30"},
	} {
		want := ""
		for _, v := range agent.Variables {
			if v.Name == variable {
				want = v.Want
			}
		}
		for _, value := range values {
			_, err := agent.FromEnvironment(func(name string) string {
				if name == variable {
					return value
				}
				return ""
			})
			if err == nil || !strings.Contains(err.Error(), "environment variable "+variable+": ") || !strings.Contains(err.Error(), "is not "+want) {
				t.Errorf("%s=%s: %v", variable, value, err)
			}
		}
	}
}

func TestEveryWrongOptionIsTold(t *testing.T) {
	_, err := agent.FromEnvironment(func(name string) string {
		return map[string]string{"APP_HEALTH_PORT": "x", "APP_LOG_FORMAT": "y"}[name]
	})
	const want = `environment variable APP_HEALTH_PORT: "x" is not a port from 0 to 65535; environment variable APP_LOG_FORMAT: "y" is not json or text`
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestWhatKeepsTheAgentFromRunningIsOneLine(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"a flag that is none":      {[]string{"--healthPort=1"}, nil, "agent: flag provided but not defined: -healthPort: the only flag is --kubeconfig, see --help\n"},
		"a flag without its value": {[]string{"--kubeconfig"}, nil, "agent: flag needs an argument: -kubeconfig: the only flag is --kubeconfig, see --help\n"},
		"an argument":              {[]string{"run"}, nil, "agent: unexpected argument \"run\": the agent is configured by environment variables, and by --kubeconfig\n"},
		"two wrong variables":      {nil, map[string]string{"APP_HEALTH_PORT": "x\ny", "APP_LOG_FORMAT": "y"}, "agent: environment variable APP_HEALTH_PORT: \"x\\ny\" is not a port from 0 to 65535; environment variable APP_LOG_FORMAT: \"y\" is not json or text\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			code := agent.Main(t.Context(), test.args, func(name string) string { return test.env[name] }, &stderr)
			if diff := cmp.Diff(test.want, stderr.String()); code != 1 || diff != "" {
				t.Errorf("exit code %d: %s", code, diff)
			}
		})
	}
	var stderr strings.Builder
	if code := agent.Main(t.Context(), []string{"--help"}, func(string) string { return "" }, &stderr); code != 0 || !strings.Contains(stderr.String(), "kubeconfig") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}
