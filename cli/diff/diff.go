// Package diff is "appconn diff": what the next sync of the agent would do, and why. It asks Director itself, with the
// client certificate of the cluster, and computes the plan as the agent does; it owns only how that is asked for and
// printed. It writes nothing.
package diff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/agent/sync/plan"
	"github.com/application-connector/application-connector/cli/kubeconfig"
	"github.com/application-connector/application-connector/cli/terminal"
)

// The formats of --output.
const (
	formatText = "text"
	formatJSON = "json"
)

var formats = []string{formatText, formatJSON}

// readTimeout bounds each reading of the cluster when the kubeconfig and --request-timeout set no bound.
const readTimeout = 30 * time.Second

// Exit codes, as those of diff.
const (
	exitDifferent = 1
	exitTrouble   = 2
)

// Error is why the exit code is not 0.
type Error struct {
	code int
	err  error
}

// Error implements error.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.err }

// ExitCode is 1 if there are differences and 2 if they could not be found out.
func (e *Error) ExitCode() int { return e.code }

func trouble(format string, args ...any) error {
	return &Error{exitTrouble, fmt.Errorf(format, args...)}
}

// Options of the command.
type Options struct {
	genericiooptions.IOStreams
	// Config says which cluster; it takes the same flags as kubectl.
	Config *genericclioptions.ConfigFlags
	// Output is the format: one of formats.
	Output string
	// Getenv gives the agent's variables.
	Getenv func(string) string
	// Preview computes the plan: agent.Preview, but in tests.
	Preview func(context.Context, agent.Options) (plan.Plan, error)
}

// NewOptions are the defaults.
func NewOptions(streams genericiooptions.IOStreams) *Options {
	config := genericclioptions.NewConfigFlags(true)
	config.Namespace = nil // the Secrets' namespaces come from the agent's variables
	return &Options{IOStreams: streams, Config: config, Getenv: os.Getenv, Preview: agent.Preview}
}

// NewCommand makes the command. Its error is an *Error whenever there are differences, or they could not be found out.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	return NewOptions(streams).Command()
}

// Command makes the command that acts upon o.
func (o *Options) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Say what the next sync would change in the cluster, and why",
		Long: "Say what the next sync would change in the cluster, and why: Director is asked with the cluster's client certificate,\n" +
			"and compared with the Applications and their Secrets. Nothing is written. The values of Secrets are not shown.\n\n" +
			"The environment variables of the agent say which Secrets are read and how the agent is set: set those that its\n" +
			"Deployment sets to other values than the default.\n\n" +
			"The exit code is 0 when nothing would change, no system fails and the answer was whole, 1 otherwise, 2 when that could not\n" +
			"be found out.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.Run(cmd.Context()) },
	}
	cmd.Flags().StringVarP(&o.Output, "output", "o", formatText, "format: "+strings.Join(formats, ", "))
	o.Config.AddFlags(cmd.Flags())
	return cmd
}

// Run computes the plan and prints it.
func (o *Options) Run(ctx context.Context) error {
	if !slices.Contains(formats, o.Output) {
		return trouble("--output %q: one of %s is needed", o.Output, strings.Join(formats, ", "))
	}
	settings, err := agent.FromEnvironment(o.Getenv)
	if err != nil {
		return &Error{exitTrouble, err}
	}
	if settings.Kubernetes, err = kubeconfig.Config(o.Config); err != nil {
		return &Error{exitTrouble, err}
	}
	if settings.Kubernetes.Timeout == 0 {
		settings.Kubernetes.Timeout = readTimeout
	}
	p, err := o.Preview(ctx, settings)
	if err != nil {
		return trouble("the next sync cannot be foretold: %w", err)
	}
	if err := o.print(p); err != nil {
		return &Error{exitTrouble, err}
	}
	if p.Idle() && len(p.Failures) == 0 && p.Kept == 0 && p.Incomplete == "" {
		return nil
	}
	return &Error{exitDifferent, errors.New("the cluster differs from what Compass says")}
}

func (o *Options) print(p plan.Plan) error {
	if o.Output == formatJSON {
		text, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.Out, "%s\n", text)
		return err
	}
	text := p.String()
	if text == "" {
		text = fmt.Sprintf("nothing to do: %d systems are in the cluster as Compass says\n", p.Total)
	}
	for line := range strings.Lines(text) {
		// Much of it was written outside of the cluster.
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		if _, err := fmt.Fprintln(o.Out, indent+terminal.Line(line)); err != nil {
			return err
		}
	}
	return nil
}
