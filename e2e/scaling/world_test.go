// Package scaling runs several of each program side by side, under load, and ends them one by one.
package scaling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/impostor"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/compass"
	"github.com/application-connector/application-connector/simulator/eventing"
)

const (
	system    = "kyma-system"
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"

	// apiPassword is what the systems' API asks for.
	apiPassword = "a-password-7b21"

	// patience is far more than anything here needs.
	patience = 3 * time.Minute
	// drainDelay is the programs' own, long enough for the balancer to see that one is not ready.
	drainDelay = 3 * time.Second
)

var cluster rest.Config

func TestMain(m *testing.M) { kubetest.Run(m, &cluster) }

// world is a cluster with Compass, an API, a store of events, and the programs.
type world struct {
	t          *testing.T
	kube       client.Client
	compass    *compass.Server
	eventing   *eventing.Server
	target     *httptest.Server
	folder     string
	kubeconfig string
	compassCA  string

	gateways, validators *balancer

	last   uint64         // sequence of the event that was read last
	stored map[string]int // how often each event is stored, by id
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	w := &world{t: t, folder: t.TempDir(), gateways: newBalancer(t), validators: newBalancer(t), stored: map[string]int{}}
	scheme := runtime.NewScheme()
	w.must(errors.Join(clientgoscheme.AddToScheme(scheme), applicationv1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)))
	var err error
	w.kube, err = client.New(&cluster, client.Options{Scheme: scheme})
	w.must(err)
	w.kubeconfig, err = kubetest.Kubeconfig(&cluster, w.folder)
	w.must(err)
	w.target = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != apiPassword {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(w.target.Close)
	w.eventing, err = eventing.Start(t.Context(), eventing.Options{Address: "127.0.0.1:0"})
	w.must(err)
	t.Cleanup(func() {
		if err := w.eventing.Close(); err != nil {
			t.Error(err)
		}
	})
	w.compass, err = compass.Start(t.Context(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{{
		ID: tenant, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
		Applications: []compass.Application{w.system("Shop")},
	}}}, OnSecret: watch.Add})
	w.must(err)
	t.Cleanup(func() {
		if err := w.compass.Close(); err != nil {
			t.Error(err)
		}
	})
	w.compassCA = filepath.Join(w.folder, "compass.pem")
	w.must(os.WriteFile(w.compassCA, w.compass.ServerCA(), 0o600))

	for _, name := range []string{system, "istio-system"} {
		w.must(w.kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	w.must(w.kube.Create(t.Context(), impostor.Application{Name: "shop"}.Object())) // it sends the events
	token, err := w.compass.Admin().RuntimeToken(runtimeID)
	w.must(err)
	w.must(w.kube.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "compass-agent-configuration"},
		StringData: map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token},
	}))
	return w
}

// system is one that Compass knows, with an API that asks for a password.
func (w *world) system(name string) compass.Application {
	return compass.Application{Name: name, Formations: []string{"default"}, Bundles: []compass.Bundle{{
		Name: "Orders", APIs: []compass.API{{Name: "Orders API", TargetURL: w.target.URL}},
		Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: apiPassword}}},
	}}}
}

// program is one that runs.
type program struct {
	w    *world
	name string
	cmd  *exec.Cmd
	log  *leaktest.Log
	end  chan struct{}

	balancer *balancer
	backend  *backend
}

func (w *world) start(name string, args []string, env ...string) *program {
	w.t.Helper()
	path := os.Getenv("APPCONN")
	if path == "" {
		w.t.Fatal("APPCONN is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/appconn")
	}
	path = filepath.Join(filepath.Dir(path), name)
	if _, err := os.Stat(path); err != nil { // the tests run again when it changes
		w.t.Fatal(err)
	}
	p := &program{w: w, name: name, log: &leaktest.Log{}, end: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(w.t.Context()), path, args...) // until its metrics are read
	p.cmd.Env = append([]string{"KUBECONFIG=" + w.kubeconfig, "HOME=" + w.folder, "TMPDIR=" + os.TempDir(), "APP_LOG_FORMAT=json", "APP_LOG_LEVEL=debug"}, env...)
	out := leaktest.Of(w.t).Tee(name, p.log)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	w.must(p.cmd.Start())
	go func() {
		defer close(p.end)
		_ = p.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			text := p.log.String()
			w.t.Logf("%s:\n%s", p.name, text[max(0, len(text)-4000):])
		}
	})
	return p
}

