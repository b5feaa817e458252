package events_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/impostor"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge"
	"github.com/application-connector/application-connector/simulator/eventing"
)

// road is an edge in front of a validator.
type road struct {
	t       *testing.T
	edge    *edge.Server
	servers *authority.Authority // signs the edge's certificate
	clients *authority.Authority // signs what the edge accepts
}

func newRoad(t *testing.T, publisher string, log io.Writer, change ...func(*events.Options)) *road {
	t.Helper()
	r := &road{t: t, servers: newAuthority(t, "servers"), clients: newAuthority(t, "clients")}
	namespace := kubetest.Namespace(t, &cluster)
	kube, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := r.servers.Issue(authority.Request{Subject: pkix.Name{CommonName: "edge"}, Hosts: []string{"localhost", "127.0.0.1"}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]map[string][]byte{
		"kyma-gateway-certs":        {"tls.crt": cert, "tls.key": key},
		"kyma-gateway-certs-cacert": {"cacert": r.clients.CA()},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
		if _, err := kube.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	o := options(t, publisher)
	for _, f := range change {
		f(&o)
	}
	validator := running(t, o, log)
	if r.edge, err = edge.Start(context.Background(), edge.Options{
		Address: "127.0.0.1:0", Upstream: "http://" + validator.ProxyAddr().String(), Config: &cluster, Namespace: namespace,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.edge.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.edge.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() bool { return status(t, validator.AdminAddr(), "/readyz") == 200 })
	return r
}

func newAuthority(t *testing.T, name string) *authority.Authority {
	t.Helper()
	a, err := authority.New(name, clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func certificate(t interface{ Fatal(...any) }, a *authority.Authority, r authority.Request) *tls.Certificate {
	cert, key, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// post sends one request over a connection of its own; cert may be nil.
func (r *road) post(cert *tls.Certificate, path, body string, header http.Header) (int, error) {
	config := &tls.Config{RootCAs: r.servers.Pool(), MinVersion: tls.VersionTLS12, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: time.Minute}
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.edge.URL()+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header = header.Clone()
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

func cloudEvent(source, id string) http.Header {
	return http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {source}, "Ce-Type": {"order.created.v1"}, "Content-Type": {"application/json"}}
}

// TestFromTheEdgeToEventing sends events over mTLS and reads them back from JetStream.
func TestFromTheEdgeToEventing(t *testing.T) {
	store, err := eventing.Start(context.Background(), eventing.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	c := kube(t)
	create(t, c, application("road-shop", nil))
	create(t, c, application("road-till", func(a *v1alpha1.Application) {
		a.Spec.CompassMetadata = &v1alpha1.CompassMetadata{Authentication: v1alpha1.Authentication{ClientIDs: []string{"till-id"}}}
	}))
	log := &leaktest.Log{}
	r := newRoad(t, store.URL(), log)
	shop := certificate(t, r.clients, authority.Request{Subject: pkix.Name{CommonName: "road-shop", Organization: []string{"Foo, Inc."}}, URIs: []string{"spiffe://shop/1"}, Hosts: []string{"shop.example"}})
	till := certificate(t, r.clients, authority.Request{Subject: pkix.Name{CommonName: "till-id", OrganizationalUnit: []string{"Müller"}}})
	stranger := certificate(t, newAuthority(t, "others"), authority.Request{Subject: pkix.Name{CommonName: "road-shop"}})

	eventually(t, "the Applications are known", func() bool {
		code, err := r.post(till, "/road-till/events", "1", cloudEvent("road-till", "warm-up"))
		return err == nil && code == 204
	})
	legacy := http.Header{"Content-Type": {"application/json"}}
	structured := http.Header{"Content-Type": {"application/cloudevents+json"}}
	for what, tc := range map[string]struct {
		cert       *tls.Certificate
		path, body string
		header     http.Header
		want       int
	}{
		"the right certificate, binary":     {shop, "/road-shop/events", `{"a":1}`, cloudEvent("road-shop", "binary"), 204},
		"the right certificate, structured": {shop, "/road-shop/v2/events", `{"specversion":"1.0","id":"structured","source":"road-shop","type":"order.created.v1","data":{"a":2}}`, structured, 204},
		"the right certificate, old format": {shop, "/road-shop/v1/events", `{"event-type":"order.created","event-type-version":"v1","event-time":"2026-01-02T03:04:05Z","event-id":"3f1c2a52-0a5e-4d3b-9d7e-0c6f3f1b2a10","data":{"a":3}}`, legacy, 200},
		"another Application's certificate": {till, "/road-shop/events", "x", cloudEvent("road-shop", "stolen"), 403},
		"an Application that is none":       {shop, "/road-nothing/events", "x", cloudEvent("road-nothing", "nothing"), 403},
		"a forged header beside":            {till, "/road-shop/events", "x", forged(cloudEvent("road-shop", "forged"), "road-shop"), 403},
		"no certificate":                    {nil, "/road-shop/events", "x", cloudEvent("road-shop", "anonymous"), 0},
		"a certificate of another CA":       {stranger, "/road-shop/events", "x", cloudEvent("road-shop", "stranger"), 0},
	} {
		got, err := r.post(tc.cert, tc.path, tc.body, tc.header)
		if got != tc.want || (err == nil) != (tc.want != 0) {
			t.Errorf("%s: %d and %v, want %d", what, got, err, tc.want)
		}
	}

	stored, err := store.Events(t.Context(), eventing.Filter{Source: "road-shop"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range stored {
		got[e.Event.ID()] = e.Event.Type() + " " + string(e.Event.Data())
	}
	want := map[string]string{
		"binary":                               `order.created.v1 {"a":1}`,
		"structured":                           `order.created.v1 {"a":2}`,
		"3f1c2a52-0a5e-4d3b-9d7e-0c6f3f1b2a10": `order.created.v1 {"a":3}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-sent +read back)\n%s", d)
	}
	// What the edge tells is a certificate: hash, serial and subject are in the audit line.
	for _, part := range []string{`"certificateHash":"` + hashOf(shop) + `"`, `"subject":"CN=road-shop,O=Foo\\, Inc."`, `"reason":"wrong_certificate"`} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("no audit line with %s", part)
		}
	}
}

func forged(h http.Header, cn string) http.Header {
	h.Set("X-Forwarded-Client-Cert", `Subject="CN=`+cn+`"`+gateway)
	h.Set("X-Verified-Application", cn)
	return h
}

// TestImpersonation tries, with certificates that the edge accepts, whatever subjects, extensions and requests may do: no
// event may ever be published in the name of an Application that is not the certificate's, and an Application's own are.
func TestImpersonation(t *testing.T) {
	publisher := impostor.NewPublisher()
	t.Cleanup(publisher.Close)
	c := kube(t)
	r := newRoad(t, publisher.URL(), io.Discard, func(o *events.Options) { o.SourcePolicy = "enforce" })
	road := impostor.Road{
		Address: strings.TrimPrefix(r.edge.URL(), "https://"), Servers: r.servers.Pool(), Clients: r.clients, Publisher: publisher,
		Create: func(a impostor.Application) { create(t, c, a.Object()) },
	}
	road.Check(t)
}

func hashOf(c *tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}
