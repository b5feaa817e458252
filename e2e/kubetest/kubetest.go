// Package kubetest gives a test package a real Kubernetes API server: it starts localkube, or uses the cluster that
// LOCALKUBE_KUBECONFIG names. It needs nothing but client-go, and knows nothing of this project's resources.
package kubetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// Run is for TestMain: it starts one API server for the package, installs this project's resource definitions, runs the
// tests and exits. What it starts dies with the test process, however that ends.
func Run(m *testing.M, config *rest.Config) {
	cfg, stop, err := Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubetest:", err)
		os.Exit(1)
	}
	*config = *cfg
	code := m.Run()
	stop()
	os.Exit(code)
}

// Options say what StartWith starts.
type Options struct {
	// Audit is the file that the server writes its audit log to, as localkube -audit does. Empty means none.
	Audit string
	// Bare leaves out the resource definitions of this project.
	Bare bool
}

// Start starts an API server with this project's resource definitions and returns how to reach it as administrator,
// and a function that ends it.
func Start(ctx context.Context) (*rest.Config, func(), error) { return StartWith(ctx, Options{}) }

// StartWith is Start with options.
func StartWith(ctx context.Context, o Options) (*rest.Config, func(), error) {
	path, stop, err := start(o)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err == nil {
		cfg.QPS = -1
		if !o.Bare {
			err = InstallCRDs(ctx, cfg, CRDs())
		}
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return cfg, stop, nil
}

// Kubeconfig writes a kubeconfig for cfg, which must authenticate by bearer token, into dir and returns its path.
func Kubeconfig(cfg *rest.Config, dir string) (string, error) {
	path := filepath.Join(dir, "kubeconfig")
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": cfg.Host, "certificate-authority-data": cfg.CAData}}},
		"users":    []any{map[string]any{"name": "test", "user": map[string]any{"token": cfg.BearerToken}}},
		"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": "test"}}},
	})
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, text, 0o600)
}

// CRDs is the folder of this project's resource definitions.
func CRDs() string {
	const folder = "manifests/crds"
	if _, file, _, _ := runtime.Caller(0); filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "..", "..", folder)
	}
	// Built with -trimpath: tests run in their package's folder, which is somewhere below the module's.
	for up := "."; ; up = filepath.Join(up, "..") {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil || len(up) > 100 {
			return filepath.Join(up, folder)
		}
	}
}

// InstallCRDs applies every resource definition in a folder and waits until the server serves them.
func InstallCRDs(ctx context.Context, cfg *rest.Config, dir string) error {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return err
	}
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &crd.Object); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		name := crd.GetName()
		if _, err := crds.Apply(ctx, name, crd, metav1.ApplyOptions{FieldManager: "kubetest", Force: true}); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for !established(ctx, crds, name) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: not served within a minute", name)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func established(ctx context.Context, crds dynamic.NamespaceableResourceInterface, name string) bool {
	crd, err := crds.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
			return true
		}
	}
	return false
}

// Namespace creates a namespace for one test and deletes it afterwards.
func Namespace(t testing.TB, cfg *rest.Config) string {
	t.Helper()
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	namespaces := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"generateName": "test-"}}}
	ns, err = namespaces.Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := namespaces.Delete(context.Background(), ns.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting namespace %s: %v", ns.GetName(), err)
		}
	})
	return ns.GetName()
}

func start(o Options) (string, func(), error) {
	if k := os.Getenv("LOCALKUBE_KUBECONFIG"); k != "" {
		if o.Audit != "" {
			return "", nil, errors.New("LOCALKUBE_KUBECONFIG is set, and these tests read the audit log of an API server that they start: unset it")
		}
		return k, func() {}, nil
	}
	bin := os.Getenv("LOCALKUBE")
	if bin == "" {
		return "", nil, errors.New("LOCALKUBE is not set: run the tests by \"make test\", or set it to the binary that \"make build\" put at bin/localkube")
	}
	args := []string{"-stdin"}
	if o.Audit != "" {
		args = append(args, "-audit", o.Audit)
	}
	cmd := exec.Command(bin, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // closes with this process, however it ends
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if path, ok := strings.CutPrefix(s.Text(), "export KUBECONFIG="); ok {
			return path, func() { in.Close(); _ = cmd.Wait() }, nil
		}
	}
	return "", nil, fmt.Errorf("%s ended before it was ready: %w", bin, cmd.Wait())
}
