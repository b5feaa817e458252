// Package deploy installs the manifests as an administrator does, into a real API server, and runs each component with the
// service account that they give it.
package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
)

// patience is far more than anything here needs.
const patience = 2 * time.Minute

// system is where the components are.
const system = "kyma-system"

var (
	cluster rest.Config
	kube    client.Client
	// auditLog is the file in which the API server tells who did what.
	auditLog string
	// libraries is what Kubernetes' libraries say within the components, of leases and events.
	libraries = &leaktest.Log{}
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(libraries, nil)))
	code, err := begin(m)
	if err != nil {
		_, _ = os.Stderr.WriteString("deploy: " + err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}

func begin(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "deploy-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	auditLog = filepath.Join(dir, "audit")
	config, stop, err := kubetest.StartWith(context.Background(), kubetest.Options{Audit: auditLog})
	if err != nil {
		return 1, err
	}
	defer stop()
	cluster = *config
	if err := prepare(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// prepare makes what is there before the software is installed: namespaces, of which that of the components admits none but
// Pods of the strictest kind, and the resource definitions of Istio, cert-manager and Gateway API.
func prepare() error {
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), applicationv1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme))
	if err != nil {
		return err
	}
	if kube, err = client.New(&cluster, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	for name, labels := range map[string]map[string]string{
		system:         {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"},
		"istio-system": nil,
	} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		if err := kube.Create(context.Background(), namespace); err != nil {
			return err
		}
	}
	apply := []string{"apply", "--server-side"}
	for module, path := range map[string]string{
		"istio.io/api":                         "kubernetes/customresourcedefinitions.gen.yaml",
		"github.com/cert-manager/cert-manager": "deploy/crds",
		"sigs.k8s.io/gateway-api":              "config/crd/standard",
	} {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			return err
		}
		apply = append(apply, "-f", filepath.Join(strings.TrimSpace(string(dir)), path))
	}
	_, err = kubectl(context.Background(), "", apply...)
	return err
}

// kubectl runs it as the administrator and gives what it prints; its error tells what it said.
func kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	program := os.Getenv("KUBECTL")
	if program == "" {
		return "", errors.New("KUBECTL is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/kubectl")
	}
	dir, err := os.MkdirTemp("", "deploy-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	config, err := kubetest.Kubeconfig(&cluster, dir)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--kubeconfig", config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.Join(err, errors.New(stderr.String()))
	}
	return stdout.String(), nil
}

// manifests is the path of a folder of the manifests.
func manifests(t *testing.T, folder string) string {
	t.Helper()
	path := filepath.Join("..", "..", "manifests", folder)
	// Go runs a test again when a file that it looked at has changed; kubectl's reading is not seen.
	err := filepath.WalkDir(filepath.Join("..", "..", "manifests"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		_, err = os.Stat(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// rendered is what an overlay says, with components in the place that docs/install.md says.
func rendered(t *testing.T, overlay string, components ...string) string {
	t.Helper()
	return renderedWith(t, nil, overlay, components...)
}

// renderedWith replaces texts in settings.yaml, as an administrator edits it.
func renderedWith(t *testing.T, settings map[string]string, overlay string, components ...string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(manifests(t, "."))); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(copied, "overlays", overlay)
	file := filepath.Join(folder, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, after, found := bytes.Cut(text, []byte("components: [../../settings]"))
	if !found {
		t.Fatalf("%s has no components where they are looked for", file)
	}
	var more strings.Builder
	for _, c := range components {
		more.WriteString("../../components/" + c + ", ")
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, "%scomponents: [%s../../settings]%s", before, more.String(), after), 0o600); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(folder, "settings.yaml")
	if text, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	for from, to := range settings {
		if !bytes.Contains(text, []byte(from)) {
			t.Fatalf("%s has no %q", file, from)
		}
		text = bytes.ReplaceAll(text, []byte(from), []byte(to))
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	built, err := kubectl(t.Context(), "", "kustomize", folder)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// uninstall is what docs/install.md says, and leaves the resource definitions, and the namespace of the edge without Istio.
var uninstall = []string{"delete", "-f", "-", "--ignore-not-found", "-l", "app.kubernetes.io/component!=resource-definitions,app.kubernetes.io/component!=edge"}

// install installs an overlay, with components, and removes it after the test.
func install(t *testing.T, overlay string, components ...string) {
	t.Helper()
	text := rendered(t, overlay, components...)
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	t.Cleanup(func() {
		watch.Told("log of Kubernetes' libraries", libraries.String())
		for _, list := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
			if err := kube.DeleteAllOf(context.Background(), list); err != nil {
				t.Error(err)
			}
		}
		// While kubectl waits it asks for five objects a second only.
		if _, err := kubectl(context.Background(), text, append(slices.Clone(uninstall), "--wait=false")...); err != nil {
			t.Error(err)
		}
		gone(t, text)
		for _, list := range []client.ObjectList{&compassv1alpha1.CompassConnectionList{}, &applicationv1alpha1.ApplicationList{}} {
			if err := kube.List(context.Background(), list); err != nil {
				t.Errorf("the resource definitions are gone: %v", err)
			}
		}
	})
	if _, err := kubectl(t.Context(), text, "apply", "--server-side", "--field-manager=administrator", "--force-conflicts", "--validate=strict", "-f", "-"); err != nil {
		t.Fatalf("installing %s: %v", overlay, err)
	}
}

// gone waits until nothing of what was uninstalled is left.
func gone(t *testing.T, text string) {
	t.Helper()
	for name, object := range parsed(t, text) {
		if slices.Contains([]string{"resource-definitions", "edge"}, object.GetLabels()["app.kubernetes.io/component"]) {
			if err := kube.Get(context.Background(), client.ObjectKeyFromObject(object), object); err != nil || object.GetDeletionTimestamp() != nil {
				t.Errorf("%s does not stay: %v", name, err)
			}
			continue
		}
		err := wait.PollUntilContextTimeout(context.Background(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
			err := kube.Get(ctx, client.ObjectKeyFromObject(object), object)
			if apierrors.IsNotFound(err) {
				return true, nil
			}
			return false, err
		})
		if err != nil {
			t.Errorf("%s does not go: %v", name, err)
		}
	}
}

// as is how a component reaches the cluster: by a token of its service account, as in a Pod.
func as(t *testing.T, account string) *rest.Config {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(3600))}}
	holder := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: account}}
	if err := kube.SubResource("token").Create(t.Context(), holder, request); err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(&cluster)
	config.BearerToken = request.Status.Token
	leaktest.Of(t).Add("the token of "+account, request.Status.Token)
	return config
}

func eventually(t *testing.T, what string, is func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = is()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, last)
	}
}
