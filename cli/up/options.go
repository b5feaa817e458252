package up

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/application-connector/application-connector/secret"
)

// Options of appconn up.
type Options struct {
	// Once runs the walk-through and ends, instead of waiting for an interrupt.
	Once bool
	// State is the folder that keeps everything; empty means a temporary one that is removed at the end.
	State string
	// Kubeconfig names a cluster to use in place of the one that is started here.
	Kubeconfig string
	// FreePorts picks free ports in place of the documented ones, so that several can run side by side.
	FreePorts bool
	// Timeout bounds how long the start, and each step of the walk-through, may take.
	Timeout time.Duration
	// LogLevel is the least level of lines in the logs of agent, gateway and validator: debug, info, warn or error.
	LogLevel string

	// ConnectorURL, Token, RuntimeID, Tenant and CompassCA name a Compass to pair with in place of the simulated one.
	ConnectorURL string
	Token        secret.Value
	RuntimeID    string
	Tenant       string
	CompassCA    string

	token string
	// binaries is the folder of the other programs.
	binaries string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (Options) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// BindFlags declares the flags.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Once, "once", false, "run the walk-through, then stop; the exit code says whether every step held")
	fs.StringVar(&o.State, "state", "", "folder that keeps cluster, certificates and events between runs (default: a temporary one, removed at the end)")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "use this cluster in place of a local one; resource definitions and Secrets are written to it")
	fs.BoolVar(&o.FreePorts, "free-ports", false, "pick free ports in place of the documented ones")
	fs.DurationVar(&o.Timeout, "timeout", 2*time.Minute, "how long the start, and each step of the walk-through, may take")
	fs.StringVar(&o.LogLevel, "log-level", "info", "least level of lines in the logs of agent, gateway and validator: debug, info, warn or error")
	fs.StringVar(&o.ConnectorURL, "connector-url", "", "pair with this Compass in place of the simulated one: the URL that came with the one-time token")
	fs.StringVar(&o.token, "token", "", "one-time token for --connector-url (or environment variable APPCONN_TOKEN, which process lists do not show)")
	fs.StringVar(&o.RuntimeID, "runtime-id", "", "id of this runtime in Director, for --connector-url")
	fs.StringVar(&o.Tenant, "tenant", "", "tenant in which the token was requested, for --connector-url")
	fs.StringVar(&o.CompassCA, "compass-ca", "", "PEM file with the authority of --connector-url, if the system does not know it")
}

// Complete fills in what the environment says.
func (o *Options) Complete() error {
	o.Token = secret.Value(o.token)
	if o.Token == "" {
		o.Token = secret.Value(os.Getenv("APPCONN_TOKEN"))
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the other programs: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return fmt.Errorf("finding the other programs: %w", err)
	}
	o.binaries = filepath.Dir(self)
	// The walk-through's commands run in the state folder.
	for flag, path := range map[string]*string{"--state": &o.State, "--kubeconfig": &o.Kubeconfig, "--compass-ca": &o.CompassCA} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	return nil
}

// Validate says which option is wrong, and what would be right. It changes nothing.
func (o *Options) Validate() error {
	if o.Timeout <= 0 {
		return fmt.Errorf("--timeout is %s: it must be more than 0, for example 2m", o.Timeout)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, o.LogLevel) {
		return fmt.Errorf("--log-level is %q: it must be debug, info, warn or error", o.LogLevel)
	}
	if o.Kubeconfig != "" {
		if _, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig); err != nil {
			return fmt.Errorf("--kubeconfig %s cannot be used (%w): name a file that kubectl can use, or leave the flag out to get a local cluster", o.Kubeconfig, err)
		}
	}
	if o.ConnectorURL == "" {
		for flag, set := range map[string]bool{"--token": o.token != "", "--runtime-id": o.RuntimeID != "", "--tenant": o.Tenant != "", "--compass-ca": o.CompassCA != ""} {
			if set {
				return fmt.Errorf("%s needs --connector-url: without it the simulated Compass is used, which needs neither", flag)
			}
		}
		return nil
	}
	u, err := url.Parse(o.ConnectorURL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return errors.New("--connector-url must be an https URL, for example https://compass-gateway.example.com/connector/graphql")
	}
	for flag, missing := range map[string]bool{"--token": o.Token == "", "--runtime-id": o.RuntimeID == "", "--tenant": o.Tenant == ""} {
		if missing {
			return fmt.Errorf("--connector-url needs %s too: it comes with the one-time token", flag)
		}
	}
	if o.CompassCA != "" {
		if _, err := os.ReadFile(o.CompassCA); err != nil {
			return fmt.Errorf("--compass-ca: %w", err)
		}
	}
	return nil
}
