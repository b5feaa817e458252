package deploy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/simulator/compass"
)

// components run as the Deployments of an overlay say, by the service accounts of these, but for ports and the like.
type components struct {
	objects                   map[string]*unstructured.Unstructured
	agent, gateway, validator leaktest.Log
}

func (c *components) container(t *testing.T, name string) corev1.Container {
	t.Helper()
	return deployment(t, c.objects, name).Spec.Template.Spec.Containers[0]
}

// runAgent gives the URL of its status page.
func (c *components) runAgent(t *testing.T, server *compass.Server) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ServerCA(), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, e := range c.container(t, agentName).Env {
		env[e.Name] = e.Value
	}
	maps.Copy(env, map[string]string{
		"APP_COMPASS_CA_FILE": ca, "APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms", "APP_CONTROLLER_SYNC_PERIOD": "1s",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "127.0.0.1:0", "APP_LOG_LEVEL": "debug",
	})
	o, err := agent.FromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	o.Kubernetes, o.LogTo = as(t, agentName), leaktest.Of(t).Tee("agent", &c.agent)
	page, scrape := make(chan net.Addr, 1), make(chan string, 1)
	o.ListeningStatusPage = func(a net.Addr) { page <- a }
	o.Listening = func(_, metrics net.Addr) { scrape <- "http://" + metrics.String() + "/metrics" }
	run(t, "agent", func(ctx context.Context) error { return agent.Run(ctx, o) })
	select {
	case a := <-page:
		for _, path := range []string{"/", "/status.json"} {
			leaktest.Of(t).Scrape(t, "page "+path+" of the agent", "http://"+a.String()+path)
		}
		select {
		case url := <-scrape:
			leaktest.Of(t).Scrape(t, "metrics of the agent", url)
		case <-time.After(patience):
			t.Fatal("the agent does not serve its metrics")
		}
		return "http://" + a.String()
	case <-time.After(patience):
		t.Fatal("the agent does not serve its status page")
		return ""
	}
}

// runGateway gives the URL of the port for calls by application, service and entry.
func (c *components) runGateway(t *testing.T) string {
	t.Helper()
	o, flags := gateway.Options{}, flag.NewFlagSet("", flag.ContinueOnError)
	o.BindFlags(flags)
	if err := flags.Parse(c.container(t, gatewayName).Args[1:]); err != nil {
		t.Fatal(err)
	}
	o.ListenAddress, o.ProxyPort, o.ProxyPortCompass, o.ExternalAPIPort = "127.0.0.1", 0, 0, 0
	o.AllowedTargets, o.LogLevel, o.Config, o.DrainDelay = "127.0.0.1/32", "debug", as(t, gatewayName), 0
	if err := errors.Join(o.Validate(), o.Complete()); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(o, slog.New(slog.NewJSONHandler(leaktest.Of(t).Tee("gateway", &c.gateway), &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	run(t, "gateway", g.Run)
	leaktest.Of(t).Scrape(t, "metrics of the gateway", "http://"+g.Addresses().Admin+"/metrics")
	return "http://" + g.Addresses().Entries
}

// runValidator gives the URL of its port for health.
func (c *components) runValidator(t *testing.T) string {
	t.Helper()
	kubeconfig, err := kubetest.Kubeconfig(as(t, validatorName), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o, flags := events.NewOptions(), flag.NewFlagSet("", flag.ContinueOnError)
	o.BindFlags(flags)
	if err := flags.Parse(c.container(t, validatorName).Args[1:]); err != nil {
		t.Fatal(err)
	}
	o.Kubeconfig, o.ListenAddress, o.ProxyPort, o.ExternalAPIPort, o.DrainDelay = kubeconfig, "127.0.0.1", 0, 0, 0
	o.Complete(func(string) (string, bool) { return "", false })
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s, err := events.Start(ctx, *o, slog.New(slog.NewJSONHandler(leaktest.Of(t).Tee("validator", &c.validator), &slog.HandlerOptions{Level: slog.LevelDebug})))
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
	leaktest.Of(t).Scrape(t, "metrics of the validator", "http://"+s.AdminAddr().String()+"/metrics")
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
	_, err := fetch(url, want)
	return err
}

// holds is an error unless a page has these texts.
func holds(url string, texts ...string) error {
	body, err := fetch(url, http.StatusOK)
	for _, text := range texts {
		if err == nil && !strings.Contains(body, text) {
			err = fmt.Errorf("%s has no %s: %s", url, text, body)
		}
	}
	return err
}

func fetch(url string, want int) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode != want {
		return "", fmt.Errorf("%s answers %d", url, response.StatusCode)
	}
	return string(body), nil
}
