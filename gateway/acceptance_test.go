package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/tracing/collector"
)

// TestAcceptance are those of the cases in package proxy's test of the same name that need an API server.
func TestAcceptance(t *testing.T) {
	t.Run("14-unknown names cost nobody anything", unknownNamesAskNothingOfTheAPIServer)
	t.Run("18-a rotated Secret", aSecretRotatedUnderLoadIsInForceAndNobodySeesA401)
	t.Run("19-the end/a call in flight finishes", aCallInFlightFinishesWhenTheGatewayEnds)
	t.Run("19-the end/the program's exit code", theProgramFinishesItsCallsOnSIGTERMAndExitsWithZero)
	t.Run("22-observation/metrics", metricsCountCallsByRouteAndSource)
}

// counting notes what a gateway asks of the API server.
type counting struct {
	mu   sync.Mutex
	seen []string
}

func (c *counting) note(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, r.Method+" "+r.URL.Path)
}

// reads are the reads of Applications and Secrets so far.
func (c *counting) reads() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var reads []string
	for _, s := range c.seen {
		if strings.HasPrefix(s, "GET ") && (strings.Contains(s, "/applications") || strings.Contains(s, "/secrets")) {
			reads = append(reads, s)
		}
	}
	return reads
}

func unknownNamesAskNothingOfTheAPIServer(t *testing.T) {
	count := &counting{}
	h := start(t, func(o *gateway.Options) {
		o.Config = rest.CopyConfig(o.Config)
		o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				count.note(r)
				return next.RoundTrip(r)
			})
		})
	})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) }))
	defer target.Close()
	h.secret("s", map[string]string{"username": "u", "password": "p"})
	const cold = 9 // APIs that were never called
	spec := v1alpha1.ApplicationSpec{}
	for i := range cold {
		spec.Services = append(spec.Services, api(fmt.Sprint("svc-", i), target.URL, with("Basic", "s", "")))
	}
	h.application("cold", spec)
	before := count.reads()
	if len(before) == 0 {
		t.Fatal("nothing was counted")
	}
	var times []time.Duration
	for i := range cold {
		times = append(times, coldCall(h, fmt.Sprintf("/cold/svc-%d", i)))
	}
	// Ten times the 50 ms that it may take, and the median, since on a machine that does other things too any call may wait.
	if slices.Sort(times); times[cold/2] > 500*time.Millisecond {
		t.Errorf("calls took %v", times)
	}
	if a := h.get("/cold/svc-0"); a.Body != "Basic "+base64Of("u:p") {
		t.Errorf("%+v", a)
	}
	if asked := count.reads()[len(before):]; len(asked) != 0 {
		t.Errorf("the calls made the gateway ask the API server: %v", asked)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// program is the gateway as it is built, GATEWAY or beside APPCONN.
func program(t testing.TB) string {
	t.Helper()
	path := os.Getenv("GATEWAY")
	if appconn := os.Getenv("APPCONN"); path == "" && appconn != "" {
		path = filepath.Join(filepath.Dir(appconn), "gateway")
	}
	if path == "" {
		t.Fatal(`GATEWAY is not set: run the tests by "make test", or set it to the program that "make build" put at bin/gateway`)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func theProgramFinishesItsCallsOnSIGTERMAndExitsWithZero(t *testing.T) {
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	namespace := kubetest.Namespace(t, &cluster)
	config, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*generous)
	defer cancel()
	command := exec.CommandContext(ctx, program(t), "--kubeConfig="+config, "--listenAddress=127.0.0.1",
		"--proxyPort=0", "--proxyPortCompass=0", "--externalAPIPort=0", "--applicationSecretsNamespace="+namespace, "--allowedTargets=127.0.0.1", "--logLevel=debug")
	spans := collector.Start(t)
	command.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+spans.URL, "OTEL_BSP_SCHEDULE_DELAY=3600000") // nothing is sent before the end
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	log := watch.Log("gateway as a program")
	listening := make(chan []string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		pattern := regexp.MustCompile(`"services":"([^"]+)","entries":"[^"]+","admin":"([^"]+)"`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(log, lines.Text())
			if m := pattern.FindStringSubmatch(lines.Text()); m != nil {
				listening <- m[1:]
			}
		}
	}()
	h := &harness{t: t, namespace: namespace, log: log, watch: watch, http: &http.Client{Transport: &http.Transport{}}}
	defer h.http.CloseIdleConnections()
	h.kube = newClient(t)
	select {
	case a := <-listening:
		h.addresses.Services, h.addresses.Admin = a[0], a[1]
	case <-read:
		t.Fatalf("it ended: %v %s", command.Wait(), log)
	}
	h.eventually("it is ready", func() error {
		a, err := h.try(http.MethodGet, h.addresses.Admin, "/readyz", nil)
		if err != nil {
			return err
		}
		return expect(a.Status == 200, "%+v", a)
	})
	arrived, finish := make(chan struct{}), make(chan struct{})
	var once sync.Once
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(arrived) })
		<-finish
		io.WriteString(w, "whole")
	}))
	defer target.Close()
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "sigterm"}, Spec: v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL)}}}
	if err := h.kube.Create(ctx, app); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.kube.Delete(context.Background(), app); err != nil {
			t.Error(err)
		}
	}()
	h.eventually("the Application is known", func() error {
		a, err := h.try(http.MethodGet, h.addresses.Admin, "/metrics", nil)
		if err != nil {
			return err
		}
		return expect(strings.Contains(a.Body, "central_application_gateway_applications 1\n"), "%s", a.Body)
	})
	got := make(chan string, 1)
	go func() {
		a, err := h.try(http.MethodGet, h.addresses.Services, "/sigterm/svc", nil)
		got <- fmt.Sprint(a.Status, a.Body, err)
	}()
	<-arrived
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.eventually("it says that it is ending", func() error {
		a, err := h.try(http.MethodGet, h.addresses.Admin, "/readyz", nil)
		if err != nil {
			return err
		}
		return expect(a.Status == 503, "%+v", a)
	})
	close(finish)
	if a := <-got; a != "200whole<nil>" {
		t.Errorf("the call in flight got %s", a)
	}
	<-read
	if err := command.Wait(); err != nil {
		t.Errorf("%v; log: %s", err, log)
	}
	if got := fmt.Sprint(spans.Names()); got != "[attempt call]" {
		t.Errorf("the spans of the last call were sent: %s", got)
	}
	for _, s := range spans.Spans() {
		if s.Resource["service.name"] != "central-application-gateway" || s.Name == "call" && s.Attributes["application"] != "sigterm" {
			t.Errorf("%+v", s)
		}
	}
}

