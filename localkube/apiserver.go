package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// loopback is what the certificate is for, and where clients find a server that listens on all interfaces.
const loopback = "127.0.0.1"

// apiServer is a running kube-apiserver.
type apiServer struct {
	config *rest.Config  // as administrator, without a client-side rate limit
	done   chan struct{} // closed when it has stopped; err is set before
	err    error
}

// startAPIServer starts the whole kube-apiserver, with more flags, on a listener that it takes over. It runs until ctx ends.
func startAPIServer(ctx context.Context, s *state, listener net.Listener, etcd string, more []string) (*apiServer, error) {
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	clientHost := host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		clientHost = loopback
	}
	// A new token each start: a kubeconfig that leaked is worth nothing after a restart.
	token := rand.Text()
	if err := os.WriteFile(s.path("tokens.csv"), fmt.Appendf(nil, "%s,admin,admin,system:masters\n", token), 0o600); err != nil {
		return nil, err
	}
	// Complete, below, writes a self-signed certificate and its key, unless they are there. The same key signs the
	// tokens of ServiceAccounts.
	key := s.path("certs/apiserver.key")
	o := options.NewServerRunOptions()
	o.SecureServing.Listener = listener
	fs := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, f := range o.Flags().FlagSets {
		fs.AddFlagSet(f)
	}
	err = fs.Parse(append([]string{
		"--etcd-servers=" + etcd,
		"--bind-address=" + host,
		"--advertise-address=" + clientHost,
		"--secure-port=" + port,
		"--cert-dir=" + s.path("certs"),
		"--token-auth-file=" + s.path("tokens.csv"),
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + key,
		"--service-account-signing-key-file=" + key,
		"--endpoint-reconciler-type=none", // it refuses loopback addresses
	}, more...))
	if err != nil {
		return nil, err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil { // as the PreRun of its command would
		return nil, err
	}
	completed, err := o.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(completed.Validate()...); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(s.path("certs/apiserver.crt"))
	if err != nil {
		return nil, err
	}
	server := &apiServer{
		config: &rest.Config{
			Host: "https://" + net.JoinHostPort(clientHost, port), BearerToken: token, QPS: -1,
			TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		},
		done: make(chan struct{}),
	}
	go func() {
		defer close(server.done)
		server.err = app.Run(ctx, completed)
	}()
	return server, nil
}

// awaitReady returns when the server says that it is ready, or an error when it stopped or ctx ended before.
func (a *apiServer) awaitReady(ctx context.Context, client kubernetes.Interface) error {
	for client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() != nil {
		select {
		case <-a.done:
			return fmt.Errorf("kube-apiserver: %w", a.err)
		case <-ctx.Done():
			return errors.New("interrupted before it was ready")
		case <-time.After(readyPoll):
		}
	}
	return nil
}
