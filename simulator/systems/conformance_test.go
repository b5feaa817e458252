package systems_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func merged(headers ...http.Header) http.Header {
	out := http.Header{}
	for _, h := range headers {
		maps.Copy(out, h)
	}
	return out
}

// The statuses are those that the gateway's 53 conformance cases are built on.
func TestTheConformanceEndpointsAnswerAsTheCasesExpect(t *testing.T) {
	s := start(t, options())
	c := client(t, s, certificate(t, s, "gateway"))
	plain, mtls := s.HTTPURL()+"/v1/api/", s.MTLSURL()+"/v1/api/"
	right, wrong := basic("user", "passwd"), basic("user", "x")
	id := form("client_id", "clientID", "client_secret", "clientSecret")
	_, good := c.token(plain+"oauth/token", id, nil)
	_, bad := c.token(plain+"oauth/bad-token", id, nil)
	_, bound := c.token(mtls+"mtls-oauth/token", form("client_id", "clientID"), nil)
	csrf := func(path string) http.Header {
		got := c.do("GET", plain+path, nil, "")
		cookie, _, _ := strings.Cut(got.header.Get("Set-Cookie"), ";")
		if got.Status != 200 || got.header.Get("X-Csrf-Token") == "" || !strings.HasPrefix(cookie, "csrftokencookie=") {
			t.Errorf("%s: %d %v", path, got.Status, got.header)
		}
		return http.Header{"X-Csrf-Token": {got.header.Get("X-Csrf-Token")}, "Cookie": {cookie}}
	}
	known, unknown := csrf("csrf/token"), csrf("csrf/bad-token")
	params := http.Header{"Hkey1": {"Hval1"}, "Hkey2": {"Hval21", "Hval22"}}
	const query = "?Qkey1=Qval1&Qkey2=Qval21&Qkey2=Qval22"
	for _, x := range []struct {
		target string
		header http.Header
		want   int
	}{
		{s.HTTPURL() + "/v1/health", nil, 200},
		{plain + "unsecure/ok", nil, 200},
		{plain + "unsecure/nothing", nil, 404},
		{plain + "basic/ok", right, 200},
		{plain + "basic/ok", wrong, 403},
		{plain + "basic/ok", nil, 403},
		{plain + "oauth/ok", bearer(good.AccessToken), 200},
		{plain + "oauth/ok", bearer(bound.AccessToken), 200},
		{plain + "oauth/ok", bearer(bad.AccessToken), 401},
		{plain + "oauth/ok", nil, 401},
		{plain + "csrf-basic/ok", merged(right, known), 200},
		{plain + "csrf-basic/ok", merged(wrong, known), 403},
		{plain + "csrf-basic/ok", merged(right, unknown), 403},
		{plain + "csrf-basic/ok", merged(right, http.Header{"X-Csrf-Token": known["X-Csrf-Token"]}), 403},
		{plain + "csrf-basic/ok", merged(right, http.Header{"Cookie": known["Cookie"]}), 403},
		{plain + "csrf-oauth/ok", merged(bearer(good.AccessToken), known), 200},
		{plain + "csrf-oauth/ok", merged(bearer(good.AccessToken), unknown), 403},
		{plain + "csrf-oauth/ok", merged(bearer(bad.AccessToken), known), 401},
		{plain + "csrf/nonexistingpath", nil, 404},
		{plain + "request-parameters-basic/ok" + query, merged(right, params), 200},
		{plain + "request-parameters-basic/ok" + query, merged(wrong, params), 403},
		{plain + "request-parameters-basic/ok", merged(right, params), 400},
		{plain + "request-parameters-basic/ok" + query, right, 400},
		{plain + "request-parameters-basic/ok" + query, merged(right, params, http.Header{"Hkey2": {"Hval21"}}), 400},
		{plain + "redirect/ok/target", nil, 200},
		{plain + "redirect/basic/target", right, 200},
		{plain + "redirect/basic/target", nil, 403},
		{mtls + "mtls/ok", nil, 200},
		{mtls + "csrf-mtls/ok", known, 200},
		{mtls + "csrf-mtls/ok", unknown, 403},
		{plain + "mtls/ok", nil, 404},
	} {
		if got := c.do("GET", x.target, x.header, ""); got.Status != x.want || got.Status == 200 && got.Body != "" {
			t.Errorf("%s %v: got %d %q, want %d", x.target, x.header, got.Status, got.Body, x.want)
		}
	}
	for path, want := range map[string]string{
		"redirect/ok": "/v1/api/redirect/ok/target", "redirect/basic": "/v1/api/redirect/basic/target",
		"redirect/external": "http://central-application-gateway.kyma-system:8081/v1/health",
	} {
		if got := c.do("GET", plain+path, nil, ""); got.Status != 307 || got.header.Get("Location") != want {
			t.Errorf("%s: %d to %q", path, got.Status, got.header.Get("Location"))
		}
	}
}

