package graphql_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/graphql"
)

// kindsOfRecordings says how each recorded failure is understood.
var kindsOfRecordings = map[graphql.Kind][]string{
	// A bad, used or expired token, a certificate that was revoked, whose auth or runtime is gone, and outages of
	// Director and its database: all the same to the client.
	graphql.Ambiguous: {
		"errors/01-token-missing", "errors/02-token-garbage", "errors/04-token-used", "errors/07-token-spoofed-header",
		"errors/41-csr-retry-same-token", "errors/47-cert-foreign-subject-director", "errors/48-cert-unknown-cn-director",
		"errors/53-cert-on-token-endpoint", "errors/116-revoked-agent-query", "errors/117-revoked-label", "errors/119-revoked-sign",
		"errors/121-auth-deleted-configuration", "errors/124-runtime-unregistered-configuration",
		"flow/21-old-certificate-connector-after-revocation", "flow/22-old-certificate-revoke-again",
		"outage/03-connector-token", "outage/05-director", "outage/07-connector-token", "outage/19-second-token-expired",
	},
	graphql.Refused:      {"errors/54-tenant-other", "errors/56-tenant-subaccount"},
	graphql.ScopeMissing: {"errors/83-scope-missing-mutation", "errors/84-scope-missing-field"},
	graphql.Throttled:    {"outage/25-rate-limit"},
	graphql.Server: {
		"errors/62-runtime-not-uuid", "errors/93-not-json", "errors/96-batch", "errors/110-cursor-garbage", "errors/114-revoked-viewer",
		"flow/20-old-certificate-director-after-revocation", "outage/01-director", "outage/09-connector-certificate",
		"outage/13-connector-token", "outage/15-director", "outage/17-connector-token",
	},
	graphql.Rejected: {
		"errors/08-token-revoke", "errors/14-sign-with-first-token", "errors/17-csr-garbage-base64", "errors/18-csr-empty",
		"errors/20-csr-pem-broken-der", "errors/21-csr-bad-signature", "errors/23-csr-wrong-c", "errors/24-csr-wrong-o",
		"errors/26-csr-wrong-l", "errors/27-csr-wrong-st", "errors/29-csr-missing-o", "errors/30-csr-missing-ou",
		"errors/32-csr-missing-st", "errors/33-csr-two-ous", "errors/35-csr-ed25519", "errors/51-cert-connector-sign-bad-csr",
		"errors/60-runtime-other-tenant", "errors/68-label-key-dash", "errors/69-label-key-dot", "errors/72-label-key-257",
		"errors/78-label-immutable", "errors/80-label-protected", "errors/81-label-delete-unknown", "errors/98-partial-agent",
		"errors/99-page-size-0", "errors/100-page-size--1", "errors/105-bundle-page-size-0", "errors/106-api-page-size-0",
		"errors/108-api-page-size-201", "errors/109-page-size-null", "errors/125-ott-runtime-unknown",
	},
	graphql.Invalid: {
		"errors/10-token-unknown-field", "errors/12-token-empty-body", "errors/42-csr-null", "errors/74-label-value-null",
		"errors/89-syntax-error", "errors/90-unknown-field", "errors/92-wrong-variable-type", "errors/95-content-type",
	},
}

type recording struct {
	Name, What, ContentType string
	Status                  int
	Body                    json.RawMessage
	RawBody                 string
}

func (r recording) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", r.ContentType)
	w.WriteHeader(r.Status)
	if r.Body != nil {
		_, _ = w.Write(r.Body)
		return
	}
	_, _ = w.Write([]byte(r.RawBody))
}

