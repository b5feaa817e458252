package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

	// began is when the agent's Secret was written or, with what an earlier run left, a sync was asked for: what the agent
	// says of an earlier time does not count. To the second, as the times in a status are.
	began time.Time

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
		{"one-time token for this cluster", w.writeToken},
		{"agent, gateway, validator", w.startParts},
		{"paired, certificate saved, Applications synchronised", w.waitSynchronized},
		{"an Application by hand, with a client certificate", w.applyByHand},
		{"client certificates for the external systems", w.issueCertificates},
		{"gateway, edge and validator answer", w.waitAnswering},
	}
	if w.ConnectorURL != "" {
		steps[3].what, steps[3].do = "", nil
		steps[10].what, steps[10].do = "", nil
		steps[6].what = "one-time token as given"
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
			"APP_STATUS_PAGE_ADDRESS=" + address(w.ports.StatusPage),
			"APP_LOG_LEVEL=" + w.LogLevel,
		}},
		{"gateway", []string{
			"--kubeConfig=" + w.kubeconfig, "--listenAddress=" + host,
			fmt.Sprintf("--proxyPort=%d", w.ports.Gateway),
			fmt.Sprintf("--proxyPortCompass=%d", w.ports.GatewayCompass),
			fmt.Sprintf("--externalAPIPort=%d", w.ports.GatewayAdmin),
			"--applicationSecretsNamespace=" + systemNamespace,
			"--allowedTargets=127.0.0.1/32", // the simulated systems are on this machine
			"--targetCAFile=" + w.path("systems-ca.crt"),
			"--logLevel=" + w.LogLevel,
		}, nil},
		{"validator", []string{
			"--kubeconfig=" + w.kubeconfig, "--listenAddress=" + host,
			fmt.Sprintf("--proxyPort=%d", w.ports.Validator),
			fmt.Sprintf("--externalAPIPort=%d", w.ports.ValidatorAdmin),
			"--eventingPathPrefixV1=/%%APP_NAME%%/v1/events", "--eventingPathPrefixV2=/%%APP_NAME%%/v2/events",
			"--eventingPublisherHost=" + address(w.ports.Eventing), "--eventingDestinationPath=/publish",
			"--eventingPathPrefixEvents=/%%APP_NAME%%/events",
		}, []string{"APP_LOG_FORMAT=json", "APP_LOG_LEVEL=" + w.LogLevel}},
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
