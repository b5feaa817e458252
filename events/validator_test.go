package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/events"
)

var cluster rest.Config

func TestMain(m *testing.M) { kubetest.Run(m, &cluster) }

const gateway = `,By=spiffe://cluster.local/ns/kyma-system/sa/default;Hash=6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21;Subject="";URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account`

// noLeaks fails the test if goroutines that began after it outlive it.
func noLeaks(t *testing.T) {
	t.Helper()
	// client-go keeps its connections to the API server for the whole process, and opens another one when it likes.
	connection := goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop")
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, before, connection)
	})
}

// logTo is a log at debug level, in which no secret may be.
func logTo(t *testing.T, to io.Writer) *slog.Logger {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	return slog.New(slog.NewJSONHandler(watch.Tee("validator", to), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// execute runs the program; neither its log nor its error may hold a secret.
func execute(ctx context.Context, t *testing.T, args []string, lookup func(string) (string, bool), log io.Writer) error {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Add("the cluster's token", cluster.BearerToken)
	err := events.Execute(ctx, args, lookup, watch.Tee("validator", log))
	watch.Told("error of the validator", fmt.Sprint(err))
	return err
}

func options(t *testing.T, publisher string) events.Options {
	t.Helper()
	kubeconfig, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := events.NewOptions()
	o.ListenAddress, o.ProxyPort, o.ExternalAPIPort = "127.0.0.1", 0, 0
	o.Kubeconfig = kubeconfig
	o.PublisherHost = strings.TrimPrefix(publisher, "http://")
	o.Complete(func(string) (string, bool) { return "", false })
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	return *o
}

// running starts a validator that ends with the test.
func running(t *testing.T, o events.Options, log io.Writer) *events.Server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s, err := events.Start(ctx, o, logTo(t, log))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
	leaktest.Of(t).Scrape(t, "metrics of the validator", "http://"+s.AdminAddr().String()+"/metrics")
	return s
}

func kube(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func application(name string, change func(*v1alpha1.Application)) *v1alpha1.Application {
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ApplicationSpec{Description: "test", Services: []v1alpha1.Service{}}}
	if change != nil {
		change(app)
	}
	return app
}

func create(t *testing.T, c client.Client, app *v1alpha1.Application) {
	t.Helper()
	if err := c.Create(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.IgnoreNotFound(c.Delete(context.Background(), app)) })
}

// eventually polls a condition that a watch will bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 30 s: " + what)
		}
	}
}

func status(t *testing.T, addr net.Addr, path string) int {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://%s%s", addr, path))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

func send(t *testing.T, s *events.Server, app, cn string) int {
	t.Helper()
	return sendAs(t, s, app, `Subject="CN=`+cn+`"`)
}

// sendHash sends with an Application's own name and a certificate of the hash.
func sendHash(t *testing.T, s *events.Server, app, hash string) int {
	t.Helper()
	return sendAs(t, s, app, `Hash=`+hash+`;Subject="CN=`+app+`"`)
}

func sendAs(t *testing.T, s *events.Server, app, client string) int {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/%s/events", s.ProxyAddr(), app), strings.NewReader(`{"canary":"body-1d0c"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{
		"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {app}, "Ce-Type": {"order.created.v1"},
		"X-Forwarded-Client-Cert": {client + gateway}, "Authorization": {"Bearer canary-5e7a"}, "Cookie": {"canary-77aa=1"},
	}
	watch := leaktest.Of(t)
	watch.AddHeader(r.Header)
	watch.Add("the body of an event", `"canary":"body-1d0c"`)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	watch.Answer("answer of the validator", answer.StatusCode, answer.Header, string(text))
	return answer.StatusCode
}

func publisher(t *testing.T) *httptest.Server {
	t.Helper()
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(p.Close)
	return p
}

