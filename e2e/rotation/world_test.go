package rotation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
)

// shopID is the Application whose system sends the events.
const shopID = "0c6e9d1a-6f43-4a53-9d0e-2c8f6a3b7e01"

// world is a running "appconn up": agent, gateway and validator as programs, with what they need.
type world struct {
	t       *testing.T
	state   string
	urls    map[string]string
	files   map[string]string
	cluster client.Client
	direct  *http.Client
}

func start(t *testing.T) *world {
	t.Helper()
	path := os.Getenv("APPCONN")
	if path == "" {
		t.Fatal("APPCONN is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/appconn")
	}
	for _, name := range []string{"appconn", "agent", "gateway", "validator", "localkube"} { // tests run again when these change
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil {
			t.Fatal(err)
		}
	}
	watch := leaktest.Of(t)
	w := &world{t: t, state: t.TempDir(), direct: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	watch.Files(t, filepath.Join(w.state, "logs", "*.log"))
	out := watch.Log("appconn up")
	// It outlives the test's context, until what was told in its cluster is seen.
	ctx, interrupt := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, path, "up", "--free-ports", "--log-level", "debug", "--state", w.state, "--timeout", deadline.String())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Start(); err != nil {
		interrupt()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		w.direct.CloseIdleConnections()
		interrupt()
		<-ended
		if t.Failed() {
			t.Logf("appconn up:\n%s", out)
		}
	})
	eventually(t, "appconn up", func() error {
		select {
		case <-ended:
			t.Fatalf("appconn up ended:\n%s", out)
		default:
		}
		if !strings.Contains(out.String(), "Ctrl-C ends everything.") {
			return fmt.Errorf("not ready: %s", out)
		}
		return nil
	})
	text, err := os.ReadFile(filepath.Join(w.state, "endpoints.json"))
	if err != nil {
		t.Fatal(err)
	}
	var endpoints struct {
		Kubeconfig  string
		URLs, Files map[string]string
	}
	if err := json.Unmarshal(text, &endpoints); err != nil {
		t.Fatal(err)
	}
	w.urls, w.files = endpoints.URLs, endpoints.Files
	config, err := clientcmd.BuildConfigFromFlags("", endpoints.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	watch.Cluster(t, config)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	if w.cluster, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) connection() *compassv1alpha1.CompassConnection {
	w.t.Helper()
	c := &compassv1alpha1.CompassConnection{}
	if err := w.cluster.Get(w.t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) edit(f func(*compassv1alpha1.CompassConnectionSpec)) {
	w.t.Helper()
	c := w.connection()
	changed := c.DeepCopy()
	f(&changed.Spec)
	if err := w.cluster.Patch(w.t.Context(), changed, client.MergeFrom(c)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(namespace, name string) *corev1.Secret {
	w.t.Helper()
	s := &corev1.Secret{}
	if err := w.cluster.Get(w.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// renew has the agent renew its client certificate, and waits until it did and has synced with it.
func (w *world) renew() {
	w.t.Helper()
	before := w.connection().Status.ConnectionStatus.CertificateStatus.Fingerprint
	w.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	eventually(w.t, "the renewal", func() error {
		c := w.connection()
		if got := c.Status.ConnectionStatus.CertificateStatus.Fingerprint; got == before || c.Spec.RefreshCredentialsNow || c.Status.State != compassv1alpha1.Synchronized {
			return fmt.Errorf("certificate %s (before %s), state %s: %s", got, before, c.Status.State, c.Status.ConnectionStatus.Error)
		}
		return nil
	})
}

// administer calls the administrator's side of Compass.
func (w *world) administer(method, path string, into any) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.urls["compassAdmin"]+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := w.direct.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		w.t.Fatalf("%s %s: %s", method, path, response.Status)
	}
	if into != nil {
		if err := json.NewDecoder(response.Body).Decode(into); err != nil {
			w.t.Fatal(err)
		}
	}
}

// pairShop gets the shop another client certificate, of the authority that signs now.
func (w *world) pairShop() tls.Certificate {
	w.t.Helper()
	var token struct{ Token, ConnectorURL string }
	w.administer(http.MethodPost, "/v1/applications/"+shopID+"/token", &token)
	leaktest.Of(w.t).Add("a one-time token", token.Token)
	roots, err := graphql.RootsFromFile(w.files["compassCA"])
	if err != nil {
		w.t.Fatal(err)
	}
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	defer transport.CloseIdleConnections()
	c := connector.New(transport, token.ConnectorURL)
	configuration, err := c.Configuration(w.t.Context(), secret.Value(token.Token))
	if err != nil {
		w.t.Fatal(err)
	}
	subject, err := certs.ParseSubject(configuration.Subject)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := certs.GenerateKey(2048)
	if err != nil {
		w.t.Fatal(err)
	}
	request, err := certs.NewRequest(key, subject)
	if err != nil {
		w.t.Fatal(err)
	}
	issued, err := c.Sign(w.t.Context(), configuration.Token, request)
	if err != nil {
		w.t.Fatal(err)
	}
	out := tls.Certificate{PrivateKey: key, Leaf: issued.Chain[0]}
	for _, cert := range issued.Chain {
		out.Certificate = append(out.Certificate, cert.Raw)
	}
	return out
}

// system sends events with a client certificate, each over a connection of its own, so that each is judged by the
// authorities of its time.
func (w *world) system(certificate tls.Certificate) *http.Client {
	w.t.Helper()
	authority, err := os.ReadFile(w.files["edgeCA"])
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
	}}}
}

// get is a call of a workload through the gateway.
func (w *world) get(gateway, path string) call {
	url := w.urls[gateway] + path
	return call{"GET " + path, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		return succeed(w.direct, r)
	}}
}

// target is an external system that takes one password, or two while they are exchanged.
type target struct {
	server *httptest.Server

	mu       sync.Mutex
	accepted map[string]bool
	last     atomic.Pointer[string] // the password that came last
	requests atomic.Int64
}

func newTarget(t *testing.T, password string) *target {
	x := &target{accepted: map[string]bool{password: true}}
	x.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		x.mu.Lock()
		ok := user == "rotating" && x.accepted[password]
		x.mu.Unlock()
		x.last.Store(&password)
		x.requests.Add(1)
		if !ok {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(x.server.Close)
	return x
}

func (x *target) accept(passwords ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.accepted)
	for _, p := range passwords {
		x.accepted[p] = true
	}
}

// connectTarget writes an Application and its Secret by hand.
func (w *world) connectTarget(x *target, password string) {
	w.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kyma-system", Name: "rotating"}, StringData: map[string]string{"username": "rotating", "password": password}}
	app := &applicationv1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "rotating"}, Spec: applicationv1alpha1.ApplicationSpec{
		Description: "exchanges its password", Services: []applicationv1alpha1.Service{{
			ID: "api", Name: "api", DisplayName: "API", Description: "asks for a password", ProviderDisplayName: "ACME",
			Entries: []applicationv1alpha1.Entry{{
				Type: "API", TargetURL: x.server.URL, Credentials: applicationv1alpha1.Credentials{Type: "Basic", SecretName: "rotating"},
			}},
		}},
	}}
	for _, o := range []client.Object{s, app} {
		if err := w.cluster.Create(w.t.Context(), o); err != nil {
			w.t.Fatal(err)
		}
	}
}
