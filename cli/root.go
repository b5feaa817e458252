// Package cli is the command-line tool appconn: it puts the subcommands together, and owns how errors become one line
// and an exit code. What a subcommand does is known only to its own package.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/application-connector/application-connector/cli/diff"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/cli/onboard"
	"github.com/application-connector/application-connector/cli/revoke"
	"github.com/application-connector/application-connector/cli/status"
	"github.com/application-connector/application-connector/cli/terminal"
	"github.com/application-connector/application-connector/cli/up"
	"github.com/application-connector/application-connector/version"
)

// Exit codes. Subcommands choose others by an error with a method ExitCode() int.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a wrong flag or argument.
type usageError struct{ error }

// ExitCode implements the interface by which Run finds exit codes.
func (usageError) ExitCode() int { return exitUsage }

// Unwrap gives what cobra said.
func (e usageError) Unwrap() error { return e.error }

// NewCommand makes the root command with all subcommands. Its errors are returned, not printed.
func NewCommand(streams genericiooptions.IOStreams) *cobra.Command {
	root := &cobra.Command{
		Use:           "appconn",
		Short:         "Connect a Kubernetes cluster to external systems",
		Version:       version.String(),
		SilenceUsage:  true, // Run prints errors, once and in one line
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return asUsageError(cmd, fmt.Errorf("unknown command %q", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(version.Line("appconn") + "\n")
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetFlagErrorFunc(asUsageError)
	root.AddCommand(
		diff.NewCommand(streams), doctor.NewCommand(streams), status.NewCommand(streams), revoke.NewCommand(streams),
		onboard.NewCommand(streams), onboard.NewOffboardCommand(streams), up.NewCommand(streams.Out),
	)
	for _, c := range root.Commands() {
		usageErrorsOf(c)
	}
	return root
}

// Run runs the command line args, of which the first is the program's name, until it is done or a signal comes, prints
// an error as one line and returns the exit code. A second signal ends the process at once.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel)

	root := NewCommand(genericiooptions.IOStreams{In: stdin, Out: stdout, ErrOut: stderr})
	if strings.HasPrefix(filepath.Base(args[0]), "kubectl-") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl appconn"}
	}
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "appconn:", terminal.Line(err.Error()))
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return exitFailed
}

// usageErrorsOf makes wrong arguments of a subcommand, and of those below it, usage errors too.
func usageErrorsOf(c *cobra.Command) {
	for _, below := range c.Commands() {
		usageErrorsOf(below)
	}
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return asUsageError(cmd, err)
			}
			return nil
		}
	}
}

func asUsageError(cmd *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w; \"%s --help\" says what there is", err, cmd.CommandPath())}
}
