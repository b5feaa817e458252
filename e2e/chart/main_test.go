package chart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

const (
	manifests = "../../manifests"
	chart     = manifests + "/chart"
	system    = "kyma-system"
)

// cluster is empty but for namespaces and the resource definitions of Istio.
var cluster *rest.Config

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Helm tells there what it does
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	config, stop, err := kubetest.StartWith(context.Background(), kubetest.Options{Bare: true})
	if err != nil {
		return 1, err
	}
	defer stop()
	cluster = config
	for _, name := range []string{system, "istio-system"} {
		namespace := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
		if _, err := resources(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Create(context.Background(), namespace, metav1.CreateOptions{}); err != nil {
			return 1, err
		}
	}
	dir, err := moduleDir("istio.io/api")
	if err != nil {
		return 1, err
	}
	_, err = kubectl(context.Background(), "", "apply", "--server-side", "-f", filepath.Join(dir, "kubernetes", "customresourcedefinitions.gen.yaml"))
	if err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// moduleDir is where a module of the project's own go.mod is.
func moduleDir(module string) (string, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = filepath.Join("..", "..")
	dir, err := cmd.Output()
	return strings.TrimSpace(string(dir)), err
}

func resources(of schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	client, err := dynamic.NewForConfig(cluster)
	if err != nil {
		panic(err) // of a configuration that was used already
	}
	return client.Resource(of)
}

// kubectl runs it as administrator and gives what it prints; its error tells what it said.
func kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	program := os.Getenv("KUBECTL")
	if program == "" {
		return "", errors.New("KUBECTL is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/kubectl")
	}
	dir, err := os.MkdirTemp("", "chart-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	config, err := kubetest.Kubeconfig(cluster, dir)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--kubeconfig", config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.Join(err, errors.New(stderr.String()))
	}
	return stdout.String(), nil
}
