package systems

import (
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"k8s.io/utils/clock"
)

// kept bounds each store of tokens and sessions; the oldest goes first.
const kept = 10_000

// grant is a token that was handed out.
type grant struct {
	clientID string
	// certificate is the subject that the token endpoint saw, when it asked for a certificate.
	certificate string
	expires     time.Time
}

// session is a CSRF session: the token is only good with the cookie.
type session struct {
	token   string
	expires time.Time
}

// Count is how often an endpoint was called and how often it answered 400 or more.
type Count struct {
	Requests int `json:"requests"`
	Refused  int `json:"refused"`
}

// bounded is a map that forgets its oldest entries.
type bounded[V any] struct {
	values map[string]V
	order  []string
}

func (b *bounded[V]) put(key string, v V) {
	if b.values == nil {
		b.values = map[string]V{}
	}
	b.values[key] = v
	b.order = append(b.order, key)
	if len(b.order) > kept {
		delete(b.values, b.order[0])
		b.order = b.order[1:]
	}
}

func (b *bounded[V]) clear() { b.values, b.order = nil, nil }

// state is what the systems remember and what can be changed at run time.
type state struct {
	clock           clock.PassiveClock
	sessionLifetime time.Duration

	mu            sync.Mutex
	credentials   Credentials
	tokenLifetime time.Duration
	tokens        bounded[grant]
	sessions      bounded[session]
	csrfTokens    bounded[struct{}] // of the conformance endpoints, which do not bind token and cookie
	csrfCookies   bounded[struct{}]
	// reissued holds, for a common name that was revoked, the serial numbers handed out since.
	reissued map[string]map[string]bool
	counts   map[string]Count
	// onSecret is told what is handed out.
	onSecret func(name, text string)
}

func newState(o Options) *state {
	return &state{
		clock: o.Clock, sessionLifetime: o.SessionLifetime, credentials: o.Credentials, tokenLifetime: o.TokenLifetime,
		reissued: map[string]map[string]bool{}, counts: map[string]Count{}, onSecret: o.OnSecret,
	}
}

func (s *state) current() (Credentials, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.credentials, s.tokenLifetime
}

// issue hands out a token.
func (s *state) issue(clientID, certificate string, lifetime time.Duration) string {
	token := uuid.NewString()
	s.onSecret("an OAuth token", token)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.put(token, grant{clientID, certificate, s.clock.Now().Add(lifetime)})
	return token
}

// token finds a token that is still good.
func (s *state) token(token string) (grant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.tokens.values[token]
	return g, ok && s.clock.Now().Before(g.expires)
}

// session finds a CSRF session that is still good.
func (s *state) session(id string) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions.values[id]
	return x, ok && s.clock.Now().Before(x.expires)
}

func (s *state) newSession() (id string, x session) {
	id, x = uuid.NewString(), session{uuid.NewString(), s.clock.Now().Add(s.sessionLifetime)}
	s.onSecret("a CSRF session's cookie", id)
	s.onSecret("a CSRF token", x.token)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions.put(id, x)
	return id, x
}

var errRevoked = errors.New("client certificate is revoked")

func (s *state) checkRevoked(c *x509.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if good, revoked := s.reissued[c.Subject.CommonName]; revoked && !good[c.SerialNumber.String()] {
		return errRevoked
	}
	return nil
}

func (s *state) issued(c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if good, revoked := s.reissued[c.Subject.CommonName]; revoked {
		good[c.SerialNumber.String()] = true
	}
}

func (s *state) count(endpoint string, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts[endpoint]
	c.Requests++
	if refused {
		c.Refused++
	}
	s.counts[endpoint] = c
}

// Credentials gives what is accepted now.
func (s *Server) Credentials() Credentials {
	c, _ := s.state.current()
	return c
}

// SetCredentials changes what is accepted from the next request on; empty fields stay as they are. Tokens that were handed
// out stay good: see RevokeTokens.
func (s *Server) SetCredentials(c Credentials) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.credentials = c.withDefaults(s.state.credentials)
}

// SetTokenLifetime changes how long tokens are good that are handed out from now on. It must be at least a second.
func (s *Server) SetTokenLifetime(d time.Duration) error {
	if d < time.Second {
		return errors.New("token lifetime must be at least 1s, since expires_in counts seconds")
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.tokenLifetime = d
	return nil
}

// RevokeTokens makes every OAuth token that was handed out bad.
func (s *Server) RevokeTokens() {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.tokens.clear()
}

// ExpireSessions makes every CSRF token and session bad.
func (s *Server) ExpireSessions() {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.sessions.clear()
	s.state.csrfTokens.clear()
	s.state.csrfCookies.clear()
}

// RevokeClientCertificates refuses every certificate with this common name that was issued until now, from the next
// handshake on. It is forgotten at a restart.
func (s *Server) RevokeClientCertificates(cn string) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.reissued[cn] = map[string]bool{}
}

// Counts gives how often each endpoint was called, by method and path as in the table of endpoints.
func (s *Server) Counts() map[string]Count {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	out := make(map[string]Count, len(s.state.counts))
	for k, v := range s.state.counts {
		out[k] = v
	}
	return out
}
