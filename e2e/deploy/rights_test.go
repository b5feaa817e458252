package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
)

// TestEachComponentDoesItsWorkWithTheRightsThatItIsGiven has agent, gateway and validator do all that they do, each by its
// own service account.
func TestEachComponentDoesItsWorkWithTheRightsThatItIsGiven(t *testing.T) {
	install(t, "compass")
	target := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "passwd" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- target.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(target.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	api := compass.API{Name: "Orders API", TargetURL: "http://" + listener.Addr().String()}
	server, err := compass.Start(t.Context(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{{
		ID:       tenant,
		Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
		Applications: []compass.Application{{
			Name: "Shop", ProviderName: "SAP", Formations: []string{"default"},
			Bundles: []compass.Bundle{{Name: "Orders", APIs: []compass.API{api},
				Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: "passwd"}}}}},
		}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})

	// When the agent, which would repair them, has ended.
	t.Cleanup(func() {
		own := []string{"compass-agent-configuration", "cluster-client-certificates", "cluster-client-certificates-pending"}
		for _, name := range own {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}}
			if err := kube.Delete(context.Background(), secret); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "kyma-gateway-certs-cacert"}}
		if err := kube.Delete(context.Background(), secret); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})

	agentLog, gatewayLog, validatorLog := &logBuffer{}, &logBuffer{}, &logBuffer{}
	runAgent(t, server, agentLog)
	calls := runGateway(t, gatewayLog)
	validator := runValidator(t, validatorLog)

	token, err := server.Admin().RuntimeToken(runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	configuration := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "compass-agent-configuration"},
		StringData: map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token},
	}
	if err := kube.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	synchronised(t, "the agent pairs, saves the authorities and syncs")
	var authorities corev1.Secret
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: "istio-system", Name: "kyma-gateway-certs-cacert"}, &authorities); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a call with the credentials", func() error {
		return answers(calls+"/mp-shop/orders/orders-api", http.StatusOK)
	})
	eventually(t, "the validator has its caches", func() error { return answers(validator+"/readyz", http.StatusOK) })

	// A renewal, on demand, and a system that goes.
	var connection compassv1alpha1.CompassConnection
	if err := kube.Get(t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, &connection); err != nil {
		t.Fatal(err)
	}
	changed := connection.DeepCopy()
	changed.Spec.RefreshCredentialsNow = true
	if err := kube.Patch(t.Context(), changed, client.MergeFrom(&connection)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the renewal", func() error {
		if err := kube.Get(t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, &connection); err != nil {
			return err
		}
		if connection.Spec.RefreshCredentialsNow {
			return fmt.Errorf("not done yet: %+v", connection.Status)
		}
		return nil
	})
	var told corev1.EventList
	eventually(t, "an event of the agent", func() error {
		if err := kube.List(t.Context(), &told, client.InNamespace("default")); err != nil {
			return err
		}
		for _, e := range told.Items {
			if e.InvolvedObject.Kind == "CompassConnection" {
				return nil
			}
		}
		return errors.New("there is none")
	})
	for name, log := range map[string]*logBuffer{"agent": agentLog, "gateway": gatewayLog, "validator": validatorLog, "library of one of them": libraries} {
		for line := range strings.SplitSeq(log.String(), "\n") {
			if strings.Contains(line, "forbidden") {
				t.Errorf("the %s was refused something: %s", name, line)
			}
		}
	}
}

