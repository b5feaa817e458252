package gateway_test

import (
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/systems"
)

func startSystems(t *testing.T) *systems.Server {
	t.Helper()
	const local = "127.0.0.1:0"
	s, err := systems.Start(context.Background(), systems.Options{
		Address: local, TLSAddress: local, MTLSAddress: local, ExpiredAddress: local, OnSecret: leaktest.Of(t).Add,
		// Long enough to be looked for where they must not be.
		Credentials: systems.Credentials{Password: "a-password-5c1e", ClientSecret: "a-client-secret-5c1e", APIKey: "an-api-key-5c1e"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// trusting makes the gateway trust the systems' certificates.
func trusting(t *testing.T, s *systems.Server) func(*gateway.Options) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, s.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *gateway.Options) { o.TargetCAFile = file }
}

// pair is a client certificate and its key, as a Secret holds them.
func certificatePair(t *testing.T, s *systems.Server, cn string) map[string]string {
	t.Helper()
	crt, key, err := s.ClientCertificate(cn)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"crt": string(crt), "key": string(key)}
}

func merge(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func TestEachKindOfCredentialIsAcceptedByItsAPIOnBothPorts(t *testing.T) {
	s := startSystems(t)
	h := start(t, trusting(t, s))
	c := s.Credentials()
	basic := map[string]string{"username": c.Username, "password": c.Password.Reveal()}
	id := map[string]string{"clientId": c.ClientID}
	h.secret("basic", basic)
	h.secret("oauth", merge(id, map[string]string{"clientSecret": c.ClientSecret.Reveal()}))
	h.secret("oauth-mtls", merge(id, certificatePair(t, s, "token client")))
	h.secret("certificate", certificatePair(t, s, "api client"))
	h.secret("parameters", map[string]string{
		"headers": fmt.Sprintf(`{"X-Api-Key":[%q]}`, c.APIKey.Reveal()), "queryParameters": fmt.Sprintf(`{"region":[%q]}`, c.Region),
	})
	change := map[string]func(*v1alpha1.Entry){}
	var services []v1alpha1.Service
	for _, a := range s.APIs() {
		change[a.Name] = map[string]func(*v1alpha1.Entry){
			"none": func(*v1alpha1.Entry) {}, "basic": with("Basic", "basic", ""), "oauth": with("OAuth", "oauth", a.TokenURL),
			"oauth-mtls": with("OAuthWithCert", "oauth-mtls", a.TokenURL), "certificate": with("CertificateGen", "certificate", ""),
			"csrf": with("Basic", "basic", ""), "parameters": withParameters("parameters"),
		}[a.Name]
		changes := []func(*v1alpha1.Entry){change[a.Name]}
		if a.CSRFTokenURL != "" {
			changes = append(changes, withCSRF(a.CSRFTokenURL))
		}
		services = append(services, api(a.Name, a.URL, changes...))
	}
	h.application("kinds", v1alpha1.ApplicationSpec{Services: services})
	want := map[string]systems.Caller{
		"none": {Kind: "none"}, "basic": {Kind: "basic", User: c.Username}, "oauth": {Kind: "oauth", ClientID: c.ClientID},
		"oauth-mtls":  {Kind: "oauth-mtls", ClientID: c.ClientID, CertificateSubject: "CN=token client"},
		"certificate": {Kind: "certificate", CertificateSubject: "CN=api client"},
		"csrf":        {Kind: "basic", User: c.Username, CSRF: true}, "parameters": {Kind: "parameters"},
	}
	for name, caller := range want {
		for _, at := range []struct{ address, path string }{
			{h.addresses.Services, "/kinds/" + name + "/orders/1?expand=all"},
			{h.addresses.Entries, "/kinds/" + name + "/" + name + "-api/orders/1?expand=all"},
		} {
			for range 2 { // the second time with what is kept of the first
				a := h.do(http.MethodPost, at.address, at.path, strings.NewReader(`{"n":1}`))
				var seen systems.Seen
				if err := json.Unmarshal([]byte(a.Body), &seen); a.Status != 200 || err != nil {
					t.Errorf("%s: %d %s", at.path, a.Status, a.Body)
					continue
				}
				if diff := cmp.Diff(caller, seen.Caller); diff != "" {
					t.Errorf("%s: %s", at.path, diff)
				}
				if seen.Method != "POST" || seen.Path != "/api/"+name+"/orders/1" || !strings.HasPrefix(seen.Query, "expand=all") || seen.Body != `{"n":1}` {
					t.Errorf("%s: the API saw %+v", at.path, seen)
				}
			}
		}
	}
	for endpoint, count := range s.Counts() {
		if strings.Contains(endpoint, "token") && count.Requests > 1 {
			t.Errorf("%s was asked %d times", endpoint, count.Requests)
		}
	}
}

func TestARotatedSecretIsInForceWithoutARestart(t *testing.T) {
	s := startSystems(t)
	h := start(t, trusting(t, s))
	set := func(password string) {
		c := s.Credentials()
		h.secret("basic", map[string]string{"username": c.Username, "password": password})
	}
	set(s.Credentials().Password.Reveal())
	h.application("rotation", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", s.HTTPURL()+"/v1/api/basic/ok", with("Basic", "basic", ""))}})
	for i := range 5 {
		if a := h.get("/rotation/svc"); a.Status != 200 {
			t.Fatalf("before: %+v", a)
		}
		c := s.Credentials()
		c.Password = "rotated-" + c.Password
		s.SetCredentials(c)
		if a := h.get("/rotation/svc"); a.Status != 403 {
			t.Fatalf("rotation %d: with the old password: %+v", i, a)
		}
		set(c.Password.Reveal())
		begin := time.Now()
		h.eventually("the new password is in force", func() error {
			a := h.get("/rotation/svc")
			return expect(a.Status == 200, "%d", a.Status)
		})
		t.Logf("in force after %s", time.Since(begin).Round(time.Millisecond))
	}
}

func TestASecretThatComesLaterOrGoesIsNoticed(t *testing.T) {
	s := startSystems(t)
	h := start(t)
	h.application("late", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", s.HTTPURL()+"/v1/api/basic/ok", with("Basic", "late", ""))}})
	if a := h.get("/late/svc"); a.Status != 500 || a.problem(t) != "failed to read API for svc service, secret 'late' not found" {
		t.Errorf("%+v", a)
	}
	h.secret("late", map[string]string{"username": "user", "password": s.Credentials().Password.Reveal()})
	status := func(want int) func() error {
		return func() error {
			a := h.get("/late/svc")
			return expect(a.Status == want, "%d", a.Status)
		}
	}
	h.eventually("the Secret is in force", status(200))
	h.deleteSecret("late")
	h.eventually("the Secret is gone", status(500))
}

// informational calls a URL and returns the status of the last answer before the final one; 0 if there was none.
func informational(t *testing.T, url string) int {
	t.Helper()
	got := 0
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { got = code; return nil },
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return got
}

func TestConformance(t *testing.T) { conformance(t, false) }

func TestConformanceCompass(t *testing.T) { conformance(t, true) }

// conformance plays the cases that the clusters in use are tested with, by number, and their equivalents on the port for
// entries.
func conformance(t *testing.T, compass bool) {
	s := startSystems(t)
	h := start(t, func(o *gateway.Options) { o.ProxyTimeout = 5 })
	plain, mtls, expired := s.HTTPURL()+"/v1/api/", s.MTLSURL()+"/v1/api/", s.ExpiredURL()+"/v1/api/"
	id := map[string]string{"clientId": "clientID"}
	right := certificatePair(t, s, "client")
	other := certificatePair(t, startSystems(t), "client")
	crt, key, err := s.IssueClientCertificate(authority.Request{
		Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]string{"crt": "notBefore=long ago\n" + string(crt), "key": string(key)}
	for name, data := range map[string]map[string]string{
		"basic": {"username": "user", "password": s.Credentials().Password.Reveal()}, "oauth": {"clientId": "clientID", "clientSecret": s.Credentials().ClientSecret.Reveal()},
		"wrong-oauth": {"clientId": "bad id", "clientSecret": "bad secret"}, "mtls": right, "mtls-oauth": merge(right, id),
		"mtls-oauth-other-ca": merge(other, id), "mtls-oauth-other-id": merge(right, map[string]string{"clientId": "incorrect"}), "mtls-oauth-old": merge(old, id),
		"mtls-other-ca": other, "mtls-old": old,
		"parameters":       {"headers": `{"Hkey1":["Hval1"],"Hkey2":["Hval21","Hval22"]}`, "queryParameters": `{"Qkey1":["Qval1"],"Qkey2":["Qval21","Qval22"]}`},
		"wrong-parameters": {"headers": `{"Hkey1":["wrong"],"Hkey3":["Hval21"]}`, "queryParameters": `{"Qkey1":["Qval1"]}`},
	} {
		h.secret(name, data)
	}
	oauth := func(secret, url string) func(*v1alpha1.Entry) { return with("OAuth", secret, url) }
	cert := func(secret string) func(*v1alpha1.Entry) { return with("CertificateGen", secret, "") }
	mtlsOAuth := func(secret string) func(*v1alpha1.Entry) {
		return with("OAuthWithCert", secret, mtls+"mtls-oauth/token")
	}
	basic, token, goodCSRF, badCSRF, noCSRF := with("Basic", "basic", ""), plain+"oauth/token", withCSRF(plain+"csrf/token"), withCSRF(plain+"csrf/bad-token"), withCSRF(plain+"csrf/nonexistingpath")
	type change = func(*v1alpha1.Entry)
	type testCase struct {
		name    string
		target  string
		changes []change
		status  int
		body    string // "JSON" for an error of the gateway, "-" for none, "" for any
	}
	cases := []testCase{
		{"unsecure-always-ok", plain + "unsecure/ok", nil, 200, ""},
		{"basic-auth-ok", plain + "basic/ok", []change{basic}, 200, ""},
		{"oauth", plain + "oauth/ok", []change{oauth("oauth", token)}, 200, ""},
		{"mtls-oauth", plain + "oauth/ok", []change{mtlsOAuth("mtls-oauth")}, 200, ""},
		{"mtls", mtls + "mtls/ok", []change{cert("mtls")}, 200, ""},
		{"csrf basic", plain + "csrf-basic/ok", []change{basic, goodCSRF}, 200, ""},
		{"csrf-oauth", plain + "csrf-oauth/ok", []change{oauth("oauth", token), goodCSRF}, 200, ""},
		{"csrf-mtls-oauth", plain + "csrf-oauth/ok", []change{mtlsOAuth("mtls-oauth"), goodCSRF}, 200, ""},
		{"csrf-mtls", mtls + "csrf-mtls/ok", []change{cert("mtls"), goodCSRF}, 200, ""},
		{"basic-auth-with-request-parameters", plain + "request-parameters-basic/ok", []change{basic, withParameters("parameters")}, 200, ""},
		{"bad-oauth-token", plain + "oauth/ok", []change{oauth("oauth", plain+"oauth/bad-token")}, 401, ""},
		{"wrong-oauth-secret", plain + "oauth/ok", []change{oauth("wrong-oauth", token)}, 502, "JSON"},
		{"mtls-oauth-other-ca", plain + "oauth/ok", []change{mtlsOAuth("mtls-oauth-other-ca")}, 500, "JSON"},
		{"mtls-oauth-incorrect-clientid", plain + "oauth/ok", []change{mtlsOAuth("mtls-oauth-other-id")}, 500, "JSON"},
		{"mtls-oauth-expired-client-cert", plain + "oauth/ok", []change{mtlsOAuth("mtls-oauth-old")}, 500, "JSON"},
		{"mtls-oauth-expired-server-cert", plain + "oauth/ok", []change{with("OAuthWithCert", "mtls-oauth-old", expired+"mtls-oauth/token")}, 500, "JSON"},
		{"mtls-other-ca", mtls + "mtls/ok", []change{cert("mtls-other-ca")}, 502, "-"},
		{"mtls-expired-client-cert", mtls + "mtls/ok", []change{cert("mtls-old")}, 502, "-"},
		{"mtls-expired-server-cert", expired + "mtls/ok", []change{cert("mtls-old")}, 502, "-"},
		{"bad-csrf-token-basic", plain + "csrf-basic/ok", []change{basic, badCSRF}, 403, ""},
		{"bad-csrf-endpoint-basic", plain + "csrf-basic/ok", []change{basic, noCSRF}, 502, "JSON"},
		{"bad-csrf-token-oauth", plain + "csrf-oauth/ok", []change{oauth("oauth", token), badCSRF}, 403, ""},
		{"bad-csrf-endpoint-oauth", plain + "csrf-oauth/ok", []change{oauth("oauth", token), noCSRF}, 502, "JSON"},
		{"bad-csrf-token-mtls-oauth", plain + "csrf-oauth/ok", []change{mtlsOAuth("mtls-oauth"), badCSRF}, 403, ""},
		{"bad-csrf-endpoint-mtls-oauth", plain + "csrf-oauth/ok", []change{mtlsOAuth("mtls-oauth"), noCSRF}, 502, "JSON"},
		{"bad-csrf-token-mtls", mtls + "csrf-mtls/ok", []change{cert("mtls"), badCSRF}, 403, ""},
		{"bad-csrf-endpoint-mtls", mtls + "csrf-mtls/ok", []change{cert("mtls"), noCSRF}, 502, "JSON"},
		{"basic-auth-with-wrong-request-parameters", plain + "request-parameters-basic/ok", []change{basic, withParameters("wrong-parameters")}, 400, ""},
		{name: "no application in the path", status: 400, body: "JSON"},
		{name: "no service in the path", status: 400, body: "JSON"},
		{name: "where-is-app", status: 404, body: "JSON"},
		{name: "where-is-service", status: 404, body: "JSON"},
		{"missing-secret-oauth", plain + "oauth/ok", []change{oauth("absent", token)}, 500, "JSON"},
		{"missing-secret-basic-auth", plain + "basic/ok", []change{with("Basic", "absent", "")}, 500, "JSON"},
		{"missing-secret-oauth-mtls", plain + "basic/ok", []change{mtlsOAuth("absent")}, 500, "JSON"},
		{"missing-secret-certgen-mtls", plain + "basic/ok", []change{cert("absent")}, 500, "JSON"},
		{"missing-request-parameters-header", plain + "basic/ok", []change{basic, withParameters("absent")}, 500, "JSON"},
		{"non-existing-target-url", "http://bad.bad.svc.cluster.local.invalid:8080/v1/api/unsecure/ok", nil, 502, "-"},
		{"code-451", plain + "unsecure/code/451", nil, 451, "451"},
		{"code-307", plain + "unsecure/code/307", nil, 307, "307"},
		{"code-203", plain + "unsecure/code/203", nil, 203, "203"},
		{"timeout", plain + "unsecure/timeout", nil, 504, "-"},
		{"redirect unsecured", plain + "redirect/ok", nil, 200, ""},
		{"redirect basic", plain + "redirect/basic", []change{basic}, 200, ""},
		{"redirect external", plain + "redirect/external", nil, 307, ""},
		{"code-500", plain + "unsecure/code/500", nil, 502, "500"},
		{"code-503", plain + "unsecure/code/503", nil, 502, "503"},
		{"code-502", plain + "unsecure/code/502", nil, 502, "502"},
		{"code-123", plain + "unsecure/code/123", nil, 200, ""},
		{"post", plain + "unsecure/echo", nil, 200, "POST"},
		{"delete", plain + "unsecure/echo", nil, 200, "DELETE"},
		{"put", plain + "unsecure/echo", nil, 200, "PUT"},
		{"oauth-expired-token-renewal", plain + "oauth/ok", []change{oauth("oauth", token+"?token_lifetime=2s")}, 200, ""},
	}
	if len(cases) != 53 {
		t.Fatalf("%d cases", len(cases))
	}
	app := "conformance"
	var services []v1alpha1.Service
	for _, c := range cases {
		if c.target != "" {
			services = append(services, api(c.name, c.target, c.changes...))
		}
	}
	h.application(app, v1alpha1.ApplicationSpec{SkipVerify: true, EncodeURL: true, Services: services})
	for i, c := range cases {
		t.Run(fmt.Sprintf("%02d-%s", i+1, strings.ReplaceAll(c.name, " ", "-")), func(t *testing.T) {
			segment := strings.ReplaceAll(c.name, " ", "-")
			address, path := h.addresses.Services, "/"+app+"/"+segment
			if compass {
				address, path = h.addresses.Entries, path+"/"+segment+"-api"
			}
			method := http.MethodGet
			var sent string
			switch c.name {
			case "no application in the path":
				path = ""
			case "no service in the path":
				path = "/" + app
			case "where-is-app":
				path = strings.Replace(path, app, "absent", 1)
			case "post", "delete", "put":
				method = strings.ToUpper(c.name)
				sent = method
			}
			call := func() answer { return h.do(method, address, path, strings.NewReader(sent)) }
			counted := s.Counts()
			a := call()
			switch {
			case c.name == "redirect unsecured" || c.name == "redirect basic":
				if want := path + "/target"; a.Status != 307 || a.Header.Get("Location") != want {
					t.Fatalf("%d to %q, want 307 to %q", a.Status, a.Header.Get("Location"), want)
				}
				path = a.Header.Get("Location")
				a = call()
			case c.name == "redirect external":
				if got := a.Header.Get("Location"); got != "http://central-application-gateway.kyma-system:8081/v1/health" {
					t.Errorf("it leads to %q", got)
				}
				// What this name stands for in a cluster, the caller reaches by itself.
				if health := h.do(http.MethodGet, h.addresses.Admin, "/v1/health", nil); health.Status != 200 {
					t.Errorf("there: %+v", health)
				}
			case c.name == "bad-oauth-token":
				for _, endpoint := range []string{"POST /v1/api/oauth/bad-token", "GET /v1/api/oauth/ok"} {
					if n := s.Counts()[endpoint].Requests - counted[endpoint].Requests; n != 2 {
						t.Errorf("%s was called %d times, want two: the refused token is renewed once", endpoint, n)
					}
				}
			case c.name == "code-123":
				if n := informational(t, "http://"+address+path); n != 123 {
					t.Errorf("the informational answer is %d", n)
				}
			case c.name == "oauth-expired-token-renewal":
				before := s.Counts()["POST /v1/api/oauth/token"].Requests
				time.Sleep(2500 * time.Millisecond) // the token's life is what is tested
				if a := call(); a.Status != 200 {
					t.Errorf("the second call: %+v", a)
				}
				if after := s.Counts()["POST /v1/api/oauth/token"].Requests; after == before {
					t.Error("no new token was fetched")
				}
			}
			if a.Status != c.status {
				t.Fatalf("%+v, want status %d", a, c.status)
			}
			switch c.body {
			case "JSON":
				if a.problem(t) == "" {
					t.Error("no text")
				}
			case "-":
				if a.Body != "" {
					t.Errorf("body %q", a.Body)
				}
			case "POST", "DELETE", "PUT":
				var echo struct{ Body, Method string }
				if err := json.Unmarshal([]byte(a.Body), &echo); err != nil || echo.Method != c.body || echo.Body != base64Of(c.body) {
					t.Errorf("%q %v", a.Body, err)
				}
			case "":
			default:
				if a.Body != c.body {
					t.Errorf("body %q", a.Body)
				}
			}
			if strings.HasPrefix(c.name, "code-50") {
				if got := a.Header.Get("Target-System-Status"); got != c.body {
					t.Errorf("Target-System-Status %q", got)
				}
			} else if a.Header["Target-System-Status"] != nil {
				t.Error("Target-System-Status is set")
			}
		})
	}
}