func TestAnApplicationIsKnownAndForgottenAsTheClusterSays(t *testing.T) {
	noLeaks(t)
	c := kube(t)
	log := &leaktest.Log{}
	s := running(t, options(t, publisher(t).URL), log)
	eventually(t, "ready", func() bool { return status(t, s.AdminAddr(), "/readyz") == 200 })

	if got := send(t, s, "local-shop", "local-shop"); got != 403 {
		t.Errorf("before it exists: %d", got)
	}
	local := application("local-shop", nil)
	create(t, c, local)
	eventually(t, "accepted once created", func() bool { return send(t, s, "local-shop", "local-shop") == 204 })

	managed := application("managed-shop", func(a *v1alpha1.Application) {
		a.Spec.CompassMetadata = &v1alpha1.CompassMetadata{Authentication: v1alpha1.Authentication{ClientIDs: []string{"id-1"}}}
	})
	create(t, c, managed)
	eventually(t, "a client id is accepted", func() bool { return send(t, s, "managed-shop", "id-1") == 204 })
	if got := send(t, s, "managed-shop", "managed-shop"); got != 403 {
		t.Errorf("a managed Application's name: %d", got)
	}
	if got := send(t, s, "local-shop", "id-1"); got != 403 {
		t.Errorf("another Application's certificate: %d", got)
	}
	managed.Spec.CompassMetadata.Authentication.ClientIDs = []string{}
	if err := c.Update(t.Context(), managed); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a client id that was taken away is refused", func() bool { return send(t, s, "managed-shop", "id-1") == 403 })

	if err := c.Delete(t.Context(), local); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused once deleted", func() bool { return send(t, s, "local-shop", "local-shop") == 403 })
	for range 20 {
		if got := send(t, s, "local-shop", "local-shop"); got != 403 {
			t.Fatalf("accepted again after it was refused: %d", got)
		}
	}
	for _, canary := range []string{"body-1d0c", "canary-5e7a", "canary-77aa"} {
		if strings.Contains(log.String(), canary) {
			t.Errorf("the log holds %s", canary)
		}
	}
}