func recordings(t testing.TB) []recording {
	t.Helper()
	raw, err := os.ReadFile("testdata/failures.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []recording
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEveryRecordedFailureIsUnderstood replays what a real Compass answered.
func TestEveryRecordedFailureIsUnderstood(t *testing.T) {
	want := map[string]graphql.Kind{}
	for kind, names := range kindsOfRecordings {
		for _, name := range names {
			want[name] = kind
		}
	}
	var now recording
	server := serve(t, func(w http.ResponseWriter, r *http.Request) { now.ServeHTTP(w, r) }, nil)
	transport := transportTo(t, server, nil)
	all := recordings(t)
	for _, now = range all {
		kind, ok := want[now.Name]
		if !ok {
			t.Errorf("%s: not in the table", now.Name)
		}
		delete(want, now.Name)
		_, err := ping(t.Context(), transport, server.URL, nil)
		var e *graphql.Error
		if !errors.As(err, &e) || e.Kind != kind || e.Status != now.Status {
			t.Errorf("%s (%s): got %v, want kind %s and status %d", now.Name, now.What, err, kind, now.Status)
		}
	}
	for name := range want {
		t.Errorf("%s: in the table, but not recorded", name)
	}
	if len(all) < 70 {
		t.Errorf("only %d recordings", len(all))
	}
}

func TestEveryGraphQLErrorIsKept(t *testing.T) {
	byName := map[string]recording{}
	for _, r := range recordings(t) {
		byName[r.Name] = r
	}
	tests := map[string][]graphql.ServerError{
		"errors/116-revoked-agent-query": {
			{Message: "insufficient scopes provided [actual=; required=runtime:read]", Path: "runtime", Name: "InsufficientScopes", Code: 23},
			{Message: "insufficient scopes provided [actual=; required=application:read]", Path: "applicationsForRuntime", Name: "InsufficientScopes", Code: 23},
		},
		"errors/105-bundle-page-size-0": {
			{Message: "Invalid data [reason=page size must be between 1 and 200]", Path: "applicationsForRuntime.data.3.bundles", Name: "InvalidData", Code: 22},
			{Message: "Invalid data [reason=page size must be between 1 and 200]", Path: "applicationsForRuntime.data.2.bundles", Name: "InvalidData", Code: 22},
			{Message: "Invalid data [reason=page size must be between 1 and 200]", Path: "applicationsForRuntime.data.0.bundles", Name: "InvalidData", Code: 22},
			{Message: "Invalid data [reason=page size must be between 1 and 200]", Path: "applicationsForRuntime.data.1.bundles", Name: "InvalidData", Code: 22},
		},
		"errors/42-csr-null": {{Message: "cannot be null", Path: "variable.csr", Name: "GRAPHQL_VALIDATION_FAILED"}},
		"errors/14-sign-with-first-token": {
			{Message: "Error while signing Certificate Signing Request: CSR: Invalid common name provided.", Path: "result"},
		},
		"errors/01-token-missing": nil,
		"outage/25-rate-limit":    nil,
	}
	for name, want := range tests {
		server := serve(t, byName[name].ServeHTTP, nil)
		_, err := ping(t.Context(), transportTo(t, server, nil), server.URL, nil)
		var e *graphql.Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: got %v", name, err)
		}
		if diff := cmp.Diff(want, e.Errors); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheHeaviestOfSeveralErrorsDecides(t *testing.T) {
	const scopes, noScopes = `{"message":"insufficient scopes provided [actual=a:read; required=b:read]","extensions":{"error_code":23}}`,
		`{"message":"insufficient scopes provided [actual=; required=b:read]","extensions":{"error_code":23}}`
	const internal, tenant = `{"message":"x","extensions":{"error_code":10}}`, `{"message":"x","extensions":{"error_code":25}}`
	const notFound, parse = `{"message":"x","extensions":{"error_code":20}}`, `{"message":"x","extensions":{"code":"GRAPHQL_PARSE_FAILED"}}`
	tests := []struct {
		errors string
		want   graphql.Kind
	}{
		{notFound, graphql.Rejected},
		{parse + "," + notFound, graphql.Invalid},
		{notFound + "," + internal, graphql.Server},
		{internal + "," + scopes, graphql.ScopeMissing},
		{scopes + "," + noScopes, graphql.Ambiguous},
		{noScopes + "," + tenant + "," + internal, graphql.Refused},
	}
	for _, test := range tests {
		server := serve(t, answering(`{"data":null,"errors":[`+test.errors+`]}`), nil)
		if _, err := ping(t.Context(), transportTo(t, server, nil), server.URL, nil); graphql.KindOf(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.errors, err, test.want)
		}
	}
}

func TestTheServerSaysWhenToComeAgain(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		value string
		want  time.Duration
	}{
		{"", 0}, {"0", 0}, {"30", 30 * time.Second}, {" 30 ", 30 * time.Second}, {"-5", 0}, {"1.5", 0}, {"soon", 0},
		{"Wed, 01 Jul 2026 12:02:00 GMT", 2 * time.Minute}, {"Wed, 01 Jul 2026 11:59:00 GMT", 0},
		{"Wednesday, 01-Jul-26 12:02:00 GMT", 2 * time.Minute},
		{"86401", 24 * time.Hour}, {"99999999999999999999999999", 24 * time.Hour}, {"Fri, 01 Jan 2100 00:00:00 GMT", 24 * time.Hour},
	}
	for _, test := range tests {
		for _, status := range []int{429, 503} {
			server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", test.value)
				w.WriteHeader(status)
			}, nil)
			transport := transportTo(t, server, func(o *graphql.Options) { o.Clock = clocktesting.NewFakePassiveClock(now) })
			_, err := ping(t.Context(), transport, server.URL, nil)
			var e *graphql.Error
			if !errors.As(err, &e) || e.RetryAfter != test.want {
				t.Errorf("%d, Retry-After %q: got %v, want %v", status, test.value, err, test.want)
			}
		}
	}
}
