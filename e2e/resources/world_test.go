package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/impostor"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	system    = "kyma-system"
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"

	// patience is far more than anything here needs.
	patience = 15 * time.Minute
)

// world is a cluster, Compass with its Applications, an API, and a publisher.
type world struct {
	b                  *testing.B
	kube               client.Client
	folder, kubeconfig string
	compassCA          string
	publisher          string // URL
}

func newWorld(b *testing.B) *world {
	b.Helper()
	config, stop, err := kubetest.Start(b.Context())
	must(b, err)
	b.Cleanup(stop)
	w := &world{b: b, folder: b.TempDir()}
	scheme := runtime.NewScheme()
	must(b, errors.Join(clientgoscheme.AddToScheme(scheme), applicationv1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)))
	w.kube, err = client.New(config, client.Options{Scheme: scheme})
	must(b, err)
	w.kubeconfig, err = kubetest.Kubeconfig(config, w.folder)
	must(b, err)
	// The API answers with as much as it was sent, the publisher with nothing.
	answer := make([]byte, 1<<20)
	target := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password == "" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = rw.Write(answer[:n])
	}))
	b.Cleanup(target.Close)
	publisher := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rw.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(publisher.Close)
	w.publisher = strings.TrimPrefix(publisher.URL, "http://")

	seed := compass.Tenant{ID: tenant, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}}}
	for i := range applications {
		seed.Applications = append(seed.Applications, ordinary(i, target.URL))
	}
	server, err := compass.Start(context.Background(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{seed}}})
	must(b, err)
	b.Cleanup(func() {
		if err := server.Close(); err != nil {
			b.Error(err)
		}
	})
	w.compassCA = filepath.Join(w.folder, "compass.pem")
	must(b, os.WriteFile(w.compassCA, server.ServerCA(), 0o600))
	for _, name := range []string{system, "istio-system"} {
		must(b, w.kube.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	must(b, w.kube.Create(b.Context(), impostor.Application{Name: "shop"}.Object())) // it sends the events
	token, err := server.Admin().RuntimeToken(runtimeID)
	must(b, err)
	must(b, w.kube.Create(b.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "compass-agent-configuration"},
		StringData: map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token},
	}))
	return w
}

// ordinary is a system with three bundles, each with credentials of its own, two APIs and an event.
func ordinary(n int, target string) compass.Application {
	name := fmt.Sprintf("system-%05d", n)
	app := compass.Application{Name: name, Description: "a system of ordinary size", ProviderName: "Example", Formations: []string{"default"}}
	for i := range 3 {
		bundle := compass.Bundle{
			Name: fmt.Sprintf("bundle %d", i), Description: "what belongs together",
			Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: "password-" + name}}},
		}
		for j := range 2 {
			bundle.APIs = append(bundle.APIs, compass.API{Name: fmt.Sprintf("api %d", j), TargetURL: fmt.Sprintf("%s/%s/%d/%d", target, name, i, j)})
		}
		bundle.Events = []compass.Event{{Name: "order.changed"}}
		app.Bundles = append(app.Bundles, bundle)
	}
	return app
}

// program is one that runs, with what its Pod gives it.
type program struct {
	w    *world
	name string
	cmd  *exec.Cmd
	log  string // file, as a Pod's is
	end  chan struct{}
}

// start runs a program with the arguments and variables of its Deployment, followed by those that this machine needs: of two with
// one name the last counts.
func (w *world) start(name string, args, env []string) *program {
	w.b.Helper()
	appconn := os.Getenv("APPCONN")
	if appconn == "" {
		w.b.Fatal("APPCONN is not set: run the benchmarks by \"make bench\", or set it to the program that \"make build\" put at bin/appconn")
	}
	of := readWorkload(w.b, name)
	p := &program{w: w, name: name, log: filepath.Join(w.folder, name+".log"), end: make(chan struct{})}
	p.cmd = exec.CommandContext(w.b.Context(), filepath.Join(filepath.Dir(appconn), name), append(of.container.Args[1:], args...)...)
	p.cmd.Env = []string{"KUBECONFIG=" + w.kubeconfig, "HOME=" + w.folder, "TMPDIR=" + os.TempDir(), fmt.Sprintf("GOMEMLIMIT=%d", memoryBound(w.b, of)), fmt.Sprintf("GOMAXPROCS=%d", processors(of))}
	for _, e := range of.container.Env {
		if e.Name != "GOMEMLIMIT" && e.ValueFrom == nil {
			p.cmd.Env = append(p.cmd.Env, e.Name+"="+e.Value)
		}
	}
	p.cmd.Env = append(p.cmd.Env, env...)
	log, err := os.Create(p.log)
	must(w.b, err)
	defer func() { _ = log.Close() }() // the program has its own
	p.cmd.Stdout, p.cmd.Stderr = log, log
	must(w.b, p.cmd.Start())
	go func() {
		defer close(p.end)
		_ = p.cmd.Wait()
	}()
	w.b.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may be gone
		<-p.end
		if w.b.Failed() {
			text, _ := os.ReadFile(p.log)
			w.b.Logf("%s:\n%s", p.name, text[max(0, len(text)-4000):])
		}
	})
	return p
}

