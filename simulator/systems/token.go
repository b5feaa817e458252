package systems

import (
	"net/http"
	"net/url"
	"time"
)

// maxForm bounds the form of a token request, in bytes.
const maxForm = 64 << 10

// tokenAnswer is RFC 6749, section 5.1.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in,omitempty"`
}

// tokenEndpoint is the client credentials grant of RFC 6749, section 4.4. The client may name itself in the form, by
// Basic authentication, or, as existing clients do, by both; then both must be right.
func (s *Server) tokenEndpoint(w http.ResponseWriter, r *http.Request) {
	c, lifetime := s.state.current()
	form, ok := grantForm(w, r)
	if !ok {
		return
	}
	id, password, basic := r.BasicAuth()
	// Section 2.3.1 wants id and password form-encoded, yet existing clients do not.
	plain := func(got, want string) bool {
		decoded, err := url.QueryUnescape(got)
		return got == want || err == nil && decoded == want
	}
	good := basic || form.Has("client_secret")
	if basic {
		good = good && plain(id, c.ClientID) && plain(password, c.ClientSecret.Reveal())
	}
	if form.Has("client_secret") {
		good = good && form.Get("client_id") == c.ClientID && form.Get("client_secret") == c.ClientSecret.Reveal()
	}
	if !good {
		w.Header().Set("Www-Authenticate", `Basic realm="systems"`)
		tokenError(w, http.StatusUnauthorized, "invalid_client", "client id or secret is missing or wrong")
		return
	}
	s.hand(w, c.ClientID, "", lifetime)
}

// mtlsTokenEndpoint knows the client by its certificate (RFC 8705, section 2).
func (s *Server) mtlsTokenEndpoint(w http.ResponseWriter, r *http.Request) {
	c, lifetime := s.state.current()
	form, ok := grantForm(w, r)
	if !ok {
		return
	}
	if form.Get("client_id") != c.ClientID {
		tokenError(w, http.StatusUnauthorized, "invalid_client", "client_id is missing or wrong")
		return
	}
	s.hand(w, c.ClientID, subject(r.TLS.PeerCertificates[0]), lifetime)
}

func (s *Server) hand(w http.ResponseWriter, clientID, certificate string, lifetime time.Duration) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, tokenAnswer{s.state.issue(clientID, certificate, lifetime), "Bearer", int64(lifetime / time.Second)})
}

func grantForm(w http.ResponseWriter, r *http.Request) (url.Values, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		tokenError(w, http.StatusBadRequest, "invalid_request", "the form cannot be read")
		return nil, false
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		tokenError(w, http.StatusBadRequest, "unsupported_grant_type", "grant_type must be client_credentials")
		return nil, false
	}
	return r.PostForm, true
}

// tokenError is RFC 6749, section 5.2.
func tokenError(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, map[string]string{"error": code, "error_description": text})
}
