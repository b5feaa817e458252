package proxy_test

import (
	"testing"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func TestWhatATargetSeesByteForByteWithSettings(t *testing.T) {
	pair := newPair(t)
	name := pair.certificate.Subject.CommonName
	oauth := func(target, token, _ string) v1alpha1.Entry {
		return entryWith("svc", target, "OAuth", "s", token+"/t")
	}
	withCert := func(target, token, _ string) v1alpha1.Entry {
		return entryWith("svc", target, "OAuthWithCert", "s", token+"/t")
	}
	basicCSRF := func(target, _, csrf string) v1alpha1.Entry {
		return entryCSRF(entryWith("svc", target, "Basic", "s", ""), csrf+"/csrf")
	}
	const (
		bearer = "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer tok\nX-Forwarded-For: 127.0.0.1\n\n"
		users  = "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Bearer users\nX-Forwarded-For: 127.0.0.1\n\n"
		form   = "Content-Type: application/x-www-form-urlencoded\n\n"
		csrf   = "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Basic dTpw\nCookie: sid=1; q=\"two\"\nX-Csrf-Token: csrf\nX-Forwarded-For: 127.0.0.1\n\n"
	)
	fetch := func(method, field string) string {
		return method + " /csrf HTTP/1.1\nHost: TARGET\nUser-Agent: Go-http-client/1.1\nAccept: */*\nAuthorization: Basic dTpw\nCache-Control: no-cache\n" + field + ": fetch\n\n"
	}
	for _, c := range []wireCase{
		{
			name:     "oauth by form alone",
			secrets:  map[string][]string{"s": {"clientId", "the id", "clientSecret", "p+:"}},
			settings: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{ClientAuthentication: "Body"}},
			entry:    oauth,
			target:   bearer,
			token:    "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 68\n" + form + "client_id=the+id&client_secret=p%2B%3A&grant_type=client_credentials",
		},
		{
			name:     "oauth by header alone",
			secrets:  map[string][]string{"s": {"clientId", "the id", "clientSecret", "p+:"}},
			settings: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{ClientAuthentication: "Header"}},
			entry:    oauth,
			target:   bearer,
			token:    "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 29\nAuthorization: Basic " + base64Of("the+id:p%2B%3A") + "\n" + form + "grant_type=client_credentials",
		},
		{
			name:    "oauth with scopes, audience and more",
			secrets: map[string][]string{"s": {"clientId", "id", "clientSecret", "s", "headers", `{"x-tenant":["t1"]}`, "queryParameters", `{"l":["5s"]}`}},
			settings: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{
				Scopes: []string{"read", "https://api/.default"}, Audience: "https://api", Parameters: map[string]v1alpha1.OAuthParameter{"resource": "r&s", "b": "1"},
			}},
			entry:  oauth,
			target: bearer,
			token: "POST /t?l=5s HTTP/1.1\nHost: TARGET\nContent-Length: 144\nAuthorization: Basic aWQ6cw==\nContent-Type: application/x-www-form-urlencoded\nX-Tenant: t1\n\n" +
				"audience=https%3A%2F%2Fapi&b=1&client_id=id&client_secret=s&grant_type=client_credentials&resource=r%26s&scope=read+https%3A%2F%2Fapi%2F.default",
		},
		{
			name:     "a token that is bound to the certificate",
			tls:      true,
			secrets:  map[string][]string{"s": {"clientId", "id", "crt", pair.crt, "key", pair.key}},
			settings: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{CertificateBound: true, Scopes: []string{"read"}}},
			entry:    withCert,
			target:   bearer,
			token:    "POST /t HTTP/1.1\nHost: TARGET\nContent-Length: 53\n" + form + "client_id=id&grant_type=client_credentials&scope=read",
			identity: name,
			tokenID:  name,
		},
		{
			name:     "a caller's own token in place of a bound one",
			tls:      true,
			secrets:  map[string][]string{"s": {"clientId", "id", "crt", pair.crt, "key", pair.key}},
			settings: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{CertificateBound: true}},
			entry:    withCert,
			headers:  []string{"Access-Token", "Bearer users", "Authorization", "Bearer other"},
			target:   users,
		},
		{
			name:    "a caller's own token in place of oauth",
			secrets: map[string][]string{"s": {"clientId", "id", "clientSecret", "s"}},
			entry:   oauth,
			headers: []string{"Access-Token", "Bearer users"},
			target:  users,
		},
		{
			name:    "a caller's own token in place of a client certificate",
			tls:     true,
			secrets: map[string][]string{"s": {"crt", pair.crt, "key", pair.key}},
			entry:   func(target, _, _ string) v1alpha1.Entry { return entryWith("svc", target, "CertificateGen", "s", "") },
			headers: []string{"Access-Token", "Bearer users"},
			target:  users,
		},
		{
			name:    "csrf from a service that refuses GET",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			entry:   basicCSRF,
			target:  csrf,
			csrf:    fetch("GET", "X-Csrf-Token") + fetch("HEAD", "X-Csrf-Token"),
			refuses: "GET",
		},
		{
			name:     "csrf by HEAD",
			secrets:  map[string][]string{"s": {"username", "u", "password", "p"}},
			settings: v1alpha1.TargetSettings{CSRF: &v1alpha1.CSRFSettings{Method: "HEAD"}},
			entry:    basicCSRF,
			target:   csrf,
			csrf:     fetch("HEAD", "X-Csrf-Token"),
		},
		{
			name:     "csrf by another header field",
			secrets:  map[string][]string{"s": {"username", "u", "password", "p"}},
			settings: v1alpha1.TargetSettings{CSRF: &v1alpha1.CSRFSettings{Method: "GET", RequestHeader: "x-xsrf", ResponseHeader: "x-csrf-token"}},
			entry:    basicCSRF,
			headers:  []string{"X-Csrf-Token", "callers", "X-Xsrf", "callers"},
			target:   "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAuthorization: Basic dTpw\nCookie: sid=1; q=\"two\"\nX-Csrf-Token: callers\nX-Forwarded-For: 127.0.0.1\nX-Xsrf: csrf\n\n",
			csrf:     fetch("GET", "X-Xsrf"),
		},
		{
			name:    "a header policy",
			secrets: map[string][]string{"s": {"username", "u", "password", "p"}},
			settings: v1alpha1.TargetSettings{Headers: &v1alpha1.HeaderSettings{
				Request: &v1alpha1.HeaderPolicy{Remove: []string{"Authorization", "X-Forwarded-*"}, Set: []v1alpha1.HeaderField{{Name: "x-tenant", Value: "acme"}}},
			}},
			entry:   func(target, _, _ string) v1alpha1.Entry { return entryWith("svc", target, "Basic", "s", "") },
			headers: []string{"X-Tenant", "other", "X-Forwarded-Host", "h", "Accept", "a"},
			target:  "GET /items?q=%zz;x HTTP/1.1\nHost: TARGET\nAccept: a\nAuthorization: Basic dTpw\nX-Tenant: acme\n\n",
		},
	} {
		t.Run(c.name, c.run)
	}
}
