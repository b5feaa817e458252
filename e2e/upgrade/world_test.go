// Package upgrade plays the upgrade of a cluster that has the module in use today, as docs/upgrade.md says, and the way back.
package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	system  = "kyma-system"
	ingress = "istio-system"

	agentName    = "compass-runtime-agent"
	gatewayName  = "central-application-gateway"
	operatorName = "application-connector-controller-manager"
	// operatorOwner is the operator's field manager.
	operatorOwner = "application-connector-manager"

	// patience is far more than anything here needs.
	patience = 3 * time.Minute
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// world is a cluster whose controllers and nodes are played by the test, and Compass.
type world struct {
	t          *testing.T
	config     *rest.Config
	kube       client.Client
	compass    *compass.Server
	compassCA  string
	checkout   string // where the page's commands run: a copy of the manifests
	path       string // with kubectl in front
	kubeconfig string

	stopAgent, stopGateway func() // nil while it does not run
	gatewayURL             string
	before                 *before
}

func newWorld(t *testing.T, server *compass.Server) *world {
	t.Helper()
	config, stop, err := kubetest.StartWith(t.Context(), kubetest.Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	leaktest.Of(t).Cluster(t, config)
	dir := t.TempDir()
	w := &world{t: t, config: config, compass: server, checkout: dir, compassCA: filepath.Join(dir, "compass.pem")}
	scheme := runtime.NewScheme()
	w.must(errors.Join(clientgoscheme.AddToScheme(scheme), applicationv1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)))
	w.kube, err = client.New(config, client.Options{Scheme: scheme})
	w.must(err)
	w.must(os.WriteFile(w.compassCA, server.ServerCA(), 0o600))
	w.kubeconfig, err = kubetest.Kubeconfig(config, dir)
	w.must(err)
	program := os.Getenv("KUBECTL")
	if program == "" {
		t.Fatal("KUBECTL is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/kubectl")
	}
	bin := filepath.Join(dir, "bin")
	w.must(errors.Join(os.Mkdir(bin, 0o700), os.Symlink(program, filepath.Join(bin, "kubectl"))))
	w.path = bin + string(os.PathListSeparator) + os.Getenv("PATH")
	w.must(os.CopyFS(filepath.Join(dir, "manifests"), os.DirFS(filepath.Join("..", "..", "manifests"))))

	for _, name := range []string{system, ingress} {
		w.must(w.kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	istio, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/api").Output()
	w.must(err)
	w.run("kubectl apply --server-side -f " + filepath.Join(strings.TrimSpace(string(istio)), "kubernetes/customresourcedefinitions.gen.yaml"))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs a piece of shell where an administrator would, and gives what it prints.
func (w *world) run(script string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = w.checkout, append(os.Environ(), "PATH="+w.path, "KUBECONFIG="+w.kubeconfig)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("%s\n%v\n%s%s", script, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

var block = regexp.MustCompile("(?ms)^ *```\n(.*?)^ *```$")

// follow does what a section of docs/upgrade.md says, command by command.
func (w *world) follow(section string) {
	w.t.Helper()
	w.followUntil(section, "")
}

// followUntil ends after the commands with a text, if that is given.
func (w *world) followUntil(section, last string) {
	w.t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "upgrade.md"))
	w.must(err)
	_, text, found := strings.Cut(string(page), "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	blocks := block.FindAllStringSubmatch(text, -1)
	if !found || len(blocks) == 0 {
		w.t.Fatalf("docs/upgrade.md has %d blocks of commands in section %q", len(blocks), section)
	}
	for _, b := range blocks {
		w.run(b[1])
		w.play()
		if last != "" && strings.Contains(b[1], last) {
			return
		}
	}
	if last != "" {
		w.t.Fatalf("docs/upgrade.md has no %q in section %q", last, section)
	}
}

// play does what the cluster does after a change: Deployments start and end programs, and the operator, if it runs, puts its
// manifests in place.
func (w *world) play() {
	w.t.Helper()
	if w.replicas(operatorName) > 0 {
		w.operate()
	}
	wanted := w.deployment(agentName)
	runs, old := w.replicas(agentName) > 0, ofBefore(wanted)
	if w.stopAgent != nil && (!runs || old) {
		w.stopAgent()
		w.stopAgent = nil
	}
	if w.stopAgent == nil && runs && !old {
		w.stopAgent = w.startAgent(wanted)
	}
	if runs && old {
		if err := w.before.sync(); (err != nil) != w.before.ended {
			w.t.Fatalf("a sync of the agent of before, whose certificate has ended: %v: %v", w.before.ended, err)
		}
	}
	old = ofBefore(w.deployment(gatewayName))
	if w.stopGateway != nil && old {
		w.stopGateway()
		w.stopGateway = nil
	}
	if w.stopGateway == nil && !old {
		w.stopGateway = w.startGateway()
	}
}

func (w *world) deployment(name string) *appsv1.Deployment {
	w.t.Helper()
	d := &appsv1.Deployment{}
	w.must(w.kube.Get(w.t.Context(), client.ObjectKey{Namespace: system, Name: name}, d))
	return d
}

func (w *world) replicas(name string) int32 { return ptr.Deref(w.deployment(name).Spec.Replicas, 1) }

// ofBefore says whether a Deployment runs a program of the module in use today.
func ofBefore(d *appsv1.Deployment) bool {
	return strings.Contains(d.Spec.Template.Spec.Containers[0].Image, "/prod/")
}

// operate is what the module's operator does whenever something has changed.
func (w *world) operate() {
	w.t.Helper()
	for _, file := range []string{"definitions.yaml", "installed.yaml"} {
		w.run("kubectl apply --server-side --force-conflicts --field-manager=" + operatorOwner + " -f " + testdata(w.t, file))
	}
	w.run(`kubectl wait --for=condition=Established --timeout=1m crd --all
kubectl -n kyma-system patch applicationconnectors/applicationconnector-sample --type=merge --patch='{"metadata":{"finalizers":["application-connector-manager.kyma-project.io/deletion-hook"]}}'`)
}

// as is how a component reaches the cluster: by a token of its service account, as in a Pod.
func (w *world) as(account string) *rest.Config {
	w.t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(3600))}}
	holder := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: account}}
	w.must(w.kube.SubResource("token").Create(w.t.Context(), holder, request))
	config := rest.AnonymousClientConfig(w.config)
	config.BearerToken, config.QPS = request.Status.Token, -1
	leaktest.Of(w.t).Add("the token of "+account, request.Status.Token)
	return config
}

