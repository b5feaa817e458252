// Package agenttest runs agents against a simulated Compass and a real API server, for tests: within the test's process, or as
// the program itself, which can be killed. It looks for secrets in all that they tell. It knows nothing of what a test is about.
package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/secret/canary"
	"github.com/application-connector/application-connector/simulator/compass"
)

// Cluster is the API server of the package, as administrator.
var Cluster rest.Config

// Run is for TestMain: it starts the package's API server, runs the tests and exits.
func Run(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // what controller-runtime logs globally; each agent has its own log besides
	kubetest.Run(m, &Cluster)
}

const (
	// Tenant and RuntimeID are what the cluster is registered as.
	Tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	RuntimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
	// Patience is for what takes a moment, on a machine that is slow.
	Patience = 90 * time.Second
	// CanaryText is in every secret of the simulated Compass that the test chooses itself.
	CanaryText = "canary-5f2c"
)

// Seed is what Compass holds: one runtime, and one Application that it sees.
var Seed = compass.Seed{Tenants: []compass.Tenant{{
	ID:       Tenant,
	Runtimes: []compass.Runtime{{ID: RuntimeID, Name: "local", Formations: []string{"default"}}},
	Applications: []compass.Application{{
		Name: "Shop", Description: "a shop", ProviderName: "SAP", Formations: []string{"default"}, Labels: map[string]any{"applicationType": "shop"},
		Bundles: []compass.Bundle{{
			Name: "Orders", APIs: []compass.API{{Name: "Orders API", TargetURL: "https://shop.example.com/orders", Version: &compass.Version{Value: "1.0.0"}}},
			Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: CanaryText}}},
		}},
	}},
}}}

// Stage is a simulated Compass, namespaces of the test's own, and agents that the test starts and stops.
type Stage struct {
	// T may be exchanged for that of a subtest.
	T *testing.T
	// Client is the administrator's.
	Client  client.Client
	Compass *compass.Server
	// Env is what agents get that are started from then on. Log is what they all wrote.
	Env map[string]string
	Log *leaktest.Log
	// Canaries are whatever was secret in any Secret of the stage, and what tests add.
	Canaries *canary.Set
	watch    *leaktest.Watch
	// Configuration, Credential and Authorities name the Secrets with the pairing data, the client certificate and the CAs.
	Configuration, Credential, Authorities types.NamespacedName
}

