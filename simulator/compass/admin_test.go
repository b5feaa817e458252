package compass

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// adminCall sends to the administrator's listener and returns status and body.
func adminCall(t *testing.T, s *Server, method, path, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.AdminURL()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSuffix(string(raw), "\n")
}

func TestTheAdministratorDoesEverythingOverHTTP(t *testing.T) {
	s := startCompass(t, Options{Seed: shopSeed()})
	call := func(method, path, body string, wantStatus int, want string) string {
		t.Helper()
		status, got := adminCall(t, s, method, path, body)
		if status != wantStatus || (want != "*" && got != want) {
			t.Errorf("%s %s: status %d, body %s; want %d and %s", method, path, status, got, wantStatus, want)
		}
		return got
	}
	const app = "5b0d0000-0000-4000-8000-000000000009"
	call("PUT", "/v1/tenants/"+testTenant+"/applications", "id: "+app+"\nname: CRM\nformations: [default]\n", 200, `{"id":"`+app+`"}`)
	call("PUT", "/v1/tenants/"+testTenant+"/applications", `{"id":"`+app+`","nam":"CRM"}`, 400, `{"error":"body: error unmarshaling JSON: while decoding JSON: json: unknown field \"nam\""}`)
	call("PUT", "/v1/tenants/"+testTenant+"/applications", `{"name":"crm"}`, 400, `{"error":"application \"crm\": Object name is not unique [object=application]"}`)
	call("PUT", "/v1/tenants/x/runtimes", `{"name":"r"}`, 400, `{"error":"tenant: \"x\" is not a UUID in lower case"}`)
	runtime := call("PUT", "/v1/tenants/"+testTenant+"/runtimes", `{"name":"r"}`, 200, "*")
	var put struct{ ID string }
	if err := json.Unmarshal([]byte(runtime), &put); err != nil {
		t.Fatal(err)
	}

	var token Token
	if err := json.Unmarshal([]byte(call("POST", "/v1/runtimes/"+put.ID+"/token", "", 200, "*")), &token); err != nil || token.ConnectorURL != s.TokenURL() {
		t.Fatalf("token for %s, error %v", token.ConnectorURL, err)
	}
	pair(t, s, token.Token)
	call("POST", "/v1/runtimes/"+app+"/token", "", 404, `{"error":"runtime `+app+`: not found"}`)
	call("POST", "/v1/applications/"+app+"/token", "", 200, "*")
	call("POST", "/v1/applications/"+put.ID+"/token", "", 404, `{"error":"application `+put.ID+`: not found"}`)

	var status RuntimeStatus
	if err := json.Unmarshal([]byte(call("GET", "/v1/runtimes/"+put.ID, "", 200, "*")), &status); err != nil || status.Condition != "INITIAL" || len(status.SystemAuths) != 1 {
		t.Fatalf("status %+v, error %v", status, err)
	}
	auth := status.SystemAuths[0].ID
	call("GET", "/v1/runtimes/nobody", "", 404, `{"error":"runtime nobody: not found"}`)
	call("POST", "/v1/system-auths/"+auth+"/revoke", "", 204, "")
	if got := call("GET", "/v1/system-auths/"+put.ID, "", 200, "*"); !strings.Contains(got, `"revoked":true`) {
		t.Errorf("system auths %s", got)
	}
	call("DELETE", "/v1/system-auths/"+auth, "", 204, "")
	call("DELETE", "/v1/system-auths/"+auth, "", 404, `{"error":"system auth `+auth+`: not found"}`)
	call("POST", "/v1/system-auths/"+auth+"/revoke", "", 404, `{"error":"system auth `+auth+`: not found"}`)

	bundle := s.Admin().Inventory().Tenants[0].Applications[0].Bundles[0].ID
	call("PUT", "/v1/bundles/"+bundle+"/instance-auths", `{"runtimeID":"`+put.ID+`","condition":"PENDING"}`, 200, "*")
	call("PUT", "/v1/bundles/nothing/instance-auths", `{"runtimeID":"`+put.ID+`","condition":"PENDING"}`, 404, `{"error":"bundle nothing: not found"}`)
	call("DELETE", "/v1/runtimes/"+put.ID, "", 204, "")
	call("DELETE", "/v1/runtimes/"+put.ID, "", 404, `{"error":"runtime `+put.ID+`: not found"}`)
	call("DELETE", "/v1/applications/"+app, "", 204, "")
	call("DELETE", "/v1/applications/"+app, "", 404, `{"error":"application `+app+`: not found"}`)

	call("POST", "/v1/faults", `{"id":"slow","kind":"Slow","delay":"1m"}`, 200, `{"id":"slow"}`)
	call("POST", "/v1/faults", `{"kind":"Slow"}`, 400, `{"error":"fault: delay: is required for a fault of kind Slow"}`)
	call("GET", "/v1/faults", "", 200, `[{"id":"slow","kind":"Slow","delay":"1m0s"}]`)
	call("DELETE", "/v1/faults/slow", "", 204, "")
	call("POST", "/v1/faults", `{"kind":"Hang"}`, 200, `{"id":"fault-1"}`)
	call("DELETE", "/v1/faults", "", 204, "")
	call("GET", "/v1/faults", "", 200, `[]`)

	call("GET", "/v1/counters/wait?operation=configuration&answered=1", "", 200, `{"requests":{"received":2,"answered":2},"operations":{"configuration":{"received":1,"answered":1},"signCertificateSigningRequest":{"received":1,"answered":1}}}`)
	call("GET", "/v1/counters/wait?answered=many", "", 400, `{"error":"answered: \"many\" is not a number of requests"}`)
	if got := call("GET", "/v1/requests", "", 200, "*"); !strings.Contains(got, `"operations":["signCertificateSigningRequest"],"userAgent":"Go-http-client/1.1","withToken":true`) || strings.Contains(got, token.Token) {
		t.Errorf("requests %s", got)
	}
	call("DELETE", "/v1/counters", "", 204, "")
	call("GET", "/v1/counters", "", 200, `{"requests":{"received":0,"answered":0},"operations":{}}`)

	call("PUT", "/v1/settings", `{"clockSkew":"1h","tokenValidity":"5m","certificateValidity":"24h"}`, 204, "")
	if got := time.Until(s.now()); got < 59*time.Minute || s.tokenValidity() != 5*time.Minute || s.certificateValidity() != 24*time.Hour {
		t.Errorf("skew %s, tokens %s, certificates %s", got, s.tokenValidity(), s.certificateValidity())
	}
	call("PUT", "/v1/settings", `{"clockSkew":"soon"}`, 400, `{"error":"body: error unmarshaling JSON: while decoding JSON: time: invalid duration \"soon\""}`)
	before := string(s.ServerCA())
	call("POST", "/v1/server-ca/rotate", "", 204, "")
	if string(s.ServerCA()) == before {
		t.Error("the servers' CA is the same")
	}
	call("POST", "/v1/client-ca/rotate?keepOld=true", "", 204, "")
	if ca, err := s.clientCA.get(); err != nil || len(ca.trusted) != 2 {
		t.Errorf("error %v, CA %+v", err, ca)
	}
	if got := call("GET", "/v1/endpoints", "", 200, "*"); !strings.Contains(got, s.DirectorURL()) {
		t.Errorf("endpoints %s", got)
	}
	if got := call("GET", "/v1/inventory", "", 200, "*"); !strings.Contains(got, `"name":"Shop (EU)"`) {
		t.Errorf("inventory %s", got)
	}
}

