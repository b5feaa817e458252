package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	etcdversion "go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// Exit codes.
const (
	exitFailed = 1 // it could not start, or stopped by itself
	exitUsage  = 2 // a flag or argument is wrong
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "etcd":
		etcdmain.Main(os.Args) // ends the process itself
	case "kube-apiserver":
		os.Exit(cli.Run(app.NewAPIServerCommand()))
	default:
		os.Exit(localkube(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
}

// localkube runs until a signal, or the end of stdin if that was asked for, and returns the exit code.
func localkube(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o := Options{}
	showVersion := false
	fs := flag.NewFlagSet("localkube", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // one line of ours says what is wrong, not the whole usage text
	fs.BoolVar(&showVersion, "version", false, "print the versions of what is in here, and exit")
	o.BindFlags(fs)
	err := fs.Parse(args)
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "localkube: a real Kubernetes API server and etcd in one process.\n\nFlags:")
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "localkube: %v; \"localkube -h\" lists the flags\n", err)
		return exitUsage
	case showVersion:
		fmt.Fprintf(stdout, "localkube: Kubernetes %s, etcd %s, %s\n", version.Get().GitVersion, etcdversion.Version, runtime.Version())
		return 0
	}

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel) // from the first signal on, a second one ends the process at once
	if o.Stdin {
		go func() {
			_, _ = io.Copy(io.Discard, stdin) // how it ends does not matter
			cancel()
		}()
	}
	if err := Run(ctx, o, stdout); err != nil {
		fmt.Fprintln(stderr, "localkube:", err)
		return exitFailed
	}
	return 0
}
