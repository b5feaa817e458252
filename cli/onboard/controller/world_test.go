package controller

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard/directortest"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/secret/canary"
	"github.com/application-connector/application-connector/simulator/compass"
)

// home is the API server with the Secrets, and behind fronts of the test that of the target clusters too.
var home rest.Config

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	kubetest.Run(m, &home)
}

const (
	tenant       = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	clientSecret = directortest.ClientSecret
	accessToken  = directortest.AccessToken
	patience     = 90 * time.Second
)

// world is a Compass, an API server with Secrets, and target clusters, with all that goes on between them.
type world struct {
	t         *testing.T
	compass   *compass.Server
	clock     *testclock.FakePassiveClock
	director  *httptest.Server // in front of the Director and of an OAuth 2.0 server
	front     *httptest.Server // in front of the target clusters
	kube      client.Client    // the test's own
	namespace string           // of the Secrets
	system    string           // of the configuration Secrets, of all target clusters
	settings  Settings
	dir       string
	log       *leaktest.Log
	canaries  *canary.Set

	mu sync.Mutex
	// effects that a controller had, and after which of them it is killed; 0 for none. dead: it was.
	effects []string
	killAt  int
	dead    bool
	kill    context.CancelFunc // ends what the controller is at
	// connections are the CompassConnections of the target clusters, and uids what they say that they are.
	connections map[string]*compassv1alpha1.CompassConnection
	uids        map[string]string
	// directorAnswers, if it is set, is asked instead of the Director.
	directorAnswers http.HandlerFunc
}

