package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/gateway/routes"
)

var cluster rest.Config

// generous is how long anything may take before a test gives up.
const generous = 30 * time.Second

// harness is one running gateway with a namespace of its own. Applications belong to the whole cluster, so tests that use
// one do not run in parallel.
type harness struct {
	t         testing.TB
	kube      client.Client
	namespace string
	log       *leaktest.Log // of this gateway
	watch     *leaktest.Watch
	addresses gateway.Addresses
	gateway   *gateway.Gateway
	http      *http.Client // follows no redirects
	stop      func() error
}

// start starts a gateway and waits until it is ready.
func start(t *testing.T, change ...func(*gateway.Options)) *harness {
	t.Helper()
	h := prepare(t, change...)
	h.run()
	h.eventually("the gateway is ready", func() error { return h.gateway.Ready() })
	return h
}

// prepare makes a gateway that does not run yet.
func prepare(t *testing.T, change ...func(*gateway.Options)) *harness {
	t.Helper()
	watch := leaktest.Of(t)
	h := &harness{t: t, namespace: kubetest.Namespace(t, &cluster), log: &leaktest.Log{}, watch: watch}
	watch.Cluster(t, &cluster)
	h.kube = newClient(t)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	h.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	o := gateway.Options{ListenAddress: "127.0.0.1", ProxyTimeout: 20, RequestTimeout: 20, SecretsNamespace: h.namespace, LogLevel: "debug", Config: &cluster, AllowedTargets: "127.0.0.1/32"}
	for _, c := range change {
		c(&o)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(o, slog.New(slog.NewJSONHandler(watch.Tee("gateway", h.log), &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	h.gateway, h.addresses = g, g.Addresses()
	return h
}

func newClient(t testing.TB) client.Client {
	t.Helper()
	scheme, err := routes.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs the gateway until the test ends.
func (h *harness) run() {
	g, t := h.gateway, h.t
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	h.stop = sync.OnceValue(func() error {
		h.http.CloseIdleConnections()
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("the gateway ended by: %v", err)
		}
	})
	h.watch.Scrape(t, "metrics of the gateway", "http://"+h.addresses.Admin+"/metrics")
}

// eventually waits until check succeeds.
func (h *harness) eventually(what string, check func() error) {
	h.t.Helper()
	deadline := time.Now().Add(generous)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not within %s: %v; log: %s", what, generous, err, h.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// application creates an Application, waits until the gateway knows it, and deletes it after the test.
func (h *harness) application(name string, spec v1alpha1.ApplicationSpec) *v1alpha1.Application {
	h.t.Helper()
	app := h.applied(name, spec)
	h.known(app)
	return app
}

// applied creates an Application, and deletes it after the test.
func (h *harness) applied(name string, spec v1alpha1.ApplicationSpec) *v1alpha1.Application {
	h.t.Helper()
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if err := h.kube.Create(context.Background(), app); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := client.IgnoreNotFound(h.kube.Delete(context.Background(), app)); err != nil {
			h.t.Errorf("deleting Application %s: %v", name, err)
		}
	})
	return app
}

// known waits until the gateway has put this generation in force.
func (h *harness) known(app *v1alpha1.Application) {
	h.t.Helper()
	h.eventually("the gateway knows "+app.Name, func() error {
		return h.gateway.Knows(app.Name, app.Generation)
	})
}

// secret creates a Secret, or changes it.
func (h *harness) secret(name string, data map[string]string) {
	h.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: h.namespace}}
	key := client.ObjectKeyFromObject(s)
	err := h.kube.Get(context.Background(), key, s)
	s.Data = map[string][]byte{}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	if err == nil {
		err = h.kube.Update(context.Background(), s)
	} else if client.IgnoreNotFound(err) == nil {
		err = h.kube.Create(context.Background(), s)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// api is a service with one entry.
func api(name, target string, change ...func(*v1alpha1.Entry)) v1alpha1.Service {
	e := v1alpha1.Entry{Type: v1alpha1.EntryTypeAPI, Name: name + " api", TargetURL: target}
	for _, c := range change {
		c(&e)
	}
	return v1alpha1.Service{ID: "id-" + name, Name: name, DisplayName: name, ProviderDisplayName: "test", Description: "test", Entries: []v1alpha1.Entry{e}}
}

func with(kind, secretName, tokenURL string) func(*v1alpha1.Entry) {
	return func(e *v1alpha1.Entry) {
		e.Credentials.Type, e.Credentials.SecretName, e.Credentials.AuthenticationURL = kind, secretName, tokenURL
	}
}

func withCSRF(url string) func(*v1alpha1.Entry) {
	return func(e *v1alpha1.Entry) { e.Credentials.CSRFInfo = &v1alpha1.CSRFInfo{TokenEndpointURL: url} }
}

func withParameters(secretName string) func(*v1alpha1.Entry) {
	return func(e *v1alpha1.Entry) { e.RequestParametersSecretName = secretName }
}

// answer is what a caller got.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func (h *harness) get(path string, header ...string) answer {
	h.t.Helper()
	return h.do(http.MethodGet, h.addresses.Services, path, nil, header...)
}

func (h *harness) do(method, address, path string, body io.Reader, header ...string) answer {
	h.t.Helper()
	a, err := h.try(method, address, path, body, header...)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *harness) try(method, address, path string, body io.Reader, header ...string) (answer, error) {
	r, err := http.NewRequest(method, "http://"+address+path, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	response, err := h.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if h.watch.AddHeader(r.Header); response.Header.Get("Content-Type") == errorType { // others are the target's
		h.watch.Answer("answer of the gateway", response.StatusCode, response.Header, string(text))
	}
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// errorType is the content type of the gateway's own errors.
const errorType = "application/json;charset=UTF-8"

// problem is the text of an error that the gateway answered with before it called the target.
func (a answer) problem(t *testing.T) string {
	t.Helper()
	var body struct {
		Code  int
		Error string
	}
	if err := json.Unmarshal([]byte(a.Body), &body); err != nil {
		t.Fatalf("%d %q is not an error of the gateway: %v", a.Status, a.Body, err)
	}
	if body.Code != a.Status || a.Header.Get("Content-Type") != errorType || !strings.HasSuffix(a.Body, "}\n") {
		t.Errorf("status %d, content type %q, body %q: not the shape of an error", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	return body.Error
}

func expect(condition bool, format string, a ...any) error {
	if condition {
		return nil
	}
	return fmt.Errorf(format, a...)
}

func (h *harness) deleteSecret(name string) {
	h.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: h.namespace}}
	if err := h.kube.Delete(context.Background(), s); err != nil {
		h.t.Fatal(err)
	}
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
