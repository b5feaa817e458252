package up

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	_ "embed"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
	"github.com/application-connector/application-connector/simulator/edge"
	"github.com/application-connector/application-connector/simulator/eventing"
	"github.com/application-connector/application-connector/simulator/systems"
)

// The simulated Compass knows one tenant with one runtime: this cluster.
const (
	simulatedTenant  = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	simulatedRuntime = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
	shopID           = "0c6e9d1a-6f43-4a53-9d0e-2c8f6a3b7e01"
	crmID            = "0c6e9d1a-6f43-4a53-9d0e-2c8f6a3b7e02"
)

var (
	//go:embed seed.yaml.tmpl
	seedTemplate string
	//go:embed applications.yaml.tmpl
	applicationsTemplate string
)

// world is everything that runs.
type world struct {
	Options
	ports      ports
	state      string
	supervisor *supervisor
	progress   *progress

	kubeconfig string
	config     *rest.Config
	cluster    client.Client

	systems  *systems.Server
	compass  *compass.Server
	eventing *eventing.Server
	edge     *edge.Server
	closers  []io.Closer
}

func (w *world) path(elements ...string) string {
	return filepath.Join(append([]string{w.state}, elements...)...)
}

func (w *world) binary(name string) (string, error) {
	path := filepath.Join(w.binaries, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not beside this program: run \"make build\" (%w)", name, err)
	}
	return path, nil
}

// logger writes a simulator's log to a file of its own.
func (w *world) logger(name string) (*slog.Logger, error) {
	f, err := os.OpenFile(filepath.Join(w.supervisor.logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, f)
	return slog.New(slog.NewTextHandler(f, nil)), nil
}

// start brings up one part after the other. What needs nothing of the cluster starts before it.
func (w *world) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"external systems", w.startSystems},
		{"Kubernetes API server", w.startCluster},
		{"resource definitions and namespaces", w.prepareCluster},
		{"Compass (simulated)", w.startCompass},
		{"Eventing (JetStream)", w.startEventing},
		{"edge (mTLS)", w.startEdge},
		{"agent, gateway, validator", w.startParts},
		{"one-time token for this cluster", w.writeToken},
		{"paired, certificate saved, Applications synchronised", w.waitSynchronized},
		{"an Application by hand, with a client certificate", w.applyByHand},
		{"client certificates for the external systems", w.issueCertificates},
		{"gateway, edge and validator answer", w.waitAnswering},
	}
	if w.ConnectorURL != "" {
		steps[3].what, steps[3].do = "", nil
		steps[10].what, steps[10].do = "", nil
		steps[7].what = "one-time token as given"
	}
	for _, s := range steps {
		if s.do == nil {
			continue
		}
		if err := w.progress.step(s.what, func() error {
			err := s.do(ctx)
			select {
			case failed := <-w.supervisor.failed:
				return failed // the reason, where err is only its consequence
			default:
				return err
			}
		}); err != nil {
			return err
		}
	}
	return w.writeEndpoints()
}

