package systems_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestWhoLooksForSecretsIsToldWhateverIsHandedOut(t *testing.T) {
	var mu sync.Mutex
	var told []string
	o := options()
	o.OnSecret = func(name, text string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, name+" "+text)
	}
	s := start(t, o)
	api := client(t, s)
	var want []string
	for _, path := range []string{"/oauth/token", "/v1/api/oauth/token", "/v1/api/oauth/bad-token"} {
		status, got := api.token(s.HTTPURL()+path, form("client_id", "clientID", "client_secret", "clientSecret"), nil)
		if status != http.StatusOK {
			t.Fatalf("%s: %d", path, status)
		}
		want = append(want, "an OAuth token "+got.AccessToken)
	}
	if status, got := client(t, s, certificate(t, s, "it")).token(s.MTLSURL()+"/v1/api/mtls-oauth/token", form("client_id", "clientID"), nil); status == http.StatusOK {
		want = append(want, "an OAuth token "+got.AccessToken)
	} else {
		t.Errorf("over mTLS: %d", status)
	}
	fetch := basic("user", "passwd")
	fetch.Set("X-Csrf-Token", "Fetch")
	for _, path := range []string{"/api/csrf/", "/v1/api/csrf/token", "/v1/api/csrf/bad-token"} {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		api.http.Jar = jar
		got := api.do(http.MethodGet, s.HTTPURL()+path, fetch, "")
		u, err := url.Parse(s.HTTPURL() + path)
		if err != nil || got.Status != http.StatusOK || len(jar.Cookies(u)) != 1 {
			t.Fatalf("%s: %d, cookies %v, %v", path, got.Status, jar.Cookies(u), err)
		}
		want = append(want, "a CSRF token "+got.header.Get("X-Csrf-Token"), "a CSRF session's cookie "+jar.Cookies(u)[0].Value)
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(want)
	slices.Sort(told)
	if !slices.Equal(told, want) {
		t.Errorf("told was\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
}