// New makes a stage, and looks at the end of the test that no secret was told.
func New(t *testing.T) *Stage {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(&Cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	watch := leaktest.Of(t)
	server, err := compass.Start(t.Context(), compass.Options{Seed: Seed, OnSecret: watch.Add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	system, ingress := kubetest.Namespace(t, &Cluster), kubetest.Namespace(t, &Cluster)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ServerCA(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Stage{
		T: t, Client: c, Compass: server, Log: watch.Log("agent"), Canaries: watch.Secrets, watch: watch,
		Configuration: types.NamespacedName{Namespace: system, Name: "compass-agent-configuration"},
		Credential:    types.NamespacedName{Namespace: system, Name: "cluster-client-certificates"},
		Authorities:   types.NamespacedName{Namespace: ingress, Name: "kyma-gateway-certs-cacert"},
	}
	s.Env = map[string]string{
		"APP_AGENT_CONFIGURATION_SECRET": s.Configuration.String(), "APP_CLUSTER_CERTIFICATES_SECRET": s.Credential.String(),
		"APP_CA_CERTIFICATES_SECRET": s.Authorities.String(), "APP_INTEGRATION_NAMESPACE": system, "APP_COMPASS_CA_FILE": ca,
		"APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms", "APP_CONTROLLER_SYNC_PERIOD": "2h",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "127.0.0.1:0", "APP_LEADER_ELECTION": "false",
		"APP_LOG_LEVEL": "debug",
	}
	watch.Add("the password of the shop", CanaryText)
	watch.Cluster(t, &Cluster)
	t.Cleanup(s.sweep)
	return s
}

// sweep removes what is cluster-wide, so that the next test begins with nothing.
func (s *Stage) sweep() {
	for _, list := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
		if err := s.Client.DeleteAllOf(context.Background(), list); err != nil {
			s.T.Error(err)
		}
	}
	if s.T.Failed() {
		s.T.Logf("the agent's log:\n%s", s.Log)
	}
}

// Configure writes the configuration Secret with a fresh token; edits may change it.
func (s *Stage) Configure(edits ...func(map[string]string)) {
	s.T.Helper()
	token, err := s.Compass.Admin().RuntimeToken(RuntimeID)
	if err != nil {
		s.T.Fatal(err)
	}
	data := map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": RuntimeID, "TENANT": Tenant, "TOKEN": token.Token}
	for _, edit := range edits {
		edit(data)
	}
	s.watch.Add("a one-time token", data["TOKEN"])
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Configuration.Namespace, Name: s.Configuration.Name}, StringData: data}
	err = s.Client.Create(s.T.Context(), secret.DeepCopy())
	if client.IgnoreAlreadyExists(err) != nil {
		s.T.Fatal(err)
	}
	if err != nil {
		if err := s.Client.Update(s.T.Context(), secret); err != nil {
			s.T.Fatal(err)
		}
	}
}

// Running is one agent.
type Running struct {
	Health, Metrics, Page string
	Stop                  func()
}

// Start runs an agent until the test ends, or until Stop.
func (s *Stage) Start() *Running {
	s.T.Helper()
	o, err := agent.FromEnvironment(func(name string) string { return s.Env[name] })
	if err != nil {
		s.T.Fatal(err)
	}
	o.Kubernetes, o.LogTo = rest.CopyConfig(&Cluster), s.Log
	r := &Running{}
	open := make(chan struct{})
	o.ListeningStatusPage = func(page net.Addr) { r.Page = "http://" + page.String() }
	o.Listening = func(health, metrics net.Addr) {
		r.Health, r.Metrics = "http://"+health.String(), "http://"+metrics.String()
		close(open)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, o) }()
	r.Stop = sync.OnceFunc(func() {
		for _, url := range []string{r.Metrics + "/metrics", r.Page + "/", r.Page + "/status.json"} {
			s.watch.Read("page "+url[strings.LastIndex(url, "/"):]+" of the agent", url)
		}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				s.T.Errorf("the agent ended with: %v", err)
			}
		case <-time.After(Patience):
			s.T.Error("the agent does not end")
		}
	})
	s.T.Cleanup(r.Stop)
	select {
	case <-open:
	case err := <-ended:
		s.T.Fatalf("the agent did not start: %v", err)
	case <-time.After(Patience):
		s.T.Fatal("the agent does not start")
	}
	return r
}

// Connection reads the CompassConnection; nil if there is none.
func (s *Stage) Connection(ctx context.Context) *compassv1alpha1.CompassConnection {
	c := &compassv1alpha1.CompassConnection{}
	if err := s.Client.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		return nil
	}
	return c
}

// Until waits until something is so of the CompassConnection, and gives it as it then is.
func (s *Stage) Until(what string, is func(*compassv1alpha1.CompassConnection) bool) *compassv1alpha1.CompassConnection {
	s.T.Helper()
	var last *compassv1alpha1.CompassConnection
	s.Eventually(what, func() bool {
		last = s.Connection(s.T.Context())
		return last != nil && is(last)
	}, func() any {
		if last == nil {
			return nil
		}
		return last.Status
	})
	return last
}

// InState waits for a state.
func (s *Stage) InState(state compassv1alpha1.ConnectionState) *compassv1alpha1.CompassConnection {
	s.T.Helper()
	return s.Until("state "+string(state), func(c *compassv1alpha1.CompassConnection) bool { return c.Status.State == state })
}

// Eventually waits for a condition; told is what is Printed if it does not come.
func (s *Stage) Eventually(what string, is func() bool, told ...func() any) {
	s.T.Helper()
	err := wait.PollUntilContextTimeout(s.T.Context(), 20*time.Millisecond, Patience, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		for _, f := range told {
			s.T.Logf("last seen: %+v", f())
		}
		s.T.Fatalf("waiting for %s: %v", what, err)
	}
}

// Secret reads a Secret; nil if there is none.
func (s *Stage) Secret(name types.NamespacedName) *corev1.Secret {
	secret := &corev1.Secret{}
	if err := s.Client.Get(s.T.Context(), name, secret); err != nil {
		return nil
	}
	return secret
}

// Edit changes the spec of the CompassConnection.
func (s *Stage) Edit(f func(*compassv1alpha1.CompassConnectionSpec)) {
	s.T.Helper()
	c := s.Connection(s.T.Context())
	changed := c.DeepCopy()
	f(&changed.Spec)
	if err := s.Client.Patch(s.T.Context(), changed, client.MergeFrom(c)); err != nil {
		s.T.Fatal(err)
	}
}

