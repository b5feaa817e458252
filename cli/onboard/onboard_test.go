package onboard_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard"
	"github.com/application-connector/application-connector/cli/onboard/directortest"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/compass"
)

var cluster rest.Config

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	kubetest.Run(m, &cluster)
}

const (
	tenant   = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	patience = 90 * time.Second
)

// control is a control plane: a simulated Compass whose Director asks administrators for a token of an OAuth 2.0 server.
type control struct {
	t       *testing.T
	compass *compass.Server
	front   *httptest.Server
	options onboard.Options // what every command is given
	out     *leaktest.Log
	kube    client.Client

	mu sync.Mutex
	// lose is the number of the request at the Director, or of the change in the cluster, whose answer is lost from now on; 0 for none.
	lose int
	// changes are how many requests there were that change something.
	changes int
}

func newControl(t *testing.T) *control {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	watch.Add("the client secret", directortest.ClientSecret)
	watch.Add("the access token", directortest.AccessToken)
	server, err := compass.Start(t.Context(), compass.Options{OnSecret: watch.Add, Seed: compass.Seed{Tenants: []compass.Tenant{{
		ID:           tenant,
		Applications: []compass.Application{{Name: "Shop", ProviderName: "SAP", Formations: []string{"default"}}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &control{t: t, compass: server, out: watch.Log("appconn onboard")}
	c.front = directortest.Start(t, server.AdminURL(), directortest.Hooks{Answered: func(_ string, mutation bool) bool {
		c.did(mutation)
		return c.lost()
	}})
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig, err := kubetest.Kubeconfig(&cluster, dir)
	if err != nil {
		t.Fatal(err)
	}
	system := kubetest.Namespace(t, &cluster)
	c.options = *onboard.NewOptions(genericiooptions.IOStreams{Out: c.out, ErrOut: c.out})
	c.options.Config.KubeConfig = &kubeconfig
	c.options.Config.WrapConfigFn = func(config *rest.Config) *rest.Config {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return losing{c, next} })
		return config
	}
	c.options.DirectorURL, c.options.Tenant, c.options.CAFile = directortest.URL(c.front), tenant, write("ca.pem", string(directortest.Authority(c.front)))
	c.options.CredentialsFile = write("credentials.yaml", "data:\n  "+strings.ReplaceAll(directortest.Credentials(c.front), "\n", "\n  "))
	c.options.Name, c.options.Labels = "cluster-1", map[string]string{"region": "eu"}
	c.options.Secret, c.options.ClientSecret = system+"/compass-agent-configuration", system+"/cluster-client-certificates"
	c.options.Timeout = 0

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, compassv1alpha1.AddToScheme, applicationv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	if c.kube, err = client.New(&cluster, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, list := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
			if err := c.kube.DeleteAllOf(context.Background(), list); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

// did notes what changes something.
func (c *control) did(change bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if change {
		c.changes++
	}
}

// lost reports whether this answer is to be lost.
func (c *control) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose--
	return c.lose == 0
}

// losing is the way to the cluster.
type losing struct {
	c    *control
	next http.RoundTripper
}

func (l losing) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(r)
	l.c.did(r.Method != http.MethodGet)
	if err == nil && r.Method != http.MethodGet && l.c.lost() {
		_ = response.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return response, err
}

func (c *control) loseAnswer(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose = n
}

// run runs one command, whose options may be changed.
func (c *control) run(command func(*onboard.Options, context.Context) error, change ...func(*onboard.Options)) (err error) {
	c.t.Helper()
	defer func() { leaktest.Of(c.t).Told("error of appconn onboard", fmt.Sprint(err)) }()
	o := c.options
	for _, f := range change {
		f(&o)
	}
	if err := o.Validate(); err != nil {
		return err
	}
	if err := o.Complete(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	return command(&o, ctx)
}

func (c *control) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%v\n%s", err, c.out)
	}
}

// runtimes are the ids of those that Compass has.
func (c *control) runtimes() []string {
	c.t.Helper()
	var ids []string
	for _, tenant := range c.compass.Admin().Inventory().Tenants {
		for _, r := range tenant.Runtimes {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func (c *control) configuration() *corev1.Secret {
	c.t.Helper()
	namespace, name, _ := strings.Cut(c.options.Secret, "/")
	found := &corev1.Secret{}
	if err := c.kube.Get(c.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, found); client.IgnoreNotFound(err) != nil {
		c.t.Fatal(err)
	} else if err != nil {
		return nil
	}
	return found
}

// runAgent runs a real agent until the test ends.
func (c *control) runAgent() {
	c.t.Helper()
	ca := filepath.Join(c.t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, c.compass.ServerCA(), 0o600); err != nil {
		c.t.Fatal(err)
	}
	namespace, _, _ := strings.Cut(c.options.Secret, "/")
	env := map[string]string{
		"APP_AGENT_CONFIGURATION_SECRET": c.options.Secret, "APP_CLUSTER_CERTIFICATES_SECRET": c.options.ClientSecret,
		"APP_CA_CERTIFICATES_SECRET": namespace + "/authorities", "APP_INTEGRATION_NAMESPACE": namespace, "APP_COMPASS_CA_FILE": ca,
		"APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms", "APP_CONTROLLER_SYNC_PERIOD": "1h",
		"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "off", "APP_LEADER_ELECTION": "false",
		"APP_LOG_LEVEL": "debug",
	}
	o, err := agent.FromEnvironment(func(name string) string { return env[name] })
	if err != nil {
		c.t.Fatal(err)
	}
	o.Kubernetes, o.LogTo = &cluster, leaktest.Of(c.t).Log("agent")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, o) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Error(err)
		}
	})
}

// synced has the runtime see the system that Compass knows, and waits until the agent has brought it into the cluster.
func (c *control) synced(id string) {
	c.t.Helper()
	for _, tenant := range c.compass.Admin().Inventory().Tenants {
		for _, r := range tenant.Runtimes {
			if r.ID == id {
				r.Formations = []string{"default"}
				if _, err := c.compass.Admin().PutRuntime(tenant.ID, r); err != nil {
					c.t.Fatal(err)
				}
			}
		}
	}
	connection := &compassv1alpha1.CompassConnection{}
	c.must(c.kube.Get(c.t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, connection))
	asked := connection.DeepCopy()
	asked.Spec.ResyncNow = true
	c.must(c.kube.Patch(c.t.Context(), asked, client.MergeFrom(connection)))
	err := wait.PollUntilContextTimeout(c.t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		if err := c.kube.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, connection); err != nil {
			return false, err
		}
		err := c.kube.Get(ctx, client.ObjectKey{Name: "mp-shop"}, &applicationv1alpha1.Application{})
		return err == nil && connection.Status.State == compassv1alpha1.Synchronized && !connection.Spec.ResyncNow, client.IgnoreNotFound(err)
	})
	if err != nil {
		c.t.Fatalf("waiting for the sync: %v; %+v", err, connection.Status)
	}
}

func waiting(o *onboard.Options) { o.Timeout = patience }

func TestAClusterIsOnboardedAndOffboardedTwiceOverWithEveryAnswerLostOnce(t *testing.T) {
	c := newControl(t)
	c.runAgent()
	for round := range 2 {
		// Each try gets one answer further, until one needs no more answers than are left to it. Once the cluster is registered others
		// are needed, so that it begins anew.
		tries, registered := 0, false
		for lost := 1; ; lost++ {
			c.loseAnswer(lost)
			err := c.run((*onboard.Options).Onboard, waiting)
			if tries++; err == nil {
				break
			}
			if tries > 20 {
				t.Fatalf("round %d does not end: %v", round, err)
			}
			if !registered && len(c.runtimes()) == 1 {
				registered, lost = true, 0
			}
		}
		if tries < 9 { // looking for it twice, registering it; looking for it, its identities, deleting one, two tokens, and writing the Secret
			t.Errorf("round %d: only %d tries: not every answer was lost", round, tries)
		}
		c.loseAnswer(0)
		runtimes := c.runtimes()
		if len(runtimes) != 1 {
			t.Fatalf("round %d: Compass has runtimes %v", round, runtimes)
		}
		if auths := c.compass.Admin().SystemAuths(runtimes[0]); len(auths) != 1 || len(auths[0].Certificates) == 0 {
			t.Errorf("round %d: the runtime has identities %+v: one with a certificate is right", round, auths)
		}
		before := c.configuration()
		c.must(c.run((*onboard.Options).Onboard, waiting))
		if diff := cmp.Diff(before, c.configuration()); diff != "" {
			t.Errorf("round %d: a connected cluster was touched:\n%s", round, diff)
		}
		c.synced(runtimes[0])
		for i, lost := range []int{1, 2, 2} { // of looking for it, of unregistering it, and then of deleting the Secret
			c.loseAnswer(lost)
			if err := c.run((*onboard.Options).Offboard); err == nil {
				t.Errorf("round %d: try %d to offboard has lost nothing", round, i+1)
			}
		}
		c.loseAnswer(0)
		c.must(c.run((*onboard.Options).Offboard))
		if runtimes := c.runtimes(); len(runtimes) != 0 || c.configuration() != nil {
			t.Errorf("round %d: left are runtimes %v and Secret %v", round, runtimes, c.configuration())
		}
	}
}

func TestATokenThatWasNotUsedYetIsLeftAndOneThatEndsSoonIsReplacedWithItsIdentity(t *testing.T) {
	c := newControl(t)
	c.must(c.run((*onboard.Options).Onboard))
	first := c.configuration()
	got := map[string]string{}
	for key, value := range first.Data {
		got[key] = string(value)
	}
	runtimes := c.runtimes()
	want := map[string]string{"CONNECTOR_URL": c.compass.TokenURL(), "RUNTIME_ID": runtimes[0], "TENANT": tenant, "TOKEN": got["TOKEN"]}
	if diff := cmp.Diff(want, got); diff != "" || got["TOKEN"] == "" {
		t.Errorf("Secret (-want +got):\n%s", diff)
	}
	c.must(c.run((*onboard.Options).Onboard))
	if diff := cmp.Diff(first, c.configuration()); diff != "" {
		t.Errorf("a token that is good was replaced:\n%s", diff)
	}
	first.Annotations[onboard.AnnotationExpires] = time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
	if err := c.kube.Update(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	before := c.compass.Admin().SystemAuths(runtimes[0])
	c.must(c.run((*onboard.Options).Onboard))
	after := c.compass.Admin().SystemAuths(runtimes[0])
	if len(before) != 1 || len(after) != 1 || before[0].ID == after[0].ID || bytes.Equal(c.configuration().Data["TOKEN"], first.Data["TOKEN"]) {
		t.Errorf("identities before %v, after %v", before, after)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	c := newControl(t)
	dry := func(o *onboard.Options) { o.DryRun = true }
	c.must(c.run((*onboard.Options).Onboard, dry))
	if len(c.runtimes()) != 0 || c.configuration() != nil || c.changes != 0 {
		t.Errorf("runtimes %v, Secret %v, %d requests that change something", c.runtimes(), c.configuration(), c.changes)
	}
	c.must(c.run((*onboard.Options).Onboard))
	before := c.changes
	c.must(c.run((*onboard.Options).Offboard, dry))
	if c.changes != before || before == 0 {
		t.Errorf("%d requests change something, in a dry run %d", before, c.changes-before)
	}
	if len(c.runtimes()) != 1 || c.configuration() == nil {
		t.Errorf("offboarding: runtimes %v, Secret %v", c.runtimes(), c.configuration())
	}
	for _, line := range []string{
		"would register runtime cluster-1\n", "would request a one-time token and write it into Secret " + c.options.Secret + "\n",
		"would unregister runtime cluster-1", "would delete Secret " + c.options.Secret + "\n",
	} {
		if !strings.Contains(c.out.String(), line) {
			t.Errorf("%q is not said:\n%s", line, c.out)
		}
	}
}

func TestWhatIsWrongIsSaidInOneLine(t *testing.T) {
	c := newControl(t)
	file := func(text string) func(*onboard.Options) {
		path := filepath.Join(t.TempDir(), "credentials.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return func(o *onboard.Options) { o.CredentialsFile = path }
	}
	for name, test := range map[string]struct {
		change func(*onboard.Options)
		says   string
	}{
		"a Director without TLS":                  {func(o *onboard.Options) { o.DirectorURL = "http://d.example.com" }, "--director-url: an https URL without credentials is needed"},
		"no tenant":                               {func(o *onboard.Options) { o.Tenant = "" }, "--tenant: the id of a tenant is needed"},
		"no name for a new cluster":               {func(o *onboard.Options) { o.Name = "" }, "--name: this cluster is not registered yet, and a name for it is needed"},
		"a Secret without namespace":              {func(o *onboard.Options) { o.Secret = "name" }, `--secret="name": namespace/name of a Secret is needed`},
		"a label that Director refuses":           {func(o *onboard.Options) { o.Labels = map[string]string{"a.b": "c"} }, "--label a.b=c: a key of letters, digits and _"},
		"no file of credentials":                  {func(o *onboard.Options) { o.CredentialsFile = "/nowhere" }, "--credentials: open /nowhere"},
		"a file without a secret":                 {file("client_id: me\ntokens_endpoint: https://t.example.com\n"), "lacks client_id or client_secret"},
		"a token endpoint without TLS":            {file("client_id: me\nclient_secret: s\ntokens_endpoint: http://t.example.com\n"), "is no https URL"},
		"a file that is no YAML":                  {file("\tclient_secret: canary-client-secret"), "is no YAML with client_id"},
		"credentials that are wrong":              {file("client_id: other\nclient_secret: s\ntokens_endpoint: " + c.front.URL + "/oauth/token\n"), "HTTP 401 invalid_client"},
		"an authority that is unknown":            {func(o *onboard.Options) { o.CAFile = "" }, "the token endpoint: "},
		"a file of authorities that is not there": {func(o *onboard.Options) { o.CAFile = "/nowhere" }, "--director-ca-file: "},
		"a tenant that does not exist":            {func(o *onboard.Options) { o.Tenant = "4e64ebae-38b5-46a0-b1ed-9ccee153a0ae" }, "looking for the runtime of this cluster: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.run((*onboard.Options).Onboard, test.change)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "canary") {
				t.Errorf("it says %v, not %q", err, test.says)
			}
		})
	}
}

func TestAnAgentThatDoesNotComeIsSaidWithWhatToDo(t *testing.T) {
	c := newControl(t)
	err := c.run((*onboard.Options).Onboard, func(o *onboard.Options) { o.Timeout = time.Second })
	if err == nil || !strings.HasPrefix(err.Error(), "not connected after 1s: ") || !strings.HasSuffix(err.Error(), "; run this again to go on") {
		t.Errorf("it says %v", err)
	}
}

func TestANameThatAnotherClusterHasIsRefusedInDirectorsWords(t *testing.T) {
	c := newControl(t)
	c.must(c.run((*onboard.Options).Onboard))
	// Another cluster has another UID: here the runtime is made to look as another's.
	id := c.runtimes()[0]
	c.setLabel(id, "another")
	c.must(c.kube.Delete(t.Context(), c.configuration()))
	err := c.run((*onboard.Options).Onboard)
	if err == nil || !strings.Contains(err.Error(), "registering runtime cluster-1: ") || !strings.Contains(err.Error(), "not unique") {
		t.Errorf("it says %v", err)
	}
}

// setLabel changes the label by which clusters are found.
func (c *control) setLabel(id, value string) {
	c.t.Helper()
	body := fmt.Sprintf(`{"query":"mutation { setRuntimeLabel(runtimeID: \"%s\", key: \"%s\", value: \"%s\") { key } }"}`, id, onboard.Label, value)
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.compass.AdminURL()+"/director/graphql", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Tenant", tenant)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		c.t.Fatal(response.Status)
	}
}

func TestACommandThatIsEndedWhileItWaitsSaysSo(t *testing.T) {
	c := newControl(t)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	waits := func(o *onboard.Options, _ context.Context) error {
		go func() {
			for !strings.Contains(c.out.String(), "waiting: ") && t.Context().Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			end()
		}()
		return o.Onboard(ctx)
	}
	if err := c.run(waits, waiting); err == nil || !strings.HasPrefix(err.Error(), "not connected yet: the agent has not begun") {
		t.Errorf("it says %v", err)
	}
}
