package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/application-connector/application-connector/e2e/leaktest"
)

// TestMain runs the program itself when a test starts this binary so.
func TestMain(m *testing.M) {
	if os.Getenv("VALIDATOR_TEST_RUN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// token is that of the kubeconfig.
const token = "a-token-of-the-validator-8d20"

// said keeps what the program prints: no secret may be in it.
func said(t *testing.T, text []byte) string {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Add("the token of the kubeconfig", token)
	watch.Told("what the program prints", string(text))
	return string(text)
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{"VALIDATOR_TEST_RUN=1", "HOME=" + t.TempDir()}
	return cmd
}

// kubeconfig names a server that is away: that must not keep the program from starting.
func kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: c, user: {token: " + token + "}}], contexts: [{name: c, context: {cluster: c, user: c}}]}"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadInputIsOneLineAndANonZeroExit(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for what, args := range map[string][]string{
		"bad flag":              {"--nope"},
		"bad value":             {"--sourcePolicy=maybe"},
		"unreadable kubeconfig": {"--kubeconfig=/nonexistent/config"},
		"no kubeconfig at all":  nil,
		"port taken":            {"--kubeconfig=" + kubeconfig(t), "--listenAddress=127.0.0.1", "--externalAPIPort=0", "--proxyPort=" + port},
	} {
		printed, err := program(t, args...).CombinedOutput()
		out := said(t, printed)
		exit, ok := err.(*exec.ExitError) //nolint:errorlint // exec documents this very type
		if !ok || exit.ExitCode() != 1 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "validator: ") {
			t.Errorf("%s: %v with %q", what, err, out)
		}
	}
}

func TestHelpAndVersionExitWithZero(t *testing.T) {
	for arg, want := range map[string]string{"--help": "-ingressIdentity", "--version": "validator "} {
		if out, err := program(t, arg).CombinedOutput(); err != nil || !strings.Contains(said(t, out), want) {
			t.Errorf("%s: %v with %q", arg, err, out)
		}
	}
}

func TestSIGTERMEndsItWithZero(t *testing.T) {
	cmd := program(t, "--kubeconfig="+kubeconfig(t), "--listenAddress=127.0.0.1", "--externalAPIPort=0", "--proxyPort=0")
	cmd.Env = append(cmd.Env, "APP_LOG_LEVEL=debug")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	signalled := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		said(t, lines.Bytes())
		if !signalled && strings.Contains(lines.Text(), "validator listens") {
			signalled = true
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !signalled {
		t.Errorf("%v, signalled: %v", err, signalled)
	}
}