// Ask asks for a renewal, by annotation.
func (s *Stage) Ask(value string) {
	s.T.Helper()
	c := s.Connection(s.T.Context())
	asked := c.DeepCopy()
	asked.Annotations = map[string]string{compassv1alpha1.RenewAnnotation: value}
	if err := s.Client.Patch(s.T.Context(), asked, client.MergeFrom(c)); err != nil {
		s.T.Fatal(err)
	}
}

// Provoke asks for syncs, each of which passes the waiting time, until so many attempts failed in a row.
func (s *Stage) Provoke(failures int32) *compassv1alpha1.CompassConnection {
	s.T.Helper()
	c := s.Connection(s.T.Context())
	for failed := c.Status.ConsecutiveFailures; failed < failures; failed = c.Status.ConsecutiveFailures {
		s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
		c = s.Until("another failure", func(c *compassv1alpha1.CompassConnection) bool {
			return c.Status.ConsecutiveFailures > failed && !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation
		})
	}
	return c
}

// Refused has Compass refuse the certificate beyond doubt: three times, over twenty floors.
func (s *Stage) Refused() *compassv1alpha1.CompassConnection {
	s.T.Helper()
	s.Provoke(3)
	return s.Until("refusals that last", func(c *compassv1alpha1.CompassConnection) bool {
		refused := c.Status.CertificateRefused
		return refused != nil && refused.Count >= 3 && time.Since(refused.Since.Time) > 5*time.Second
	})
}

// Calls is how many requests of an operation Compass received.
func (s *Stage) Calls(operation string) int {
	return s.Compass.Admin().Counters().Operations[operation].Received
}

// Fault makes Compass fail, until the function is called that it gives.
func (s *Stage) Fault(f compass.Fault) (clear func()) {
	s.T.Helper()
	id, err := s.Compass.Admin().SetFault(f)
	if err != nil {
		s.T.Fatal(err)
	}
	return func() { s.Compass.Admin().ClearFaults(id) }
}

// NoSecretWasTold looks for the secrets of the test in everything that the agent has told. The end of the test looks too.
func (s *Stage) NoSecretWasTold() { leaktest.Of(s.T).Look() }

// Printed is a value in JSON.
func Printed(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Fetch reads a URL of the agent.
func (s *Stage) Fetch(url string) (int, string) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		s.T.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// EndOf runs an agent to its end, which must come by itself.
func EndOf(t *testing.T, env map[string]string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	o, err := agent.FromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		return err
	}
	watch := leaktest.Of(t)
	watch.Add("the cluster's token", Cluster.BearerToken)
	o.LogTo = watch.Log("agent that ends")
	err = agent.Run(ctx, o)
	watch.Told("error of the agent", fmt.Sprint(err))
	if ctx.Err() != nil {
		t.Error("the agent runs")
	}
	return err
}

// Set is an edit of the configuration Secret.
func Set(key, value string) func(map[string]string) {
	return func(data map[string]string) { data[key] = value }
}

// Pending names the Secret that holds what must outlive a crash.
func (s *Stage) Pending() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Credential.Namespace, Name: s.Credential.Name + "-pending"}
}

// Fingerprint is that of the certificate which the status tells.
func Fingerprint(c *compassv1alpha1.CompassConnection) string {
	return c.Status.ConnectionStatus.CertificateStatus.Fingerprint
}

// Applications names the Applications in the cluster.
func (s *Stage) Applications() (names []string) {
	s.T.Helper()
	var list applicationv1alpha1.ApplicationList
	if err := s.Client.List(s.T.Context(), &list); err != nil {
		s.T.Fatal(err)
	}
	for _, app := range list.Items {
		names = append(names, app.Name)
	}
	return names
}

// Resync asks for a sync and waits until it was done.
func (s *Stage) Resync() *compassv1alpha1.CompassConnection {
	s.T.Helper()
	before := s.Calls("applicationsForRuntime")
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	return s.Until("the sync", func(c *compassv1alpha1.CompassConnection) bool {
		return !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation && c.Status.State == compassv1alpha1.Synchronized && s.Calls("applicationsForRuntime") > before
	})
}

// Put has Compass hold these Applications too, for the runtime to see, and gives their ids.
func (s *Stage) Put(apps ...compass.Application) []string {
	s.T.Helper()
	for i := range apps {
		apps[i].Formations = []string{"default"}
	}
	ids, err := s.Compass.Admin().PutApplications(Tenant, apps...)
	if err != nil {
		s.T.Fatal(err)
	}
	return ids
}
