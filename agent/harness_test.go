package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/secret/canary"
	"github.com/application-connector/application-connector/simulator/compass"
)

var cluster rest.Config

func TestMain(m *testing.M) {
	if os.Getenv(runAsAgent) != "" { // a test started this program again, to have an agent that it can kill
		os.Exit(agent.Main(ctrl.SetupSignalHandler(), nil, os.Getenv, os.Stderr))
	}
	ctrl.SetLogger(logr.Discard()) // what controller-runtime logs globally; each agent has its own log besides
	kubetest.Run(m, &cluster)
}

const (
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
	patience  = 90 * time.Second
)

// canaryText is in every secret of the simulated Compass that the test chooses itself.
const canaryText = "canary-5f2c"

var seed = compass.Seed{Tenants: []compass.Tenant{{
	ID:       tenant,
	Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
	Applications: []compass.Application{{
		Name: "Shop", Description: "a shop", ProviderName: "SAP", Formations: []string{"default"}, Labels: map[string]any{"applicationType": "shop"},
		Bundles: []compass.Bundle{{
			Name: "Orders", APIs: []compass.API{{Name: "Orders API", TargetURL: "https://shop.example.com/orders", Version: &compass.Version{Value: "1.0.0"}}},
			Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: canaryText}}},
		}},
	}},
}}}

// stage is a simulated Compass, namespaces of the test's own, and agents that the test starts and stops.
type stage struct {
	t       *testing.T
	client  client.Client
	compass *compass.Server
	env     map[string]string
	log     *lockedBuffer
	secrets []string // texts that must not be seen anywhere

	canaries *canary.Set   // those, and whatever was secret in any Secret
	metrics  *lockedBuffer // of each agent, at its end
	pages    *lockedBuffer // the same: its status page, as HTML and as JSON

	configuration, credential, authorities types.NamespacedName
}

func newStage(t *testing.T) *stage {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	server, err := compass.Start(t.Context(), compass.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	system, ingress := kubetest.Namespace(t, &cluster), kubetest.Namespace(t, &cluster)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ServerCA(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &stage{
		t: t, client: c, compass: server, log: &lockedBuffer{}, secrets: []string{canaryText}, canaries: &canary.Set{}, metrics: &lockedBuffer{}, pages: &lockedBuffer{},
		configuration: types.NamespacedName{Namespace: system, Name: "compass-agent-configuration"},
		credential:    types.NamespacedName{Namespace: system, Name: "cluster-client-certificates"},
		authorities:   types.NamespacedName{Namespace: ingress, Name: "kyma-gateway-certs-cacert"},
	}
	s.env = map[string]string{
		"APP_AGENT_CONFIGURATION_SECRET": s.configuration.String(), "APP_CLUSTER_CERTIFICATES_SECRET": s.credential.String(),
		"APP_CA_CERTIFICATES_SECRET": s.authorities.String(), "APP_INTEGRATION_NAMESPACE": system, "APP_COMPASS_CA_FILE": ca,
		"APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms", "APP_CONTROLLER_SYNC_PERIOD": "2h",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "127.0.0.1:0", "APP_LEADER_ELECTION": "false",
		"APP_LOG_LEVEL": "debug",
	}
	s.canaries.Add("the password of the shop", canaryText)
	t.Cleanup(s.sweep)
	s.watchSecrets(system)
	t.Cleanup(s.noSecretWasTold)
	return s
}

// sweep removes what is cluster-wide, so that the next test begins with nothing.
func (s *stage) sweep() {
	for _, list := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
		if err := s.client.DeleteAllOf(context.Background(), list); err != nil {
			s.t.Error(err)
		}
	}
	if s.t.Failed() {
		s.t.Logf("the agent's log:\n%s", s.log)
	}
}

// configure writes the configuration Secret with a fresh token; edits may change it.
func (s *stage) configure(edits ...func(map[string]string)) {
	s.t.Helper()
	token, err := s.compass.Admin().RuntimeToken(runtimeID)
	if err != nil {
		s.t.Fatal(err)
	}
	data := map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token}
	for _, edit := range edits {
		edit(data)
	}
	s.secrets = append(s.secrets, data["TOKEN"])
	s.canaries.Add("a one-time token", data["TOKEN"])
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.configuration.Namespace, Name: s.configuration.Name}, StringData: data}
	err = s.client.Create(s.t.Context(), secret.DeepCopy())
	if client.IgnoreAlreadyExists(err) != nil {
		s.t.Fatal(err)
	}
	if err != nil {
		if err := s.client.Update(s.t.Context(), secret); err != nil {
			s.t.Fatal(err)
		}
	}
}

// running is one agent.
type running struct {
	health, metrics, page string
	stop                  func()
}

