package connector_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is what the server saw.
type request struct {
	Operation string
	Token     []string
	Variables map[string]any
}

// answering starts a Connector that gives this answer to everything, and tells what it was asked.
func answering(t *testing.T, answer string) (*connector.Client, *request) {
	t.Helper()
	seen := new(request)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			OperationName string
			Query         string
			Variables     map[string]any
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		*seen = request{body.OperationName, r.Header.Values("Connector-Token"), body.Variables}
		if r.Header.Get("Connector-Token") == "" && strings.Contains(body.Query, "token") {
			t.Error("a token is asked for over mTLS, where none is used")
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	transport := graphql.NewTransport(graphql.Options{RootCAs: pool})
	t.Cleanup(transport.CloseIdleConnections)
	return connector.New(transport, server.URL), seen
}

func recorded(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestTheRecordedConfigurationIsUnderstood(t *testing.T) {
	const id = "2e2d0a7f-990c-40b8-994c-e3608887ec54"
	want := connector.Configuration{
		Subject: "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=" + id, KeyAlgorithm: "rsa2048",
		DirectorURL: "https://localhost:13444/director/graphql", ConnectorURL: "https://localhost:13444/connector/graphql",
	}
	client, seen := answering(t, recorded(t, "configuration-with-certificate"))
	got, err := client.Configuration(t.Context(), "")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(request{Operation: "Configuration"}, *seen); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}

	client, seen = answering(t, recorded(t, "configuration-with-token"))
	got, err = client.Configuration(t.Context(), secret.Value("first"))
	want.Token = "s5SE6V0e-28ZERyaCkZtcHHvrn4JxcP6DeKXTv-8ZMWFqz7U7dTxOflmDJj9CW_JeK3IPBb-w9Mi3kMA9tlNpA=="
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(request{Operation: "PairingConfiguration", Token: []string{"first"}}, *seen); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if printed := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(printed, "s5SE6V0e") {
		t.Errorf("the token is printed: %s", printed)
	}
}

func TestAConfigurationThatLacksSomethingNamesIt(t *testing.T) {
	const token, info = `"token":{"token":"t"}`, `"certificateSigningRequestInfo":{"subject":"CN=x","keyAlgorithm":"rsa2048"}`
	const plane = `"managementPlaneInfo":{"directorURL":"https://d.example.com","certificateSecuredConnectorURL":"https://c.example.com"}`
	tests := []struct {
		configuration string
		want          string
	}{
		{`null`, "configuration.token is missing: no token to sign with"},
		{`{"token":null,` + info + `,` + plane + `}`, "configuration.token is missing: no token to sign with"},
		{`{"token":{"token":""},` + info + `,` + plane + `}`, "configuration.token is missing: no token to sign with"},
		{`{` + token + `,"certificateSigningRequestInfo":null,` + plane + `}`, "configuration.certificateSigningRequestInfo is missing"},
		{`{` + token + `,"certificateSigningRequestInfo":{"subject":""},` + plane + `}`, "configuration.certificateSigningRequestInfo.subject is missing"},
		{`{` + token + `,` + info + `,"managementPlaneInfo":null}`, "configuration.managementPlaneInfo is missing"},
		{`{` + token + `,` + info + `}`, "configuration.managementPlaneInfo is missing"},
		{`{` + token + `,` + info + `,"managementPlaneInfo":{"directorURL":null,"certificateSecuredConnectorURL":"https://c.example.com"}}`,
			"configuration.managementPlaneInfo.directorURL is missing"},
		{`{` + token + `,` + info + `,"managementPlaneInfo":{"directorURL":"https://d.example.com"}}`,
			"configuration.managementPlaneInfo.certificateSecuredConnectorURL is missing"},
		{`{` + token + `,` + info + `,"managementPlaneInfo":{"directorURL":"http://d.example.com","certificateSecuredConnectorURL":"https://c.example.com"}}`,
			"configuration.managementPlaneInfo.directorURL is no https URL"},
		{`{` + token + `,` + info + `,"managementPlaneInfo":{"directorURL":"https://me:canary@d.example.com","certificateSecuredConnectorURL":"https://c.example.com"}}`,
			"configuration.managementPlaneInfo.directorURL holds a user name or a password, want none"},
		{`{` + token + `,` + info + `,"managementPlaneInfo":{"directorURL":"https://d.example.com/` + strings.Repeat("x", 2048) + `","certificateSecuredConnectorURL":"https://c.example.com"}}`,
			"configuration.managementPlaneInfo.directorURL has 2070 bytes, want at most 2048"},
	}
	for _, test := range tests {
		client, _ := answering(t, `{"data":{"configuration":`+test.configuration+`}}`)
		got, err := client.Configuration(t.Context(), "first")
		var e *graphql.Error
		if !errors.As(err, &e) || e.Kind != graphql.Malformed || e.Err.Error() != test.want {
			t.Errorf("%s: got %v, want Malformed: %s", test.configuration, err, test.want)
		}
		if got.DirectorURL != "" || got.ConnectorURL != "" {
			t.Errorf("%s: URLs beside an error: %+v", test.configuration, got)
		}
	}
}

type signing struct {
	CSR    string
	Answer json.RawMessage
}

func recordedSigning(t testing.TB, name string) (csrPEM []byte, answer string, values map[string]string) {
	t.Helper()
	var s signing
	if err := json.Unmarshal([]byte(recorded(t, name)), &s); err != nil {
		t.Fatal(err)
	}
	csrPEM, err := base64.StdEncoding.DecodeString(s.CSR)
	if err != nil {
		t.Fatal(err)
	}
	var a struct {
		Data struct{ SignCertificateSigningRequest map[string]string }
	}
	if err := json.Unmarshal(s.Answer, &a); err != nil {
		t.Fatal(err)
	}
	return csrPEM, string(s.Answer), a.Data.SignCertificateSigningRequest
}

func TestTheRecordedCertificatesAreUnderstood(t *testing.T) {
	for _, name := range []string{"sign", "sign-rsa3072"} {
		csrPEM, answer, values := recordedSigning(t, name)
		client, seen := answering(t, answer)
		got, err := client.Sign(t.Context(), "second", csrPEM)
		if err != nil {
			t.Fatal(err)
		}
		want := request{Operation: "SignCertificateSigningRequest", Token: []string{"second"},
			Variables: map[string]any{"csr": base64.StdEncoding.EncodeToString(csrPEM)}}
		if diff := cmp.Diff(want, *seen); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		for field, certificates := range map[string][]*x509.Certificate{
			"clientCertificate": {got.Certificate}, "certificateChain": got.Chain, "caCertificate": got.CA,
		} {
			var out []byte
			for _, c := range certificates {
				out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
			}
			sent, err := base64.StdEncoding.DecodeString(values[field])
			if diff := cmp.Diff(strings.TrimSpace(string(sent)), strings.TrimSpace(string(out))); err != nil || diff != "" {
				t.Errorf("%s %s: %v (-sent +got):\n%s", name, field, err, diff)
			}
		}
		roots := x509.NewCertPool()
		for _, c := range got.CA {
			roots.AddCert(c)
		}
		if _, err := got.Certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: got.Certificate.NotBefore,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || len(got.Chain) != 2 {
			t.Errorf("%s: chain of %d: %v", name, len(got.Chain), err)
		}
	}
}

func TestASignatureThatIsNotWholeIsRefused(t *testing.T) {
	csrPEM, _, good := recordedSigning(t, "sign")
	_, _, other := recordedSigning(t, "sign-rsa3072")
	decoded := func(s string) string { b, _ := base64.StdEncoding.DecodeString(s); return string(b) }
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	leaf, chain, ca := decoded(good["clientCertificate"]), decoded(good["certificateChain"]), decoded(good["caCertificate"])
	tests := map[string]struct {
		field, value string
		want         string
	}{
		"no base64":                 {"clientCertificate", "%%%", "clientCertificate: no base64"},
		"missing":                   {"clientCertificate", "", "clientCertificate: no certificate"},
		"two leaves":                {"clientCertificate", encoded(leaf + leaf), "clientCertificate: 2 certificates, want one"},
		"text":                      {"clientCertificate", encoded("hello"), "clientCertificate: something else than PEM blocks"},
		"text between":              {"certificateChain", encoded(leaf + "hello\n" + ca), "certificateChain: something else than PEM blocks"},
		"text after":                {"caCertificate", encoded(ca + "hello"), "caCertificate: something else than PEM blocks"},
		"a chain that is cut":       {"certificateChain", encoded(chain[:len(chain)-40]), "certificateChain: a PEM block that is cut or broken"},
		"a key":                     {"caCertificate", encoded("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "caCertificate: a PEM block of another type than CERTIFICATE"},
		"no certificate in it":      {"caCertificate", encoded("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "caCertificate: certificate 1: x509: malformed certificate"},
		"a chain without leaf":      {"certificateChain", encoded(ca), "certificateChain: does not start with clientCertificate"},
		"an authority that is none": {"caCertificate", encoded(leaf), "caCertificate: holds a certificate that is no authority"},
		"too many":                  {"caCertificate", encoded(strings.Repeat(ca, 17)), "caCertificate: more than 16 certificates"},
		"too large":                 {"caCertificate", strings.Repeat("A", 256<<10+1), "caCertificate: 262145 bytes, want at most 262144"},
		"somebody else's":           {"", "", "clientCertificate is for another key than the request"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			values := map[string]string{}
			for k, v := range good {
				values[k] = v
			}
			if test.field == "" {
				values = other
			} else {
				values[test.field] = test.value
			}
			answer, _ := json.Marshal(map[string]any{"data": map[string]any{"signCertificateSigningRequest": values}})
			client, _ := answering(t, string(answer))
			got, err := client.Sign(t.Context(), "", csrPEM)
			var e *graphql.Error
			if !errors.As(err, &e) || e.Kind != graphql.Malformed || e.Err.Error() != test.want {
				t.Errorf("got %v, want Malformed: %s", err, test.want)
			}
			if diff := cmp.Diff(connector.Issued{}, got); diff != "" {
				t.Errorf("certificates beside an error: %s", diff)
			}
		})
	}
}

func TestABadRequestCostsNoToken(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	good := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	for name, csr := range map[string]string{
		"empty": "", "DER": string(der), "two": good + good, "another type": strings.ReplaceAll(good, " REQUEST", ""),
		"broken": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
	} {
		client, seen := answering(t, `{}`)
		if _, err := client.Sign(t.Context(), "second", []byte(csr)); graphql.KindOf(err) != graphql.Rejected {
			t.Errorf("%s: got %v, want Rejected", name, err)
		}
		if seen.Operation != "" {
			t.Errorf("%s: was sent", name)
		}
	}
}

func TestARevocationIsDoneOrAnError(t *testing.T) {
	client, seen := answering(t, `{"data":{"revokeCertificate":true}}`)
	if err := client.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(request{Operation: "RevokeCertificate"}, *seen); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	client, _ = answering(t, `{"data":{"revokeCertificate":false}}`)
	if err := client.Revoke(t.Context()); graphql.KindOf(err) != graphql.Rejected {
		t.Errorf("got %v, want Rejected", err)
	}
	client, _ = answering(t, `{"errors":[{"message":"no"}]}`)
	if err := client.Revoke(t.Context()); graphql.KindOf(err) != graphql.Rejected {
		t.Errorf("got %v, want Rejected", err)
	}
}