// close ends everything in reverse order: first what sends traffic, last the cluster.
func (w *world) close(impatient context.Context) error {
	var errs []error
	if w.edge != nil {
		errs = append(errs, w.edge.Close())
	}
	errs = append(errs, w.supervisor.stop(impatient))
	if w.eventing != nil {
		errs = append(errs, w.eventing.Close())
	}
	if w.compass != nil {
		errs = append(errs, w.compass.Close())
	}
	if w.systems != nil {
		errs = append(errs, w.systems.Close())
	}
	for _, c := range w.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// hasLogs says whether any program wrote something that somebody may want to read.
func (w *world) hasLogs() bool {
	files, err := filepath.Glob(filepath.Join(w.supervisor.logs, "*.log"))
	if err != nil {
		return false
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Size() > 0 {
			return true
		}
	}
	return false
}

func (w *world) startCluster(ctx context.Context) error {
	w.kubeconfig = w.Kubeconfig
	if w.kubeconfig == "" {
		bin, err := w.binary("localkube")
		if err != nil {
			return err
		}
		out, in := io.Pipe()
		w.closers = append(w.closers, in)
		p, err := w.supervisor.start("localkube", bin, []string{"-dir", w.path("cluster"), "-stdin"}, nil, in)
		if err != nil {
			return err
		}
		if w.kubeconfig, err = kubeconfigFrom(ctx, out, p); err != nil {
			return err
		}
	}
	var err error
	if w.config, err = clientcmd.BuildConfigFromFlags("", w.kubeconfig); err != nil {
		return err
	}
	w.config.QPS = -1
	w.cluster, err = newClient(w.config)
	if err != nil {
		return fmt.Errorf("the cluster of %s does not answer: %w", w.kubeconfig, err)
	}
	return nil
}

func (w *world) prepareCluster(ctx context.Context) error {
	return errors.Join(installDefinitions(ctx, w.cluster), createNamespaces(ctx, w.cluster))
}

func (w *world) startEventing(ctx context.Context) error {
	log, err := w.logger("eventing")
	if err != nil {
		return err
	}
	w.eventing, err = eventing.Start(context.WithoutCancel(ctx), eventing.Options{Address: address(w.ports.Eventing), StateDir: w.path("eventing"), Log: log})
	return err
}

func (w *world) startEdge(ctx context.Context) error {
	log, err := w.logger("edge")
	if err != nil {
		return err
	}
	if err := w.serverCertificate(ctx); err != nil {
		return err
	}
	w.edge, err = edge.Start(context.WithoutCancel(ctx), edge.Options{
		Address: address(w.ports.Edge), Upstream: "http://" + address(w.ports.Validator), Config: w.config, Namespace: istioNamespace, Credential: serverSecret, Log: log,
	})
	return err
}

func (w *world) startParts(context.Context) error {
	parts := []struct {
		name string
		args []string
		env  []string
	}{
		{"agent", nil, []string{
			"KUBECONFIG=" + w.kubeconfig,
			"APP_AGENT_CONFIGURATION_SECRET=" + systemNamespace + "/" + configurationSecret,
			"APP_CLUSTER_CERTIFICATES_SECRET=" + systemNamespace + "/cluster-client-certificates",
			"APP_CA_CERTIFICATES_SECRET=" + istioNamespace + "/" + serverSecret + "-cacert",
			"APP_CONTROLLER_SYNC_PERIOD=30s",
			"APP_MINIMAL_COMPASS_SYNC_TIME=2s",
			"APP_CENTRAL_GATEWAY_SERVICE_URL=http://" + address(w.ports.GatewayCompass),
			"APP_RUNTIME_EVENTS_URL=https://localhost:" + fmt.Sprint(w.ports.Edge),
			"APP_RUNTIME_CONSOLE_URL=https://localhost",
			"APP_COMPASS_CA_FILE=" + w.compassCA(),
			"APP_LISTEN_ADDRESS=" + host,
			"APP_HEALTH_PORT=" + fmt.Sprint(w.ports.AgentHealth),
			"APP_METRICS_PORT=" + fmt.Sprint(w.ports.AgentMetrics),
		}},
		{"gateway", []string{
			"--kubeConfig=" + w.kubeconfig, "--listenAddress=" + host,
			fmt.Sprintf("--proxyPort=%d", w.ports.Gateway),
			fmt.Sprintf("--proxyPortCompass=%d", w.ports.GatewayCompass),
			fmt.Sprintf("--externalAPIPort=%d", w.ports.GatewayAdmin),
			"--applicationSecretsNamespace=" + systemNamespace,
			"--targetCAFile=" + w.path("systems-ca.crt"),
		}, nil},
		{"validator", []string{
			"--kubeconfig=" + w.kubeconfig, "--listenAddress=" + host,
			fmt.Sprintf("--proxyPort=%d", w.ports.Validator),
			fmt.Sprintf("--externalAPIPort=%d", w.ports.ValidatorAdmin),
			"--eventingPathPrefixV1=/%%APP_NAME%%/v1/events", "--eventingPathPrefixV2=/%%APP_NAME%%/v2/events",
			"--eventingPublisherHost=" + address(w.ports.Eventing), "--eventingDestinationPath=/publish",
			"--eventingPathPrefixEvents=/%%APP_NAME%%/events",
		}, []string{"APP_LOG_FORMAT=json", "APP_LOG_LEVEL=info"}},
	}
	for _, p := range parts {
		bin, err := w.binary(p.name)
		if err != nil {
			return err
		}
		if _, err := w.supervisor.start(p.name, bin, p.args, p.env, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) compassCA() string {
	if w.ConnectorURL != "" {
		return w.CompassCA
	}
	return w.path("compass-ca.crt")
}

// writeToken writes the Secret that tells the agent where Compass is. A cluster that is connected already, from an
// earlier run with the same state, needs no token.
func (w *world) writeToken(ctx context.Context) error {
	c := &compassv1alpha1.CompassConnection{}
	err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c)
	if err == nil && meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return nil
	}
	connector, token, runtime, tenant := w.ConnectorURL, w.Token, w.RuntimeID, w.Tenant
	if connector == "" {
		runtime, tenant = simulatedRuntime, simulatedTenant
		if connector, token, err = w.runtimeToken(runtime); err != nil {
			return err
		}
	}
	return writeSecret(ctx, w.cluster, systemNamespace, configurationSecret, corev1.SecretTypeOpaque, map[string][]byte{
		"CONNECTOR_URL": []byte(connector), "TOKEN": []byte(token.Reveal()), "RUNTIME_ID": []byte(runtime), "TENANT": []byte(tenant),
	})
}

// waitSynchronized waits until the agent says that everything is in place. It gives up as soon as the agent says that
// Compass refused the token, or cannot be reached.
func (w *world) waitSynchronized(ctx context.Context) error {
	return until(ctx, func() error {
		c := &compassv1alpha1.CompassConnection{}
		if err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c); err != nil {
			return w.orFailed(err)
		}
		if meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady) && c.Status.State == compassv1alpha1.Synchronized {
			return nil
		}
		message := string(c.Status.State)
		if c.Status.ConnectionStatus != nil && c.Status.ConnectionStatus.Error != "" {
			message += ": " + c.Status.ConnectionStatus.Error
		}
		if c.Status.State == compassv1alpha1.ConnectionFailed {
			return finalError{errors.New(message)}
		}
		return w.orFailed(fmt.Errorf("the agent reports %s", message))
	})
}

