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

// cluster is empty but for namespaces and the resource definitions of others.
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
	if err := definitions(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// definitions installs the resource definitions of what the software works with, each from the module that its API types are in.
func definitions() error {
	apply := []string{"apply", "--server-side"}
	for module, path := range map[string]string{
		"istio.io/api":                         "kubernetes/customresourcedefinitions.gen.yaml",
		"github.com/cert-manager/cert-manager": "deploy/crds",
		"sigs.k8s.io/gateway-api":              "config/crd/standard",
	} {
		dir, err := project("go", "list", "-m", "-f", "{{.Dir}}", module)
		if err != nil {
			return err
		}
		apply = append(apply, "-f", filepath.Join(strings.TrimSpace(dir), path))
	}
	generated, err := os.MkdirTemp("", "chart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(generated)
	_, err = project("go", "tool", "controller-gen", "crd", "paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1", "output:crd:dir="+generated)
	if err != nil {
		return err
	}
	_, err = kubectl(context.Background(), "", append(apply, "-f", generated)...)
	return err
}

// project runs a command where the project's own go.mod is.
func project(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = filepath.Join("..", "..")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", errors.Join(err, errors.New(stderr.String()))
	}
	return string(out), nil
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
