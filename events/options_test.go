package events_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/events"
)

func TestOptionsThatCannotWorkAreNamedWithWhatWould(t *testing.T) {
	const missing = `must contain --appNamePlaceholder "%%APP_NAME%%"`
	for args, want := range map[string]string{
		"":                                  "",
		"--proxyPort=0 --externalAPIPort=0": "",
		"--proxyPort=-1":                    "--proxyPort=-1: must be 0 to 65535",
		"--proxyPort=65536":                 "--proxyPort=65536: must be 0 to 65535",
		"--externalAPIPort=-1":              "--externalAPIPort=-1: must be 0 to 65535",
		"--proxyPort=8080":                  "--proxyPort and --externalAPIPort are both 8080: must differ",
		"--listenAddress=localhost":         `--listenAddress="localhost": must be an IP address or empty`,
		"--eventingPathPrefixV1=/v1/events": `--eventingPathPrefixV1="/v1/events": ` + missing,
		"--eventingPathPrefixV2=/v2/events": `--eventingPathPrefixV2="/v2/events": ` + missing,
		"--eventingPathPrefixEvents=/event": `--eventingPathPrefixEvents="/event": ` + missing,
		"--appNamePlaceholder= --eventingPathPrefixV1=/a --eventingPathPrefixV2=/b --eventingPathPrefixEvents=/c": "",
		"--appNamePlaceholder=APPL": `--eventingPathPrefixV1="/%%APP_NAME%%/v1/events": must contain --appNamePlaceholder "APPL"; ` +
			`--eventingPathPrefixV2="/%%APP_NAME%%/v2/events": must contain --appNamePlaceholder "APPL"; --eventingPathPrefixEvents="/%%APP_NAME%%/events": must contain --appNamePlaceholder "APPL"`,
		"--eventingPathPrefixV1=%%APP_NAME%%/v1":             `--eventingPathPrefixV1="%%APP_NAME%%/v1": must start with "/"`,
		"--eventingPathPrefixV2=%%APP_NAME%%/v2":             `--eventingPathPrefixV2="%%APP_NAME%%/v2": must start with "/"`,
		"--eventingPathPrefixEvents=%%APP_NAME%%":            `--eventingPathPrefixEvents="%%APP_NAME%%": must start with "/"`,
		"--eventingPublisherHost=publisher":                  "",
		"--eventingPublisherHost=publisher:8080":             "",
		"--eventingPublisherHost=":                           `--eventingPublisherHost="": must be host or host:port`,
		"--eventingPublisherHost=http://publisher":           `--eventingPublisherHost="http://publisher": must be host or host:port`,
		"--eventingPublisherHost=publisher/path":             `--eventingPublisherHost="publisher/path": must be host or host:port`,
		"--eventingDestinationPath=publish":                  `--eventingDestinationPath="publish": must start with "/"`,
		"--syncPeriod=60s":                                   "",
		"--syncPeriod=0s":                                    "--syncPeriod=0s: must be more than 0",
		"--xfccMode=loose":                                   `--xfccMode="loose": must be strict or compatible`,
		"--trustedHops=-1":                                   "--trustedHops=-1: must not be negative",
		"--ingressIdentity=gateway":                          `--ingressIdentity="gateway": must be a URI, as spiffe://cluster.local/ns/…/sa/…`,
		"--ingressIdentity=gateway --trustedHops=0":          "",
		"--identityHeader=X-Client":                          `--identityHeader="X-Client": must be X-Forwarded-Client-Cert or Client-Cert`,
		"--identityHeader=Client-Cert":                       "",
		"--identityHeader=Client-Cert --xfccMode=compatible": "--identityHeader=Client-Cert: needs --xfccMode=strict",
		"--meshConfig=":                                      "",
		"--meshConfig=istio":                                 `--meshConfig="istio": must be namespace/name of a ConfigMap, or empty`,
		"--deniedCertificates=list":                          `--deniedCertificates="list": must be namespace/name of a ConfigMap, or empty`,
		"--sourcePolicy=off":                                 "",
		"--sourcePolicy=warn":                                "",
		"--sourcePolicy=rewrite":                             "",
		"--sourcePolicy=enforce":                             "",
		"--sourcePolicy=maybe":                               `--sourcePolicy="maybe": must be off, warn, rewrite or enforce`,
		"--rateLimit=-1":                                     "--rateLimit=-1: must be 0 or more, and less than 1e9",
		"--rateLimit=NaN":                                    "--rateLimit=NaN: must be 0 or more, and less than 1e9",
		"--rateBurst=-1":                                     "--rateBurst=-1: must not be negative",
		"--maxInFlight=-1":                                   "--maxInFlight=-1: must not be negative",
		"--maxBodyBytes=0":                                   "--maxBodyBytes=0: must be more than 0",
		"--publisherTimeout=0s":                              "--publisherTimeout=0s: must be more than 0",
		"--publisherAttempts=0":                              "--publisherAttempts=0: must be more than 0",
		"--retryWindow=-1s":                                  "--retryWindow=-1s: must not be negative",
		"--drainDelay=-1s":                                   "--drainDelay=-1s: must not be negative",
		"--shutdownTimeout=0s":                               "--shutdownTimeout=0s: must be more than 0",
		"--trustedHops=-1 --maxBodyBytes=0":                  "--trustedHops=-1: must not be negative; --maxBodyBytes=0: must be more than 0",
		"APP_LOG_FORMAT=xml":                                 `APP_LOG_FORMAT="xml": must be json or text`,
		"APP_LOG_FORMAT=":                                    "",
		"APP_LOG_LEVEL=WARN":                                 "",
		"APP_LOG_LEVEL=panic":                                "",
		"APP_LOG_LEVEL=loud":                                 `APP_LOG_LEVEL="loud": must be debug, info, warn, error, fatal or panic`,
	} {
		o := events.NewOptions()
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		o.BindFlags(fs)
		environment := map[string]string{}
		var flags []string
		for _, arg := range strings.Fields(args) {
			if name, value, _ := strings.Cut(arg, "="); strings.HasPrefix(arg, "-") {
				flags = append(flags, arg)
			} else {
				environment[name] = value
			}
		}
		if err := fs.Parse(flags); err != nil {
			t.Fatal(err)
		}
		o.Complete(func(name string) (string, bool) { value, ok := environment[name]; return value, ok })
		got := ""
		if err := o.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", args, got, want)
		}
	}
}