// start runs an agent until the test ends, or until stop.
func (s *stage) start() *running {
	s.t.Helper()
	o, err := agent.FromEnvironment(func(name string) string { return s.env[name] })
	if err != nil {
		s.t.Fatal(err)
	}
	o.Kubernetes, o.LogTo = rest.CopyConfig(&cluster), s.log
	r := &running{}
	open := make(chan struct{})
	o.ListeningStatusPage = func(page net.Addr) { r.page = "http://" + page.String() }
	o.Listening = func(health, metrics net.Addr) {
		r.health, r.metrics = "http://"+health.String(), "http://"+metrics.String()
		close(open)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, o) }()
	r.stop = sync.OnceFunc(func() {
		_, _ = io.WriteString(s.metrics, scraped(r.metrics+"/metrics"))
		_, _ = io.WriteString(s.pages, scraped(r.page+"/")+scraped(r.page+"/status.json"))
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				s.t.Errorf("the agent ended with: %v", err)
			}
		case <-time.After(patience):
			s.t.Error("the agent does not end")
		}
	})
	s.t.Cleanup(r.stop)
	select {
	case <-open:
	case err := <-ended:
		s.t.Fatalf("the agent did not start: %v", err)
	case <-time.After(patience):
		s.t.Fatal("the agent does not start")
	}
	return r
}

// scraped is what a URL answers; empty if it does not.
func scraped(url string) string {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := c.Get(url)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<20)) // what came is looked at
	return string(body)
}

// connection reads the CompassConnection; nil if there is none.
func (s *stage) connection(ctx context.Context) *compassv1alpha1.CompassConnection {
	c := &compassv1alpha1.CompassConnection{}
	if err := s.client.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		return nil
	}
	return c
}

// until waits until something is so of the CompassConnection, and gives it as it then is.
func (s *stage) until(what string, is func(*compassv1alpha1.CompassConnection) bool) *compassv1alpha1.CompassConnection {
	s.t.Helper()
	var last *compassv1alpha1.CompassConnection
	s.eventually(what, func() bool {
		last = s.connection(s.t.Context())
		return last != nil && is(last)
	}, func() any {
		if last == nil {
			return nil
		}
		return last.Status
	})
	return last
}

func (s *stage) inState(state compassv1alpha1.ConnectionState) *compassv1alpha1.CompassConnection {
	s.t.Helper()
	return s.until("state "+string(state), func(c *compassv1alpha1.CompassConnection) bool { return c.Status.State == state })
}

// eventually waits for a condition; told is what is printed if it does not come.
func (s *stage) eventually(what string, is func() bool, told ...func() any) {
	s.t.Helper()
	err := wait.PollUntilContextTimeout(s.t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		for _, f := range told {
			s.t.Logf("last seen: %+v", f())
		}
		s.t.Fatalf("waiting for %s: %v", what, err)
	}
}

func (s *stage) secret(name types.NamespacedName) *corev1.Secret {
	secret := &corev1.Secret{}
	if err := s.client.Get(s.t.Context(), name, secret); err != nil {
		return nil
	}
	return secret
}

// edit changes the spec of the CompassConnection.
func (s *stage) edit(f func(*compassv1alpha1.CompassConnectionSpec)) {
	s.t.Helper()
	c := s.connection(s.t.Context())
	changed := c.DeepCopy()
	f(&changed.Spec)
	if err := s.client.Patch(s.t.Context(), changed, client.MergeFrom(c)); err != nil {
		s.t.Fatal(err)
	}
}

// calls is how many requests of an operation Compass received.
func (s *stage) calls(operation string) int {
	return s.compass.Admin().Counters().Operations[operation].Received
}

func (s *stage) fault(f compass.Fault) (clear func()) {
	s.t.Helper()
	id, err := s.compass.Admin().SetFault(f)
	if err != nil {
		s.t.Fatal(err)
	}
	return func() { s.compass.Admin().ClearFaults(id) }
}

// noSecretWasTold looks for the secrets of the test in everything that the agent tells.
func (s *stage) noSecretWasTold() {
	told := map[string]string{"log": s.log.String()}
	if c := s.connection(context.Background()); c != nil {
		told["CompassConnection"] = printed(s.t, c)
	}
	var events eventsv1.EventList
	if err := s.client.List(context.Background(), &events); err != nil {
		s.t.Error(err)
	}
	for _, e := range events.Items {
		told["event "+e.Reason] += e.Note + "\n"
	}
	told["metrics"], told["status page"] = s.metrics.String(), s.pages.String()
	for where, text := range told {
		for _, name := range s.canaries.In(text) {
			s.t.Errorf("%s is told: in the %s", name, where)
		}
	}
}

// secretKeys are the keys of Secrets whose values must not be told.
var secretKeys = []string{"TOKEN", "token", "key", "tls.key", "password", "clientSecret", "headers", "queryParameters"}

// watchSecrets records whatever is secret of each version of each Secret in a namespace, until the test ends.
func (s *stage) watchSecrets(namespace string) {
	s.t.Helper()
	c, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := c.CoreV1().Secrets(namespace).Watch(context.Background(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range w.ResultChan() {
			if secret, ok := event.Object.(*corev1.Secret); ok {
				for _, key := range secretKeys {
					s.canaries.Add("key "+key+" of Secret "+secret.Name, string(secret.Data[key]))
				}
			}
		}
	}()
	s.t.Cleanup(func() {
		w.Stop()
		<-ended
	})
}

func printed(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fetch reads a URL of the agent.
func (s *stage) fetch(url string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// endOf runs an agent to its end, which must come by itself.
func endOf(t *testing.T, env map[string]string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o, err := agent.FromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		return err
	}
	o.LogTo = &lockedBuffer{}
	err = agent.Run(ctx, o)
	if ctx.Err() != nil {
		t.Error("the agent runs")
	}
	return err
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
