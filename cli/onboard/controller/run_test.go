package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// running is a whole controller.
type running struct {
	health, metrics string
	stop            func()
}

// start runs a whole controller, with all that the command line gives.
func (w *world) start(change ...func(*Options)) *running {
	w.t.Helper()
	o := NewOptions(genericiooptions.IOStreams{Out: w.log, ErrOut: w.log})
	o.Kubernetes, o.Namespace, o.Tenant, o.DirectorURL, o.LogLevel = &home, w.namespace, tenant, w.director.URL+"/director/graphql", "debug"
	o.CredentialsFile, o.CAFile = w.files()
	o.Secret, o.ClientSecret, o.OnDelete = w.settings.Configuration.String(), w.settings.Certificate.String(), OnDeleteOffboard
	o.DirectorRate, o.DirectorBurst, o.PollInterval, o.Concurrency = 1000, 100, time.Second, 4
	o.HealthAddress, o.MetricsAddress, o.AllowLoopback = "127.0.0.1:0", "127.0.0.1:0", true
	for _, f := range change {
		f(o)
	}
	w.must(errors.Join(o.Validate(), o.Complete()))
	open := make(chan *running, 1)
	o.Listening = func(health, metrics net.Addr) {
		open <- &running{health: "http://" + health.String(), metrics: "http://" + metrics.String()}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	stop := func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("the controller ended by: %v", err)
			}
			ended <- nil
		case <-time.After(patience):
			w.t.Error("the controller does not end")
		}
	}
	w.t.Cleanup(stop)
	select {
	case r := <-open:
		r.stop = stop
		return r
	case err := <-ended:
		w.t.Fatalf("the controller does not start: %v", err)
	case <-time.After(patience):
		w.t.Fatal("the controller does not start")
	}
	return nil
}

func (w *world) eventually(what string, is func() error) {
	w.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(w.t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = is()
		return last == nil, nil
	})
	if err != nil {
		w.t.Fatalf("waiting for %s: %v", what, last)
	}
}

// fetch reads a page of a controller.
func fetch(url string) (string, error) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", response.StatusCode, body)
	}
	return string(body), err
}

func TestOneOfTwoControllersOnboardsManyClustersAndTheOtherGoesOnWhenItEnds(t *testing.T) {
	// controller-runtime leaves the first behind if an event comes while a watch stops; client-go keeps its connections to the API
	// server for the whole process.
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(), goleak.IgnoreTopFunction("k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"))
	t.Run("run", func(t *testing.T) { // its cleanup comes before goroutines are looked for
		w := newWorld(t)
		const many = 12
		names := make([]string, many)
		for i := range names {
			names[i] = fmt.Sprintf("c%d", i)
			w.enlist(names[i], w.kubeconfig(names[i], home.BearerToken))
		}
		w.enlist("bad", []byte("nothing"))
		w.must(w.kube.Create(t.Context(), &corev1.Secret{ObjectMeta: objectMeta(w.namespace, "of-others"), StringData: map[string]string{"config": "theirs"}}))
		first := w.start()
		all := func(state State, names ...string) func() error {
			return func() error {
				for _, name := range names {
					if got := w.record(name); got["state"] != string(state) {
						return fmt.Errorf("%s: %v", name, got)
					}
				}
				return nil
			}
		}
		w.eventually("tokens", all(Waiting, names...))
		w.eventually("a failure", all(Failed, "bad"))
		if found := w.runtimes(); len(found) != many {
			t.Errorf("runtimes %v", found)
		}
		for page, want := range map[string]string{"/healthz": "ok", "/readyz": "ok"} {
			if got, err := fetch(first.health + page); err != nil || got != want {
				t.Errorf("%s: %s %v", page, got, err)
			}
		}
		second := w.start()
		w.eventually("the standby to be ready", func() error {
			_, err := fetch(second.health + "/readyz")
			return err
		})
		states := func(of *running) string {
			text, err := fetch(of.metrics + "/metrics")
			w.must(err)
			for _, name := range w.canaries.In(text) {
				t.Errorf("%s is told: in the metrics", name)
			}
			var lines []string
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "appconn_onboard_clusters{") || strings.HasPrefix(line, "appconn_onboard_actions_total{") || strings.HasPrefix(line, "appconn_onboard_failures_total{") {
					lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "appconn_onboard_"))
				}
			}
			return strings.Join(lines, "\n")
		}
		want := strings.Join([]string{
			`actions_total{action="adopt"} 0`, `actions_total{action="offboard"} 0`, `actions_total{action="register"} 12`, `actions_total{action="token"} 12`,
			`clusters{state="Connected"} 0`, `clusters{state="Failed"} 1`, `clusters{state="Offboarding"} 0`, `clusters{state="WaitingForAgent"} 12`,
			`failures_total{reason="KubeconfigInvalid"} 1`,
		}, "\n")
		if diff := cmp.Diff(want, states(first)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
		told := func(of *running, line string) {
			t.Helper()
			text, err := fetch(of.metrics + "/metrics")
			w.must(err)
			if !strings.Contains(text, "\nappconn_onboard_"+line+"\n") {
				t.Errorf("the metrics lack %s", line)
			}
		}
		for _, line := range []string{"acting 1", "unverified_clusters 0", `cluster_reasons{reason="TokenUnused"} 12`, `cluster_reasons{reason="KubeconfigInvalid"} 1`, `cluster_reasons{reason="Connected"} 0`} {
			told(first, line)
		}
		told(second, "acting 0")
		if got := states(second); !strings.Contains(got, `clusters{state="WaitingForAgent"} 0`) || !strings.Contains(got, `actions_total{action="register"} 0`) {
			t.Errorf("the standby acts:\n%s", got)
		}
		tokens := map[string]string{}
		for _, name := range names {
			tokens[name] = w.token(name)
			w.says(name, "Connected=True:Connected")
		}
		w.eventually("connections", all(Connected, names...))
		first.stop()
		w.delete("c0")
		w.eventually("the other to remove a cluster", func() error {
			if found := w.runtimes(); len(found) != many-1 {
				return fmt.Errorf("%d runtimes", len(found))
			}
			if got := states(second); !strings.Contains(got, fmt.Sprintf(`clusters{state="Connected"} %d`, many-1)) {
				return errors.New(got)
			}
			return nil
		})
		for _, name := range names[1:] {
			if w.token(name) != tokens[name] {
				t.Errorf("%s, which is connected, has another token", name)
			}
		}
		second.stop()
		w.front.Close()
		w.director.Close()
	})
}