// field waits for a field of the log's lines, and gives its value.
func (p *program) field(name string) string {
	p.w.t.Helper()
	var value string
	p.w.eventually(p.name+" to log its "+name, func() error {
		p.running()
		for line := range strings.SplitSeq(p.log.String(), "\n") {
			var fields map[string]any
			if json.Unmarshal([]byte(line), &fields) == nil {
				if text, ok := fields[name].(string); ok {
					value = text
					return nil
				}
			}
		}
		return errors.New("not yet")
	})
	return value
}

func (p *program) running() {
	p.w.t.Helper()
	select {
	case <-p.end:
		p.w.t.Fatalf("the %s ended by itself: %v\n%s", p.name, p.cmd.ProcessState, p.log)
	default:
	}
}

// kill ends it without a chance to do anything.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.end
}

// terminate asks it to end, waits until it did, and wants it to have ended well.
func (p *program) terminate() {
	p.w.t.Helper()
	p.w.must(p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.end:
	case <-time.After(patience):
		p.w.t.Fatalf("the %s does not end", p.name)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.w.t.Errorf("the %s ended with %d", p.name, code)
	}
}

func (w *world) agent() *program {
	w.t.Helper()
	return w.start("agent", nil,
		"APP_COMPASS_CA_FILE="+w.compassCA, "APP_CERT_KEY_SIZE=2048", "APP_MINIMAL_COMPASS_SYNC_TIME=200ms", "APP_CONTROLLER_SYNC_PERIOD=1s",
		"APP_LISTEN_ADDRESS=127.0.0.1", "APP_HEALTH_PORT=0", "APP_METRICS_PORT=0", "APP_STATUS_PAGE_ADDRESS=off")
}

func (w *world) gateway() *program {
	w.t.Helper()
	p := w.start("gateway", []string{
		"--listenAddress=127.0.0.1", "--proxyPort=0", "--proxyPortCompass=0", "--externalAPIPort=0", "--applicationSecretsNamespace=" + system,
		"--allowedTargets=127.0.0.1/32", "--logLevel=debug", "--drainDelay=" + drainDelay.String(),
	})
	return p.behind(w.gateways, p.field("entries"), p.field("admin"))
}

func (w *world) validator() *program {
	w.t.Helper()
	p := w.start("validator", []string{
		"--listenAddress=127.0.0.1", "--proxyPort=0", "--externalAPIPort=0", "--eventingPublisherHost=" + strings.TrimPrefix(w.eventing.URL(), "http://"),
		"--drainDelay=" + drainDelay.String(),
	})
	return p.behind(w.validators, p.field("proxy"), p.field("admin"))
}

// behind puts a program behind a balancer, and waits until that has taken it in.
func (p *program) behind(b *balancer, address, admin string) *program {
	p.w.t.Helper()
	p.balancer, p.backend = b, b.add(address, "http://"+admin+"/readyz")
	p.w.eventually("the "+p.name+" to be ready", func() error {
		p.running()
		if in, _, _ := b.isIn(p.backend); !in {
			return errors.New("it is not")
		}
		return nil
	})
	leaktest.Of(p.w.t).Scrape(p.w.t, "metrics of the "+p.name, "http://"+admin+"/metrics") // if it lives that long
	return p
}

// busy waits until a program has had traffic: the end of one that has none would prove nothing.
func (p *program) busy() *program {
	p.w.t.Helper()
	p.w.eventually("traffic to the "+p.name, func() error {
		p.running()
		if _, _, served := p.balancer.isIn(p.backend); served < 10 {
			return fmt.Errorf("it had %d connections", served)
		}
		return nil
	})
	return p
}

// out waits until the balancer has taken it out, and says when that was.
func (p *program) out() time.Time {
	p.w.t.Helper()
	var at time.Time
	p.w.eventually("the balancer to take the "+p.name+" out", func() error {
		in, out, _ := p.balancer.isIn(p.backend)
		if at = out; in {
			return errors.New("it did not")
		}
		return nil
	})
	p.balancer.remove(p.backend)
	return at
}

func (w *world) eventually(what string, is func() error) {
	w.t.Helper()
	end := time.Now().Add(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("waiting for %s: %v", what, err)
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// synced waits until a system that Compass knows is an Application with its credentials.
func (w *world) synced(name string) {
	w.t.Helper()
	w.eventually("Application "+name, func() error {
		app := &applicationv1alpha1.Application{}
		if err := w.kube.Get(w.t.Context(), client.ObjectKey{Name: name}, app); err != nil {
			return err
		}
		if len(app.Spec.Services) != 1 || len(app.Spec.Services[0].Entries) != 1 {
			return fmt.Errorf("it has %d services", len(app.Spec.Services))
		}
		s := &corev1.Secret{}
		return w.kube.Get(w.t.Context(), client.ObjectKey{Namespace: system, Name: app.Spec.Services[0].Entries[0].Credentials.SecretName}, s)
	})
}
