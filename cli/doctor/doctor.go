// Package doctor is "appconn doctor": it walks the chain from the cluster to Compass, from the edge to the validator, and from
// an Application to its APIs, and says in one line what is wrong and what to do. Each link is looked at by the code of the agent and of the gateway that
// uses it. It owns the order of the links, and the words; it writes nothing, spends no token, and prints no secret.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/cli/kubeconfig"
	"github.com/application-connector/application-connector/gateway/transport"
)

const (
	// readTimeout bounds each reading of the cluster when the kubeconfig and --request-timeout set no bound.
	readTimeout = 10 * time.Second
	// callTimeout bounds a call of Compass, of a token endpoint or of an API: the gateway's -proxyTimeout by default.
	callTimeout = 10 * time.Second
)

// Options of the command.
type Options struct {
	genericiooptions.IOStreams
	// Config says which cluster; it takes the same flags as kubectl.
	Config *genericclioptions.ConfigFlags
	// Output is the format: one of formats.
	Output string
	// NoCalls sends nothing to token endpoints and APIs; connections are made all the same.
	NoCalls bool
	// Standalone looks at nothing of Compass.
	Standalone bool
	// TargetCAFile and AllowedTargets are the gateway's flags of these names.
	TargetCAFile, AllowedTargets string
	// Timeout bounds the whole.
	Timeout time.Duration
	// Getenv gives the agent's variables.
	Getenv func(string) string
	// Clock is the real one, but in tests.
	Clock clock.PassiveClock

	target  target // without an application: none was named
	agent   agent.Options
	config  *rest.Config
	allowed transport.Allowed
}

// NewOptions are the defaults.
func NewOptions(streams genericiooptions.IOStreams) *Options {
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil // the Secrets' namespaces come from the agent's variables
	return &Options{IOStreams: streams, Config: config, Output: formatText, Timeout: 2 * time.Minute, Getenv: os.Getenv, Clock: clock.RealClock{}}
}

// BindFlags ties o to the command line.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&o.Output, "output", "o", o.Output, "format: "+strings.Join(formats, ", "))
	fs.BoolVar(&o.NoCalls, "no-calls", o.NoCalls, "send nothing to token endpoints, CSRF token endpoints and APIs; connections to APIs are made all the same")
	fs.BoolVar(&o.Standalone, "standalone", o.Standalone, "the cluster has no Compass: look at nothing of it")
	fs.StringVar(&o.TargetCAFile, "target-ca-file", o.TargetCAFile, "PEM file of authorities to trust for APIs besides those of the system: give the gateway's -targetCAFile")
	fs.StringVar(&o.AllowedTargets, "allowed-targets", o.AllowedTargets, "addresses, ranges and names that may be called although they are loopback or link-local: give the gateway's -allowedTargets")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "how long the whole may take")
	o.Config.AddFlags(fs)
}

// Validate reads what the command line and the environment say, and refuses what cannot be meant.
func (o *Options) Validate(args []string) error {
	var errs []error
	if !slices.Contains(formats, o.Output) {
		errs = append(errs, fmt.Errorf("--output %q: one of %s is needed", o.Output, strings.Join(formats, ", ")))
	}
	if o.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout=%s: must be positive", o.Timeout))
	}
	var err error
	if len(args) > 0 {
		if o.target, err = parseTarget(args[0]); err != nil {
			errs = append(errs, err)
		}
	}
	if o.allowed, err = transport.ParseAllowed(o.AllowedTargets); err != nil {
		errs = append(errs, fmt.Errorf("--allowed-targets: %w", err))
	}
	if o.agent, err = agent.FromEnvironment(o.Getenv); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return &Error{Undecidable, err}
	}
	return nil
}

// Complete reads the kubeconfig.
func (o *Options) Complete() error {
	var err error
	if o.config, err = kubeconfig.Config(o.Config); err != nil {
		return &Error{Undecidable, err}
	}
	if o.config.Timeout == 0 {
		o.config.Timeout = readTimeout
	}
	return nil
}

// NewCommand makes the command. Its error is an *Error whenever something is wrong or could not be found out.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	return NewOptions(streams).Command()
}

// Command makes the command that acts upon o.
func (o *Options) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [application[/service[/entry]]]",
		Short: "Find out what is wrong between this cluster, Compass and the APIs, and say what to do",
		Long: "Find out what is wrong, link by link: the cluster, the Secrets, the client certificate, the connection to Compass, Director,\n" +
			"the sync; the edge that events come in by; and, for an Application, its Secrets, the connection to each API, tokens, and the answer of the API.\n\n" +
			"Without an argument, of Applications only that is looked at which agent and gateway say of them. Service and entry are as in\n" +
			"URLs of the gateway.\n\n" +
			"Nothing is written, and the one-time token is not used. Tokens are asked for, and each API is called once by GET at its\n" +
			"targetUrl, unless --no-calls is given. The environment variables of the agent say which Secrets are read: set those that\n" +
			"its Deployment sets to other values than the default.\n\n" +
			"The exit code is 0 when all is well, 1 when something is wrong, 2 when that could not be found out.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Validate(args); err != nil {
				return err
			}
			if err := o.Complete(); err != nil {
				return err
			}
			return o.Run(cmd.Context())
		},
	}
	o.BindFlags(cmd.Flags())
	return cmd
}

// Run walks the chain and prints what was found.
func (o *Options) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	w, err := o.start()
	if err != nil {
		return &Error{Undecidable, err}
	}
	defer w.close()
	report := w.all(ctx)
	if err := o.print(report); err != nil {
		return &Error{Undecidable, err}
	}
	return report.err()
}