// TestAThousandApplicationsAreKnownWhenTheyAreCreated creates them while the validator runs, in the mode and with the short
// header of the older validator's test of the same.
func TestAThousandApplicationsAreKnownWhenTheyAreCreated(t *testing.T) {
	noLeaks(t)
	c := kube(t)
	o := options(t, publisher(t).URL)
	o.XFCCMode = events.ModeCompatible
	s := running(t, o, io.Discard)
	eventually(t, "ready", func() bool { return status(t, s.AdminAddr(), "/readyz") == 200 })
	const count, workers = 1000, 8
	name := func(i int) string { return fmt.Sprintf("ta%d", i) }
	all := func(do func(i int) error) {
		t.Helper()
		var group errgroup.Group
		group.SetLimit(workers)
		for i := range count {
			group.Go(func() error { return do(i) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	get := func(i int) (int, error) {
		r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/%s/v2/events", s.ProxyAddr(), name(i)), nil)
		if err != nil {
			return 0, err
		}
		r.Header.Set("X-Forwarded-Client-Cert", `Subject="CN=`+name(i)+`"`)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		return answer.StatusCode, answer.Body.Close()
	}
	// until asks until the answer is the wanted one.
	until := func(i, want int) error {
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			got, err := get(i)
			if got == want {
				return nil
			}
			if time.Since(begin) > 30*time.Second {
				return errors.Join(fmt.Errorf("%s: %d, want %d", name(i), got, want), err)
			}
		}
	}
	all(func(i int) error {
		app := application(name(i), nil)
		if err := c.Create(t.Context(), app); err != nil {
			return err
		}
		return until(i, 204)
	})
	all(func(i int) error {
		if got, err := get(i); got != 204 {
			return errors.Join(fmt.Errorf("%s once all are known: %d", name(i), got), err)
		}
		return nil
	})
	all(func(i int) error {
		if err := c.Delete(t.Context(), application(name(i), nil)); err != nil {
			return err
		}
		return until(i, 404)
	})
}

func TestAnApplicationThatIsBeingDeletedIsRefusedAtOnce(t *testing.T) {
	noLeaks(t)
	c := kube(t)
	s := running(t, options(t, publisher(t).URL), io.Discard)
	app := application("leaving-shop", func(a *v1alpha1.Application) { a.Finalizers = []string{"test.example/wait"} })
	create(t, c, app)
	eventually(t, "accepted", func() bool { return send(t, s, "leaving-shop", "leaving-shop") == 204 })
	if err := c.Delete(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused while its finalizer still holds it", func() bool { return send(t, s, "leaving-shop", "leaving-shop") == 403 })
	if err := c.Patch(t.Context(), app, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	noLeaks(t)
	s := running(t, options(t, "unused:1"), io.Discard)
	eventually(t, "ready", func() bool { return status(t, s.AdminAddr(), "/readyz") == 200 })
	for path, want := range map[string]int{"/v1/health": 200, "/livez": 200, "/metrics": 200, "/": 404, "/v1/health/x": 404} {
		if got := status(t, s.AdminAddr(), path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestWithoutAnAPIServerItIsAliveNotReadyAndAnswers503(t *testing.T) {
	noLeaks(t)
	o := options(t, "unused:1")
	away := cluster
	away.Host = "https://127.0.0.1:1"
	var err error
	if o.Kubeconfig, err = kubetest.Kubeconfig(&away, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s := running(t, o, io.Discard)
	for path, want := range map[string]int{"/v1/health": 200, "/livez": 200, "/readyz": 503} {
		if got := status(t, s.AdminAddr(), path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if got := send(t, s, "shop", "shop"); got != 503 {
		t.Errorf("an event: %d", got)
	}
}

// TestDrain ends a validator while a request is in flight: it turns unready at once, goes on serving for the delay, and
// ends when the request has its answer.
func TestDrain(t *testing.T) {
	noLeaks(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Source") == "slow-shop" {
			close(arrived)
			<-release
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(p.Close)
	c := kube(t)
	create(t, c, application("slow-shop", nil))
	create(t, c, application("quick-shop", nil))
	o := options(t, p.URL)
	o.DrainDelay = 15 * time.Second
	now := clocktesting.NewFakeClock(time.Unix(0, 0))
	o.Clock = now
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s, err := events.Start(ctx, o, logTo(t, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready and both known", func() bool { return send(t, s, "quick-shop", "quick-shop") == 204 })
	slow := make(chan int, 1)
	go func() { slow <- send(t, s, "slow-shop", "slow-shop") }()
	<-arrived
	stop()
	eventually(t, "the drain delay runs", now.HasWaiters)
	if got := status(t, s.AdminAddr(), "/readyz"); got != 503 {
		t.Errorf("ready within the drain delay: %d", got)
	}
	if got := send(t, s, "quick-shop", "quick-shop"); got != 204 {
		t.Errorf("within the drain delay: %d", got)
	}
	if last, err := http.Get("http://" + s.ProxyAddr().String() + "/quick-shop/events"); err != nil || !last.Close || last.Body.Close() != nil {
		t.Errorf("within the drain delay the connection stays: %v, %v", last, err)
	}
	now.Step(o.DrainDelay)
	eventually(t, "no new connections after the delay", func() bool {
		conn, err := net.Dial("tcp", s.ProxyAddr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(release)
	if got := <-slow; got != 204 {
		t.Errorf("the request in flight: %d", got)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

func TestARequestThatOutlastsTheShutdownTimeoutIsCutAndNamed(t *testing.T) {
	noLeaks(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/stuck-shop/v1/events" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		close(arrived)
		<-release
	}))
	t.Cleanup(p.Close)
	t.Cleanup(func() { close(release) })
	create(t, kube(t), application("stuck-shop", nil))
	o := options(t, p.URL)
	o.ShutdownTimeout = 50 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	s, err := events.Start(ctx, o, logTo(t, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "known", func() bool { return send(t, s, "stuck-shop", "stuck-shop") == 204 })
	cut := make(chan error, 1)
	go func() {
		r, _ := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/stuck-shop/v1/events", s.ProxyAddr()), strings.NewReader("{}"))
		r.Header.Set("X-Forwarded-Client-Cert", `Subject="CN=stuck-shop"`+gateway)
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err == nil {
			answer.Body.Close()
			err = fmt.Errorf("status %d", answer.StatusCode)
		}
		cut <- err
	}()
	<-arrived
	stop()
	if err := s.Wait(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "requests in flight were cut after 50ms") {
		t.Errorf("got %v", err)
	}
	if err := <-cut; err == nil || strings.HasPrefix(err.Error(), "status 2") {
		t.Errorf("the request in flight: %v", err)
	}
}

func TestExecuteRefusesWithOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	kubeconfig, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := []string{"--listenAddress=127.0.0.1", "--kubeconfig=" + kubeconfig}
	for what, tc := range map[string]struct {
		args []string
		env  map[string]string
		want string
	}{
		"an unknown flag":           {[]string{"--nope"}, nil, "flag provided but not defined: -nope (--help lists the flags)"},
		"a flag of the wrong type":  {[]string{"--proxyPort=x"}, nil, "-proxyPort"},
		"an argument":               {[]string{"serve"}, nil, `unexpected argument "serve"`},
		"a bad value":               {[]string{"--xfccMode=loose"}, nil, `--xfccMode="loose": must be strict or compatible`},
		"an unknown header":         {[]string{"--identityHeader=X-Client"}, nil, `--identityHeader="X-Client": must be X-Forwarded-Client-Cert or Client-Cert`},
		"a header without fixtures": {[]string{"--identityHeader=Client-Cert", "--xfccMode=compatible"}, nil, `--identityHeader=Client-Cert: needs --xfccMode=strict`},
		"no namespace":              {[]string{"--deniedCertificates=list"}, nil, `--deniedCertificates="list": must be namespace/name of a ConfigMap, or empty`},
		"a negative rate":           {[]string{"--rateLimit=-1"}, nil, `--rateLimit=-1: must be 0 or more, and less than 1e9`},
		"a negative burst":          {[]string{"--rateBurst=-1"}, nil, `--rateBurst=-1: must not be negative`},
		"a negative bound":          {[]string{"--maxInFlight=-1"}, nil, `--maxInFlight=-1: must not be negative`},
		"no attempt":                {[]string{"--publisherAttempts=0"}, nil, `--publisherAttempts=0: must be more than 0`},
		"a negative window":         {[]string{"--retryWindow=-1s"}, nil, `--retryWindow=-1s: must not be negative`},
		"a bad environment":         {nil, map[string]string{"APP_LOG_LEVEL": "loud"}, `APP_LOG_LEVEL="loud": must be`},
		"no kubeconfig":             {[]string{"--kubeconfig=/nonexistent/config"}, nil, "set --kubeconfig or KUBECONFIG to a readable kubeconfig"},
		"a broken kubeconfig":       {[]string{"--kubeconfig=" + broken}, nil, "set --kubeconfig or KUBECONFIG to a readable kubeconfig"},
		"the proxy port is taken":   {append([]string{"--externalAPIPort=0", "--proxyPort=" + port}, base...), nil, "--proxyPort=" + port + ": can't listen, choose a free port"},
		"the admin port is taken":   {append([]string{"--proxyPort=0", "--externalAPIPort=" + port}, base...), nil, "--externalAPIPort=" + port + ": can't listen, choose a free port"},
	} {
		t.Run(what, func(t *testing.T) {
			log := &leaktest.Log{}
			err := execute(t.Context(), t, tc.args, func(k string) (string, bool) { v, ok := tc.env[k]; return v, ok }, log)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want a line with %q", err, tc.want)
			}
			if log.String() != "" {
				t.Errorf("more than the error: %s", log)
			}
		})
	}
}

func TestExecuteServesLogsJSONAndEndsWithoutAnError(t *testing.T) {
	kubeconfig, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	log := &leaktest.Log{}
	done := make(chan error, 1)
	go func() {
		done <- execute(ctx, t, []string{"--listenAddress=127.0.0.1", "--proxyPort=0", "--externalAPIPort=0", "--kubeconfig=" + kubeconfig, "--xfccMode=compatible", "--trustedHops=0", "--sourcePolicy=off"},
			func(string) (string, bool) { return "", false }, log)
	}()
	eventually(t, "listens", func() bool { return strings.Contains(log.String(), "validator listens") })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	for _, loud := range []string{`"options":{"appNamePlaceholder":"%%APP_NAME%%"`, "xfccMode=compatible", "trustedHops=0", "sourcePolicy=off"} {
		if !strings.Contains(log.String(), loud) {
			t.Errorf("no warning of %s", loud)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	log := &leaktest.Log{}
	err := execute(t.Context(), t, []string{"--help"}, os.LookupEnv, log)
	if !errors.Is(err, flag.ErrHelp) || !strings.Contains(log.String(), "-xfccMode") {
		t.Errorf("%v: %s", err, log)
	}
}
