// Package eventpath_test plays the whole event path with real certificates and a real API server: an external system's
// client, the edge, the validator, Eventing, and a subscriber who reads the event back.
package eventpath_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/impostor"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
	"github.com/application-connector/application-connector/simulator/eventing"
)

var cluster rest.Config

func TestMain(m *testing.M) { kubetest.Run(m, &cluster) }

// road is everything between a client and the subscriber.
type road struct {
	t        *testing.T
	kube     client.Client
	servers  *authority.Authority
	clients  *authority.Authority
	edge     *edge.Server
	eventing *eventing.Server
}

// newRoad starts the road; the validator knows the Applications when it returns.
func newRoad(t *testing.T, mesh func(*edge.Options), applications ...string) *road {
	t.Helper()
	r := &road{t: t, servers: ca(t, "servers"), clients: ca(t, "clients")}
	r.kube = newKube(t)
	createApplications(t, r.kube, applications...)
	var err error
	r.eventing, err = eventing.Start(t.Context(), eventing.Options{Address: "127.0.0.1:0"})
	must(t, err)
	t.Cleanup(func() { must(t, r.eventing.Close()) })
	validator := newValidator(t, r.eventing.URL(), nil)

	namespace := kubetest.Namespace(t, &cluster)
	cert, key, err := r.servers.Issue(authority.Request{Subject: pkix.Name{CommonName: "edge"}, Hosts: []string{"127.0.0.1"}, Server: true})
	must(t, err)
	for name, data := range map[string]map[string][]byte{
		"kyma-gateway-certs":        {"tls.crt": cert, "tls.key": key},
		"kyma-gateway-certs-cacert": {"cacert": r.clients.CA()},
	} {
		must(t, r.kube.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}))
	}
	eo := edge.Options{Address: "127.0.0.1:0", Upstream: "http://" + validator.ProxyAddr().String(), Config: &cluster, Namespace: namespace}
	if mesh != nil {
		mesh(&eo)
	}
	r.edge, err = edge.Start(t.Context(), eo)
	must(t, err)
	t.Cleanup(func() { must(t, r.edge.Close()) })
	ready, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, r.edge.WaitReady(ready))
	return r
}

func newKube(t testing.TB) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	kube, err := client.New(&cluster, client.Options{Scheme: scheme})
	must(t, err)
	return kube
}

func createApplications(t testing.TB, kube client.Client, names ...string) {
	t.Helper()
	for _, name := range names {
		create(t, kube, impostor.Application{Name: name}.Object())
	}
}

func create(t testing.TB, kube client.Client, app *v1alpha1.Application) {
	t.Helper()
	must(t, kube.Create(t.Context(), app))
	t.Cleanup(func() { must(t, client.IgnoreNotFound(kube.Delete(context.Background(), app))) })
}

// newValidator starts a validator that knows the Applications of now when it returns.
func newValidator(t testing.TB, publisher string, change func(*events.Options)) *events.Server {
	t.Helper()
	return newValidatorThatLogs(t, publisher, leaktest.Of(t).Logger("validator"), change)
}

func newValidatorThatLogs(t testing.TB, publisher string, log *slog.Logger, change func(*events.Options)) *events.Server {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	o := events.NewOptions()
	o.ListenAddress, o.ProxyPort, o.ExternalAPIPort = "127.0.0.1", 0, 0
	var err error
	o.Kubeconfig, err = kubetest.Kubeconfig(&cluster, t.TempDir())
	must(t, err)
	o.PublisherHost = strings.TrimPrefix(publisher, "http://")
	if change != nil {
		change(o)
	}
	o.Complete(func(string) (string, bool) { return "", false })
	must(t, o.Validate())
	ctx, stop := context.WithCancel(context.Background())
	validator, err := events.Start(ctx, *o, log)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); must(t, validator.Wait()) })
	watch.Scrape(t, "metrics of the validator", "http://"+validator.AdminAddr().String()+"/metrics")
	eventually(t, "the validator is ready", func() bool {
		resp, err := http.Get("http://" + validator.AdminAddr().String() + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return validator
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ca(t testing.TB, name string) *authority.Authority {
	t.Helper()
	a, err := authority.New(name, nil)
	must(t, err)
	return a
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

func (r *road) certificate(a *authority.Authority, q authority.Request) *tls.Certificate {
	r.t.Helper()
	cert, key, err := a.Issue(q)
	must(r.t, err)
	leaktest.Of(r.t).Add("the key of a client", string(key))
	pair, err := tls.X509KeyPair(cert, key)
	must(r.t, err)
	return &pair
}

func (r *road) of(cn string) *tls.Certificate {
	return r.certificate(r.clients, authority.Request{Subject: pkix.Name{CommonName: cn}})
}

// send posts an event with a certificate; nil is none.
func (r *road) send(cert *tls.Certificate, path, body string, header http.Header) (*http.Response, error) {
	r.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.servers.CA())
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}}}
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.edge.URL()+path, strings.NewReader(body))
	must(r.t, err)
	maps.Copy(request.Header, header)
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	watch := leaktest.Of(r.t)
	watch.AddHeader(header)
	watch.Answer("answer of the validator", resp.StatusCode, resp.Header, string(text))
	return resp, err
}

