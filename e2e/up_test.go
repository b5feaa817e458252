package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/application-connector/application-connector/e2e/leaktest"
)

// deadline is far more than anything here needs: a machine under load is not a failure.
const deadline = 5 * time.Minute

// appconn is the program under test; the others lie beside it.
func appconn(t *testing.T) string {
	t.Helper()
	path := os.Getenv("APPCONN")
	if path == "" {
		t.Fatal("APPCONN is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/appconn")
	}
	// Go runs a test again when a file of this module that it looked at has changed: these are what is tested.
	for _, name := range []string{"appconn", "agent", "gateway", "validator", "localkube", "kubectl"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// run runs appconn to its end with state in dir, and gives its exit code, standard output and standard error.
func run(t *testing.T, dir string, args ...string) (int, string, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, appconn(t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	const token = "a-token-of-the-environment-5d2f" // which is read, and printed nowhere
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "APPCONN_TOKEN="+token)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	watch := leaktest.Of(t)
	watch.Add("the token of the environment", token)
	watch.Told("appconn's standard output", stdout.String())
	watch.Told("appconn's standard error", stderr.String())
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// left lists the processes that mention dir in their command line or environment.
func left(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(processes) == 0 {
		t.Skip("this system has no /proc to look for processes in")
	}
	for _, p := range processes {
		if filepath.Base(p) == strconv.Itoa(os.Getpid()) {
			continue
		}
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join(p, file))
			if err == nil && bytes.Contains(text, []byte(dir)) {
				found = append(found, p+": "+string(bytes.ReplaceAll(text[:min(len(text), 200)], []byte{0}, []byte(" "))))
				break
			}
		}
	}
	return found
}

// nothingLeft fails if a process runs on, or a file lies about, after the end.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if p := left(t, dir); len(p) > 0 {
		t.Errorf("these processes run on:\n%s", strings.Join(p, "\n"))
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Errorf("%s was left behind", f.Name())
	}
}

func TestTheWholeWalkThroughHoldsUnattended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	code, stdout, stderr := run(t, dir, "up", "--once", "--free-ports", "--timeout", deadline.String())
	if code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	for _, want := range []string{
		`Synchronized`,
		`renewed.* 0 of \d+ calls failed`,
		`Every step held`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("the walk-through does not show %q", want)
		}
	}
	if t.Failed() {
		t.Log(stdout)
	}
	nothingLeft(t, dir)
}

func TestAnInterruptEndsEverythingAndStateIsKeptOnRequest(t *testing.T) {
	t.Parallel()
	watch, dir := leaktest.Of(t), t.TempDir()
	state := filepath.Join(dir, "kept")
	watch.Files(t, filepath.Join(state, "logs", "*.log"))
	fingerprints := map[string]bool{}
	for _, before := range []string{"first", "second, with what the first one kept"} {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		cmd := exec.CommandContext(ctx, appconn(t), "up", "--free-ports", "--log-level", "debug", "--state", state, "--timeout", deadline.String())
		out := &leaktest.Log{}
		printed := watch.Tee("appconn up", out)
		cmd.Stdout, cmd.Stderr = printed, printed
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		ready := func() bool { return strings.Contains(out.String(), "Ctrl-C ends everything.") }
		for !ready() {
			select {
			case err := <-ended:
				t.Fatalf("%s run: ended before it was ready: %v\n%s", before, err, out)
			case <-time.After(50 * time.Millisecond):
			}
		}
		if _, err := os.Stat(filepath.Join(state, "endpoints.json")); err != nil {
			t.Error(err)
		}
		addSecrets(t, state)
		if fingerprints[certificate(t, state)] = true; len(fingerprints) > 1 {
			t.Errorf("%s run: paired anew, though the state was kept: %v", before, fingerprints)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%s run: %v\n%s", before, err, out)
		}
		if p := left(t, dir); len(p) > 0 {
			t.Errorf("%s run: these processes run on:\n%s", before, strings.Join(p, "\n"))
		}
	}
	if code, stdout, stderr := run(t, dir, "up", "--once", "--state", state, "--timeout", deadline.String()); code != 0 {
		t.Errorf("the walk-through on what was kept: exit code %d\n%s\n%s", code, stdout, stderr)
	}
}

