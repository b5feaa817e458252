// Package directortest is the Director of a simulated Compass as administrators reach it: by TLS, with an access token of an OAuth
// 2.0 server, which it is too. Tests of onboarding see what is asked, answer themselves, and lose answers. It knows nothing of
// clusters.
package directortest

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ClientSecret is that of the client "me", and AccessToken what it gets for it. Neither may be told by what is tested.
const (
	ClientSecret = "canary-client-secret"
	AccessToken  = "canary-access-token"
)

// Hooks of a test; each may be nil. They are called concurrently.
type Hooks struct {
	// Asked is called before anything is answered, by the OAuth 2.0 server too. What it gives answers instead, unless that is nil.
	Asked func(r *http.Request) http.HandlerFunc
	// Answered is called when the Director has done what it was asked for. If it reports true the answer is lost.
	Answered func(operation string, mutation bool) (lost bool)
}

// Start starts one in front of the Director for administrators at a URL, until the test ends.
func Start(t testing.TB, admin string, hooks Hooks) *httptest.Server {
	t.Helper()
	server := httptest.NewTLSServer(&front{admin, hooks})
	t.Cleanup(server.Close)
	return server
}

// URL is that of the GraphQL API.
func URL(s *httptest.Server) string { return s.URL + "/director/graphql" }

// Credentials are the file that onboarding reads.
func Credentials(s *httptest.Server) string {
	return fmt.Sprintf("client_id: me\nclient_secret: %s\ntokens_endpoint: %s/oauth/token\n", ClientSecret, s.URL)
}

// Authority is the certificate by which a server is verified, as PEM.
func Authority(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

type front struct {
	admin string
	hooks Hooks
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.hooks.Asked != nil {
		if answer := f.hooks.Asked(r); answer != nil {
			answer(w, r)
			return
		}
	}
	switch {
	case r.URL.Path == "/oauth/token":
		token(w, r)
	case r.Header.Get("Authorization") != "Bearer "+AccessToken:
		w.WriteHeader(http.StatusUnauthorized)
	default:
		f.forward(w, r)
	}
}

func token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	user, password, _ := r.BasicAuth()
	if user != "me" || password != ClientSecret || r.FormValue("scope") != "runtime:read runtime:write" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, password)
		return
	}
	fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":3600}`, AccessToken)
}

func (f *front) forward(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, f.admin+"/director/graphql", bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	request.Header = r.Header.Clone()
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	var asked struct{ Query, OperationName string }
	if err != nil || json.Unmarshal(body, &asked) != nil ||
		f.hooks.Answered != nil && f.hooks.Answered(asked.OperationName, strings.Contains(asked.Query, "mutation ")) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(answer)
}