// startAgent runs the agent with what its Deployment says, and what a machine without a network of Pods needs.
func (w *world) startAgent(d *appsv1.Deployment) func() {
	w.t.Helper()
	env := map[string]string{}
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	for name, value := range map[string]string{
		"APP_COMPASS_CA_FILE": w.compassCA, "APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms", "APP_CONTROLLER_SYNC_PERIOD": "1s",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "off",
		"APP_LOG_LEVEL": "debug",
	} {
		env[name] = value
	}
	o, err := agent.FromEnvironment(func(name string) string { return env[name] })
	w.must(err)
	o.Kubernetes, o.LogTo = w.as(agentName), leaktest.Of(w.t).Tee("agent", &agentLog{t: w.t})
	return w.start("agent", func(ctx context.Context) error { return agent.Run(ctx, o) })
}

func (w *world) startGateway() func() {
	w.t.Helper()
	o := gateway.Options{
		ListenAddress: "127.0.0.1", ProxyTimeout: 10, RequestTimeout: 10, SecretsNamespace: system, LogLevel: "debug", AllowedTargets: "127.0.0.1/32",
		Config: w.as(gatewayName),
	}
	w.must(errors.Join(o.Validate(), o.Complete()))
	g, err := gateway.New(o, leaktest.Of(w.t).Logger("gateway"))
	w.must(err)
	w.gatewayURL = "http://" + g.Addresses().Entries
	return w.start("gateway", g.Run)
}

func (w *world) start(what string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended, stopped := make(chan error, 1), false
	go func() { ended <- f(ctx) }()
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the %s ended by: %v", what, err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) eventually(what string, is func() error) {
	w.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(w.t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = is()
		return last == nil, nil
	})
	if err != nil {
		w.t.Fatalf("waiting for %s: %v", what, last)
	}
}

// agentLog fails the test when the agent lacks a right.
type agentLog struct{ t *testing.T }

func (l *agentLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("forbidden")) {
		l.t.Errorf("the agent was refused something: %s", p)
	}
	return len(p), nil
}

func (w *world) connection() (*compassv1alpha1.CompassConnection, error) {
	c := &compassv1alpha1.CompassConnection{}
	if err := w.kube.Get(w.t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		return nil, fmt.Errorf("reading the CompassConnection: %w", err)
	}
	return c, nil
}

func testdata(t *testing.T, file string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// operatorResource tells the operator to install; it has its defaults.
func operatorResource() *unstructured.Unstructured {
	o := object(schema.GroupVersionKind{Group: "operator.kyma-project.io", Version: "v1alpha1", Kind: "ApplicationConnector"}, "applicationconnector-sample")
	o.SetNamespace(system)
	o.Object["spec"] = map[string]any{}
	return o
}