func TestTheAgentCanNotTouchSecretsOfOthers(t *testing.T) {
	install(t, "compass")
	asAgent, err := client.New(as(t, agentName), client.Options{Scheme: kube.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	secret := func(namespace, name string, labels map[string]string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}
	}
	foreign := secret(system, "foreign", nil)
	if err := kube.Create(t.Context(), foreign.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kube.Delete(context.Background(), foreign); err != nil {
			t.Error(err)
		}
	})
	credentials := map[string]string{"app": "shop", "bundleId": "b"}
	label := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"app":"shop","bundleId":"b"}}}`))
	refused := map[string]func() error{
		"creating a Secret that is neither": func() error { return asAgent.Create(t.Context(), secret(system, "other", nil), client.DryRunAll) },
		"changing a Secret of others":       func() error { return asAgent.Patch(t.Context(), foreign.DeepCopy(), label, client.DryRunAll) },
		"deleting a Secret of others":       func() error { return asAgent.Delete(t.Context(), foreign.DeepCopy(), client.DryRunAll) },
		"another Secret beside the ingress": func() error {
			return asAgent.Create(t.Context(), secret("istio-system", "kyma-gateway-certs", nil), client.DryRunAll)
		},
		"credentials in another namespace": func() error {
			return asAgent.Create(t.Context(), secret("istio-system", "c", credentials), client.DryRunAll)
		},
	}
	// The API server takes a moment to put a policy into force.
	eventually(t, "the policy to be in force", func() error {
		if err := refused["changing a Secret of others"](); !apierrors.IsForbidden(err) {
			return fmt.Errorf("not refused: %v", err) //nolint:errorlint // it is told, not judged
		}
		return nil
	})
	for what, attempt := range refused {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: not refused: %v", what, err)
		}
	}
	for _, own := range []*corev1.Secret{
		secret(system, "cluster-client-certificates", nil), secret(system, "cluster-client-certificates-pending", nil),
		secret(system, "credentials", credentials),
	} {
		if err := errors.Join(asAgent.Create(t.Context(), own), asAgent.Delete(t.Context(), own)); err != nil {
			t.Errorf("%s: %v", own.Name, err)
		}
	}
}

func runAgent(t *testing.T, server *compass.Server, log *logBuffer) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ServerCA(), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"APP_COMPASS_CA_FILE": ca, "APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms", "APP_CONTROLLER_SYNC_PERIOD": "1s",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_LOG_LEVEL": "debug",
	}
	o, err := agent.FromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	o.Kubernetes, o.LogTo = as(t, agentName), log
	run(t, "agent", func(ctx context.Context) error { return agent.Run(ctx, o) })
}

// runGateway gives the URL of the port for calls by application, service and entry.
func runGateway(t *testing.T, log *logBuffer) string {
	t.Helper()
	o := gateway.Options{
		ListenAddress: "127.0.0.1", ProxyTimeout: 10, RequestTimeout: 10, SecretsNamespace: system, LogLevel: "debug", AllowedTargets: "127.0.0.1/32",
		Config: as(t, gatewayName),
	}
	if err := errors.Join(o.Validate(), o.Complete()); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(o, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	run(t, "gateway", g.Run)
	return "http://" + g.Addresses().Entries
}

// runValidator gives the URL of its port for health.
func runValidator(t *testing.T, log *logBuffer) string {
	t.Helper()
	kubeconfig, err := kubetest.Kubeconfig(as(t, validatorName), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := events.NewOptions()
	o.Kubeconfig, o.ListenAddress, o.ProxyPort, o.ExternalAPIPort = kubeconfig, "127.0.0.1", 0, 0
	o.DeniedCertificates = system + "/application-connector-denied-certificates"
	o.Complete(func(string) (string, bool) { return "", false })
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s, err := events.Start(ctx, *o, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := s.Wait(); err != nil {
			t.Errorf("the validator ended by: %v", err)
		}
	})
	return "http://" + s.AdminAddr().String()
}

func run(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the %s ended by: %v", what, err)
		}
	})
}

func synchronised(t *testing.T, what string) {
	t.Helper()
	eventually(t, what, func() error {
		var c compassv1alpha1.CompassConnection
		if err := kube.Get(t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, &c); err != nil {
			return err
		}
		if c.Status.State != compassv1alpha1.Synchronized {
			return fmt.Errorf("%+v", c.Status)
		}
		var app applicationv1alpha1.Application
		return kube.Get(t.Context(), client.ObjectKey{Name: "mp-shop"}, &app)
	})
}

func answers(url string, want int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != want {
		return fmt.Errorf("%s answers %d", url, response.StatusCode)
	}
	return nil
}
