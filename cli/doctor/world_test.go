package doctor_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/compass"
	"github.com/application-connector/application-connector/simulator/systems"
)

var cluster rest.Config

func TestMain(m *testing.M) {
	nameserver()
	kubetest.Run(m, &cluster)
}

// nameserver has every name looked up here that no hosts file knows: names that begin with "broken" fail, all others do not
// exist.
func nameserver() {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			var query dnsmessage.Message
			if query.Unpack(buffer[:n]) != nil || len(query.Questions) != 1 {
				continue
			}
			answer := dnsmessage.Message{
				Header:    dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true, RCode: dnsmessage.RCodeNameError},
				Questions: query.Questions,
			}
			if strings.HasPrefix(query.Questions[0].Name.String(), "broken") {
				answer.RCode = dnsmessage.RCodeServerFailure
			}
			packed, err := answer.Pack()
			if err != nil {
				panic(err)
			}
			_, _ = socket.WriteTo(packed, from)
		}
	}()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", socket.LocalAddr().String())
	}}
}

const (
	tenant = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	// What the tests make secret themselves.
	password     = "canary-password-71c0"
	clientSecret = "canary-client-secret-71c0"
	apiKey       = "canary-api-key-71c0"
	gibberish    = "canary-gibberish-71c0"
)

// shared is what one test does not break for another.
var shared = sync.OnceValue(func() *commons {
	c := &commons{}
	var err error
	// They end with the process.
	if c.compass, err = compass.Start(context.Background(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{{ID: tenant}}}}); err != nil {
		panic(err)
	}
	if c.systems, err = systems.Start(context.Background(), systems.Options{
		Address: "127.0.0.1:0", TLSAddress: "127.0.0.1:0", MTLSAddress: "127.0.0.1:0", ExpiredAddress: "127.0.0.1:0",
		Credentials: systems.Credentials{Username: "user", Password: password, ClientID: "client", ClientSecret: clientSecret, APIKey: apiKey, Region: "eu"},
	}); err != nil {
		panic(err)
	}
	if c.key, err = certs.GenerateKey(2048); err != nil {
		panic(err)
	}
	if c.authority, err = authority.New("other authority", nil); err != nil {
		panic(err)
	}
	return c
})

type commons struct {
	compass   *compass.Server
	systems   *systems.Server
	key       *rsa.PrivateKey
	authority *authority.Authority
}

