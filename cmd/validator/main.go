// Command validator takes events from external systems and hands them to the Eventing publisher.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/application-connector/application-connector/events"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the drain at once
	if err := events.Execute(ctx, os.Args[1:], os.LookupEnv, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "validator:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to clean up
	}
}
