package plan

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

var credentialValues = cmp.Transformer("reveal", func(v secret.Value) string { return v.Reveal() })

func ptr(s string) *string { return &s }

func TestASystemBecomesTheApplicationOfTheDocumentedExample(t *testing.T) {
	w := mapApplication("mp-shop", systems.Shop(), past{}, systems.Gateway, false)
	got := toJSON(t, w.application)
	text, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(indent(t, want), indent(t, got)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	const meant = `{"type":"OAuth","authenticationUrl":"https://idp/token","csrfInfo":{"tokenEndpointURL":"https://shop/csrf"},"parameters":true}`
	wantSecrets := map[string]wantedSecret{
		"mp-shop-" + systems.Bundle1:        {systems.Bundle1, map[string]secret.Value{"clientId": "c", "clientSecret": "s"}, meant},
		"params-mp-shop-" + systems.Bundle1: {systems.Bundle1, map[string]secret.Value{"headers": `{"h1":["v1"]}`}, meant},
	}
	if diff := cmp.Diff(wantSecrets, w.secrets, cmp.AllowUnexported(wantedSecret{}), credentialValues); diff != "" {
		t.Error(diff)
	}
}

func TestASystemWithoutBundlesHasTheDefaults(t *testing.T) {
	w := mapApplication("mp-empty", director.Application{ID: "id", Name: "Empty"}, past{}, systems.Gateway, true)
	want := `{"apiVersion":"applicationconnector.kyma-project.io/v1alpha1","kind":"Application",` +
		`"metadata":{"name":"mp-empty","labels":{"applicationconnector.kyma-project.io/managed-by":"compass-runtime-agent"}},` +
		`"spec":{"description":"Description not provided","skipVerify":true,"encodeUrl":false,"labels":{"connected-app":"mp-empty"},"displayName":"","providerDisplayName":"","longDescription":"",` +
		`"compassMetadata":{"applicationId":"id","authentication":{"clientIds":[]}}}}`
	if diff := cmp.Diff(indent(t, []byte(want)), indent(t, toJSON(t, w.application))); diff != "" {
		t.Error(diff)
	}
	if w.credentialReady.Reason != ReasonNoCredentials || w.credentialReady.Status != metav1.ConditionTrue {
		t.Errorf("CredentialsReady is %v", w.credentialReady)
	}
}

// toJSON encodes an Application as a client writes it, without the status that the server ignores.
func toJSON(t *testing.T, app *v1alpha1.Application) []byte {
	t.Helper()
	app = app.DeepCopy()
	app.APIVersion, app.Kind = v1alpha1.GroupVersion.String(), applicationKind
	text, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "status")
	if text, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	return text
}