// world is a cluster with all that the command looks at, and all is well in it. Faults are planted by changing it.
type world struct {
	*commons
	t      *testing.T
	client client.Client

	namespace, runtimeID, application string
	istio                             string // the version of Istio's objects; v1 if it is empty
	env                               map[string]string
	flags                             []string
	now                               time.Time
	watch                             *leaktest.Watch
	// known are texts that differ from run to run, with what stands for them.
	known []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		commons: shared(), t: t, client: c, watch: leaktest.Of(t), namespace: kubetest.Namespace(t, &cluster), runtimeID: uuid.NewString(),
		application: "shop-" + uuid.NewString()[:8], now: time.Now(),
	}
	// The test itself writes secrets into URLs of Applications, and the command writes no object: these are not looked at.
	w.watch.Add("the token of the kubeconfig", cluster.BearerToken)
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	w.env = map[string]string{
		"APP_AGENT_CONFIGURATION_SECRET": w.namespace + "/compass-agent-configuration", "APP_CLUSTER_CERTIFICATES_SECRET": w.namespace + "/cluster-client-certificates",
		"APP_CA_CERTIFICATES_SECRET": w.namespace + "/kyma-gateway-certs-cacert", "APP_INTEGRATION_NAMESPACE": w.namespace, "APP_COMPASS_CA_FILE": file("compass.crt", w.compass.ServerCA()),
	}
	w.flags = []string{"--target-ca-file=" + file("systems.crt", append(w.systems.CA(), w.authority.CA()...)), "--allowed-targets=127.0.0.0/8,::1"}
	for place, url := range map[string]string{
		"DIRECTOR": w.compass.DirectorURL(), "CONNECTOR": w.compass.TokenURL(), "SYSTEM": w.systems.HTTPSURL(), "PLAIN": w.systems.HTTPURL(),
		"MUTUAL": w.systems.MTLSURL(), "EXPIRED": w.systems.ExpiredURL(), "CLUSTER": cluster.Host,
	} {
		w.knows(hostOf(url), place)
	}
	w.knows(w.namespace, "NAMESPACE")
	w.knows(w.runtimeID, "RUNTIME")
	w.knows(w.application, "shop")
	for _, s := range []string{password, clientSecret, apiKey, gibberish} {
		w.watch.Add("a secret of the test", s)
	}
	if _, err := w.compass.Admin().PutRuntime(tenant, compass.Runtime{ID: w.runtimeID, Name: w.application}); err != nil {
		t.Fatal(err)
	}
	w.pair()
	w.connect()
	w.sell()
	t.Cleanup(func() {
		for _, o := range []client.Object{&compassv1alpha1.CompassConnection{}, &v1alpha1.Application{}} {
			if err := w.client.DeleteAllOf(context.Background(), o); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// knows has a text that differs from run to run replaced.
func (w *world) knows(text, place string) { w.known = append(w.known, text, place) }

// told is what a run told.
type told struct {
	code           int
	line           string // the error, as it is printed
	stdout, stderr string
}

// examine runs the command. Nothing secret may be in what it tells.
func (w *world) examine(args ...string) told {
	w.t.Helper()
	path, err := kubetest.Kubeconfig(&cluster, w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	o := doctor.NewOptions(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &stdout, ErrOut: &stderr})
	env := maps.Clone(w.env)
	o.Getenv = func(name string) string { return env[name] }
	o.Clock = clocktesting.NewFakePassiveClock(w.now)
	cmd := o.Command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true // as the root command does
	cmd.SetArgs(append(append([]string{"--kubeconfig", path}, w.flags...), args...))
	out := told{}
	if err := cmd.ExecuteContext(w.t.Context()); err != nil {
		var coded interface{ ExitCode() int }
		if !errors.As(err, &coded) {
			w.t.Fatal(err)
		}
		out.code, out.line = coded.ExitCode(), err.Error()
	}
	out.stdout, out.stderr = stdout.String(), stderr.String()
	w.watch.Told("output of appconn doctor", out.stdout+out.stderr)
	w.watch.Told("error of appconn doctor", out.line)
	if w.watch.Secrets.Len() < 10 {
		w.t.Error("there is nothing to look for")
	}
	out.line, out.stdout = w.plain(out.line), w.plain(out.stdout)
	return out
}

var (
	anyTime        = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	anyUUID        = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	loopback       = regexp.MustCompile(`localhost is [0-9a-f:.]+(, [0-9a-f:.]+)*`)
	anyFingerprint = regexp.MustCompile(`[0-9a-f]{64}`)
)

// plain has what differs from run to run replaced.
func (w *world) plain(s string) string {
	s = strings.NewReplacer(w.known...).Replace(s)
	s = strings.ReplaceAll(s, tenant, "TENANT")
	s = loopback.ReplaceAllString(s, "localhost is LOOPBACK")
	s = anyTime.ReplaceAllString(s, "TIME")
	s = anyFingerprint.ReplaceAllString(s, "FINGERPRINT")
	return anyUUID.ReplaceAllString(s, "UUID")
}

// report runs the command for JSON.
func (w *world) report(args ...string) (doctor.Report, told) {
	w.t.Helper()
	out := w.examine(append(args, "-o", "json")...)
	var r doctor.Report
	decoder := json.NewDecoder(strings.NewReader(out.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		w.t.Fatalf("%v: %s", err, out.stdout)
	}
	return r, out
}

// closed is the address of a port on which nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// endpoint starts a server without TLS, with an answer of the test's own.
func (w *world) endpoint(place string, handler http.HandlerFunc) string {
	s := httptest.NewServer(handler)
	w.t.Cleanup(s.Close)
	w.knows(hostOf(s.URL), place)
	return s.URL
}

// hostOf is host:port of a URL.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u.Host
}