func TestOptionsThatCanNotWorkAreNamedWithWhatWould(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"a namespace that is none":         {func(o *Options) { o.Namespace = "A b" }, `--namespace="A b": the name of a namespace is needed`},
		"no selector":                      {func(o *Options) { o.Selector = "" }, `--selector="": a label selector is needed, such as operator.kyma-project.io/kyma-name`},
		"a selector that is none":          {func(o *Options) { o.Selector = "a in" }, `--selector="a in": a label selector is needed, such as operator.kyma-project.io/kyma-name`},
		"no key":                           {func(o *Options) { o.Key = "" }, `--key="": a key of a Secret is needed, such as config`},
		"a Director without TLS":           {func(o *Options) { o.DirectorURL = "http://d.example.com" }, "--director-url: an https URL without credentials is needed"},
		"no credentials":                   {func(o *Options) { o.CredentialsFile = "" }, "--credentials: the path of a file is needed"},
		"no requests":                      {func(o *Options) { o.DirectorRate = 0 }, "--director-qps=0: a number above 0 and not above 1000 is needed"},
		"no request at once":               {func(o *Options) { o.DirectorBurst = 0 }, "--director-burst=0: a number from 1 is needed"},
		"a label that is the controller's": {func(o *Options) { o.Labels = map[string]string{LabelSource: "x"} }, "--label application_connector_kubeconfig=x: a key of letters, digits and _, neither application_connector_cluster nor application_connector_kubeconfig, and a value are needed"},
		"a Secret without namespace":       {func(o *Options) { o.Secret = "s" }, `--secret="s": namespace/name of a Secret is needed`},
		"another policy":                   {func(o *Options) { o.OnDelete = "delete" }, `--on-delete="delete": keep or offboard is needed`},
		"no worker":                        {func(o *Options) { o.Concurrency = 0 }, "--concurrency=0: a number from 1 to 100 is needed"},
		"a poll without end":               {func(o *Options) { o.PollInterval = 0 }, "--poll-interval=0s: a duration from 1s to 1h0m0s is needed"},
		"a time-out of days":               {func(o *Options) { o.ClusterTimeout = 48 * time.Hour }, "--cluster-timeout=48h0m0s: a duration from 1s to 1m0s is needed"},
		"an address without port":          {func(o *Options) { o.MetricsAddress = "localhost" }, `--metrics-bind-address="localhost": host:port is needed, such as :8081`},
		"a level that is none":             {func(o *Options) { o.LogLevel = "loud" }, `--log-level="loud": debug, info, warn or error is needed`},
		"a format that is none":            {func(o *Options) { o.LogFormat = "xml" }, `--log-format="xml": json or text is needed`},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions(genericiooptions.IOStreams{})
			o.DirectorURL, o.CredentialsFile = "https://director.example.com/graphql", "/c"
			if err := o.Validate(); err != nil {
				t.Fatalf("before: %v", err)
			}
			test.change(o)
			if err := o.Validate(); err == nil || err.Error() != test.says {
				t.Errorf("it says %q, not %q", err, test.says)
			}
		})
	}
}

func TestAControllerThatCanNotBeginSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"a port that is taken":      {func(o *Options) { o.HealthAddress = taken.Addr().String() }, "--health-probe-bind-address: listen tcp "},
		"another one":               {func(o *Options) { o.MetricsAddress = taken.Addr().String() }, "--metrics-bind-address: listen tcp "},
		"authorities not to be had": {func(o *Options) { o.CAFile = "/nowhere" }, "--director-ca-file: open /nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			o := NewOptions(genericiooptions.IOStreams{ErrOut: io.Discard})
			o.Kubernetes, o.DirectorURL, o.CredentialsFile = &home, "https://director.example.com/graphql", "/c"
			o.HealthAddress, o.MetricsAddress = "127.0.0.1:0", "127.0.0.1:0"
			test.change(o)
			if err := errors.Join(o.Validate(), o.Complete()); err != nil {
				t.Fatal(err)
			}
			if err := o.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), test.says) {
				t.Errorf("it says %v, not %q", err, test.says)
			}
		})
	}
}
