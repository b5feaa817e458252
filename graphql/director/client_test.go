package director_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is what the server saw.
type request struct {
	Operation string
	Tenant    []string
	Variables map[string]any
}

func answering(t *testing.T, answer string) (*director.Client, *request) {
	t.Helper()
	seen := new(request)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			OperationName, Query string
			Variables            map[string]any
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		if strings.Contains(body.Query, "package") {
			t.Error("Director rewrites this word in documents")
		}
		*seen = request{body.OperationName, r.Header.Values("Tenant"), body.Variables}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	return clientOf(t, server), seen
}

func recorded(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestEachCallAsksForWhatItSays(t *testing.T) {
	expires := time.Date(2026, 11, 23, 1, 41, 4, 0, time.UTC)
	token := director.OneTimeToken{
		Token:        "r_PK_nQSvunuKeSA5OYc9MTNdCN8H31MPiEsE5qclrgYPWBz6omwk7_nZ3ysc0IMMa9IIlZ1cBtLwWvgxspNEQ==",
		ConnectorURL: "https://localhost:13443/connector/graphql", ExpiresAt: expires,
	}
	tests := map[string]struct {
		answer    string
		call      func(*director.Client) (any, error)
		want      any
		kind      graphql.Kind
		operation string
		variables map[string]any
	}{
		"viewer": {
			answer:    `{"data":{"viewer":{"id":"x","type":"RUNTIME"}}}`,
			call:      func(c *director.Client) (any, error) { return c.Viewer(t.Context()) },
			want:      "x",
			operation: "Viewer",
		},
		"viewer without id": {
			answer: `{"data":{"viewer":null}}`,
			call: func(c *director.Client) (any, error) {
				_, err := c.Viewer(t.Context())
				return nil, err
			},
			kind: graphql.Malformed, operation: "Viewer",
		},
		"runtime labels": {
			answer:    `{"data":{"runtime":{"labels":{"a":"b","n":7,"l":["x"]}}}}`,
			call:      func(c *director.Client) (any, error) { return c.RuntimeLabels(t.Context(), runtimeID) },
			want:      map[string]any{"a": "b", "n": json.Number("7"), "l": []any{"x"}},
			operation: "RuntimeLabels", variables: map[string]any{"runtime": runtimeID},
		},
		"runtime labels, none": {
			answer:    `{"data":{"runtime":{"labels":null}}}`,
			call:      func(c *director.Client) (any, error) { return c.RuntimeLabels(t.Context(), runtimeID) },
			want:      map[string]any(nil),
			operation: "RuntimeLabels", variables: map[string]any{"runtime": runtimeID},
		},
		"runtime labels of an unknown runtime": {
			answer: `{"data":{"runtime":null}}`,
			call:   func(c *director.Client) (any, error) { return c.RuntimeLabels(t.Context(), runtimeID) },
			want:   map[string]any(nil), kind: graphql.Rejected,
			operation: "RuntimeLabels", variables: map[string]any{"runtime": runtimeID},
		},
		"runtime labels of another shape": {
			answer: `{"data":{"runtime":{"labels":[]}}}`,
			call:   func(c *director.Client) (any, error) { return c.RuntimeLabels(t.Context(), runtimeID) },
			want:   map[string]any(nil), kind: graphql.Malformed,
			operation: "RuntimeLabels", variables: map[string]any{"runtime": runtimeID},
		},
		"set a label": {
			answer: `{"data":{"setRuntimeLabel":{"key":"k"}}}`,
			call: func(c *director.Client) (any, error) {
				return nil, c.SetRuntimeLabel(t.Context(), runtimeID, "k", `"quoted" {value}`)
			},
			operation: "SetRuntimeLabel", variables: map[string]any{"runtime": runtimeID, "key": "k", "value": `"quoted" {value}`},
		},
		"delete a label": {
			answer:    `{"data":{"deleteRuntimeLabel":{"key":"k"}}}`,
			call:      func(c *director.Client) (any, error) { return nil, c.DeleteRuntimeLabel(t.Context(), runtimeID, "k") },
			operation: "DeleteRuntimeLabel", variables: map[string]any{"runtime": runtimeID, "key": "k"},
		},
		"delete a label that is not there": {
			answer: `{"data":null,"errors":[{"message":"Object not found [object=runtimeLabel]","path":["deleteRuntimeLabel"],"extensions":{"error":"NotFound","error_code":20}}]}`,
			call:   func(c *director.Client) (any, error) { return nil, c.DeleteRuntimeLabel(t.Context(), runtimeID, "k") },
			kind:   graphql.Rejected, operation: "DeleteRuntimeLabel", variables: map[string]any{"runtime": runtimeID, "key": "k"},
		},
		"a token for a runtime, as recorded": {
			answer:    recorded(t, "one-time-token"),
			call:      func(c *director.Client) (any, error) { return c.RequestOneTimeTokenForRuntime(t.Context(), runtimeID) },
			want:      token,
			operation: "RequestOneTimeTokenForRuntime", variables: map[string]any{"id": runtimeID},
		},
		"a token for an application": {
			answer:    strings.ReplaceAll(recorded(t, "one-time-token"), "requestOneTimeTokenForRuntime", "requestOneTimeTokenForApplication"),
			call:      func(c *director.Client) (any, error) { return c.RequestOneTimeTokenForApplication(t.Context(), "app") },
			want:      token,
			operation: "RequestOneTimeTokenForApplication", variables: map[string]any{"id": "app"},
		},
		"a token that is none": {
			answer: `{"data":{"requestOneTimeTokenForRuntime":null}}`,
			call:   func(c *director.Client) (any, error) { return c.RequestOneTimeTokenForRuntime(t.Context(), runtimeID) },
			want:   director.OneTimeToken{}, kind: graphql.Malformed,
			operation: "RequestOneTimeTokenForRuntime", variables: map[string]any{"id": runtimeID},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client, seen := answering(t, test.answer)
			got, err := test.call(client)
			if graphql.KindOf(err) != test.kind || (err == nil) != (test.kind == "") {
				t.Errorf("got %v, want kind %q", err, test.kind)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(request{test.operation, []string{"tenant-1"}, test.variables}, *seen); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWithoutATenantNoHeaderIsSent(t *testing.T) {
	var seen http.Header
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		_, _ = w.Write([]byte(`{"data":{"viewer":{"id":"x"}}}`))
	}))
	defer server.Close()
	transport := graphql.NewTransport(graphql.Options{InsecureSkipVerify: true})
	defer transport.CloseIdleConnections()
	if _, err := director.New(transport, server.URL, "").Viewer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := seen["Tenant"]; ok {
		t.Errorf("header %v", seen)
	}
}

// TestTheRecordedInventoryIsUnderstood reads what a real Director answered.
func TestTheRecordedInventoryIsUnderstood(t *testing.T) {
	client, seen := answering(t, recorded(t, "applications"))
	got, err := client.Snapshot(t.Context(), runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	want := request{"ApplicationsForRuntime", []string{"tenant-1"}, map[string]any{"runtime": runtimeID, "first": 100.0, "nested": 100.0}}
	if diff := cmp.Diff(want, *seen); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if !got.Complete || len(got.Invalid) != 0 || got.Queries != 1 {
		t.Errorf("complete %v (%s), invalid %v, %d queries", got.Complete, got.Incomplete, got.Invalid, got.Queries)
	}
	var shape []string
	auths := map[string]*director.Auth{}
	for _, a := range got.Applications {
		for _, b := range a.Bundles {
			shape = append(shape, fmt.Sprintf("%s/%s: %d APIs, %d events", a.Name, b.Name, len(b.APIs), len(b.Events)))
			auths[a.Name+"/"+b.Name] = b.Auth
		}
		if len(a.Bundles) == 0 {
			shape = append(shape, a.Name)
		}
	}
	wantShape := []string{
		"mp-commerce-cloud-eu-10/certificate oauth: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/basic: 3 APIs, 2 events",
		"mp-commerce-cloud-eu-10/csrf with basic: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/headers serialized: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/request schema: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/empty bundle: 0 APIs, 0 events",
		"mp-commerce-cloud-eu-10/headers and params only: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/oauth client credentials: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/no auth: 1 APIs, 0 events",
		"mp-commerce-cloud-eu-10/csrf with oauth: 1 APIs, 0 events",
		"mp-already-normalized/b: 1 APIs, 0 events",
		"mp-events-only/events: 0 APIs, 2 events",
		"mp-empty-app",
	}
	if diff := cmp.Diff(wantShape, shape); diff != "" {
		t.Errorf("shape (-want +got):\n%s", diff)
	}
	basic := director.Basic{Username: "user-1", Password: secret.Value(`p@ss:w"ord`)}
	oauth := director.OAuth{ClientID: "client-1", ClientSecret: "secret-1", URL: "https://auth.example.com/oauth/token"}
	headers, query := map[string][]string{"X-Api-Key": {"k1", "k2"}, "X-Tenant": {"t"}}, map[string][]string{"multi": {"a", "b"}, "sap-client": {"100"}}
	wantAuths := map[string]*director.Auth{
		"mp-commerce-cloud-eu-10/certificate oauth": {Credential: director.CertificateOAuth{ClientID: "client-2",
			Certificate: "-----BEGIN CERTIFICATE-----\nMIIB...not a real one...\n-----END CERTIFICATE-----\n", URL: "https://auth.example.com/oauth/token"}},
		"mp-commerce-cloud-eu-10/basic":                    {Credential: basic},
		"mp-commerce-cloud-eu-10/csrf with basic":          {Credential: basic, CSRF: &director.CSRF{TokenEndpointURL: "https://commerce.example.com/csrf"}},
		"mp-commerce-cloud-eu-10/headers serialized":       {Credential: basic, Headers: map[string][]string{"X-Ser": {"1", "2"}}, Query: map[string][]string{"q": {"z"}}},
		"mp-commerce-cloud-eu-10/request schema":           nil,
		"mp-commerce-cloud-eu-10/empty bundle":             nil,
		"mp-commerce-cloud-eu-10/headers and params only":  {Headers: headers, Query: query},
		"mp-commerce-cloud-eu-10/oauth client credentials": {Credential: oauth},
		"mp-commerce-cloud-eu-10/no auth":                  nil,
		"mp-commerce-cloud-eu-10/csrf with oauth":          {Credential: oauth, CSRF: &director.CSRF{TokenEndpointURL: "https://commerce.example.com/csrf"}},
		"mp-already-normalized/b":                          {Credential: oauth},
		"mp-events-only/events":                            nil,
	}
	if diff := cmp.Diff(wantAuths, auths); diff != "" {
		t.Errorf("auths (-want +got):\n%s", diff)
	}
	first := got.Applications[0]
	if diff := cmp.Diff(map[string]any{
		"applicationType": "exp-app", "bool_label": true, "list_label": []any{"a", "b"}, "managed": "false", "name": "mp-commerce-cloud-eu-10",
		"num_label": json.Number("42"), "obj_label": map[string]any{"k": "v", "n": json.Number("1")}, "scenarios": []any{"exp-formation"}, "str_label": "value",
	}, first.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if schema := first.Bundles[4].AuthRequestSchema; schema == nil || !json.Valid([]byte(*schema)) {
		t.Errorf("schema %v", schema)
	}
	if got.RuntimeLabels["isNormalized"] != "true" || first.ProviderName != "Example Inc." || first.Status != "INITIAL" {
		t.Errorf("runtime labels %v, provider %q, status %q", got.RuntimeLabels, first.ProviderName, first.Status)
	}
	for _, canary := range []string{"p@ss", "secret-1", "not a real one"} {
		if printed, _ := json.Marshal(got); strings.Contains(fmt.Sprintf("%v %+v %#v", got.Applications[0].Bundles, got, got)+string(printed), canary) {
			t.Errorf("%s is printed", canary)
		}
	}
}
