package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// readyPoll is how often a starting API server is asked whether it is ready.
const readyPoll = 50 * time.Millisecond

// Run starts everything, says on out when it is ready and where the kubeconfig lies, and runs until ctx ends. Whatever
// happens it stops what it started, in the reverse order: controllers, API server, etcd, state directory.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	begin := time.Now()
	listener, err := o.listen(ctx)
	if err != nil {
		return err
	}
	defer listener.Close() // the API server has closed it, unless it never came so far
	state, err := o.openState()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.close()) }()
	kubeconfig, err := o.prepareKubeconfig(state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kubeconfig.remove()) }()
	audit, err := o.auditFlags(state)
	if err != nil {
		return err
	}
	closeLog, err := openLog(state.path("localkube.log"))
	if err != nil {
		return err
	}
	defer closeLog()

	etcd, err := startEtcd(ctx, state)
	if err != nil {
		return fmt.Errorf("etcd: %w (its log: %s)", err, state.path("etcd.log"))
	}
	defer etcd.stop()
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	server, err := startAPIServer(serverCtx, state, listener, etcd.endpoint, audit)
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	client, err := kubernetes.NewForConfig(server.config)
	if err != nil {
		return err
	}
	if err := server.awaitReady(ctx, client); err != nil {
		stopServer()
		<-server.done
		return err
	}
	controllersCtx, stopControllers := context.WithCancel(serverCtx)
	defer stopControllers()
	controllers, err := startControllers(controllersCtx, server.config, client)
	if err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	err = kubeconfig.publish(fmt.Appendf(nil, kubeconfigText, server.config.Host,
		base64.StdEncoding.EncodeToString(server.config.CAData), server.config.BearerToken))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s ready in %s\nexport KUBECONFIG=%s\n", server.config.Host, time.Since(begin).Round(time.Millisecond), kubeconfig.path)

	select {
	case <-server.done:
		return fmt.Errorf("kube-apiserver stopped by itself: %w (its log: %s)", server.err, state.path("localkube.log"))
	case <-ctx.Done():
	}
	if err := kubeconfig.remove(); err != nil { // first, so that nobody starts to use what is going away
		return err
	}
	stopControllers()
	controllers.Wait()
	stopServer()
	<-server.done
	return server.err
}

// openLog sends what Kubernetes logs, some 230 lines a start, to a file.
func openLog(path string) (closeLog func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	// Without the threshold errors would still reach stderr: at a start some are expected and harmless.
	if err := fs.Parse([]string{"-logtostderr=false", "-stderrthreshold=FATAL"}); err != nil {
		return nil, err
	}
	klog.SetOutput(file)
	return func() {
		klog.Flush()
		klog.SetOutput(io.Discard) // goroutines of Kubernetes may outlive the server by a moment
		_ = file.Close()
	}, nil
}