func TestTheClusterPairsWithACompassElsewhere(t *testing.T) {
	t.Parallel()
	compass, dir := startCompass(t), t.TempDir()
	token, err := compass.Admin().RuntimeToken(runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, dir, "up", "--once", "--free-ports", "--timeout", deadline.String(), "--connector-url", token.ConnectorURL,
		"--compass-ca", compass.ca, "--runtime-id", runtimeID, "--tenant", tenantID, "--token", token.Token)
	if code != 0 || !strings.Contains(stdout, "Every step held") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}
	nothingLeft(t, dir)
}

// certificate is the fingerprint of the client certificate that the cluster of a running appconn up has.
func certificate(t *testing.T, state string) string {
	t.Helper()
	kubectl := filepath.Join(filepath.Dir(appconn(t)), "kubectl")
	cmd := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", filepath.Join(state, "cluster", "kubeconfig"),
		"get", "cconn", "compass-connection", "-o", "jsonpath={.status.connectionStatus.certificateStatus.fingerprint}")
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) != 64 {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// addSecrets has those looked for that are in the cluster of a running appconn up.
func addSecrets(t *testing.T, state string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(state, "cluster", "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(found.Items) == 0 {
		t.Fatalf("%d Secrets, %v", len(found.Items), err)
	}
	for _, s := range found.Items {
		leaktest.Of(t).AddSecret(s.Name, s.Data)
	}
}

func TestAKilledRunLeavesNoProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), appconn(t), "up", "--free-ports", "--timeout", deadline.String())
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out := &leaktest.Log{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() error {
		if !strings.Contains(out.String(), "one-time token") { // by then every program was started
			return fmt.Errorf("not started: %s", out)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	waitFor(t, func() error {
		if p := left(t, dir); len(p) > 0 {
			return fmt.Errorf("these processes run on:\n%s", strings.Join(p, "\n"))
		}
		return nil
	})
}

func waitFor(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestBadInputEndsInOneClearLineAndLeavesNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:8085")
	if err != nil {
		t.Logf("port 8085 is taken already, which serves as well: %v", err)
	} else {
		defer taken.Close()
	}
	notAKubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(notAKubeconfig, []byte("[not a kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{"up", "--once", "--free-ports", "--runtime-id", runtimeID, "--tenant", tenantID}
	compass := startCompass(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"bad flag":                {[]string{"up", "--onec"}, `unknown flag: --onec`},
		"bad argument":            {[]string{"up", "now"}, `unknown command "now"`},
		"bad command":             {[]string{"upp"}, `unknown command "upp"`},
		"unreadable kubeconfig":   {[]string{"up", "--kubeconfig", notAKubeconfig}, `--kubeconfig .* cannot be used .* name a file that kubectl can use`},
		"kubeconfig not there":    {[]string{"up", "--kubeconfig", "/nowhere/kubeconfig"}, `--kubeconfig .* cannot be used .* name a file that kubectl can use`},
		"port taken":              {[]string{"up"}, `port \d+, for .*, is taken: stop what listens there, or use --free-ports`},
		"wrong token":             {append(elsewhere, "--connector-url", compass.TokenURL(), "--compass-ca", compass.ca, "--token", "wrong"), `token`},
		"unreachable Compass":     {append(elsewhere, "--connector-url", "https://127.0.0.1:1/connector/graphql", "--token", "t"), `127.0.0.1:1`},
		"Compass that is unknown": {append(elsewhere, "--connector-url", compass.TokenURL(), "--token", "t"), `certificate`},
		"status without cluster":  {[]string{"status", "--kubeconfig", "/nowhere/kubeconfig"}, `kubeconfig`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			code, stdout, stderr := run(t, dir, c.args...)
			if code == 0 {
				t.Errorf("exit code 0\n%s", stdout)
			}
			line := strings.TrimSuffix(stderr, "\n")
			if strings.Contains(line, "\n") || !regexp.MustCompile(c.want).MatchString(line) {
				t.Errorf("not one line that matches %q: %s", c.want, stderr)
			}
			if p := left(t, dir); len(p) > 0 {
				t.Errorf("these processes run on:\n%s", strings.Join(p, "\n"))
			}
			// Once programs were started their logs are kept, and named: somebody will want to read them. Nothing else is.
			files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if filepath.Base(f) != "logs" || !strings.Contains(line, f) {
					t.Errorf("%s was left behind", f)
				}
			}
		})
	}
}