// memoryBound is GOMEMLIMIT, in bytes, as Kubernetes makes it of the manifests.
func memoryBound(tb testing.TB, of workload) int64 {
	tb.Helper()
	values := map[string]string{}
	for _, e := range of.container.Env {
		value := e.Value
		for name, known := range values { // a variable may use those before it
			value = strings.ReplaceAll(value, "$("+name+")", known)
		}
		if e.ValueFrom != nil && e.ValueFrom.ResourceFieldRef != nil && e.ValueFrom.ResourceFieldRef.Resource == "limits.memory" {
			value = strconv.FormatInt(ceiling(of.container.Resources.Limits.Memory().Value(), e.ValueFrom.ResourceFieldRef.Divisor), 10)
		}
		values[e.Name] = value
	}
	bound, err := strconv.ParseInt(values["GOMEMLIMIT"], 10, 64)
	if err != nil {
		tb.Fatalf("%s: GOMEMLIMIT is %q in its Deployment: %v", of.container.Name, values["GOMEMLIMIT"], err)
	}
	return bound
}

// ceiling divides as Kubernetes does, up.
func ceiling(value int64, divisor resource.Quantity) int64 {
	by := max(1, divisor.Value())
	return (value + by - 1) / by
}

// processors is what Go makes of a limit of processor time: as many as it needs, two at least.
func processors(of workload) int64 {
	return max(2, of.container.Resources.Limits.Cpu().Value()) // rounded up
}

// field waits for a field of the log's lines, and gives its value.
func (p *program) field(name string) (value string) {
	p.w.b.Helper()
	p.w.eventually(p.name+" to log its "+name, func() error {
		p.running()
		text, err := os.ReadFile(p.log)
		must(p.w.b, err)
		for line := range strings.SplitSeq(string(text), "\n") {
			var fields map[string]any
			if json.Unmarshal([]byte(line), &fields) == nil {
				if found, ok := fields[name].(string); ok {
					value = found
					return nil
				}
			}
		}
		return errors.New("not yet")
	})
	return value
}

func (p *program) running() {
	p.w.b.Helper()
	select {
	case <-p.end:
		p.w.b.Fatalf("the %s ended by itself: %v", p.name, p.cmd.ProcessState)
	default:
	}
}

// stop asks it to end and waits for that.
func (p *program) stop() {
	p.w.b.Helper()
	must(p.w.b, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.end:
	case <-time.After(patience):
		p.w.b.Fatalf("the %s does not end", p.name)
	}
}

// ready waits until a program says so.
func (p *program) ready() {
	p.w.b.Helper()
	url := "http://" + p.field("admin") + "/readyz"
	p.w.eventually("the "+p.name+" to be ready", func() error {
		response, err := http.Get(url)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

func (w *world) agent() *program {
	w.b.Helper()
	return w.start("agent", nil, []string{
		"APP_COMPASS_CA_FILE=" + w.compassCA, "APP_LISTEN_ADDRESS=127.0.0.1", "APP_HEALTH_PORT=0", "APP_METRICS_PORT=0", "APP_STATUS_PAGE_ADDRESS=off",
	})
}

// gateway gives the URL of the port for calls by application, service and entry too.
func (w *world) gateway() (*program, string) {
	w.b.Helper()
	p := w.start("gateway", []string{"--listenAddress=127.0.0.1", "--proxyPort=0", "--proxyPortCompass=0", "--externalAPIPort=0", "--allowedTargets=127.0.0.1/32", "--drainDelay=0s"}, nil)
	p.ready()
	return p, "http://" + p.field("entries")
}

func (w *world) validator() (*program, string) {
	w.b.Helper()
	p := w.start("validator", []string{"--listenAddress=127.0.0.1", "--proxyPort=0", "--externalAPIPort=0", "--eventingPublisherHost=" + w.publisher, "--drainDelay=0s"}, nil)
	p.ready()
	return p, "http://" + p.field("proxy")
}

func (w *world) eventually(what string, is func() error) {
	w.b.Helper()
	end := time.Now().Add(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.b.Fatalf("waiting for %s: %v", what, err)
		}
		select {
		case <-w.b.Context().Done():
			w.b.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
