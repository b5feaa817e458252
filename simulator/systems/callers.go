package systems

import (
	"net/http"
	"slices"
	"strings"
)

func (s *Server) anyone(http.ResponseWriter, *http.Request) (Caller, *refusal) {
	return Caller{Kind: "none"}, nil
}

func (s *Server) basic(_ http.ResponseWriter, r *http.Request) (Caller, *refusal) {
	c, _ := s.state.current()
	user, password, ok := r.BasicAuth()
	if !ok || user != c.Username || password != c.Password.Reveal() {
		text := "Basic credentials are missing"
		if ok {
			text = "user name or password is wrong"
		}
		return Caller{}, &refusal{http.StatusUnauthorized, http.Header{"Www-Authenticate": {`Basic realm="systems", charset="UTF-8"`}}, text}
	}
	return Caller{Kind: "basic", User: user}, nil
}

// bearerToken finds the token of a request among those that are good.
func (s *Server) bearerToken(r *http.Request) (grant, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return grant{}, false
	}
	return s.state.token(token)
}

func (s *Server) bearer(_ http.ResponseWriter, r *http.Request) (Caller, *refusal) {
	g, ok := s.bearerToken(r)
	if !ok || g.certificate != "" {
		return Caller{}, badToken(r, "the token is not known, not of this API, or has expired")
	}
	return Caller{Kind: "oauth", ClientID: g.clientID}, nil
}

func (s *Server) bearerOfCertificate(_ http.ResponseWriter, r *http.Request) (Caller, *refusal) {
	g, ok := s.bearerToken(r)
	if !ok || g.certificate == "" {
		return Caller{}, badToken(r, "the token is not known, was not asked for with a certificate, or has expired")
	}
	return Caller{Kind: "oauth-mtls", ClientID: g.clientID, CertificateSubject: g.certificate}, nil
}

// badToken answers by RFC 6750, section 3.
func badToken(r *http.Request, text string) *refusal {
	challenge := `Bearer realm="systems"`
	if r.Header.Get("Authorization") == "" {
		text = "a Bearer token is missing"
	} else {
		challenge += `, error="invalid_token"`
	}
	return &refusal{http.StatusUnauthorized, http.Header{"Www-Authenticate": {challenge}}, text}
}

func (s *Server) certificate(_ http.ResponseWriter, r *http.Request) (Caller, *refusal) {
	return Caller{Kind: "certificate", CertificateSubject: subject(r.TLS.PeerCertificates[0])}, nil
}

func (s *Server) parameters(_ http.ResponseWriter, r *http.Request) (Caller, *refusal) {
	c, _ := s.state.current()
	switch {
	case !slices.Contains(r.Header.Values("X-Api-Key"), c.APIKey.Reveal()):
		return Caller{}, &refusal{http.StatusUnauthorized, nil, "the header field X-Api-Key is missing or wrong"}
	case !slices.Contains(r.URL.Query()["region"], c.Region):
		return Caller{}, &refusal{http.StatusBadRequest, nil, "the query parameter region is missing or wrong"}
	}
	return Caller{Kind: "parameters"}, nil
}

// sessionCookie is the cookie that a CSRF token is bound to.
const sessionCookie = "SAP_SESSIONID"

// csrf is Basic with the manners of SAP's OData services: GET or HEAD with "X-Csrf-Token: Fetch" hands out a token and the
// cookie of its session; what changes something needs both, else 403 with "X-Csrf-Token: Required".
func (s *Server) csrf(w http.ResponseWriter, r *http.Request) (Caller, *refusal) {
	caller, refused := s.basic(w, r)
	if refused != nil {
		return caller, refused
	}
	var current session
	known := false
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		current, known = s.state.session(cookie.Value)
	}
	sent := r.Header.Get("X-Csrf-Token")
	caller.CSRF = known && sent == current.token
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		if !strings.EqualFold(sent, "fetch") || r.Method == http.MethodOptions {
			return caller, nil
		}
		if !known {
			var id string
			id, current = s.state.newSession()
			// The original sets no SameSite; on plain HTTP a Secure cookie would never come back.
			http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true, Secure: r.TLS != nil})
		}
		w.Header().Set("X-Csrf-Token", current.token)
		return caller, nil
	}
	if !caller.CSRF {
		return caller, &refusal{http.StatusForbidden, http.Header{"X-Csrf-Token": {"Required"}}, "CSRF token validation failed"}
	}
	return caller, nil
}