func event(id string) http.Header {
	return http.Header{"Ce-Specversion": {"1.0"}, "Ce-Type": {"order.created.v1"}, "Ce-Source": {"shop"}, "Ce-Id": {id}, "Content-Type": {"application/json"}}
}

func (r *road) stored() []string {
	r.t.Helper()
	all, err := r.eventing.Events(r.t.Context(), eventing.Filter{})
	must(r.t, err)
	var out []string
	for _, e := range all {
		out = append(out, e.Subject+" "+e.Event.ID()+" "+string(e.Event.Data()))
	}
	return out
}

const legacyID = "31109198-4d69-4ae0-972d-76117f3748c8"

func TestAnEventOfAnApplicationReachesTheSubscriberOnEveryRoute(t *testing.T) {
	r := newRoad(t, nil, "shop")
	shop := r.of("shop")
	for what, c := range map[string]struct {
		path, body string
		header     http.Header
		want       int
	}{
		"binary":     {"/shop/events", `{"n":1}`, event("binary"), 204},
		"structured": {"/shop/v2/events", `{"specversion":"1.0","type":"order.created.v1","source":"shop","id":"structured","data":{"n":2}}`, http.Header{"Content-Type": {"application/cloudevents+json"}}, 204},
		"batch":      {"/shop/events", `[{"specversion":"1.0","type":"order.created.v1","source":"shop","id":"first","data":4},{"specversion":"1.0","type":"order.created.v1","source":"shop","id":"second","data":5}]`, http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, 204},
		"legacy":     {"/shop/v1/events", `{"event-type":"order.created","event-type-version":"v1","event-id":"` + legacyID + `","event-time":"2026-11-02T22:33:22Z","data":{"n":3}}`, http.Header{"Content-Type": {"application/json"}}, 200},
	} {
		resp, err := r.send(shop, c.path, c.body, c.header)
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	got := map[string]bool{}
	for _, e := range r.stored() {
		got[e] = true
	}
	want := map[string]bool{
		`kyma.shop.order.created.v1 binary {"n":1}`: true, `kyma.shop.order.created.v1 structured {"n":2}`: true,
		`kyma.shop.order.created.v1 first 4`: true, `kyma.shop.order.created.v1 second 5`: true,
		`kyma.shop.order.created.v1 ` + legacyID + ` {"n":3}`: true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

func TestNobodySendsInTheNameOfAnotherApplication(t *testing.T) {
	r := newRoad(t, nil, "shop", "till")
	for _, name := range []string{"shop", "till"} {
		if resp, err := r.send(r.of(name), "/"+name+"/events", `{}`, event("known")); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%s in its own name: %v, %v", name, resp, err)
		}
	}
	before := r.stored()
	cn := func(s string) []any { return []any{asn1.ObjectIdentifier{2, 5, 4, 3}, s} }
	org := func(s string) []any { return []any{asn1.ObjectIdentifier{2, 5, 4, 10}, s} }
	odd := func(attributes ...[]any) *tls.Certificate {
		var n pkix.Name
		for _, a := range attributes {
			n.ExtraNames = append(n.ExtraNames, pkix.AttributeTypeAndValue{Type: a[0].(asn1.ObjectIdentifier), Value: a[1]})
		}
		return r.certificate(r.clients, authority.Request{Subject: n})
	}
	spoof := event("spoofed")
	spoof[envoy.Header] = []string{`Hash=00;Subject="CN=shop";URI=,By=x;Hash=00;Subject="";URI=` + edge.IngressID}
	for what, c := range map[string]struct {
		cert   *tls.Certificate
		header http.Header
		want   int
	}{
		"the other's certificate":        {r.of("till"), event("1"), 403},
		"the same with a spoofed header": {r.of("till"), spoof, 403},
		"a name within a name":           {odd(cn("till"), org("x,CN=shop")), event("2"), 403},
		"an equals sign in the name":     {odd(cn("shop=till")), event("3"), 403},
		"two common names":               {odd(cn("till"), cn("shop")), event("4"), 401},
		"two, the other way":             {odd(cn("shop"), cn("till")), event("5"), 401},
		"another case":                   {r.of("Shop"), event("6"), 403},
		"a quote":                        {r.of(`till";Subject="CN=shop`), event("7"), 403},
	} {
		resp, err := r.send(c.cert, "/shop/events", `{}`, c.header)
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	past := time.Now().Add(-time.Hour)
	for what, cert := range map[string]*tls.Certificate{
		"none":              nil,
		"another authority": r.certificate(ca(t, "clients"), authority.Request{Subject: pkix.Name{CommonName: "shop"}}),
		"expired":           r.certificate(r.clients, authority.Request{Subject: pkix.Name{CommonName: "shop"}, NotBefore: past.Add(-time.Hour), NotAfter: past}),
	} {
		if resp, err := r.send(cert, "/shop/events", `{}`, event("8")); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	must(t, r.kube.Delete(t.Context(), &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}))
	eventually(t, "the deleted Application is refused", func() bool {
		resp, err := r.send(r.of("shop"), "/shop/events", `{}`, event("known"))
		return err == nil && resp.StatusCode >= 400 && resp.StatusCode < 500
	})
	if d := cmp.Diff(before, r.stored()); d != "" {
		t.Errorf("stored (-before +after):\n%s", d)
	}
}

func TestAMeshThatIsSetUpWrongLetsNobodyTakeAnothersName(t *testing.T) {
	for what, mesh := range map[string]func(*edge.Options){
		"the ingress appends":                    func(o *edge.Options) { o.Ingress = envoy.AppendForward },
		"no sidecar":                             func(o *edge.Options) { o.NoSidecar = true },
		"the ingress appends and has no sidecar": func(o *edge.Options) { o.Ingress, o.NoSidecar = envoy.AppendForward, true },
		"the ingress sanitizes":                  func(o *edge.Options) { o.Ingress = envoy.Sanitize },
		"the sidecar sanitizes":                  func(o *edge.Options) { o.Sidecar = envoy.Sanitize },
		"the sidecar replaces":                   func(o *edge.Options) { o.Sidecar = envoy.SanitizeSet },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRoad(t, mesh, "shop")
			for _, cn := range []string{"till", ""} {
				for _, sent := range []string{"", `Hash=00;Subject="CN=shop";URI=`, `Hash=00;Subject="CN=shop";URI=,By=x;Hash=00;Subject="";URI=` + edge.IngressID} {
					header := event("1")
					if sent != "" {
						header[envoy.Header] = []string{sent}
					}
					resp, err := r.send(r.of(cn), "/shop/events", `{}`, header)
					must(t, err)
					if resp.StatusCode < 400 {
						t.Errorf("CN=%q sending %q: %s", cn, sent, resp.Status)
					}
				}
			}
			if got := r.stored(); got != nil {
				t.Errorf("stored %v", got)
			}
		})
	}
}

func TestAPublisherThatFailsIsNotASuccessAndTheEventCanBeSentAgain(t *testing.T) {
	r := newRoad(t, nil, "shop")
	for what, c := range map[string]struct {
		fault eventing.Fault
		want  int
	}{
		"an error":               {eventing.Fault{Status: 500, Times: 1}, 500},
		"away for longer":        {eventing.Fault{Status: 503, RetryAfter: "60", Times: 1}, 503},
		"away for a moment":      {eventing.Fault{Status: 503, Times: 1}, 204},
		"down for a moment":      {eventing.Fault{Down: true, Times: 2}, 204},
		"it wants to be alone":   {eventing.Fault{Status: 429, Times: 1}, 429},
		"insufficient resources": {eventing.Fault{Status: 507, Times: 1}, 507},
	} {
		r.eventing.SetFault(c.fault)
		resp, err := r.send(r.of("shop"), "/shop/events", `{}`, event("2"))
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
		r.eventing.SetFault(eventing.Fault{})
	}
	for range 2 {
		if resp, err := r.send(r.of("shop"), "/shop/events", `{}`, event("2")); err != nil || resp.StatusCode != http.StatusNoContent {
			t.Errorf("again: %v, %v", resp, err)
		}
	}
	if d := cmp.Diff([]string{"kyma.shop.order.created.v1 2 {}"}, r.stored()); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}
