// Package status is "appconn status": what the cluster knows of its connection to Compass, of the client certificate, of
// the last sync and of the Applications, and in one exit code whether all is well. It only reads CompassConnection and
// Application objects: no Secret, and nothing of Compass itself.
package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/report"
	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/kubeconfig"
)

const (
	// readTimeout bounds one reading of the cluster when the kubeconfig and --request-timeout set no bound.
	readTimeout = 30 * time.Second
	// pageSize is how many Applications are asked for at a time.
	pageSize = 500
)

// Error is why the exit code is not 0.
type Error struct {
	// Health is Unhealthy or Unknown.
	Health report.Health
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is 1 for what is not healthy and 2 for what could not be found out.
func (e *Error) ExitCode() int {
	if e.Health == report.Unhealthy {
		return 1
	}
	return 2
}

// Options of the command.
type Options struct {
	genericiooptions.IOStreams
	// Config says which cluster; it takes the same flags as kubectl.
	Config *genericclioptions.ConfigFlags
	// Output is the format: one of formats.
	Output string
	// Watch prints a report again whenever it changes, until the context ends.
	Watch bool
	// Clock is the real one, but in tests.
	Clock clock.PassiveClock

	cluster *rest.Config
	scheme  *runtime.Scheme
}

// NewOptions are the defaults.
func NewOptions(streams genericiooptions.IOStreams) *Options {
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil // both resources belong to the whole cluster
	return &Options{IOStreams: streams, Config: config, Clock: clock.RealClock{}}
}

// BindFlags ties o to the command line.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&o.Output, "output", "o", formatTable, "format: "+strings.Join(formats, ", "))
	fs.BoolVarP(&o.Watch, "watch", "w", false, "print it again whenever it changes")
	o.Config.AddFlags(fs)
}

// Validate refuses what is not a format.
func (o *Options) Validate() error {
	if !slices.Contains(formats, o.Output) {
		return &Error{report.Unknown, fmt.Errorf("--output %q: one of %s is needed", o.Output, strings.Join(formats, ", "))}
	}
	return nil
}

// Complete reads the kubeconfig.
func (o *Options) Complete() error {
	var err error
	if o.cluster, err = kubeconfig.Config(o.Config); err != nil {
		return &Error{report.Unknown, err}
	}
	o.scheme = runtime.NewScheme()
	return errors.Join(compassv1alpha1.AddToScheme(o.scheme), appv1alpha1.AddToScheme(o.scheme))
}

// NewCommand makes the command. Its error is an *Error whenever the cluster is not healthy or could not be read.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	return NewOptions(streams).Command()
}

// Command makes the command that acts upon o.
func (o *Options) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how the connection to Compass is, and what came through it",
		Long: "Say how the connection to Compass is: the client certificate, the last sync, the Applications and their services.\n\n" +
			"The exit code is 0 when all is well, 1 when it is not, 2 when it could not be found out.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
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

// Run prints one report, or one for each change until ctx ends.
func (o *Options) Run(ctx context.Context) error {
	config := rest.CopyConfig(o.cluster)
	if config.Timeout == 0 {
		config.Timeout = readTimeout
	}
	reader, err := client.New(config, client.Options{Scheme: o.scheme})
	if err != nil {
		return unreadable(err)
	}
	found, err := report.Read(ctx, reader, o.Clock.Now(), pageSize)
	if err != nil {
		return unreadable(err)
	}
	if o.Watch {
		return o.watch(ctx, found)
	}
	if err := o.print(found); err != nil {
		return err
	}
	return judged(&found)
}

// judged is nil for a healthy report.
func judged(r *report.Report) error {
	if r.Health == report.Healthy {
		return nil
	}
	return &Error{r.Health, errors.New(r.Reason)}
}

// unreadable says what to do when the cluster gives no answer.
func unreadable(err error) error {
	advice := "is it the right --context, and does the server run?"
	switch {
	case meta.IsNoMatchError(err):
		advice = "this cluster does not have the resource definitions of Application Connector: apply manifests/crds, or choose another --context"
	case apierrors.IsUnauthorized(err):
		advice = "the cluster does not know who you are: the credentials in the kubeconfig are wrong or too old"
	case apierrors.IsForbidden(err):
		advice = "get, list and watch on compassconnections and applications are needed"
	}
	return &Error{report.Unknown, fmt.Errorf("the cluster cannot be read: %w; %s", err, advice)}
}