func TestAWebPageCannotUseTheAdministratorsListener(t *testing.T) {
	s := startCompass(t, Options{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.AdminURL()+"/v1/server-ca/rotate", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, want 403", resp.StatusCode)
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	s := startCompass(t, Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	err := s.Admin().WaitForRequests(ctx, "viewer", 1)
	if !errors.Is(err, enough) || err.Error() != `waited for requests "viewer", saw 0 received and 0 answered: enough` {
		t.Errorf("error %v", err)
	}
}

func TestStateThatCannotBeReadIsNamed(t *testing.T) {
	for file, want := range map[string]string{
		inventoryFileName:  "invalid character 'x' looking for beginning of value",
		identitiesFileName: "invalid character 'x' looking for beginning of value",
		clientCAFileName:   "want a private key and at least one certificate in PEM",
		serverCAFileName:   "want a private key and at least one certificate in PEM",
	} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Start(t.Context(), Options{StateDir: dir})
			if err == nil {
				_ = s.Close()
				t.Fatal("it started")
			}
			if diff := cmp.Diff("compass: "+path+": "+want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStateIsForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := startCompass(t, Options{StateDir: dir, Seed: shopSeed()})
	pairRuntime(t, s, testRuntime)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		got[entry.Name()] = info.Mode().String()
	}
	want := map[string]string{inventoryFileName: "-rw-------", identitiesFileName: "-rw-------", clientCAFileName: "-rw-------", serverCAFileName: "-rw-------"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	f := newFaultFixture(t)
	f.set(Fault{Kind: FaultHang, Operation: "viewer"})
	answered := make(chan reply, 1)
	go func() { answered <- f.viewer() }()
	ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
	defer cancel()
	if err := f.server.Admin().WaitForRequests(ctx, "viewer", 1); err != nil {
		t.Fatal(err)
	}
	if err := f.server.Close(); err != nil {
		t.Error(err)
	}
	if got := <-answered; got.Err == nil {
		t.Errorf("status %d, want a cut connection", got.Status)
	}
}

func TestABodyOverTheLimitIsRefused(t *testing.T) {
	f := newFaultFixture(t)
	got := f.runtime.send(f.server.DirectorURL(), contentTypeJSON, bytes.Repeat([]byte(" "), maxRequestBytes+1), nil)
	if got.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, error %v; want 413", got.Status, got.Err)
	}
}