func newWorld(t *testing.T) *world {
	t.Helper()
	watch := leaktest.Of(t)
	w := &world{
		t: t, clock: testclock.NewFakePassiveClock(time.Now().Truncate(time.Second)), log: watch.Log("onboard controller"), canaries: watch.Secrets, dir: t.TempDir(),
		connections: map[string]*compassv1alpha1.CompassConnection{}, uids: map[string]string{},
		namespace: kubetest.Namespace(t, &home), system: kubetest.Namespace(t, &home),
	}
	var err error
	w.compass, err = compass.Start(t.Context(), compass.Options{Clock: w.clock, OnSecret: watch.Add, Seed: compass.Seed{Tenants: []compass.Tenant{{ID: tenant}}}})
	w.must(err)
	t.Cleanup(func() {
		if err := w.compass.Close(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	w.must(clientgoscheme.AddToScheme(scheme))
	w.kube, err = client.New(&home, client.Options{Scheme: scheme})
	w.must(err)
	selector, err := labels.Parse(LabelName)
	w.must(err)
	w.settings = Settings{
		Selector: selector, Key: "config", Tenant: tenant, Labels: map[string]string{"region": "eu"},
		Configuration: types.NamespacedName{Namespace: w.system, Name: "compass-agent-configuration"},
		Certificate:   types.NamespacedName{Namespace: w.system, Name: "cluster-client-certificates"},
		Poll:          30 * time.Second, Resync: 10 * time.Minute, Timeout: 20 * time.Second, RenewBefore: 10 * time.Minute, Loopback: true,
	}
	for name, text := range map[string]string{"the client secret": clientSecret, "the access token": accessToken, "the token of the target clusters": home.BearerToken} {
		watch.Add(name, text)
	}
	w.director = directortest.Start(t, w.compass.AdminURL(), directortest.Hooks{Asked: w.asked, Answered: func(operation string, mutation bool) bool { return mutation && w.effect(operation) }})
	w.front = httptest.NewUnstartedServer(w.targets())
	w.front.EnableHTTP2 = true
	w.front.StartTLS()
	t.Cleanup(w.front.Close)
	t.Cleanup(w.nothingWasTold)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// effect notes that a controller changed something, and reports whether it is killed before it learns of it.
func (w *world) effect(what string) (killed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects = append(w.effects, what)
	if len(w.effects) == w.killAt {
		w.dead = true
		w.kill()
	}
	return w.dead
}

func (w *world) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// revive begins a run that is killed after an effect; 0 for never.
func (w *world) revive(killAt int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects, w.killAt, w.dead = nil, killAt, false
}

// asked answers instead of Director and OAuth 2.0 server, if the controller is dead or a test wants to.
func (w *world) asked(r *http.Request) http.HandlerFunc {
	if w.isDead() {
		panic(http.ErrAbortHandler)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.URL.Path == "/oauth/token" {
		return nil
	}
	return w.directorAnswers
}

// targets are API servers, told apart by the first two elements of the path: /c/NAME. All are the one at home, but that each has an
// identity and a CompassConnection of its own, and its own Secrets, whose names end in that of the cluster.
func (w *world) targets() http.Handler {
	verify, err := rest.TLSConfigFor(&home)
	w.must(err)
	transport := &http.Transport{TLSClientConfig: verify}
	w.t.Cleanup(transport.CloseIdleConnections)
	server, err := url.Parse(home.Host)
	w.must(err)
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(server)
			name, path, _ := strings.Cut(strings.TrimPrefix(r.In.URL.Path, "/c/"), "/")
			path = "/" + path
			if strings.Contains(path, "/secrets/") {
				path += "-" + name
			}
			r.Out.URL.Path = path
			if r.In.Method == http.MethodPatch {
				body, _ := io.ReadAll(r.In.Body)
				body = bytes.ReplaceAll(body, []byte(`"name":"`+w.settings.Configuration.Name+`"`), []byte(`"name":"`+w.settings.Configuration.Name+"-"+name+`"`))
				r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method != http.MethodGet && r.StatusCode < 300 && w.effect(r.Request.Method+" in the cluster") {
				return http.ErrAbortHandler
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		if w.isDead() {
			panic(http.ErrAbortHandler)
		}
		name, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/c/"), "/")
		var object any
		switch {
		case r.Header.Get("Authorization") != "Bearer "+home.BearerToken: // the API server answers
		case path == "api/v1/namespaces/kube-system":
			namespace := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
			namespace.Name, namespace.UID = "kube-system", types.UID(w.uid(name))
			object = namespace
		case strings.HasPrefix(path, "apis/compass.kyma-project.io/"):
			w.mu.Lock()
			if c := w.connections[name]; c != nil {
				object = c.DeepCopy()
			} else {
				object = &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404}
			}
			w.mu.Unlock()
		}
		if object == nil {
			proxy.ServeHTTP(to, r)
			return
		}
		to.Header().Set("Content-Type", "application/json")
		if s, ok := object.(*metav1.Status); ok {
			to.WriteHeader(int(s.Code))
		}
		_ = json.NewEncoder(to).Encode(object)
	})
}

// uid is what a target cluster says that it is.
func (w *world) uid(cluster string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if uid := w.uids[cluster]; uid != "" {
		return uid
	}
	return "uid-of-" + cluster
}

// files writes what the controller reads, and gives the paths of the credentials and of the authority.
func (w *world) files() (credentials, ca string) {
	w.t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(w.dir, name)
		w.must(os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	return write("credentials.yaml", directortest.Credentials(w.director)),
		write("ca.pem", string(directortest.Authority(w.director)))
}

// controller is a process: a Reconciler that remembers nothing of those before it. Its requests at home may be lost.
func (w *world) controller(change ...func(*Settings)) *Reconciler {
	w.t.Helper()
	settings := w.settings
	for _, f := range change {
		f(&settings)
	}
	credentials, ca := w.files()
	roots, err := graphql.RootsFromFile(ca)
	w.must(err)
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	w.t.Cleanup(transport.CloseIdleConnections)
	metrics := NewMetrics(prometheus.NewRegistry())
	director := &gate{transport: transport, url: directortest.URL(w.director), credentials: credentials, roots: roots, limiter: rate.NewLimiter(rate.Inf, 1), clock: w.clock, metrics: metrics}
	config := rest.CopyConfig(&home)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return atHome{w, next} })
	kube, err := client.New(config, client.Options{Scheme: w.kube.Scheme()})
	w.must(err)
	return NewReconciler(Reconciler{
		Settings: settings, Kube: kube, Live: kube, Director: director.tenant, Clock: w.clock, Metrics: metrics,
		Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// atHome is the way to the API server at home.
type atHome struct {
	w    *world
	next http.RoundTripper
}

func (h atHome) RoundTrip(r *http.Request) (*http.Response, error) {
	if h.w.isDead() {
		return nil, io.ErrUnexpectedEOF
	}
	response, err := h.next.RoundTrip(r)
	if err == nil && r.Method != http.MethodGet && response.StatusCode < 300 {
		parts := strings.Split(r.URL.Path, "/")
		if h.w.effect(r.Method + " " + parts[len(parts)-2] + " at home") {
			_ = response.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
	}
	return response, err
}

// kubeconfig leads to a target cluster, with a token.
func (w *world) kubeconfig(cluster, token string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":"%s/c/%s","certificate-authority-data":%q}}],
		"users":[{"name":"c","user":{"token":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}]}`,
		w.front.URL, cluster, base64.StdEncoding.EncodeToString(directortest.Authority(w.front)), token)
}

// enlist makes the Secret of a target cluster.
func (w *world) enlist(cluster string, kubeconfig []byte) {
	w.t.Helper()
	w.must(w.kube.Create(w.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: cluster, Labels: map[string]string{LabelName: cluster, "kyma-project.io/subaccount-id": "sub"}},
		Data:       map[string][]byte{"config": kubeconfig},
	}))
}

func (w *world) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: w.namespace, Name: name}
}

// edit changes the Secret of a target cluster.
func (w *world) edit(cluster string, f func(*corev1.Secret)) {
	w.t.Helper()
	secret := &corev1.Secret{}
	w.must(w.kube.Get(w.t.Context(), w.key(cluster), secret))
	f(secret)
	w.must(w.kube.Update(w.t.Context(), secret))
}

func (w *world) delete(cluster string) {
	w.t.Helper()
	w.must(w.kube.Delete(w.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: cluster}}))
}

// step lets a controller look at a cluster, and gives when it wants to look again.
func (w *world) step(r *Reconciler, cluster string) (time.Duration, error) {
	ctx, kill := context.WithCancel(w.t.Context())
	defer kill()
	w.mu.Lock()
	w.kill = kill
	w.mu.Unlock()
	result, err := r.Reconcile(ctx, reconcile.Request{NamespacedName: w.key(cluster)})
	return result.RequeueAfter, err
}

func (w *world) mustStep(r *Reconciler, cluster string) time.Duration {
	w.t.Helper()
	again, err := w.step(r, cluster)
	w.must(err)
	return again
}

// record is what is told of a target cluster; nil if nothing is.
func (w *world) record(cluster string) map[string]string {
	w.t.Helper()
	found := &corev1.ConfigMap{}
	if err := w.kube.Get(w.t.Context(), w.key(recordName(cluster)), found); err != nil {
		w.must(client.IgnoreNotFound(err))
		return nil
	}
	return found.Data
}

// configuration is the Secret in a target cluster that its agent is configured by; nil if there is none.
func (w *world) configuration(cluster string) *corev1.Secret {
	w.t.Helper()
	found := &corev1.Secret{}
	if err := w.kube.Get(w.t.Context(), types.NamespacedName{Namespace: w.system, Name: w.settings.Configuration.Name + "-" + cluster}, found); err != nil {
		w.must(client.IgnoreNotFound(err))
		return nil
	}
	w.canaries.Add("a one-time token", string(found.Data["TOKEN"]))
	return found
}

func (w *world) token(cluster string) string {
	w.t.Helper()
	if c := w.configuration(cluster); c != nil {
		return string(c.Data["TOKEN"])
	}
	return ""
}

// says sets what the agent of a target cluster says of the token that it has, by conditions as TYPE=STATUS:REASON.
func (w *world) says(cluster string, conditions ...string) {
	w.t.Helper()
	sum := sha256.Sum256([]byte(w.token(cluster)))
	c := &compassv1alpha1.CompassConnection{TypeMeta: metav1.TypeMeta{APIVersion: compassv1alpha1.GroupVersion.String(), Kind: "CompassConnection"}}
	c.Name, c.Status.TokenFingerprint = compassv1alpha1.ConnectionName, hex.EncodeToString(sum[:])
	for _, each := range conditions {
		kind, rest, _ := strings.Cut(each, "=")
		status, reason, _ := strings.Cut(rest, ":")
		c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: "the agent's own words"})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connections[cluster] = c
}

// runtimes are the names of those that Compass has, by their ids.
func (w *world) runtimes() map[string]string {
	found := map[string]string{}
	for _, t := range w.compass.Admin().Inventory().Tenants {
		for _, r := range t.Runtimes {
			found[r.ID] = r.Name
		}
	}
	return found
}

// runtime is the id of the one with a name.
func (w *world) runtime(name string) string {
	w.t.Helper()
	for id, is := range w.runtimes() {
		if is == name {
			return id
		}
	}
	w.t.Fatalf("there is no runtime %s among %v", name, w.runtimes())
	return ""
}

// passes lets time pass.
func (w *world) passes(d time.Duration) { w.clock.SetTime(w.clock.Now().Add(d)) }

func (w *world) at(d time.Duration) string { return w.clock.Now().Add(d).UTC().Format(time.RFC3339) }

// nothingWasTold looks for secrets wherever anything is told.
func (w *world) nothingWasTold() {
	told := map[string]string{"the log": w.log.String()}
	var records corev1.ConfigMapList
	var events corev1.EventList
	for _, list := range []client.ObjectList{&records, &events} {
		if err := w.kube.List(context.Background(), list, client.InNamespace(w.namespace)); err != nil {
			w.t.Error(err)
		}
		text, err := json.Marshal(list)
		if err != nil {
			w.t.Error(err)
		}
		told[fmt.Sprintf("%T", list)] = string(text)
	}
	for where, text := range told {
		for _, name := range w.canaries.In(text) {
			w.t.Errorf("%s is told: in %s", name, where)
		}
	}
	if w.t.Failed() {
		w.t.Logf("the log:\n%s", w.log)
	}
}
