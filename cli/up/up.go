// Package up brings the whole road up on one machine: a Kubernetes API server, a Compass, external systems, an edge and
// an Eventing, and this project's agent, gateway and validator as the programs that they are. It prints a walk-through
// whose commands can be pasted, or runs it.
//
// It knows how the parts are started and what they should show; how each works is theirs.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// NewCommand is "appconn up". It writes progress and the walk-through to out.
func NewCommand(out io.Writer) *cobra.Command {
	o := &Options{}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start everything on this machine and show what it does",
		Long: "up starts a Kubernetes API server, a simulated Compass, external systems, an mTLS edge and an event store,\n" +
			"and the agent, the gateway and the validator. It prints a walk-through whose commands can be pasted into\n" +
			"another terminal, and ends everything upon Ctrl-C.",
		Example: "  appconn up\n  appconn up --once\n  appconn up --state ./state",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Complete(); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return err
			}
			return Run(cmd.Context(), *o, out)
		},
	}
	o.BindFlags(cmd.Flags())
	return cmd
}

// Run starts everything and waits for an interrupt, or, with Once, runs the walk-through. When it returns nothing is
// left running, and without State nothing is left on disk. The error names the step that failed.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	state, remove, err := openState(o.State)
	if err != nil {
		return err
	}
	chosen, err := keptPorts(filepath.Join(state, "ports.json"), o.FreePorts)
	if err != nil {
		return errors.Join(err, remove(""))
	}
	interrupted := false
	w := &world{Options: o, ports: chosen, state: state, supervisor: newSupervisor(filepath.Join(state, "logs")), progress: newProgress(out)}
	defer func() {
		stop() // from here on an interrupt ends this process as it ends any other, unless the next line catches it
		impatient, done := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer done()
		if closeErr := w.close(impatient); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
		kept := ""
		if err != nil && !interrupted && w.hasLogs() {
			kept = w.supervisor.logs
			err = fmt.Errorf("%w (logs are in %s)", err, kept)
		}
		if removeErr := remove(kept); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
	}()

	if _, err := fmt.Fprintf(out, "Starting Application Connector in %s\n\n", state); err != nil {
		return err
	}
	err = w.start(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		interrupted = true
		return errors.New("interrupted before everything was ready")
	}
	if err != nil {
		return err
	}
	if o.Once {
		return w.walkThrough(ctx)
	}
	if err := printTour(w.progress, w.preamble(), w.tour()); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		_, err := fmt.Fprintln(out, "\nEnding …")
		return err
	case err := <-w.supervisor.failed:
		return err
	}
}

// openState opens the folder for everything that is written, and returns how to leave it: what nobody asked to keep is
// removed, but for the folder kept, if that is not empty.
func openState(dir string) (string, func(kept string) error, error) {
	temporary := dir == ""
	if temporary {
		var err error
		if dir, err = os.MkdirTemp("", "appconn-"); err != nil {
			return "", nil, fmt.Errorf("a folder for certificates and logs is needed: %w; name one by --state", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		return "", nil, fmt.Errorf("--state: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("--state: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", nil, errors.Join(fmt.Errorf("--state %s is in use by another appconn up: end that one, or name another folder", dir), lock.Close())
	}
	return dir, func(kept string) error {
		errs := []error{lock.Close()}
		switch {
		case !temporary:
		case kept == "":
			errs = append(errs, os.RemoveAll(dir))
		default:
			entries, err := os.ReadDir(dir)
			errs = append(errs, err)
			for _, e := range entries {
				if path := filepath.Join(dir, e.Name()); path != kept {
					errs = append(errs, os.RemoveAll(path))
				}
			}
		}
		return errors.Join(errs...)
	}, nil
}
