// Command images makes the container images of this project in bin/images, and pushes them; see package image.
//
//	go run ./build/images build
//	go run ./build/images push REGISTRY/PATH
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/application-connector/application-connector/build/images/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := image.Run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}
