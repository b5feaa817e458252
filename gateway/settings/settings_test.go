package settings_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/limits"
	"github.com/application-connector/application-connector/gateway/settings"
	"github.com/application-connector/application-connector/simulator/authority"
)

// compare looks at policies by what they do, in tests of their own.
var compare = cmp.Options{cmpopts.IgnoreFields(settings.Settings{}, "Request", "Response", "Callers")}

// none has no Secret.
func none(string, string) (map[string][]byte, bool) { return nil, false }

func bundle(t *testing.T) string {
	t.Helper()
	ca, err := authority.New("settings", clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	return string(ca.CA())
}

func TestSettingsOfAnAPIStandInPlaceOfThoseForAllBlockByBlock(t *testing.T) {
	pem := bundle(t)
	all := &v1alpha1.TargetSettings{
		Target: "*", TLS: &v1alpha1.TLSSettings{CABundle: pem, MinVersion: "1.3"}, Timeouts: &v1alpha1.TimeoutSettings{Connect: "1s", Total: "1m"},
		MaxConcurrent: 7, CircuitBreaker: &v1alpha1.CircuitBreaker{Failures: 3, Pause: "1m30s"},
	}
	own := &v1alpha1.TargetSettings{
		Target: "a/b", Timeouts: &v1alpha1.TimeoutSettings{Header: "1.5s", Idle: "500ms", Token: "3s"}, RateLimit: &v1alpha1.RateLimit{Requests: 5},
		OAuth: &v1alpha1.OAuthSettings{ClientAuthentication: "Header", Scopes: []string{"x", "y"}, Audience: "aud", Parameters: map[string]v1alpha1.OAuthParameter{"resource": "r"}},
		CSRF:  &v1alpha1.CSRFSettings{Method: "HEAD", RequestHeader: "x-token", Lifetime: "1h"},
	}
	got, problems := settings.Parse(own, all, "OAuth", none)
	want := &settings.Settings{
		Trust:    credentials.Trust{CA: credentials.NewAuthorities(pem), MinVersion: tls.VersionTLS13},
		Timeouts: settings.Timeouts{Header: 1500 * time.Millisecond, Idle: 500 * time.Millisecond, Token: 3 * time.Second},
		Limits:   limits.Spec{Concurrent: 7, Rate: limits.Rate{Requests: 5, Per: time.Second, Burst: 5}, Breaker: limits.Breaker{Failures: 3, Pause: 90 * time.Second}},
		OAuth:    credentials.OAuth{OnlyHeader: true, Form: map[string]string{"scope": "x y", "audience": "aud", "resource": "r"}},
		CSRF:     credentials.CSRF{Method: "HEAD", RequestHeader: "X-Token", Lifetime: time.Hour},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" || len(problems) > 0 {
		t.Errorf("%v %s", problems, diff)
	}
	if got, problems := settings.Parse(nil, nil, "OAuth", none); len(problems) > 0 || cmp.Diff(&settings.Settings{}, got, compare) != "" {
		t.Errorf("%+v %v", got, problems)
	}
}

func TestASettingThatCannotBeUsedIsNamedWithWhatWouldBeRight(t *testing.T) {
	pem := bundle(t)
	secrets := func(name, _ string) (map[string][]byte, bool) {
		data := map[string]map[string][]byte{"good": {"ca.crt": []byte(pem)}, "empty": {}, "key": {"ca.crt": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")}}[name]
		return data, data != nil
	}
	broken := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	const pemWanted = ": give certificates in PEM form (-----BEGIN CERTIFICATE-----)"
	for name, c := range map[string]struct {
		own  v1alpha1.TargetSettings
		kind string
		want []string
	}{
		"a Secret with a certificate": {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "good"}}},
		"no such Secret":              {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "absent"}}}, // whoever looked has said so
		"no such key":                 {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "empty"}}, want: []string{"tls.caSecretName: Secret empty: key ca.crt is missing"}},
		"a key for a certificate":     {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CASecretName: "key"}}, want: []string{`tls.caSecretName: Secret key: key ca.crt holds a block "PRIVATE KEY"` + pemWanted}},
		"no certificate":              {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: "x"}}, want: []string{"tls.caBundle: holds no certificate" + pemWanted}},
		"one of two is broken":        {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: pem + broken}}, want: []string{"tls.caBundle: holds as block 2 what is no certificate" + pemWanted}},
		"one of two is cut off":       {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: pem + broken[:30]}}, want: []string{"tls.caBundle: holds blocks that cannot be read" + pemWanted}},
		"two sources, an old version": {own: v1alpha1.TargetSettings{TLS: &v1alpha1.TLSSettings{CABundle: pem, CASecretName: "good", MinVersion: "1.1"}},
			want: []string{`tls.minVersion: "1.1" is not a version: use 1.2 or 1.3`, "tls: caBundle and caSecretName: give one of them"}},
		"times": {own: v1alpha1.TargetSettings{Timeouts: &v1alpha1.TimeoutSettings{Connect: "5", Header: "0s", Idle: "-1s", Total: "25h", Token: "1"}},
			want: []string{`timeouts.connect: "5" is not a time from 1ms to 24h, such as 10s`, `timeouts.header: "0s" is not a time from 1ms to 24h, such as 10s`, `timeouts.idle: "-1s" is not a time from 1ms to 24h, such as 10s`, `timeouts.total: "25h" is not a time from 1ms to 24h, such as 10s`, `timeouts.token: "1" is not a time from 1ms to 24h, such as 10s`}},
		"numbers": {own: v1alpha1.TargetSettings{MaxConcurrent: -1, RateLimit: &v1alpha1.RateLimit{Burst: -1, Per: "x"}, CircuitBreaker: &v1alpha1.CircuitBreaker{}},
			want: []string{"maxConcurrent: -1 is not a number from 1 on", `rateLimit.per: "x" is not a time from 1ms to 24h, such as 10s`, "rateLimit.requests: 0 is not a number from 1 on", "rateLimit.burst: -1 is not a number from 1 on", "circuitBreaker.failures: 0 is not a number from 1 on", "circuitBreaker.pause: is missing: use a time such as 30s"}},
		"OAuth for Basic": {kind: "Basic", own: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{}}, want: []string{`oauth: the API's credentials are of type "Basic": leave it out, or use credentials of type OAuth or OAuthWithCert`}},
		"a bound token without certificate": {kind: "OAuth", own: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{CertificateBound: true, ClientAuthentication: "Query"}},
			want: []string{`oauth.clientAuthentication: "Query" is not known: use Body or Header`, "oauth.certificateBound: is for credentials of type OAuthWithCert: credentials of type OAuth have no certificate"}},
		"a client with a certificate and a style": {kind: "OAuthWithCert", own: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{ClientAuthentication: "Body"}}, want: []string{"oauth.clientAuthentication: is for credentials of type OAuth: a client of type OAuthWithCert proves itself by its certificate"}},
		"scopes and parameters": {kind: "OAuth", own: v1alpha1.TargetSettings{OAuth: &v1alpha1.OAuthSettings{Scopes: []string{"a b"}, Parameters: map[string]v1alpha1.OAuthParameter{"client_secret": "canary", "": "x"}}},
			want: []string{`oauth.scopes[0]: "a b" is not one scope (RFC 6749, section 3.3)`, "oauth.parameters: a name is empty", `oauth.parameters["client_secret"]: is set by the Secret`}},
		"CSRF": {own: v1alpha1.TargetSettings{CSRF: &v1alpha1.CSRFSettings{Method: "POST", RequestHeader: "x y", ResponseHeader: "host"}},
			want: []string{`csrf.method: "POST" is not known: use GET or HEAD`, `csrf.requestHeader: "x y" is not the name of a header field`, "csrf.responseHeader: Host cannot be used: it is that of targetUrl"}},
		"headers": {own: v1alpha1.TargetSettings{Headers: &v1alpha1.HeaderSettings{
			Request:  &v1alpha1.HeaderPolicy{Remove: []string{"*", "a b", "connection"}, Set: []v1alpha1.HeaderField{{Name: "", Value: "x"}, {Name: "X", Value: "a\r\nb"}}},
			Response: &v1alpha1.HeaderPolicy{Remove: []string{"gateway-error-reason"}},
		}}, want: []string{
			`headers.request.remove[0]: "*" is not the name of a header field, or its beginning followed by *`, `headers.request.remove[1]: "a b" is not the name of a header field, or its beginning followed by *`,
			"headers.request.remove[2]: Connection cannot be used: it belongs to a connection", "headers.request.set[0].name: is empty", "headers.request.set[1].value: holds characters that a header field cannot hold",
			"headers.response.remove[0]: Gateway-Error-Reason cannot be used: it is the gateway's to say"}},
		"callers": {own: v1alpha1.TargetSettings{AllowedCallers: &v1alpha1.AllowedCallers{}}, want: []string{"allowedCallers: name a namespace or a service account, or leave it out to allow everybody"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.own.Target = "a/b"
			_, problems := settings.Parse(&c.own, nil, c.kind, secrets)
			var got []string
			for _, p := range problems {
				got = append(got, strings.TrimPrefix(p.Field+": "+p.Message, `spec.targetSettings["a/b"].`))
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsSaidOfTokensForAllIsForThoseItFits(t *testing.T) {
	all := &v1alpha1.TargetSettings{Target: "*", OAuth: &v1alpha1.OAuthSettings{ClientAuthentication: "Body", CertificateBound: true, Audience: "a"}}
	for kind, want := range map[string]credentials.OAuth{
		"Basic": {}, "": {}, "OAuth": {OnlyBody: true, Form: map[string]string{"audience": "a"}}, "OAuthWithCert": {CertificateBound: true, Form: map[string]string{"audience": "a"}},
	} {
		got, problems := settings.Parse(nil, all, kind, none)
		if diff := cmp.Diff(want, got.OAuth); diff != "" || len(problems) > 0 {
			t.Errorf("%s: %v %s", kind, problems, diff)
		}
	}
}

func TestAHeaderPolicyRemovesThenSets(t *testing.T) {
	got, problems := settings.Parse(&v1alpha1.TargetSettings{Target: "a/b", Headers: &v1alpha1.HeaderSettings{Request: &v1alpha1.HeaderPolicy{
		Remove: []string{"cookie", "x-forwarded-*", "C*"}, Set: []v1alpha1.HeaderField{{Name: "x-forwarded-host", Value: "h"}, {Name: "x-a", Value: "1"}},
	}}}, nil, "", none)
	if len(problems) > 0 || got.Response != nil {
		t.Fatalf("%v", problems)
	}
	h := http.Header{"Cookie": {"c"}, "X-Forwarded-For": {"1"}, "X-Forwarded-Host": {"x"}, "X-A": {"0", "2"}, "Content-Length": {"3"}, "Content-Type": {"t"}, "Accept": {"a"}}
	got.Request.Apply(h)
	if diff := cmp.Diff(http.Header{"X-Forwarded-Host": {"h"}, "X-A": {"1"}, "Content-Length": {"3"}, "Accept": {"a"}}, h); diff != "" {
		t.Error(diff)
	}
}
