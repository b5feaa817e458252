// Package lifecycle_test drives the built localkube from outside, as its users do. The tests live apart from the
// command because a test binary that holds a whole API server takes longer to link than all of them to run.
package lifecycle_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// deadline is generous: a start takes 2 seconds on an idle machine.
const deadline = 2 * time.Minute

// binary is the localkube under test.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("LOCALKUBE")
	if path == "" {
		t.Fatal("LOCALKUBE is not set: run the tests by \"make test\", or set it to the binary that \"make build\" put at bin/localkube")
	}
	return path
}

// server is a running localkube.
type server struct {
	cmd        *exec.Cmd
	stdin      io.Closer
	stderr     bytes.Buffer
	kubeconfig string
	ended      chan error // gets what Wait said, once
}

// start starts localkube and returns when it says that it is ready. It is killed, if need be, when the test ends.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{cmd: exec.Command(binary(t), append([]string{"-stdin"}, args...)...), ended: make(chan error, 1)}
	s.cmd.Stderr = &s.stderr
	s.cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdin = stdin
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	timer := time.AfterFunc(deadline, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewScanner(stdout)
	for s.kubeconfig == "" && lines.Scan() {
		if path, ok := strings.CutPrefix(lines.Text(), "export KUBECONFIG="); ok {
			s.kubeconfig = path
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdout)
		s.ended <- s.cmd.Wait()
	}()
	if s.kubeconfig == "" {
		t.Fatalf("localkube ended before it was ready: %v\n%s", <-s.ended, s.stderr.String())
	}
	return s
}

// wait returns what the process ended with.
func (s *server) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(deadline):
		t.Fatalf("localkube did not end within %s", deadline)
		return nil
	}
}

// stop ends the server in the way its parent's end would, and expects a clean exit.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t); err != nil {
		t.Fatalf("localkube ended with %v\n%s", err, s.stderr.String())
	}
}

func (s *server) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// refused runs localkube, expects that it does not start, and returns its exit code and what it said on stderr.
func refused(t *testing.T, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) {
		t.Fatalf("localkube %q ended with %v, want an exit code other than 0", args, err)
	}
	if stdout.Len() > 0 {
		t.Errorf("stdout = %q, want nothing", stdout.String())
	}
	return exit.ExitCode(), stderr.String()
}

// eventually waits until done holds.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, deadline)
		}
	}
}

// entries lists a folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
