package systems_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/listener"
	"github.com/application-connector/application-connector/simulator/systems"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options() systems.Options {
	const any = "127.0.0.1:0"
	return systems.Options{Address: any, TLSAddress: any, MTLSAddress: any, ExpiredAddress: any, AdminAddress: any}
}

func start(t *testing.T, o systems.Options) *systems.Server {
	t.Helper()
	s, err := systems.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// caller is an HTTP client of the systems that does not follow redirects.
type caller struct {
	t    *testing.T
	http *http.Client
}

func client(t *testing.T, s *systems.Server, certs ...tls.Certificate) *caller {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	config := &tls.Config{RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certs) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certs[0], nil
	}}
	return &caller{t, &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}}
}

func certificate(t *testing.T, s *systems.Server, cn string) tls.Certificate {
	t.Helper()
	cert, key, err := s.ClientCertificate(cn)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

type answer struct {
	Status int
	Body   string
	header http.Header
}

func (c *caller) try(method, target string, header http.Header, body string) (answer, error) {
	r, err := http.NewRequestWithContext(c.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("User-Agent", "test")
	maps.Copy(r.Header, header)
	resp, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text), resp.Header}, err
}

func (c *caller) do(method, target string, header http.Header, body string) answer {
	c.t.Helper()
	got, err := c.try(method, target, header, body)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

func basic(user, password string) http.Header {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

type token struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   *int   `json:"expires_in"`
}

func (c *caller) token(target string, form url.Values, header http.Header) (int, token) {
	c.t.Helper()
	h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	maps.Copy(h, header)
	got := c.do("POST", target, h, form.Encode())
	var out token
	if got.Status == 200 {
		if err := json.Unmarshal([]byte(got.Body), &out); err != nil || out.AccessToken == "" {
			c.t.Fatalf("%v: %v", err, got)
		}
	}
	return got.Status, out
}

var grant = url.Values{"grant_type": {"client_credentials"}}

func form(pairs ...string) url.Values {
	f := maps.Clone(grant)
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

func seen(t *testing.T, a answer) systems.Seen {
	t.Helper()
	var out systems.Seen
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil || a.Status != 200 {
		t.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	return out
}

func TestEachAPIAnswersWhatItSawAndWhoTheCallerIs(t *testing.T) {
	s := start(t, options())
	cert := certificate(t, s, "gateway")
	c := client(t, s, cert)
	id := form("client_id", "clientID", "client_secret", "clientSecret")
	_, plain := c.token(s.HTTPSURL()+"/oauth/token", id, nil)
	_, bound := c.token(s.MTLSURL()+"/oauth-mtls/token", form("client_id", "clientID"), nil)
	for name, x := range map[string]struct {
		header http.Header
		query  string
		want   systems.Caller
	}{
		"none":        {nil, "", systems.Caller{Kind: "none"}},
		"basic":       {basic("user", "passwd"), "", systems.Caller{Kind: "basic", User: "user"}},
		"oauth":       {bearer(plain.AccessToken), "", systems.Caller{Kind: "oauth", ClientID: "clientID"}},
		"oauth-mtls":  {bearer(bound.AccessToken), "", systems.Caller{Kind: "oauth-mtls", ClientID: "clientID", CertificateSubject: "CN=gateway"}},
		"certificate": {nil, "", systems.Caller{Kind: "certificate", CertificateSubject: "CN=gateway"}},
		"csrf":        {basic("user", "passwd"), "", systems.Caller{Kind: "basic", User: "user"}},
		"parameters":  {http.Header{"X-Api-Key": {"key-1"}}, "?region=eu", systems.Caller{Kind: "parameters"}},
	} {
		i := slices.IndexFunc(s.APIs(), func(a systems.API) bool { return a.Name == name })
		if i < 0 {
			t.Errorf("%s is not listed", name)
			continue
		}
		api := s.APIs()[i]
		got := seen(t, c.do("GET", api.URL+"/a%2Fb//c"+x.query, x.header, ""))
		headers := http.Header{"User-Agent": {"test"}, "Connection": {"close"}}
		for k, v := range x.header {
			scheme, _, hasScheme := strings.Cut(v[0], " ")
			if headers.Set(k, "[masked]"); hasScheme {
				headers.Set(k, scheme+" [masked]")
			}
		}
		u, err := url.Parse(api.URL)
		if err != nil {
			t.Fatal(err)
		}
		want := systems.Seen{API: name, Caller: x.want, Method: "GET", Proto: "HTTP/1.1", Host: u.Host, Path: "/api/" + name + "/a%2Fb//c", Query: strings.TrimPrefix(x.query, "?"), Headers: headers}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if len(s.APIs()) != 7 {
		t.Errorf("%d APIs are listed, the test knows 7", len(s.APIs()))
	}
}

func TestEachAPIRefusesWhoeverIsNotItsCaller(t *testing.T) {
	s := start(t, options())
	c := client(t, s, certificate(t, s, "gateway"))
	_, plain := c.token(s.HTTPURL()+"/oauth/token", form("client_id", "clientID", "client_secret", "clientSecret"), nil)
	_, bound := c.token(s.MTLSURL()+"/oauth-mtls/token", form("client_id", "clientID"), nil)
	for _, x := range []struct {
		path      string
		header    http.Header
		status    int
		challenge string
		text      string
	}{
		{"/api/basic", nil, 401, `Basic realm="systems", charset="UTF-8"`, "Basic credentials are missing"},
		{"/api/basic", basic("user", "wrong"), 401, `Basic realm="systems", charset="UTF-8"`, "user name or password is wrong"},
		{"/api/oauth", nil, 401, `Bearer realm="systems"`, "a Bearer token is missing"},
		{"/api/oauth", bearer("x"), 401, `Bearer realm="systems", error="invalid_token"`, "the token is not known, not of this API, or has expired"},
		{"/api/oauth", bearer(bound.AccessToken), 401, `Bearer realm="systems", error="invalid_token"`, "the token is not known, not of this API, or has expired"},
		{"/api/oauth-mtls", bearer(plain.AccessToken), 401, `Bearer realm="systems", error="invalid_token"`, "the token is not known, was not asked for with a certificate, or has expired"},
		{"/api/parameters?region=eu", nil, 401, "", "the header field X-Api-Key is missing or wrong"},
		{"/api/parameters?region=us", http.Header{"X-Api-Key": {"key-1"}}, 400, "", "the query parameter region is missing or wrong"},
		{"/api/csrf", nil, 401, `Basic realm="systems", charset="UTF-8"`, "Basic credentials are missing"},
	} {
		got := c.do("GET", s.HTTPURL()+x.path, x.header, "")
		var body struct{ API, Error string }
		if err := json.Unmarshal([]byte(got.Body), &body); err != nil {
			t.Errorf("%s: %v", x.path, err)
		}
		if got.Status != x.status || body.Error != x.text || got.header.Get("Www-Authenticate") != x.challenge {
			t.Errorf("%s %v: got %d %q %q", x.path, x.header, got.Status, got.header.Get("Www-Authenticate"), body.Error)
		}
	}
	if got := c.do("GET", s.HTTPURL()+"/api/certificate", nil, ""); got.Status != 404 {
		t.Errorf("certificate API without TLS: %v", got)
	}
}

func TestNoAnswerHoldsACredential(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	const canary = "canary-7f3a"
	for _, path := range []string{"/api/none", "/echo/", "/api/basic", "/api/oauth", "/api/csrf", "/api/parameters"} {
		got := c.do("POST", s.HTTPURL()+path, http.Header{
			"Authorization": {"Bearer " + canary}, "Proxy-Authorization": {canary}, "Access-Token": {"Basic " + canary},
			"X-Api-Key": {canary}, "X-Csrf-Token": {canary}, "Cookie": {"a=" + canary + "; b=" + canary},
		}, "")
		if strings.Contains(got.Body, canary) {
			t.Errorf("%s: %s", path, got.Body)
		}
	}
	got := seen(t, c.do("POST", s.HTTPURL()+"/api/none", http.Header{"Cookie": {"a=1; b=2"}, "X-Csrf-Token": {"Fetch"}}, ""))
	if got.Headers.Get("Cookie") != "a=[masked]; b=[masked]" || got.Headers.Get("X-Csrf-Token") != "Fetch" {
		t.Errorf("got %v", got.Headers)
	}
}

func TestBodiesAreShownWhenShortTextAndCountedAlways(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	for what, x := range map[string]struct {
		body string
		want systems.Seen
	}{
		"text":   {"hello", systems.Seen{BodyBytes: 5, Body: "hello", BodySHA256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}},
		"binary": {"\xff\x00", systems.Seen{BodyBytes: 2, BodySHA256: "ea5dbf9596d187e9500f23e9a680109475341cf4e81f7e043f7d97152c10772f"}},
		"large":  {strings.Repeat("x", 5000), systems.Seen{BodyBytes: 5000, BodySHA256: "?"}},
	} {
		got := seen(t, c.do("PUT", s.HTTPURL()+"/echo/x", nil, x.body))
		if x.want.BodySHA256 == "?" && len(got.BodySHA256) == 64 {
			x.want.BodySHA256 = got.BodySHA256
		}
		if got.BodyBytes != x.want.BodyBytes || got.Body != x.want.Body || got.BodySHA256 != x.want.BodySHA256 {
			t.Errorf("%s: got %+v", what, got)
		}
	}
}

func TestTheTokenEndpointTakesFormOrBasicOrBothAndSaysWhatIsWrong(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	o := options()
	o.Clock, o.TokenLifetime = clock, time.Hour
	s := start(t, o)
	c := client(t, s, certificate(t, s, "gateway"))
	target := s.HTTPURL() + "/oauth/token"
	for what, x := range map[string]struct {
		form   url.Values
		header http.Header
		want   int
	}{
		"form":            {form("client_id", "clientID", "client_secret", "clientSecret"), nil, 200},
		"Basic":           {grant, basic("clientID", "clientSecret"), 200},
		"both":            {form("client_id", "clientID", "client_secret", "clientSecret"), basic("clientID", "clientSecret"), 200},
		"encoded Basic":   {grant, basic("client%49D", "clientSecret"), 200},
		"both, one wrong": {form("client_id", "clientID", "client_secret", "wrong"), basic("clientID", "clientSecret"), 401},
		"wrong secret":    {form("client_id", "clientID", "client_secret", "wrong"), nil, 401},
		"no secret":       {form("client_id", "clientID"), nil, 401},
		"wrong grant":     {url.Values{"grant_type": {"password"}}, basic("clientID", "clientSecret"), 400},
	} {
		status, got := c.token(target, x.form, x.header)
		if status != x.want || status == 200 && (got.TokenType != "Bearer" || *got.ExpiresIn != 3600) {
			t.Errorf("%s: %d %+v", what, status, got)
		}
	}
	if status, _ := c.token(s.MTLSURL()+"/oauth-mtls/token", form("client_id", "wrong"), nil); status != 401 {
		t.Errorf("mTLS with a wrong id: %d", status)
	}
	_, got := c.token(target, grant, basic("clientID", "clientSecret"))
	use := func() int { return c.do("GET", s.HTTPURL()+"/api/oauth", bearer(got.AccessToken), "").Status }
	clock.Step(time.Hour - time.Second)
	if use() != 200 {
		t.Error("the token is refused before its end")
	}
	clock.Step(time.Second)
	if use() != 401 {
		t.Error("the token is taken after its end")
	}
	count := s.Counts()["POST /oauth/token"]
	if d := cmp.Diff(systems.Count{Requests: 9, Refused: 4}, count); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
}

func TestCSRFTokensAreFetchedAndBoundToTheirSession(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	o := options()
	o.Clock, o.SessionLifetime = clock, time.Minute
	s := start(t, o)
	c := client(t, s)
	api := s.HTTPURL() + "/api/csrf/"
	with := func(pairs ...string) http.Header {
		h := basic("user", "passwd")
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	fetch := func(method string) (token, cookie string) {
		t.Helper()
		got := c.do(method, api, with("X-Csrf-Token", "Fetch"), "")
		token, cookie = got.header.Get("X-Csrf-Token"), got.header.Get("Set-Cookie")
		if got.Status != 200 || token == "" || !strings.HasPrefix(cookie, "SAP_SESSIONID=") {
			t.Fatalf("%s: %d %v", method, got.Status, got.header)
		}
		cookie, _, _ = strings.Cut(cookie, ";")
		return token, cookie
	}
	token, cookie := fetch("GET")
	token2, cookie2 := fetch("HEAD")
	if token == token2 || cookie == cookie2 {
		t.Error("two sessions share a token or cookie")
	}
	check := func(what string, h http.Header, want int) {
		t.Helper()
		got := c.do("POST", api, h, "{}")
		required := got.header.Get("X-Csrf-Token")
		if got.Status != want || (want == 403) != (required == "Required") {
			t.Errorf("%s: %d, X-Csrf-Token %q", what, got.Status, required)
		}
		if want == 200 {
			if d := cmp.Diff(systems.Caller{Kind: "basic", User: "user", CSRF: true}, seen(t, got).Caller); d != "" {
				t.Errorf("%s (-want +got):\n%s", what, d)
			}
		}
	}
	check("both", with("X-Csrf-Token", token, "Cookie", cookie), 200)
	check("neither", with(), 403)
	check("no cookie", with("X-Csrf-Token", token), 403)
	check("no token", with("Cookie", cookie), 403)
	check("cookie of another session", with("X-Csrf-Token", token, "Cookie", cookie2), 403)
	if again := c.do("GET", api, with("X-Csrf-Token", "fetch", "Cookie", cookie), ""); again.header.Get("X-Csrf-Token") != token || again.header.Get("Set-Cookie") != "" {
		t.Errorf("fetching again within the session: %v", again.header)
	}
	clock.Step(time.Minute)
	check("after the session's end", with("X-Csrf-Token", token, "Cookie", cookie), 403)
	token, cookie = fetch("GET")
	s.ExpireSessions()
	check("after ExpireSessions", with("X-Csrf-Token", token, "Cookie", cookie), 403)
}

func TestTheTLSListenersTakeWhomTheyShould(t *testing.T) {
	s := start(t, options())
	good := certificate(t, s, "gateway")
	other, err := authority.New("systems-clients", nil)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(cert, key []byte, err error) tls.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		p, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	foreign := pair(other.Issue(authority.Request{Subject: pkix.Name{CommonName: "gateway"}}))
	expired := pair(s.IssueClientCertificate(authority.Request{Subject: pkix.Name{CommonName: "gateway"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}))
	for _, x := range []struct {
		what, base string
		cert       []tls.Certificate
		want       string // "" is 200
	}{
		{"https without", s.HTTPSURL(), nil, ""},
		{"mtls with", s.MTLSURL(), []tls.Certificate{good}, ""},
		{"mtls without", s.MTLSURL(), nil, "certificate required"},
		{"mtls of another authority", s.MTLSURL(), []tls.Certificate{foreign}, "remote error: tls"},
		{"mtls expired", s.MTLSURL(), []tls.Certificate{expired}, "expired certificate"},
		{"expired server", s.ExpiredURL(), []tls.Certificate{good}, "certificate has expired"},
	} {
		got, err := client(t, s, x.cert...).try("GET", x.base+"/v1/health", nil, "")
		if x.want == "" && (err != nil || got.Status != 200) || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, %v", x.what, got, err)
		}
	}
	insecure := client(t, s, good)
	insecure.http.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	if got := insecure.do("GET", s.ExpiredURL()+"/v1/api/mtls/ok", nil, ""); got.Status != 200 {
		t.Errorf("expired server, not verified: %v", got)
	}
}

func TestCredentialsRotateAtRunTime(t *testing.T) {
	s := start(t, options())
	old := certificate(t, s, "gateway")
	c := client(t, s, old)
	admin := func(method, path, body string, want int) answer {
		t.Helper()
		got := c.do(method, s.AdminURL()+path, nil, body)
		if got.Status != want {
			t.Errorf("%s %s: %v", method, path, got)
		}
		return got
	}
	_, token := c.token(s.HTTPURL()+"/oauth/token", grant, basic("clientID", "clientSecret"))
	admin("PUT", "/credentials", `{"password":"new","clientSecret":"newer","apiKey":"newest"}`, 204)
	for what, x := range map[string]struct {
		path   string
		header http.Header
		want   int
	}{
		"old password":     {"/api/basic", basic("user", "passwd"), 401},
		"new password":     {"/api/basic", basic("user", "new"), 200},
		"old key":          {"/api/parameters?region=eu", http.Header{"X-Api-Key": {"key-1"}}, 401},
		"new key":          {"/api/parameters?region=eu", http.Header{"X-Api-Key": {"newest"}}, 200},
		"token handed out": {"/api/oauth", bearer(token.AccessToken), 200},
	} {
		if got := c.do("GET", s.HTTPURL()+x.path, x.header, ""); got.Status != x.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if status, _ := c.token(s.HTTPURL()+"/oauth/token", grant, basic("clientID", "clientSecret")); status != 401 {
		t.Errorf("old client secret: %d", status)
	}
	admin("DELETE", "/tokens", "", 204)
	if got := c.do("GET", s.HTTPURL()+"/api/oauth", bearer(token.AccessToken), ""); got.Status != 401 {
		t.Errorf("revoked token: %v", got)
	}
	admin("PUT", "/token-lifetime", `{"lifetime":"7s"}`, 204)
	if _, short := c.token(s.HTTPURL()+"/oauth/token", grant, basic("clientID", "newer")); short.ExpiresIn == nil || *short.ExpiresIn != 7 {
		t.Errorf("lifetime: %v", short.ExpiresIn)
	}
	admin("DELETE", "/sessions", "", 204)

	admin("DELETE", "/client-certificates/gateway", "", 204)
	if got, err := c.try("GET", s.MTLSURL()+"/v1/health", nil, ""); err == nil {
		t.Errorf("revoked certificate: %v", got)
	}
	var issued struct{ Certificate, Key string }
	if err := json.Unmarshal([]byte(admin("POST", "/client-certificates/gateway", "", 200).Body), &issued); err != nil {
		t.Fatal(err)
	}
	renewed, err := tls.X509KeyPair([]byte(issued.Certificate), []byte(issued.Key))
	if err != nil {
		t.Fatal(err)
	}
	if got := client(t, s, renewed).do("GET", s.MTLSURL()+"/v1/health", nil, ""); got.Status != 200 {
		t.Errorf("certificate issued after the revocation: %v", got)
	}
	if got := admin("GET", "/ca", "", 200); got.Body != string(s.CA()) {
		t.Errorf("CA: %v", got)
	}
	var counts map[string]systems.Count
	if err := json.Unmarshal([]byte(admin("GET", "/counts", "", 200).Body), &counts); err != nil || counts["any /api/basic/…"] != (systems.Count{Requests: 2, Refused: 1}) {
		t.Errorf("counts: %v, %v", counts, err)
	}
	for path, body := range map[string]string{"/credentials": `{"pasword":"typo"}`, "/token-lifetime": `{"lifetime":"1ms"}`} {
		admin("PUT", path, body, 400)
	}
	admin("PUT", "/token-lifetime", `{"lifetime":"soon"}`, 400)
	if strings.Contains(admin("PUT", "/credentials", `{"password":7}`, 400).Body, "new") {
		t.Error("an error holds a password")
	}
}

func TestCertificatesAreStillGoodAfterARestart(t *testing.T) {
	o := options()
	o.StateDir = t.TempDir()
	first := start(t, o)
	cert, ca := certificate(t, first, "gateway"), first.CA()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, o)
	if !bytes.Equal(ca, second.CA()) {
		t.Error("another CA")
	}
	if got := client(t, second, cert).do("GET", second.MTLSURL()+"/api/certificate", nil, ""); got.Status != 200 {
		t.Errorf("got %v", got)
	}
}

func TestATakenPortIsNamedWithItsOptionAndLeavesNothingBehind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for option, set := range map[string]func(*systems.Options){
		"Address":        func(o *systems.Options) { o.Address = l.Addr().String() },
		"TLSAddress":     func(o *systems.Options) { o.TLSAddress = l.Addr().String() },
		"MTLSAddress":    func(o *systems.Options) { o.MTLSAddress = l.Addr().String() },
		"ExpiredAddress": func(o *systems.Options) { o.ExpiredAddress = l.Addr().String() },
		"AdminAddress":   func(o *systems.Options) { o.AdminAddress = l.Addr().String() },
	} {
		o := options()
		o.StateDir = t.TempDir()
		set(&o)
		_, err := systems.Start(t.Context(), o)
		var taken *listener.Error
		if !errors.As(err, &taken) || taken.Option != option {
			t.Errorf("%s: got %v", option, err)
		}
		if left, _ := os.ReadDir(o.StateDir); len(left) != 0 {
			t.Errorf("%s: left %v", option, left)
		}
	}
}

func TestOptionsThatAreWrongAreNamed(t *testing.T) {
	o := options()
	o.TokenLifetime, o.SessionLifetime = time.Millisecond, -1
	_, err := systems.Start(t.Context(), o)
	want := "systems: TokenLifetime is 1ms, must be at least 1s, since expires_in counts seconds\nSessionLifetime is -1ns, must be positive"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	o = options()
	o.StateDir = t.TempDir() + "/file"
	if err := os.WriteFile(o.StateDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := systems.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.StateDir) {
		t.Errorf("a file as StateDir: %v", err)
	}
}

func TestTheSystemsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := systems.Start(ctx, options())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got, err := client(t, s).try("GET", s.HTTPURL()+"/v1/health", nil, ""); err == nil {
		t.Errorf("still answers %v", got)
	}
}
