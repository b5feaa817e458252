package systems

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
)

// The endpoints below /v1 behave as the mock application does that the gateway's conformance cases were written for:
// status codes are what the cases compare, even where another would be better HTTP.

// certificateLife is how long a token of mtls-oauth/token is good, whatever it announces.
const certificateLife = 5 * time.Minute

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

// grantRequest reads the form of a token request; secret asks for client_secret too.
func (s *Server) grantRequest(w http.ResponseWriter, r *http.Request, withSecret bool) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	c, _ := s.state.current()
	if r.ParseForm() == nil && r.PostForm.Get("grant_type") == "client_credentials" && r.PostForm.Get("client_id") == c.ClientID &&
		(!withSecret || r.PostForm.Get("client_secret") == c.ClientSecret.Reveal()) {
		return true
	}
	w.WriteHeader(http.StatusForbidden)
	return false
}

func (s *Server) conformanceToken(w http.ResponseWriter, r *http.Request) {
	if !s.grantRequest(w, r, true) {
		return
	}
	c, lifetime := s.state.current()
	if text := r.URL.Query().Get("token_lifetime"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second {
			http.Error(w, "token_lifetime must be a Go duration of at least 1s", http.StatusBadRequest)
			return
		}
		lifetime = d
	}
	writeJSON(w, http.StatusOK, tokenAnswer{s.state.issue(c.ClientID, "", lifetime), "bearer", int64(lifetime / time.Second)})
}

func (s *Server) conformanceBadToken(w http.ResponseWriter, r *http.Request) {
	if s.grantRequest(w, r, true) {
		token := uuid.NewString()
		s.o.OnSecret("an OAuth token", token)
		writeJSON(w, http.StatusOK, tokenAnswer{AccessToken: token, TokenType: "bearer"})
	}
}

func (s *Server) conformanceMTLSToken(w http.ResponseWriter, r *http.Request) {
	if !s.grantRequest(w, r, false) {
		return
	}
	c, _ := s.state.current()
	token := s.state.issue(c.ClientID, subject(r.TLS.PeerCertificates[0]), certificateLife)
	writeJSON(w, http.StatusOK, tokenAnswer{token, "bearer", 3600})
}

const conformanceCookie = "csrftokencookie"

func (s *Server) conformanceCSRF(w http.ResponseWriter, _ *http.Request) {
	token, cookie := uuid.NewString(), uuid.NewString()
	s.state.mu.Lock()
	s.state.csrfTokens.put(token, struct{}{})
	s.state.csrfCookies.put(cookie, struct{}{})
	s.state.mu.Unlock()
	s.csrfAnswer(w, token, cookie)
}

func (s *Server) conformanceBadCSRF(w http.ResponseWriter, _ *http.Request) {
	s.csrfAnswer(w, uuid.NewString(), uuid.NewString())
}

func (s *Server) csrfAnswer(w http.ResponseWriter, token, cookie string) {
	s.o.OnSecret("a CSRF token", token)
	s.o.OnSecret("a CSRF session's cookie", cookie)
	w.Header().Set("X-Csrf-Token", token)
	http.SetCookie(w, &http.Cookie{Name: conformanceCookie, Value: cookie}) // as the original sets it
	w.WriteHeader(http.StatusOK)
}

func (s *Server) needsCSRF(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie(conformanceCookie)
		known := err == nil
		if known {
			s.state.mu.Lock()
			_, tokenKnown := s.state.csrfTokens.values[r.Header.Get("X-Csrf-Token")]
			_, cookieKnown := s.state.csrfCookies.values[cookie.Value]
			s.state.mu.Unlock()
			known = tokenKnown && cookieKnown
		}
		if !known {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

func (s *Server) needsBasic(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, refused := s.basic(w, r); refused != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

func (s *Server) needsToken(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, good := s.bearerToken(r); !good {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func needsParameters(next http.HandlerFunc) http.HandlerFunc {
	has := func(values map[string][]string, key string, want ...string) bool {
		for _, v := range want {
			if !slices.Contains(values[key], v) {
				return false
			}
		}
		return true
	}
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if !has(r.Header, "Hkey1", "Hval1") || !has(r.Header, "Hkey2", "Hval21", "Hval22") ||
			!has(query, "Qkey1", "Qval1") || !has(query, "Qkey2", "Qval21", "Qval22") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		next(w, r)
	}
}

// echoed is the answer of unsecure/echo. The headers are complete: the endpoint takes no credentials.
type echoed struct {
	Body    []byte              `json:"body"`
	Headers http.Header         `json:"headers"`
	Method  string              `json:"method"`
	Query   map[string][]string `json:"query"`
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
	if err != nil {
		http.Error(w, "reading the body: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(echoed{body, r.Header, r.Method, r.URL.Query()})
}

func redirectTo(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { redirectWith(w, http.StatusTemporaryRedirect, location) }
}

// timeout answers nothing until the client goes away.
func timeout(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