// orFailed ends waiting when a program has ended by itself.
func (w *world) orFailed(err error) error {
	select {
	case failed := <-w.supervisor.failed:
		return finalError{failed}
	default:
		return err
	}
}

// waitAnswering waits until each listener that the tour uses is ready.
func (w *world) waitAnswering(ctx context.Context) error {
	for _, url := range []string{
		"http://" + address(w.ports.GatewayAdmin) + "/readyz",
		"http://" + address(w.ports.ValidatorAdmin) + "/readyz",
		"http://" + address(w.ports.AgentHealth) + "/readyz",
	} {
		if err := until(ctx, func() error {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			return w.orFailed(succeed(http.DefaultClient, r))
		}); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	names := []string{"warehouse"}
	if w.ConnectorURL == "" {
		names = append(names, "mp-shop", "mp-crm")
	}
	for _, name := range names {
		if err := until(ctx, func() error {
			a := &appv1alpha1.Application{}
			if err := w.cluster.Get(ctx, client.ObjectKey{Name: name}, a); err != nil {
				return w.orFailed(err)
			}
			if c := meta.FindStatusCondition(a.Status.Conditions, appv1alpha1.ConditionRoutesReady); c == nil || c.Status != "True" {
				return w.orFailed(fmt.Errorf("the gateway does not say yet that the APIs of %s can be called: %+v", name, c))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) applyByHand(ctx context.Context) error {
	values, err := w.values()
	if err != nil {
		return err
	}
	text, err := render(applicationsTemplate, values)
	if err != nil {
		return err
	}
	return apply(ctx, w.cluster, text)
}

func render(text string, values any) ([]byte, error) {
	t, err := template.New("").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}}).Parse(text)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, values)
	return out.Bytes(), err
}

// endpoints is what STATE/endpoints.json holds.
type endpoints struct {
	Kubeconfig string            `json:"kubeconfig"`
	URLs       map[string]string `json:"urls"`
	Files      map[string]string `json:"files"`
}

func (w *world) writeEndpoints() error {
	e := endpoints{Kubeconfig: w.kubeconfig, URLs: map[string]string{
		"gateway":        "http://" + address(w.ports.Gateway),
		"gatewayCompass": "http://" + address(w.ports.GatewayCompass),
		"gatewayAdmin":   "http://" + address(w.ports.GatewayAdmin),
		"validator":      "http://" + address(w.ports.Validator),
		"validatorAdmin": "http://" + address(w.ports.ValidatorAdmin),
		"agentHealth":    "http://" + address(w.ports.AgentHealth),
		"agentMetrics":   "http://" + address(w.ports.AgentMetrics),
		"compassToken":   fmt.Sprintf("https://localhost:%d", w.ports.CompassToken),
		"compassMTLS":    fmt.Sprintf("https://localhost:%d", w.ports.CompassMTLS),
		"compassAdmin":   "http://" + address(w.ports.CompassAdm),
		"edge":           fmt.Sprintf("https://localhost:%d", w.ports.Edge),
		"eventing":       "http://" + address(w.ports.Eventing),
		"systems":        "http://" + address(w.ports.SystemsHTTP),
		"systemsTLS":     fmt.Sprintf("https://localhost:%d", w.ports.SystemsHTTPS),
		"systemsMTLS":    fmt.Sprintf("https://localhost:%d", w.ports.SystemsMTLS),
	}, Files: map[string]string{"edgeCA": w.path("edge-ca.crt"), "systemsCA": w.path("systems-ca.crt")}}
	if w.ConnectorURL == "" {
		for _, name := range []string{"shop", "crm", "stranger"} {
			e.Files[name+"Certificate"], e.Files[name+"Key"] = w.path(name+".crt"), w.path(name+".key")
		}
		e.Files["compassCA"] = w.path("compass-ca.crt")
	} else {
		for _, name := range []string{"compassToken", "compassMTLS", "compassAdmin"} {
			delete(e.URLs, name)
		}
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(w.path("endpoints.json"), append(text, '\n'))
}

// preamble sets a shell up for the commands of the tour.
func (w *world) preamble() []string {
	return []string{
		"cd " + quote(w.state),
		"export KUBECONFIG=" + quote(w.kubeconfig) + " PATH=" + quote(w.binaries) + ":$PATH",
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