func TestASecretThatMayNotBeReadIsSaidUntilItMay(t *testing.T) {
	group := []string{v1alpha1.GroupVersion.Group}
	may := func(groups []string, resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: groups, Resources: []string{resource}, Verbs: verbs}
	}
	h := restricted(t,
		[]rbacv1.PolicyRule{may(group, "applications", "get", "list", "watch"), may(group, "applications/status", "patch")},
		[]rbacv1.PolicyRule{may([]string{""}, "secrets", "list", "watch"), may([]string{"coordination.k8s.io"}, "leases", "create", "get", "update")})
	h.run()
	h.eventually("the gateway is ready", h.gateway.Ready)
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer target.Close()
	h.secret("s", map[string]string{"username": "u", "password": "p"})
	app := h.application("unreadable", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL, with("Basic", "s", ""))}})
	if c := h.condition(app, "SecretUnreadable"); c.Status != metav1.ConditionFalse ||
		!strings.HasPrefix(c.Message, `service "svc", entry "svc api": Secret s, named by credentials.secretName, cannot be read: secrets "s" is forbidden: `) {
		t.Errorf("%+v", c)
	}
	if a := h.get("/unreadable/svc"); a.Status != 500 || a.problem(t) != "failed to read API for svc service, failed to get 's' secret" {
		t.Errorf("%+v", a)
	}
	clientset, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	role, err := clientset.RbacV1().Roles(h.namespace).Get(context.Background(), "gateway-"+h.namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role.Rules = append(role.Rules, may([]string{""}, "secrets", "get"))
	if _, err := clientset.RbacV1().Roles(h.namespace).Update(context.Background(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.condition(app, "Ready")
	if a := h.get("/unreadable/svc"); a.Status != 200 {
		t.Errorf("%+v", a)
	}
}
