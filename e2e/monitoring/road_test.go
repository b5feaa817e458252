package monitoring

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/application-connector/application-connector/e2e/leaktest"
)

// patience is far more than anything here needs.
const patience = 5 * time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// road is what appconn up started: Compass, systems, edge and Eventing, and agent, gateway and validator as programs.
type road struct {
	Kubeconfig string            `json:"kubeconfig"`
	URLs       map[string]string `json:"urls"`
	Files      map[string]string `json:"files"`

	programs string
}

// start runs a program until the test ends, and waits until what it says shows that it is ready.
func start(t *testing.T, cmd *exec.Cmd, ready func(said string) bool) *leaktest.Log {
	t.Helper()
	out := leaktest.Of(t).Log(filepath.Base(cmd.Path))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var failed error
	t.Cleanup(func() {
		if failed != nil {
			return // it has ended by itself
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%s: %v\n%s", cmd.Path, err, out)
		}
	})
	deadline := time.After(patience)
	for !ready(out.String()) {
		select {
		case failed = <-ended:
			if failed == nil {
				failed = fmt.Errorf("%s ended", cmd.Path)
			}
			t.Fatalf("%v\n%s", failed, out)
		case <-deadline:
			t.Fatalf("%s is not ready\n%s", cmd.Path, out)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return out
}

func startRoad(t *testing.T) *road {
	t.Helper()
	appconn := os.Getenv("APPCONN")
	if appconn == "" {
		t.Fatal("APPCONN is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/appconn")
	}
	r := &road{programs: filepath.Dir(appconn)}
	// Go runs a test again when a file of this module that it looked at has changed: these are what is tested.
	for _, name := range []string{"appconn", "agent", "gateway", "validator", "localkube", "kubectl"} {
		if _, err := os.Stat(filepath.Join(r.programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	watch := leaktest.Of(t)
	state := filepath.Join(t.TempDir(), "state")
	watch.Files(t, filepath.Join(state, "logs", "*.log"))
	start(t, exec.CommandContext(context.WithoutCancel(t.Context()), appconn, "up", "--free-ports", "--log-level", "debug", "--state", state, "--timeout", patience.String()),
		func(said string) bool { return strings.Contains(said, "Ctrl-C ends everything.") })
	if err := json.Unmarshal(read(t, filepath.Join(state, "endpoints.json")), r); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	watch.Cluster(t, config)
	return r
}

func (r *road) kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(r.programs, "kubectl"), append([]string{"--kubeconfig", r.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, stderr.String())
	}
	return stdout.String()
}

// client calls what runs on this machine, whatever proxy the environment names.
func client(t *testing.T, config *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// do sends a request, reads the answer to its end and gives the status.
func do(ctx context.Context, c *http.Client, method, url, contentType, body string) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	return response.StatusCode, text, err
}

// troubled is an Application whose APIs fail, each in another way: limits, a token endpoint that is away, a Secret that is
// missing; and one that stands where Compass wants another.
const troubled = `
apiVersion: applicationconnector.kyma-project.io/v1alpha1
kind: Application
metadata: {name: troubled}
spec:
  description: fails in many ways
  skipVerify: true
  services:
  - id: a
    name: a
    displayName: Apis
    providerDisplayName: ACME
    description: fail
    entries:
    - {type: API, name: away, targetUrl: "http://127.0.0.1:1"}
    - {type: API, name: broken, targetUrl: "%[1]s/status/500"}
    - {type: API, name: narrow, targetUrl: "%[1]s/slow"}
    - {type: API, name: tokenless, targetUrl: "%[1]s/api/oauth", credentials: {type: OAuth, secretName: tokenless, authenticationUrl: "%[1]s/status/503"}}
    - {type: API, name: secretless, targetUrl: "%[1]s/api/basic", credentials: {type: Basic, secretName: not-there}}
  targetSettings:
  - {target: apis/broken, circuitBreaker: {failures: 3, pause: 2s}}
  - {target: apis/narrow, maxConcurrent: 1}
---
apiVersion: v1
kind: Secret
metadata: {name: tokenless, namespace: kyma-system}
stringData: {clientId: id, clientSecret: not-looked-at}
---
apiVersion: applicationconnector.kyma-project.io/v1alpha1
kind: Application
metadata: {name: mp-taken}
spec: {description: "has the name that a system of Compass will have", services: []}
`

// provoke makes what does not happen by itself: faults in an Application and at Compass, and a system that can't be synced.
func (r *road) provoke(t *testing.T) {
	t.Helper()
	r.kubectl(t, fmt.Sprintf(troubled, r.URLs["systems"]), "apply", "--server-side", "-f", "-")
	c := client(t, nil)
	admin := func(method, path, body string) []byte {
		t.Helper()
		status, answer, err := do(t.Context(), c, method, r.URLs["compassAdmin"]+path, "application/json", body)
		if err != nil || status/100 != 2 {
			t.Fatalf("%s %s: %d %v %s", method, path, status, err, answer)
		}
		return answer
	}
	var inventory struct {
		Tenants []struct {
			ID string `json:"id"`
		} `json:"tenants"`
	}
	if err := json.Unmarshal(admin(http.MethodGet, "/v1/inventory", ""), &inventory); err != nil {
		t.Fatal(err)
	}
	admin(http.MethodPut, "/v1/tenants/"+inventory.Tenants[0].ID+"/applications", `{"name": "Taken", "formations": ["everything"]}`)
	admin(http.MethodPost, "/v1/faults", `{"kind": "Status", "status": 503, "operation": "applicationsForRuntime", "count": 2}`)
	r.sync(t)
}

// sync asks the agent for a sync at once.
func (r *road) sync(t *testing.T) {
	t.Helper()
	r.kubectl(t, "", "patch", "cconn", "compass-connection", "--type=merge", "-p", `{"spec":{"resyncNow":true}}`)
}

// flow is one kind of traffic, with the time between two requests.
type flow struct {
	every time.Duration
	send  func(ctx context.Context) (int, error)
	want  map[int]bool
}

// traffic sends all kinds of calls and events until the test ends, and fails if one is answered as it never should be.
func (r *road) traffic(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var flows []flow
	plain := client(t, nil)
	statuses := func(all ...int) map[int]bool {
		set := map[int]bool{}
		for _, s := range all {
			set[s] = true
		}
		return set
	}
	call := func(every time.Duration, method, path, body string, want ...int) {
		url := r.URLs["gatewayCompass"] + path
		if !strings.HasPrefix(path, "/mp-") && !strings.HasPrefix(path, "/troubled") {
			url = r.URLs["gateway"] + path
		}
		flows = append(flows, flow{every, func(ctx context.Context) (int, error) {
			status, _, err := do(ctx, plain, method, url, "application/json", body)
			return status, err
		}, statuses(want...)})
	}
	call(100*time.Millisecond, http.MethodGet, "/mp-shop/catalog/items/1", "", 200)
	call(200*time.Millisecond, http.MethodGet, "/mp-shop/orders/orders", "", 200)
	call(150*time.Millisecond, http.MethodGet, "/mp-shop/prices/prices", "", 200)
	call(300*time.Millisecond, http.MethodGet, "/mp-shop/stock/stock", "", 200)
	call(400*time.Millisecond, http.MethodPost, "/mp-shop/sales/sales", `{"item":1}`, 200)
	call(500*time.Millisecond, http.MethodGet, "/mp-crm/contacts/contacts", "", 200)
	call(300*time.Millisecond, http.MethodGet, "/warehouse/stock", "", 200)
	call(500*time.Millisecond, http.MethodGet, "/mp-shop/nowhere/nothing", "", 404)
	// Until the gateway knows it, 404.
	call(400*time.Millisecond, http.MethodGet, "/troubled/apis/away", "", 502, 404)
	call(400*time.Millisecond, http.MethodGet, "/troubled/apis/broken", "", 502, 503, 404)
	call(300*time.Millisecond, http.MethodGet, "/troubled/apis/narrow?delay=700ms", "", 200, 404, 503)
	call(350*time.Millisecond, http.MethodGet, "/troubled/apis/narrow?delay=700ms", "", 200, 404, 503)
	call(500*time.Millisecond, http.MethodGet, "/troubled/apis/tokenless", "", 502, 404)
	call(900*time.Millisecond, http.MethodGet, "/troubled/apis/secretless", "", 500, 404)

	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(read(t, r.Files["edgeCA"])) {
		t.Fatal("the edge's authority can't be read")
	}
	system := func(name string) *http.Client {
		pair, err := tls.LoadX509KeyPair(r.Files[name+"Certificate"], r.Files[name+"Key"])
		if err != nil {
			t.Fatal(err)
		}
		return client(t, &tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	}
	shop, crm := system("shop"), system("crm")
	event := func(every time.Duration, c *http.Client, path, contentType string, body func() string, want ...int) {
		flows = append(flows, flow{every, func(ctx context.Context) (int, error) {
			status, _, err := do(ctx, c, http.MethodPost, r.URLs["edge"]+path, contentType, body())
			return status, err
		}, statuses(want...)})
	}
	cloudEvent := func(source, kind string) func() string {
		return func() string {
			return fmt.Sprintf(`{"specversion":"1.0","type":%q,"source":%q,"id":%q,"data":{}}`, kind, source, uuid.NewString())
		}
	}
	legacy := func() string {
		return `{"event-type":"order.created","event-type-version":"v1","event-time":"2026-01-01T00:00:00Z","data":{}}`
	}
	const structured = "application/cloudevents+json"
	event(120*time.Millisecond, shop, "/mp-shop/v2/events", structured, cloudEvent("mp-shop", "order.created.v1"), 204)
	event(250*time.Millisecond, shop, "/mp-shop/events", structured, cloudEvent("mp-shop", "order.changed.v1"), 204)
	event(350*time.Millisecond, shop, "/mp-shop/v1/events", "application/json", legacy, 200)
	event(300*time.Millisecond, crm, "/mp-crm/v2/events", structured, cloudEvent("elsewhere", "contact.created.v1"), 204)
	event(400*time.Millisecond, crm, "/mp-shop/v2/events", structured, cloudEvent("mp-shop", "order.created.v1"), 403)
	event(600*time.Millisecond, shop, "/nobody/v2/events", structured, cloudEvent("nobody", "order.created.v1"), 403)
	event(700*time.Millisecond, shop, "/mp-shop/v2/events", structured, cloudEvent("mp-shop", ">"), 400)

	var sending sync.WaitGroup
	failures := make(chan error, len(flows))
	for _, f := range flows {
		sending.Go(func() {
			tick := time.NewTicker(f.every)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				// What is under way when the test ends is let finish.
				if status, err := f.send(context.WithoutCancel(ctx)); err != nil || !f.want[status] {
					failures <- fmt.Errorf("answer %d, error %w; want one of %v", status, err, f.want)
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		sending.Wait()
		close(failures)
		for err := range failures {
			t.Error(err)
		}
	})
}
