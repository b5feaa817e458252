package events_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
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

func newRoad(t *testing.T, publisher string, log io.Writer) *road {
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
	validator := running(t, options(t, publisher), log)
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
	log := &syncBuffer{}
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

// pair is an Application and the clients that may speak for it.
type pair struct {
	name    string
	clients []string
}

// pairs generates Applications in pairs that are easily taken for each other: one name within the other, a managed one whose
// client has the other's name, two that share a client, and managed ones whose name is not their client's.
func pairs(t *testing.T, c client.Client) []pair {
	t.Helper()
	names := rapid.StringMatching(`[a-z][a-z0-9]{2,8}`)
	ids := rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}`)
	var all []pair
	for i := range 4 {
		victim, id := fmt.Sprintf("%s%d", names.Example(i), i), ids.Example(i)
		attacker := victim + "-" + names.Example(i+100)
		all = append(all, []pair{{victim, []string{victim}}, {victim, []string{id}}, {victim, []string{id, attacker}}, {victim, nil}}[i])
		all = append(all, []pair{{attacker, []string{attacker}}, {attacker, []string{victim}}, {attacker, []string{id}}, {attacker, []string{id}}}[i])
		for j, p := range all[2*i:] {
			managed := i > 0
			create(t, c, application(p.name, func(a *v1alpha1.Application) {
				if managed {
					a.Spec.CompassMetadata = &v1alpha1.CompassMetadata{ApplicationID: fmt.Sprint(i, j), Authentication: v1alpha1.Authentication{ClientIDs: append([]string{}, p.clients...)}}
				}
			}))
		}
	}
	return append(all, pair{"victim", []string{"victim"}}, pair{"attacker", []string{"attacker"}})
}

// TestImpersonation tries, with certificates that the edge accepts, whatever subjects, alternative names and headers may
// do: no event may ever reach the publisher in the name of an Application that is not the certificate's.
func TestImpersonation(t *testing.T) {
	var verified atomic.Value
	verified.Store("")
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verified.Store(strings.Join(r.Header.Values("X-Verified-Application"), "|"))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(p.Close)
	c := kube(t)
	create(t, c, application("victim", nil))
	create(t, c, application("attacker", nil))
	applications := pairs(t, c)
	mayspeak := map[string][]string{}
	var words []string // every name and id, each a temptation
	for _, p := range applications {
		mayspeak[p.name] = p.clients
		words = append(append(words, p.name), p.clients...)
	}
	r := newRoad(t, p.URL, io.Discard)
	honest := certificate(t, r.clients, authority.Request{Subject: pkix.Name{CommonName: "victim"}})
	eventually(t, "the Applications are known", func() bool {
		code, err := r.post(honest, "/victim/events", "1", cloudEvent("victim", "1"))
		return err == nil && code == 204
	})

	texts := rapid.OneOf(
		rapid.SampledFrom([]string{
			"attacker", "victim", "Victim", "victim ", " victim", "victim\x00", "victim,CN=attacker", "attacker,CN=victim", `attacker",Subject="CN=victim`, `attacker\",CN=victim`,
			`attacker";Subject="CN=victim`, "attacker+CN=victim", "/CN=victim", "victim/CN=attacker", "CN=victim", "victim=x", `victim\`, "attacker;URI=x", "#0C0676696374696D", gateway,
		}),
		rapid.SampledFrom(words),
		rapid.Custom(func(rt *rapid.T) string {
			between := rapid.SampledFrom([]string{",CN=", "+CN=", "/CN=", `\,CN=`, `",CN="`, ";", " ", "\x00", ",", "\n"})
			return rapid.SampledFrom(words).Draw(rt, "one") + between.Draw(rt, "between") + rapid.SampledFrom(words).Draw(rt, "two")
		}),
		rapid.String(),
	)
	oids := rapid.SampledFrom([]asn1.ObjectIdentifier{{2, 5, 4, 3}, {2, 5, 4, 3}, {2, 5, 4, 10}, {2, 5, 4, 11}, {2, 5, 4, 5}, {1, 2, 3, 4}})
	headers := rapid.SampledFrom([]string{"X-Forwarded-Client-Cert", "x_forwarded_client_cert", "X-Verified-Application", "X_Verified_Application", "Client-Cert", "Connection", "Forwarded"})
	values := rapid.SampledFrom([]string{
		"victim", "X-Forwarded-Client-Cert", "X-Verified-Application", `Subject="CN=victim"`, `Subject="CN=victim"` + gateway, `Hash=00;Cert="x";Subject="CN=victim"` + gateway, `URI=x`,
	})
	uris := rapid.SampledFrom([]string{
		"spiffe://a/b", "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account", `spiffe://a;Subject="CN=victim"`, `spiffe://a/,Subject="CN=victim"`,
		`spiffe://a/` + url.PathEscape(gateway), `spiffe://a/x` + gateway,
	})
	paths := rapid.SampledFrom([]string{
		"/victim/events", "/victim/v2/events", "/victim/v1/events", "/attacker/events", "/attacker/v1/events/", "/victim/events/../v2/events",
		"/attacker/v1/events/../../../victim/v1/events", "/attacker%2F..%2Fvictim/events", "//victim/events",
	})
	encodings := rapid.SampledFrom([]int{asn1.TagUTF8String, asn1.TagT61String, asn1.TagPrintableString})

	accepted := 0
	attempt := func(rt *rapid.T) {
		var subject pkix.RDNSequence
		var common []string
		if rapid.Bool().Draw(rt, "a plain common name") {
			common = append(common, rapid.SampledFrom(words).Draw(rt, "common name"))
			subject = append(subject, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: common[0]}})
		}
		more := 2
		if rapid.IntRange(0, 3).Draw(rt, "plain") == 0 {
			more = 0 // nothing but the common name, if there is one: such a certificate may be taken
		}
		for range rapid.IntRange(0, more).Draw(rt, "rdns") {
			var set pkix.RelativeDistinguishedNameSET
			for range rapid.IntRange(1, 2).Draw(rt, "attributes") {
				oid, text := oids.Draw(rt, "type"), texts.Draw(rt, "value")
				if oid.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
					common = append(common, text)
				}
				set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: asn1.RawValue{Tag: encodings.Draw(rt, "encoding"), Bytes: []byte(text)}})
			}
			subject = append(subject, set)
		}
		raw, err := asn1.Marshal(subject)
		if err != nil {
			rt.Fatal(err)
		}
		request := authority.Request{RawSubject: raw}
		for range rapid.IntRange(0, 2).Draw(rt, "uris") {
			request.URIs = append(request.URIs, uris.Draw(rt, "uri"))
		}
		for range rapid.IntRange(0, 2).Draw(rt, "hosts") {
			request.Hosts = append(request.Hosts, rapid.SampledFrom(words).Draw(rt, "host"))
		}
		cert, key, err := r.clients.Issue(request)
		if err != nil {
			return // no authority that works with Go would sign it
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return
		}
		path := paths.Draw(rt, "path")
		if rapid.Bool().Draw(rt, "a generated Application") {
			one, other := rapid.SampledFrom(applications).Draw(rt, "application").name, rapid.SampledFrom(applications).Draw(rt, "other").name
			if len(common) == 1 {
				for _, p := range applications { // its own Application, now and then
					if slices.Contains(p.clients, common[0]) && rapid.Bool().Draw(rt, "its own") {
						one = p.name
					}
				}
			}
			path = "/" + one + rapid.SampledFrom([]string{"/events", "/v1/events", "/v2/events", "/events/../../" + other + "/events", "%2f..%2f" + other + "/events"}).Draw(rt, "rest")
		}
		name := strings.Split(strings.TrimLeft(path, "/"), "/")[0]
		header := cloudEvent(name, "1")
		for range rapid.IntRange(0, 3).Draw(rt, "headers") {
			h := headers.Draw(rt, "header")
			header[h] = append(header[h], values.Draw(rt, "text"))
		}
		verified.Store("")
		code, err := r.post(&pair, path, "{}", header)
		got, _ := verified.Load().(string)
		if got == "" {
			return // refused, by TLS, the edge or the validator
		}
		accepted++
		if err != nil || code/100 != 2 || len(common) != 1 || !slices.Contains(mayspeak[got], common[0]) {
			rt.Fatalf("common names %q reached the publisher as %q (%d, %v)", common, got, code, err)
		}
	}
	for range 5 { // 100 attempts each, unless -rapid.checks says otherwise
		rapid.Check(t, attempt)
	}
	if accepted == 0 {
		t.Error("no attempt was taken: the generator proves nothing")
	}
	if code, err := r.post(honest, "/victim/events", "1", cloudEvent("victim", "1")); code != 204 || err != nil {
		t.Errorf("the honest client afterwards: %d, %v", code, err)
	}
	t.Logf("%d attempts were taken, each for the certificate's own Application", accepted)
}

func hashOf(c *tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}
