package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Options say where the server keeps its state and where it listens.
type Options struct {
	// Dir is the state directory. Empty means a temporary one that is removed in the end.
	Dir string
	// Listen is the address of the API server, host:port; port 0 picks a free one.
	Listen string
	// Kubeconfig is where the administrator's kubeconfig is written once the server is ready, and from where it is
	// removed when the server stops. Empty means Dir/kubeconfig.
	Kubeconfig string
	// Audit is the file to which the API server appends who did what, one event as JSON a line. Empty means none.
	Audit string
	// Stdin makes the end of the standard input stop the server, so that a parent that dies leaves nothing behind.
	Stdin bool
}

// BindFlags ties o to the command line.
func (o *Options) BindFlags(fs *flag.FlagSet) {
	fs.StringVar(&o.Audit, "audit", "", "`file` to append to who did what, one event as JSON a line, without the objects themselves (default: none)")
	fs.StringVar(&o.Dir, "dir", "", "state `directory`, kept (default: a temporary one, removed in the end)")
	fs.StringVar(&o.Listen, "listen", "127.0.0.1:0", "`address` of the API server; port 0 picks a free one")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "`file` for the administrator's kubeconfig, written when ready, removed when stopped (default: DIRECTORY/kubeconfig)")
	fs.BoolVar(&o.Stdin, "stdin", false, "stop when the standard input ends, so that a parent that dies leaves nothing behind")
}

// listen takes the port before anything is written, so that a port that is taken leaves no trace.
func (o *Options) listen(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("-listen %s: the port is taken; stop what holds it or choose another, 0 picks a free one", o.Listen)
	case err != nil:
		return nil, fmt.Errorf("-listen %s: %w; HOST:PORT of this machine is needed, such as 127.0.0.1:6443", o.Listen, err)
	}
	return listener, nil
}

// state is the locked state directory.
type state struct {
	dir  string
	lock *os.File
	temp bool
}

// openState creates the state directory if need be and locks it. Two etcds on one directory would wait for each other
// for ever.
func (o *Options) openState() (*state, error) {
	s := &state{temp: o.Dir == ""}
	var err error
	if s.temp {
		s.dir, err = os.MkdirTemp("", "localkube-")
	} else if s.dir, err = filepath.Abs(o.Dir); err == nil {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("-dir %s: a directory that can be written is needed: %w", o.Dir, err)
	}
	s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("-dir %s: a directory that can be written is needed: %w", o.Dir, err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = s.lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("-dir %s: another localkube is using this directory; stop it or choose another", o.Dir)
		}
		return nil, fmt.Errorf("-dir %s: locking it: %w", o.Dir, err)
	}
	return s, nil
}

// path of a file in the state directory.
func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// close unlocks the state directory, and removes a temporary one.
func (s *state) close() error {
	err := s.lock.Close()
	if s.temp {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// auditPolicy has every request told once it is answered, and a watch when it begins too. What objects hold, which may be
// secret, is not told.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// auditFlags are those of the kube-apiserver for the audit log. They make sure, before the server starts, that it can be written,
// and that nobody else reads it.
func (o *Options) auditFlags(s *state) ([]string, error) {
	if o.Audit == "" {
		return nil, nil
	}
	path, err := filepath.Abs(o.Audit)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("-audit %s: a file that can be written is needed: %w", path, err)
	}
	policy := s.path("audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	// Blocking: when a request is answered, its event is in the file.
	return []string{"--audit-policy-file=" + policy, "--audit-log-path=" + path, "--audit-log-mode=blocking"}, nil
}

// kubeconfigMark is the first line of what localkube writes: a file without it is somebody's own.
const kubeconfigMark = "# Written by localkube, which removes it when it stops.\n"

const kubeconfigText = kubeconfigMark + `{apiVersion: v1, kind: Config, current-context: localkube,
clusters: [{name: localkube, cluster: {server: %q, certificate-authority-data: %s}}], users: [{name: admin, user: {token: %s}}],
contexts: [{name: localkube, context: {cluster: localkube, user: admin, namespace: default}}]}
`

// kubeconfig is the file that tells others how to reach the server. It exists only while the server is ready.
type kubeconfig struct {
	path, temp string
}

// prepareKubeconfig removes what an earlier run left behind and makes sure, before the server starts, that the file can
// be written.
func (o *Options) prepareKubeconfig(s *state) (*kubeconfig, error) {
	path, err := filepath.Abs(cmp.Or(o.Kubeconfig, s.path("kubeconfig")))
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("-kubeconfig %s: a file that can be written is needed: %w", path, err)
	case !bytes.HasPrefix(old, []byte(kubeconfigMark)):
		return nil, fmt.Errorf("-kubeconfig %s: the file is not localkube's, and would be overwritten; choose another", path)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".localkube-") // with mode 0600
	if err != nil {
		return nil, fmt.Errorf("-kubeconfig %s: a file that can be written is needed: %w", path, err)
	}
	if err := temp.Close(); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, os.Remove(temp.Name()))
	}
	return &kubeconfig{path: path, temp: temp.Name()}, nil
}

// publish lets the file appear, whole, at its place.
func (k *kubeconfig) publish(text []byte) error {
	if err := os.WriteFile(k.temp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(k.temp, k.path)
}

// remove takes away both the published and the prepared file.
func (k *kubeconfig) remove() error {
	for _, path := range []string{k.path, k.temp} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
