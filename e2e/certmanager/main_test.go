package certmanager_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

var (
	cluster *rest.Config
	// auditLog is the file in which the API server tells who did what.
	auditLog string
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "certmanager:", err)
		code = 1
	}
	os.Exit(code)
}

// run starts an API server and cert-manager's controllers, and ends both.
func run(m *testing.M) (int, error) {
	program := os.Getenv("CERT_MANAGER")
	if program == "" {
		return 1, fmt.Errorf("CERT_MANAGER is not set: run the tests by \"make test\", or set it to the program that build/certmanager builds")
	}
	dir, err := os.MkdirTemp("", "certmanager")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	auditLog = filepath.Join(dir, "audit")
	config, stop, err := kubetest.StartWith(context.Background(), kubetest.Options{Audit: auditLog})
	if err != nil {
		return 1, err
	}
	defer stop()
	cluster = config
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		return 1, fmt.Errorf("the module of cert-manager: %w", err)
	}
	for _, dir := range []string{filepath.Join("..", "..", "manifests", "crds"), filepath.Join(strings.TrimSpace(string(module)), "deploy", "crds")} {
		if files, _ := filepath.Glob(filepath.Join(dir, "*.yaml")); len(files) == 0 {
			return 1, fmt.Errorf("%s has no resource definitions", dir)
		}
		if err := kubetest.InstallCRDs(context.Background(), config, dir); err != nil {
			return 1, err
		}
	}
	path, err := kubetest.Kubeconfig(config, dir)
	if err != nil {
		return 1, err
	}
	end, err := controllers(program, path)
	if err != nil {
		return 1, err
	}
	defer end()
	return m.Run(), nil
}

// controllers starts cert-manager. It dies with this process, however that ends.
func controllers(program, kubeconfig string) (func(), error) {
	log, err := os.CreateTemp("", "cert-manager-*.log")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-stdin", "-kubeconfig", kubeconfig)
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end := func() {
		_ = in.Close()
		_ = cmd.Wait()
		_ = log.Close()
		_ = os.Remove(log.Name())
	}
	if s := bufio.NewScanner(out); !s.Scan() {
		text, _ := os.ReadFile(log.Name())
		end()
		return nil, fmt.Errorf("%s ended before it was ready: %s", program, text)
	}
	return end, nil
}