func indent(t *testing.T, text []byte) string {
	t.Helper()
	var fields any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(fields, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestEveryKindOfCredentials(t *testing.T) {
	chain, key := systems.KeyPair(t)
	_, otherKey := systems.KeyPair(t)
	csrf := &director.CSRF{TokenEndpointURL: "https://t/csrf"}
	csrfInfo := &v1alpha1.CSRFInfo{TokenEndpointURL: "https://t/csrf"}
	name := "mp-shop-" + systems.Bundle1
	for _, test := range []struct {
		name    string
		auth    *director.Auth
		pending bool
		want    access
	}{
		{name: "no auth"},
		{name: "an open API with CSRF: the token has nowhere to hang", auth: &director.Auth{CSRF: csrf}},
		{name: "Basic", auth: &director.Auth{Credential: director.Basic{Username: "u", Password: "p"}, CSRF: csrf}, want: access{
			entry: v1alpha1.Credentials{Type: "Basic", SecretName: name, CSRFInfo: csrfInfo},
			data:  map[string]secret.Value{"username": "u", "password": "p"},
		}},
		{name: "Basic without password", auth: &director.Auth{Credential: director.Basic{Username: "u"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "Basic", SecretName: name},
			reason: ReasonEmptyCredentials, message: "the user name or the password is empty in Compass",
		}},
		{name: "OAuth", auth: &director.Auth{Credential: director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://i/t"}}, want: access{
			entry: v1alpha1.Credentials{Type: "OAuth", SecretName: name, AuthenticationURL: "https://i/t"},
			data:  map[string]secret.Value{"clientId": "c", "clientSecret": "s"},
		}},
		{name: "OAuth without secret", auth: &director.Auth{Credential: director.OAuth{ClientID: "c", URL: "https://i/t"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "OAuth", SecretName: name, AuthenticationURL: "https://i/t"},
			reason: ReasonEmptyCredentials, message: "the client id, the client secret or the URL of the token endpoint is empty in Compass",
		}},
		{name: "OAuth by certificate, with key", auth: &director.Auth{Credential: director.CertificateOAuth{ClientID: "c", Certificate: secret.Value("notBefore=x\n" + key + chain), URL: "https://i/t"}, CSRF: csrf}, want: access{
			entry: v1alpha1.Credentials{Type: "OAuthWithCert", SecretName: name, AuthenticationURL: "https://i/t", CSRFInfo: csrfInfo},
			data:  map[string]secret.Value{"clientId": "c", "crt": secret.Value(chain), "key": secret.Value(key)},
		}},
		{name: "OAuth by certificate, without key", auth: &director.Auth{Credential: director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(chain), URL: "https://i/t"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "OAuthWithCert", SecretName: name, AuthenticationURL: "https://i/t"},
			data:   map[string]secret.Value{"clientId": "c", "crt": secret.Value(chain)},
			reason: ReasonPrivateKeyMissing, message: "Compass sent a client certificate without its private key; the key must stand in the same PEM text",
		}},
		{name: "OAuth by certificate, with another's key", auth: &director.Auth{Credential: director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(chain + otherKey), URL: "https://i/t"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "OAuthWithCert", SecretName: name, AuthenticationURL: "https://i/t"},
			data:   map[string]secret.Value{"clientId": "c", "crt": secret.Value(chain), "key": secret.Value(otherKey)},
			reason: ReasonInvalidCertificate, message: "certificate and private key do not make a pair of PEM texts",
		}},
		{name: "OAuth by certificate that is no PEM", auth: &director.Auth{Credential: director.CertificateOAuth{ClientID: "c", Certificate: "text", URL: "https://i/t"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "OAuthWithCert", SecretName: name, AuthenticationURL: "https://i/t"},
			data:   map[string]secret.Value{"clientId": "c", "crt": "text"},
			reason: ReasonPrivateKeyMissing, message: "Compass sent a client certificate without its private key; the key must stand in the same PEM text",
		}},
		{name: "a kind not known", auth: &director.Auth{Credential: director.Unknown{Typename: "PasskeyCredentialData"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "PasskeyCredentialData"},
			reason: ReasonUnknownCredentials, message: `credentials of type "PasskeyCredentialData" are not supported`,
		}},
		{name: "a kind not known by the name of an open one", auth: &director.Auth{Credential: director.Unknown{Typename: "None"}}, want: access{
			entry:  v1alpha1.Credentials{Type: "Unknown"},
			reason: ReasonUnknownCredentials, message: `credentials of type "None" are not supported`,
		}},
		{name: "a kind without name", auth: &director.Auth{Credential: director.Unknown{}}, want: access{
			entry:  v1alpha1.Credentials{Type: "Unknown"},
			reason: ReasonUnknownCredentials, message: `credentials of type "" are not supported`,
		}},
		{name: "headers and query", auth: &director.Auth{Headers: map[string][]string{"H": {"<1>", "2"}}, Query: map[string][]string{"q": {}}}, want: access{
			parameters: map[string]secret.Value{"headers": "{\"H\":[\"\\u003c1\\u003e\",\"2\"]}", "queryParameters": `{"q":[]}`},
		}},
		{name: "empty headers and query", auth: &director.Auth{Headers: map[string][]string{}, Query: map[string][]string{}}},
		{name: "pending, never issued before", pending: true, want: access{
			entry: v1alpha1.Credentials{Type: "Pending"}, kept: true, reason: ReasonPending, message: "Compass has not issued the credentials yet",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bundle := director.Bundle{ID: systems.Bundle1, Name: "b", Auth: test.auth, AuthPending: test.pending}
			got := bundleAccess("mp-shop", bundle, past{})
			got.meant = "" // TestPendingCredentialsAreTheFormerOnesIfTheseAreThere is about it
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(access{}), credentialValues); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestABundleWithoutAPIsGetsNoSecret(t *testing.T) {
	app := systems.Shop()
	app.Bundles[0].APIs = nil
	if w := mapApplication("mp-shop", app, past{}, systems.Gateway, false); len(w.secrets) != 0 || w.credentialReady.Reason != ReasonNoCredentials {
		t.Errorf("secrets %v, credentials %v", sortedKeys(w.secrets), w.credentialReady)
	}
}

func TestALongAPINameIsCutInTheURLAndNowhereElse(t *testing.T) {
	app := systems.Shop()
	long := "API " + string(make95())
	app.Bundles[0].APIs[0].Name = long
	app.Bundles[0].AuthRequestSchema = ptr(`{"type":"object"}`)
	service := mapApplication("mp-shop", app, past{}, systems.Gateway, false).application.Spec.Services[0]
	if got, want := service.Entries[0].CentralGatewayURL, systems.Gateway+"/mp-shop/bundle-one/api-"+string(make95()[:53]); got != want {
		t.Errorf("URL %q, want %q", got, want)
	}
	if service.Entries[0].Name != long || *service.AuthCreateParameterSchema != `{"type":"object"}` {
		t.Errorf("service is %+v", service)
	}
}

func make95() []byte {
	text := make([]byte, 91)
	for i := range text {
		text[i] = 'x'
	}
	return text
}

func FuzzSplitPEM(f *testing.F) {
	chain, key := systems.KeyPair(f)
	for _, seed := range []string{"", "text", chain, key, chain + key, "notBefore=x\n" + chain + chain + key + key, "-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		certificates, private := splitPEM(text)
		if strings.Contains(certificates, "PRIVATE KEY") && certificates != text {
			t.Errorf("a private key stands among the certificates of %q", text)
		}
		if private != "" {
			block, rest := pem.Decode([]byte(private))
			if block == nil || len(rest) != 0 || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
				t.Errorf("the private key of %q is %q", text, private)
			}
		}
	})
}
