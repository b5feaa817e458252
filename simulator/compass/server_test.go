package compass

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func shopSeed() Seed {
	return Seed{Tenants: []Tenant{{
		ID:       testTenant,
		Runtimes: []Runtime{{ID: testRuntime, Name: "local", Formations: []string{"default"}}},
		Applications: []Application{{
			ID: "5b0d0000-0000-4000-8000-000000000001", Name: "Shop (EU)", SystemNumber: "12", Formations: []string{"default"},
			Bundles: []Bundle{{Name: "Orders", Auth: &Auth{Credential: Credential{Basic: &Basic{"u", "p"}}},
				APIs:   []API{{Name: "Orders API", TargetURL: "https://shop.example.com/orders"}},
				Events: []Event{{Name: "order.created"}}}},
		}},
	}}}
}

func TestARuntimeGoesFromATokenToItsApplications(t *testing.T) {
	s := startCompass(t, Options{Seed: shopSeed()})
	cert := pairRuntime(t, s, testRuntime)
	c := caller{t: t, server: s, cert: cert, tenant: testTenant}

	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf.NotAfter.Sub(leaf.NotBefore); got != DefaultCertificateValidity {
		t.Errorf("certificate is valid for %s, want %s", got, DefaultCertificateValidity)
	}
	if leaf.SerialNumber.Int64() != 2 {
		t.Errorf("serial number %s, want 2", leaf.SerialNumber)
	}

	var viewer struct {
		Viewer struct{ ID, Type string }
	}
	c.query(s.DirectorURL(), `{ viewer { id type } }`, nil).data(t, &viewer)
	if viewer.Viewer.ID != testRuntime || viewer.Viewer.Type != "RUNTIME" {
		t.Errorf("viewer %+v", viewer)
	}

	got := c.query(s.DirectorURL(), `query($id: ID!) { applicationsForRuntime(runtimeID: $id) { totalCount data { name bundles { data { name
		defaultInstanceAuth { credential { __typename ... on BasicCredentialData { username password } } }
		apiDefinitions { data { name targetURL } } eventDefinitions { data { name } } } } } } }`, map[string]any{"id": testRuntime})
	want := `{"data":{"applicationsForRuntime":{"totalCount":1,"data":[{"name":"mp-shop-eu-12","bundles":{"data":[{"name":"Orders",` +
		`"defaultInstanceAuth":{"credential":{"__typename":"BasicCredentialData","username":"u","password":"p"}},` +
		`"apiDefinitions":{"data":[{"name":"Orders API","targetURL":"https://shop.example.com/orders"}]},` +
		`"eventDefinitions":{"data":[{"name":"order.created"}]}}]}}]}}}`
	if diff := cmp.Diff(want, string(got.Body)); diff != "" {
		t.Error(diff)
	}

	var label struct {
		SetRuntimeLabel struct{ Key, Value string }
	}
	c.query(s.DirectorURL(), `mutation($id: ID!) { setRuntimeLabel(runtimeID: $id, key: "runtime_eventServiceUrl", value: "https://gateway.example.com") { key value } }`,
		map[string]any{"id": testRuntime}).data(t, &label)
	status, err := s.Admin().RuntimeStatus(testRuntime)
	if err != nil {
		t.Fatal(err)
	}
	wantLabels := map[string]any{"isNormalized": "true", "runtimeType": "kyma", "scenarios": []any{"default"},
		"runtime_eventServiceUrl": "https://gateway.example.com", "useBundles": "true"}
	if diff := cmp.Diff(wantLabels, status.Labels); diff != "" || status.Condition != "CONNECTED" {
		t.Errorf("condition %s, labels %s", status.Condition, diff)
	}
}

func TestAnApplicationGetsACertificateNamedAsItsSystemAuth(t *testing.T) {
	seed := shopSeed()
	app := seed.Tenants[0].Applications[0].ID
	s := startCompass(t, Options{Seed: seed})
	token, err := s.Admin().ApplicationToken(app)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair(t, s, token.Token).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	got := caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime)}.query(s.DirectorURL(),
		`query($id: ID!) { application(id: $id) { name auths { id auth { certCommonName } } } }`, map[string]any{"id": app})
	want := `{"data":{"application":{"name":"Shop (EU)","auths":[{"id":"` + leaf.Subject.CommonName + `","auth":null}]}}}`
	if diff := cmp.Diff(want, string(got.Body)); diff != "" {
		t.Error(diff)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	first := startCompass(t, Options{Seed: shopSeed(), StateDir: dir})
	cert := pairRuntime(t, first, testRuntime)
	token, err := first.Admin().RuntimeToken(testRuntime)
	if err != nil {
		t.Fatal(err)
	}
	id, err := first.Admin().PutApplication(testTenant, Application{Name: "Later", Formations: []string{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	ca := string(first.ServerCA())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second := startCompass(t, Options{StateDir: dir})
	if string(second.ServerCA()) != ca {
		t.Error("the servers' CA changed")
	}
	var apps struct {
		ApplicationsForRuntime struct{ Data []struct{ ID string } }
	}
	caller{t: t, server: second, cert: cert}.query(second.DirectorURL(), `query($id: ID!) { applicationsForRuntime(runtimeID: $id) { data { id } } }`,
		map[string]any{"id": testRuntime}).data(t, &apps)
	found := false
	for _, a := range apps.ApplicationsForRuntime.Data {
		found = found || a.ID == id
	}
	if len(apps.ApplicationsForRuntime.Data) != 2 || !found {
		t.Errorf("applications after the restart: %+v, want 2 with %s", apps, id)
	}
	pair(t, second, token.Token)
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	taken := startCompass(t, Options{})
	busy := taken.AdminURL()[len("http://"):]
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"an administrator's listener for the world": {Options{AdminAddress: "0.0.0.0:0"},
			`compass: AdminAddress "0.0.0.0:0": want a loopback host such as 127.0.0.1: the administrator's listener asks for no credentials`},
		"an address without a port": {Options{TokenAddress: "localhost"},
			`compass: TokenAddress "localhost": want host:port: address localhost: missing port in address`},
		"a negative validity": {Options{CertificateValidity: -time.Hour}, `compass: CertificateValidity -1h0m0s: want more than 0`},
		"a port that is taken": {Options{MTLSAddress: busy},
			"compass: mTLS endpoint: listen tcp " + busy + ": bind: address already in use"},
		"a seed that is wrong": {Options{Seed: Seed{Tenants: []Tenant{{ID: "x"}}}}, `compass: seed: tenants[0].id: "x" is not a UUID in lower case`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Start(t.Context(), test.options)
			if err == nil {
				_ = s.Close()
				t.Fatal("it started")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHTTP2ClientsAreServedAndCutOff(t *testing.T) {
	f := newFaultFixture(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.server.ServerCA())
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{*f.runtime.cert}, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	post := func() (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.DirectorURL(), strings.NewReader(`{"query":"{ viewer { type } }"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentTypeJSON)
		return (&http.Client{Transport: transport, Timeout: testDeadline}).Do(req)
	}
	resp, err := post()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.ProtoMajor != 2 || string(body) != viewerAnswer {
		t.Errorf("HTTP/%d, error %v, body %s", resp.ProtoMajor, err, body)
	}
	f.set(Fault{Kind: FaultTruncated, Bytes: 5})
	if resp, err = post(); err != nil {
		t.Fatal(err)
	}
	body, err = io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil || string(body) != viewerAnswer[:5] {
		t.Errorf("error %v, body %q; want an error after five bytes", err, body)
	}
}