func TestTheConformanceTokensSayAndLastWhatTheCasesExpect(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	o := options()
	o.Clock = clock
	s := start(t, o)
	c := client(t, s, certificate(t, s, "gateway"))
	plain, mtls := s.HTTPURL()+"/v1/api/", s.MTLSURL()+"/v1/api/"
	id := form("client_id", "clientID", "client_secret", "clientSecret")
	for what, x := range map[string]struct {
		target string
		form   url.Values
		want   int
		says   int // expires_in; 0 is none
	}{
		"default":        {plain + "oauth/token", id, 200, 300},
		"own lifetime":   {plain + "oauth/token?token_lifetime=5s", id, 200, 5},
		"no lifetime":    {plain + "oauth/token?token_lifetime=soon", id, 400, 0},
		"wrong id":       {plain + "oauth/token", form("client_id", "bad id", "client_secret", "bad secret"), 403, 0},
		"wrong grant":    {plain + "oauth/token", url.Values{"client_id": {"clientID"}, "client_secret": {"clientSecret"}}, 403, 0},
		"bad token":      {plain + "oauth/bad-token", id, 200, 0},
		"bad, wrong id":  {plain + "oauth/bad-token", grant, 403, 0},
		"mtls":           {mtls + "mtls-oauth/token", form("client_id", "clientID"), 200, 3600},
		"mtls, wrong id": {mtls + "mtls-oauth/token", form("client_id", "incorrect"), 403, 0},
	} {
		status, got := c.token(x.target, x.form, nil)
		says := 0
		if got.ExpiresIn != nil {
			says = *got.ExpiresIn
		}
		if status != x.want || says != x.says || status == 200 && got.TokenType != "bearer" {
			t.Errorf("%s: %d %+v says %d", what, status, got, says)
		}
	}
	_, short := c.token(plain+"oauth/token?token_lifetime=5s", id, nil)
	_, bound := c.token(mtls+"mtls-oauth/token", form("client_id", "clientID"), nil)
	use := func(x token) int { return c.do("GET", plain+"oauth/ok", bearer(x.AccessToken), "").Status }
	clock.Step(4 * time.Second)
	got := []int{use(short), use(bound)}
	clock.Step(time.Second)
	got = append(got, use(short), use(bound))
	clock.Step(5 * time.Minute)
	got = append(got, use(bound))
	if d := cmp.Diff([]int{200, 200, 401, 200, 401}, got); d != "" {
		t.Errorf("short and bound after 4 s, after 5 s, bound after 5 min (-want +got):\n%s", d)
	}
}

func TestTheConformanceEchoGivesTheWholeRequestBack(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	for _, method := range []string{"PUT", "POST", "DELETE"} {
		got := c.do(method, s.HTTPURL()+"/v1/api/unsecure/echo?a=1&a=2", http.Header{"X-Mine": {"v"}}, method)
		var body struct {
			Body    []byte
			Headers http.Header
			Method  string
			Query   map[string][]string
		}
		if err := json.Unmarshal([]byte(got.Body), &body); err != nil {
			t.Fatal(err)
		}
		if string(body.Body) != method || body.Method != method || body.Headers.Get("X-Mine") != "v" || !cmp.Equal(body.Query, map[string][]string{"a": {"1", "2"}}) {
			t.Errorf("%s: got %+v", method, body)
		}
	}
	if got := c.do("GET", s.HTTPURL()+"/v1/api/unsecure/echo", nil, ""); got.Status != 405 {
		t.Errorf("GET: %v", got)
	}
}

func TestStatusCodesAreAnsweredWithThemselvesAsBody(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	for _, path := range []string{"/v1/api/unsecure/code/", "/status/"} {
		for code, want := range map[string]answer{
			"451": {Status: 451, Body: "451"}, "307": {Status: 307, Body: "307"}, "203": {Status: 203, Body: "203"}, "503": {Status: 503, Body: "503"},
			"204": {Status: 204}, "999": {Status: 999, Body: "999"}, "123": {Status: 200, Body: "123"},
		} {
			got := c.do("GET", s.HTTPURL()+path+code, nil, "")
			if got.Status != want.Status || got.Body != want.Body {
				t.Errorf("%s%s: %v", path, code, got)
			}
		}
		for _, code := range []string{"99", "1000", "x", "101"} {
			if got := c.do("GET", s.HTTPURL()+path+code, nil, ""); got.Status != 400 {
				t.Errorf("%s%s: %v", path, code, got)
			}
		}
	}
	var informational int
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { informational = code; return nil },
	}), "GET", s.HTTPURL()+"/v1/api/unsecure/code/123", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if informational != 123 {
		t.Errorf("informational response %d", informational)
	}
}

func TestTheTimeoutEndpointWaitsForTheClientToGo(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	c.http.Timeout = 200 * time.Millisecond
	if got, err := c.try("GET", s.HTTPURL()+"/v1/api/unsecure/timeout", nil, ""); err == nil {
		t.Errorf("got %v", got)
	}
}
