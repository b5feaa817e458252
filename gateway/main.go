package gateway

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/application-connector/application-connector/tracing"
)

// Main is the program: it runs the gateway with args until SIGINT or SIGTERM comes and returns the exit code. What keeps it
// from starting is one line on stderr.
func Main(args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, args, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintf(stderr, "gateway: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	var o Options
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	o.BindFlags(flags)
	flags.SetOutput(io.Discard) // the error is printed once, by Main
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			flags.Usage()
			return err
		}
		return fmt.Errorf("%w: see -help", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: only flags are taken, see -help", flags.Arg(0))
	}
	if err := o.Validate(); err != nil {
		return err
	}
	if err := o.Complete(); err != nil {
		return err
	}
	out := newLines(stderr)
	defer out.Close()
	handler := slog.NewJSONHandler(out, &slog.HandlerOptions{Level: o.level})
	klog.SetSlogLogger(slog.New(handler))
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	// Until the last call is over, not until ctx ends.
	end, err := tracing.Start(context.WithoutCancel(ctx), "central-application-gateway", slog.New(handler))
	if err != nil {
		return err
	}
	defer end()
	return Run(ctx, o, slog.New(handler))
}
