package credentials_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/secret"
)

func bytesOf(m map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for k, v := range m {
		out[k] = []byte(v)
	}
	return out
}

func TestVersionsOfDifferentFieldsNeverMeet(t *testing.T) {
	seen := map[credentials.Version][]string{}
	for _, fields := range [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}, {"a", "b", ""}, {"a\x00b"}} {
		v := credentials.VersionOf(fields...)
		if other, met := seen[v]; met {
			t.Errorf("%q and %q meet", fields, other)
		}
		seen[v] = fields
	}
	first, second := credentials.VersionOf("a", "b"), credentials.VersionOf("a", "b")
	if first != second {
		t.Error("equal fields have different versions")
	}
}

func TestCredentialsAreParsedOrRefused(t *testing.T) {
	basic := map[string]string{"username": "u", "password": "p:w\n"}
	for _, c := range []struct {
		name   string
		spec   v1alpha1.Credentials
		data   map[string]string
		kind   string
		header []credentials.Field
		token  *credentials.TokenRequest
		reason credentials.Reason
	}{
		{name: "nothing at all", kind: "None"},
		{name: "None", spec: v1alpha1.Credentials{Type: "None"}, kind: "None"},
		{name: "NoAuth with a Secret", spec: v1alpha1.Credentials{Type: "NoAuth", SecretName: "s"}, kind: "None"},
		{name: "no type but a Secret", spec: v1alpha1.Credentials{SecretName: "s"}, reason: credentials.ReasonTypeUnknown},
		{name: "no type but CSRF", spec: v1alpha1.Credentials{CSRFInfo: &v1alpha1.CSRFInfo{}}, reason: credentials.ReasonTypeUnknown},
		{name: "wrong case", spec: v1alpha1.Credentials{Type: "oauth"}, reason: credentials.ReasonTypeUnknown},
		{
			name: "Basic, byte for byte", spec: v1alpha1.Credentials{Type: "Basic"}, data: basic, kind: "Basic",
			header: []credentials.Field{{Name: "Authorization", Value: "Basic dTpwOncK"}},
		},
		{name: "Basic with an empty password", spec: v1alpha1.Credentials{Type: "Basic"}, data: map[string]string{"username": "key", "password": ""}, kind: "Basic", header: []credentials.Field{{Name: "Authorization", Value: "Basic a2V5Og=="}}},
		{name: "Basic with both empty", spec: v1alpha1.Credentials{Type: "Basic"}, data: map[string]string{"username": "", "password": ""}, reason: credentials.ReasonKeyMissing},
		{name: "Basic without password", spec: v1alpha1.Credentials{Type: "Basic"}, data: map[string]string{"username": "u"}, reason: credentials.ReasonKeyMissing},
		{
			name: "OAuth", spec: v1alpha1.Credentials{Type: "OAuth", AuthenticationURL: "https://t/?a=b"}, data: map[string]string{"clientId": "c", "clientSecret": "s"}, kind: "OAuth",
			token: &credentials.TokenRequest{Kind: "OAuth", URL: "https://t/?a=b", ClientID: "c", ClientSecret: "s", Parameters: &credentials.Parameters{}},
		},
		{name: "OAuth without secret", spec: v1alpha1.Credentials{Type: "OAuth"}, data: map[string]string{"clientId": "c"}, reason: credentials.ReasonKeyMissing},
		{name: "OAuth with an empty client", spec: v1alpha1.Credentials{Type: "OAuth"}, data: map[string]string{"clientId": "", "clientSecret": "s"}, reason: credentials.ReasonKeyMissing},
		{name: "OAuth with bad headers", spec: v1alpha1.Credentials{Type: "OAuth"}, data: map[string]string{"clientId": "c", "clientSecret": "s", "headers": "x"}, reason: credentials.ReasonParametersInvalid},
		{name: "OAuthWithCert without key", spec: v1alpha1.Credentials{Type: "OAuthWithCert"}, data: map[string]string{"clientId": "c", "crt": "x"}, reason: credentials.ReasonKeyMissing},
		{name: "OAuthWithCert without certificate", spec: v1alpha1.Credentials{Type: "OAuthWithCert"}, data: map[string]string{"clientId": "c"}, reason: credentials.ReasonKeyMissing},
		{name: "CertificateGen without key", spec: v1alpha1.Credentials{Type: "CertificateGen"}, data: map[string]string{"crt": "x"}, reason: credentials.ReasonKeyMissing},
		{name: "CertificateGen with nonsense", spec: v1alpha1.Credentials{Type: "CertificateGen"}, data: map[string]string{"crt": "x", "key": "x"}, reason: credentials.ReasonCertificateInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := credentials.Parse(c.spec, bytesOf(c.data), credentials.OAuth{}, nil, nil)
			if c.reason != "" {
				var invalid *credentials.Error
				if !errors.As(err, &invalid) || invalid.Reason != c.reason || got != nil {
					t.Fatalf("%v, %v, want the reason %s", got, err, c.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Version == (credentials.Version{}) || got.Principal == (credentials.Version{}) {
				t.Error("no version, or no principal")
			}
			if c.token != nil {
				c.token.Version = got.Version
			}
			want := &credentials.Credentials{Kind: c.kind, Header: c.header, Token: c.token, Version: got.Version, Principal: got.Principal}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAVersionChangesWithWhatIsUsedAndOnlyWithThat(t *testing.T) {
	spec := v1alpha1.Credentials{Type: "OAuth", AuthenticationURL: "https://t", SecretName: "a"}
	data := map[string]string{"clientId": "c", "clientSecret": "s"}
	version := func(spec v1alpha1.Credentials, change ...string) credentials.Version {
		t.Helper()
		d := bytesOf(data)
		for i := 0; i+1 < len(change); i += 2 {
			d[change[i]] = []byte(change[i+1])
		}
		c, err := credentials.Parse(spec, d, credentials.OAuth{}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Version
	}
	before := version(spec)
	other := spec
	other.AuthenticationURL = "https://other"
	for what, v := range map[string]credentials.Version{
		"URL": version(other), "secret": version(spec, "clientSecret", "t"), "scope": version(spec, "queryParameters", `{"scope":["r"]}`), "headers": version(spec, "headers", "{}"),
	} {
		if v == before {
			t.Errorf("another %s has the same version", what)
		}
	}
	renamed := spec
	renamed.SecretName = "b"
	for what, v := range map[string]credentials.Version{"name of the Secret": version(renamed), "unrelated key": version(spec, "note", "x")} {
		if v != before {
			t.Errorf("another %s has another version", what)
		}
	}
}

func TestWhatWasParsedOnceIsNotParsedAgain(t *testing.T) {
	memo := credentials.Memo{}
	spec, data := v1alpha1.Credentials{Type: "Basic"}, bytesOf(map[string]string{"username": "u", "password": "p"})
	first, err := credentials.Parse(spec, data, credentials.OAuth{}, nil, memo)
	if err != nil {
		t.Fatal(err)
	}
	second, err := credentials.Parse(spec, data, credentials.OAuth{}, memo, credentials.Memo{})
	if err != nil || first != second {
		t.Errorf("%p and %p, %v", first, second, err)
	}
}

func TestParametersAreReadFromJSON(t *testing.T) {
	for _, c := range []struct {
		name    string
		data    map[string]string
		want    *credentials.Parameters
		invalid string // part of the message
	}{
		{name: "absent", want: &credentials.Parameters{}},
		{name: "null and empty", data: map[string]string{"headers": "null", "queryParameters": " "}, want: &credentials.Parameters{}},
		{
			name: "both", data: map[string]string{"headers": `{"x-b":["1","2"],"X-A":["3"],"x-A":["4"],"none":[]}`, "queryParameters": `{"b":["1"],"a":["2","3"]}`},
			want: &credentials.Parameters{
				Header: []credentials.Parameter{{Name: "X-A", Values: []secret.Value{"3", "4"}}, {Name: "X-B", Values: []secret.Value{"1", "2"}}},
				Query:  []credentials.Parameter{{Name: "a", Values: []secret.Value{"2", "3"}}, {Name: "b", Values: []secret.Value{"1"}}},
			},
		},
		{name: "what belongs to a connection", data: map[string]string{"headers": `{"connection":["x"],"Host":["h"],"content-length":["1"],"Transfer-Encoding":["chunked"]}`}, want: &credentials.Parameters{}},
		{name: "not an object", data: map[string]string{"headers": `["canary"]`}, invalid: "key headers is not a JSON object"},
		{name: "not lists", data: map[string]string{"queryParameters": `{"a":"canary"}`}, invalid: "key queryParameters is not a JSON object"},
		{name: "a bad name", data: map[string]string{"headers": `{"a b":["canary"]}`}, invalid: `"a b" is not the name`},
		{name: "a bad value", data: map[string]string{"headers": `{"a":["canary\n"]}`}, invalid: `a value of "a"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := credentials.ParseParameters(bytesOf(c.data))
			if c.invalid != "" {
				var invalid *credentials.Error
				if !errors.As(err, &invalid) || invalid.Reason != credentials.ReasonParametersInvalid || !strings.Contains(err.Error(), c.invalid) || strings.Contains(err.Error(), "canary") {
					t.Errorf("%v", err)
				}
				return
			}
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
			if got.Empty() != (c.name != "both") {
				t.Errorf("Empty says %v", got.Empty())
			}
		})
	}
}

func FuzzParametersNeverPanicNorQuoteTheirText(f *testing.F) {
	f.Add(`{"a":["b"]}`)
	f.Add(`{"a":`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := credentials.ParseParameters(map[string][]byte{"headers": []byte(text), "queryParameters": []byte(text)})
		if (p == nil) == (err == nil) {
			t.Fatal(p, err)
		}
		if p != nil {
			credentials.AddQuery(text, p.Query)
		}
	})
}

func TestQueryParametersAreAddedUnlessTheyAreThere(t *testing.T) {
	parameters := []credentials.Parameter{{Name: "a b", Values: []secret.Value{"1&2", "3"}}, {Name: "c", Values: []secret.Value{"4"}}}
	for raw, want := range map[string]string{
		"":              "a+b=1%262&a+b=3&c=4",
		"x=%zz;y":       "x=%zz;y&a+b=1%262&a+b=3&c=4",
		"a%20b=mine":    "a%20b=mine&c=4",
		"c&a+b":         "c&a+b",
		"C=1":           "C=1&a+b=1%262&a+b=3&c=4",
		"x&c=&y=1;a b=": "x&c=&y=1;a b=&a+b=1%262&a+b=3",
	} {
		if got := credentials.AddQuery(raw, parameters); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
	if got := credentials.AddQuery("x=%zz", nil); got != "x=%zz" {
		t.Error(got)
	}
}

func TestPrintableURLsHoldNoSecret(t *testing.T) {
	for text, want := range map[string]string{
		"https://u:p@h:1/a%2Fb?t=1#f": "https://h:1/a%2Fb", "https://h/?": "https://h/", "": "", "http://[::1": "(not a URL)",
	} {
		if got := credentials.PrintableURL(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// fakeSources hands out numbered tokens and sessions and remembers what it was asked.
type fakeSources struct {
	tokens, sessions int
	asked            []string
	forgotten        []string
	outlived         []string
	err              error
}

func (f *fakeSources) Token(_ context.Context, r credentials.TokenRequest) (secret.Value, error) {
	return secret.Value(fmt.Sprint("token-", f.tokens)), f.err
}

func (f *fakeSources) Forget(r credentials.TokenRequest, token secret.Value) {
	f.forgotten = append(f.forgotten, token.Reveal())
	f.tokens++
}

type fakeSessions struct{ *fakeSources }

func (f fakeSessions) Session(_ context.Context, r credentials.SessionRequest) (*credentials.Session, error) {
	text := r.URL
	for _, h := range r.Header {
		text += " " + h.Name + ": " + h.Value.Reveal()
	}
	f.asked = append(f.asked, text)
	return &credentials.Session{Token: secret.Value(fmt.Sprint("csrf-", f.sessions)), Cookies: []credentials.Cookie{{Name: "sid", Value: "1"}}}, nil
}

func (f fakeSessions) Forget(_ credentials.SessionRequest, s *credentials.Session) {
	f.forgotten = append(f.forgotten, s.Token.Reveal())
	f.sessions++
}

func (f fakeSessions) Outlived(r credentials.SessionRequest, s *credentials.Session) {
	f.outlived = append(f.outlived, r.URL+" "+s.Token.Reveal())
}

func TestResolvingGivesWhatACallCarries(t *testing.T) {
	f := &fakeSources{}
	r := &credentials.Resolver{Tokens: f, Sessions: fakeSessions{f}}
	oauth := &credentials.Credentials{Kind: "OAuth", Token: &credentials.TokenRequest{}}
	use := credentials.Use{Credentials: oauth, CSRF: "https://csrf"}
	first, err := r.Resolve(t.Context(), use)
	if err != nil {
		t.Fatal(err)
	}
	header := []credentials.Field{{Name: "Authorization", Value: "Bearer token-0"}, {Name: "X-Csrf-Token", Value: "csrf-0"}}
	if diff := cmp.Diff(header, first.Header); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]credentials.Cookie{{Name: "sid", Value: "1"}}, first.Cookies); diff != "" || !first.Renewable() {
		t.Error(diff)
	}
	if same, err := r.Resolve(t.Context(), use); err != nil || same.Version() != first.Version() {
		t.Errorf("the same credential has another version, %v", err)
	}
	r.Forget(use, first)
	if diff := cmp.Diff([]string{"csrf-0", "token-0"}, f.forgotten); diff != "" {
		t.Error(diff)
	}
	r.Outlived(use, first)
	r.Outlived(use, credentials.Value{}) // has no session
	if diff := cmp.Diff([]string{"https://csrf csrf-0"}, f.outlived); diff != "" {
		t.Error(diff)
	}
	second, err := r.Resolve(t.Context(), use)
	if err != nil || second.Version() == first.Version() {
		t.Errorf("another credential has the same version, %v", err)
	}
	use.External = "Bearer users"
	external, err := r.Resolve(t.Context(), use)
	if err != nil || external.Header[0].Value != "Bearer users" || f.asked[len(f.asked)-1] != "https://csrf Authorization: Bearer users" {
		t.Errorf("%v %v %v", external.Header, f.asked, err)
	}
	f.err = &credentials.CallError{Status: 502, Message: "down"}
	use.External = ""
	if _, err := r.Resolve(t.Context(), use); !errors.Is(err, f.err) {
		t.Error(err)
	}
}

func TestStaticCredentialsAreNotRenewable(t *testing.T) {
	r := &credentials.Resolver{}
	basic := &credentials.Credentials{Kind: "Basic", Header: []credentials.Field{{Name: "Authorization", Value: "Basic x"}}}
	v, err := r.Resolve(t.Context(), credentials.Use{Credentials: basic})
	if err != nil || v.Renewable() || len(v.Header) != 1 {
		t.Errorf("%v %v", v.Header, err)
	}
}

// certificate is a self-signed one for a subject, with its key, as a Secret holds them.
func certificate(t *testing.T, name, host string) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})),
	}
}

func TestAPrincipalStaysWithANewPasswordOrKeyAndNotWithAnotherName(t *testing.T) {
	merge := func(data map[string]string, more ...string) map[string]string {
		all := maps.Clone(data)
		for i := 0; i+1 < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	type credential struct {
		kind, url string
		data      map[string]string
	}
	basic := credential{"Basic", "", map[string]string{"username": "u", "password": "p"}}
	oauth := credential{"OAuth", "https://t/", map[string]string{"clientId": "c", "clientSecret": "s"}}
	mtls := credential{"CertificateGen", "", certificate(t, "a", "h")}
	both := credential{"OAuthWithCert", "https://t/", merge(certificate(t, "a", "h"), "clientId", "c")}
	for _, c := range []struct {
		name  string
		a, b  credential
		equal bool
	}{
		{"Basic, another password", basic, credential{"Basic", "", merge(basic.data, "password", "q")}, true},
		{"Basic, another user", basic, credential{"Basic", "", merge(basic.data, "username", "v")}, false},
		{"OAuth, another secret", oauth, credential{"OAuth", oauth.url, merge(oauth.data, "clientSecret", "t")}, true},
		{"OAuth, another client", oauth, credential{"OAuth", oauth.url, merge(oauth.data, "clientId", "d")}, false},
		{"OAuth, another token endpoint", oauth, credential{"OAuth", "https://u/", oauth.data}, false},
		{"CertificateGen, another key", mtls, credential{"CertificateGen", "", certificate(t, "a", "h")}, true},
		{"CertificateGen, another subject", mtls, credential{"CertificateGen", "", certificate(t, "b", "h")}, false},
		{"CertificateGen, another alternative name", mtls, credential{"CertificateGen", "", certificate(t, "a", "i")}, false},
		{"OAuthWithCert, another key", both, credential{"OAuthWithCert", both.url, merge(certificate(t, "a", "h"), "clientId", "c")}, true},
		{"OAuthWithCert, another subject", both, credential{"OAuthWithCert", both.url, merge(certificate(t, "b", "h"), "clientId", "c")}, false},
		{"OAuthWithCert, another client", both, credential{"OAuthWithCert", both.url, merge(both.data, "clientId", "d")}, false},
		{"another kind", basic, credential{"OAuth", "", merge(oauth.data, "username", "u")}, false},
	} {
		var principals [2]credentials.Version
		for i, from := range []credential{c.a, c.b} {
			parsed, err := credentials.Parse(v1alpha1.Credentials{Type: from.kind, AuthenticationURL: from.url}, bytesOf(from.data), credentials.OAuth{}, nil, nil)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			principals[i] = parsed.Principal
		}
		if equal := principals[0] == principals[1]; equal != c.equal {
			t.Errorf("%s: equal is %v", c.name, equal)
		}
	}
}
