// Package csrf obtains and keeps CSRF tokens as OData services hand them out: a request with "X-Csrf-Token: fetch" is
// answered by a token and by the cookies it is bound to. Token and cookies are one credential: kept, replaced and
// forgotten together, for one API and one credential, never shared beyond.
package csrf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/cache"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/transport"
	"github.com/application-connector/application-connector/secret"
)

const (
	capacity = 10_000
	// life is how long a session is used at most. Services do not say how long theirs last; what ends earlier is refused
	// with 403, and that makes the gateway fetch anew, and use the next ones for less long.
	life = 10 * time.Minute
	// shortest is how long a session is used at least, whatever was learned.
	shortest = time.Second
	// Of the age at which a session turned out to have ended, others are used for cautious parts in ten. That may have had
	// another cause, and services change: each session that lasts adds one part in patience.
	cautious, patience = 9, 32
	// longest is more than any lifetime that settings can ask for.
	longest = 24 * time.Hour
	// drain is how much of an answer's body is read, in bytes, so that the connection can be used again.
	drain = 256 << 10
	// backoff is the first pause after repeated failures; it grows up to pause.
	backoff = 250 * time.Millisecond
	pause   = 5 * time.Second
)

// Options of a Manager.
type Options struct {
	// Transports gives the round tripper for a CSRF token endpoint.
	Transports func(host string, identity *credentials.Identity, trust credentials.Trust) http.RoundTripper
	// Timeout bounds the calls to a CSRF token endpoint that a session takes, unless the request for one has its own.
	Timeout time.Duration
	Clock   clock.PassiveClock
	// Fetched is told of each call to a CSRF token endpoint, and whether it failed. May be nil.
	Fetched func(err error)
	// Looked is told each time that one is asked for: whether there was one that may be used. May be nil.
	Looked func(found bool)
}

// Manager implements credentials.SessionSource. It is safe for concurrent use.
type Manager struct {
	options  Options
	sessions *cache.Cache[key, *credentials.Session]
	learned  *lru.Cache[key, time.Duration] // how long sessions are used, where those of a service end early
}

type key struct {
	owner    credentials.Owner
	version  credentials.Version
	url      string
	trust    credentials.Trust
	settings credentials.CSRF
	timeout  time.Duration
}

func keyOf(r credentials.SessionRequest) key {
	return key{r.Owner, r.Version, r.URL, r.Trust, r.Settings, r.Timeout}
}

// New returns a Manager without sessions. Close it to end what it has under way.
func New(o Options) *Manager {
	if o.Fetched == nil {
		o.Fetched = func(error) {}
	}
	timeout := func(k key) time.Duration { return cmp.Or(k.timeout, o.Timeout) }
	learned, err := lru.New[key, time.Duration](capacity)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &Manager{options: o, learned: learned, sessions: cache.New[key, *credentials.Session](cache.Options[key]{Capacity: capacity, Timeout: timeout, Pause: pause, Backoff: backoff, Clock: o.Clock, Looked: o.Looked})}
}

// Len is the number of sessions kept.
func (m *Manager) Len() int { return m.sessions.Len() }

// Close ends calls under way.
func (m *Manager) Close() { m.sessions.Close() }

// Session returns a session; however many ask, one call is made. A failure is a *credentials.CallError with status 502.
// The session is shared by all callers: it must not be changed.
func (m *Manager) Session(ctx context.Context, r credentials.SessionRequest) (*credentials.Session, error) {
	return m.sessions.Get(ctx, keyOf(r), func(ctx context.Context) (cache.Fetched[*credentials.Session], error) {
		session, served, err := m.fetch(ctx, r)
		m.options.Fetched(err)
		if err != nil {
			return cache.Fetched[*credentials.Session]{}, err
		}
		session.Opened = m.options.Clock.Now()
		return cache.Fetched[*credentials.Session]{Value: session, Expires: session.Opened.Add(m.useful(keyOf(r), served))}, nil
	})
}

// Forget drops a session that a target refused, unless it was replaced since.
func (m *Manager) Forget(r credentials.SessionRequest, session *credentials.Session) {
	m.sessions.Forget(keyOf(r), func(kept *credentials.Session) bool { return kept == session })
}

// Outlived notes how long sessions last, by one that was refused although another one was not.
func (m *Manager) Outlived(r credentials.SessionRequest, session *credentials.Session) {
	k := keyOf(r)
	lasts := max(shortest, m.options.Clock.Since(session.Opened)*cautious/10)
	if known, ok := m.learned.Get(k); !ok || lasts < known {
		m.learned.Add(k, lasts)
		m.sessions.EndBy(k, m.options.Clock.Now().Add(lasts)) // of the one that came in its place
	}
}

// useful is how long a session is used that was to be served for some time.
func (m *Manager) useful(k key, served time.Duration) time.Duration {
	known, ok := m.learned.Get(k)
	if !ok {
		return served
	}
	if known >= served {
		m.learned.Remove(k)
		return served
	}
	m.learned.Add(k, known+known/patience)
	return known
}

// fetch opens a session and says how long it serves. Services that refuse GET are asked by HEAD, unless settings name the
// method.
func (m *Manager) fetch(ctx context.Context, r credentials.SessionRequest) (*credentials.Session, time.Duration, error) {
	method := cmp.Or(r.Settings.Method, http.MethodGet)
	response, err := m.ask(ctx, method, r) //nolint:bodyclose // ask has closed it
	if err == nil && r.Settings.Method == "" && (response.StatusCode == http.StatusMethodNotAllowed || response.StatusCode == http.StatusNotImplemented) {
		response, err = m.ask(ctx, http.MethodHead, r) //nolint:bodyclose // ask has closed it
	}
	if err != nil {
		return nil, 0, err
	}
	printable := credentials.PrintableURL(r.URL)
	if response.StatusCode != http.StatusOK {
		return nil, 0, failed(response.StatusCode, fmt.Sprintf("incorrect response code '%d' while getting token from %s", response.StatusCode, printable), nil)
	}
	token := secret.Value(response.Header.Get(r.Settings.Holds()))
	if token == "" {
		return nil, 0, failed(response.StatusCode, fmt.Sprintf("the answer of %s has no header %s", printable, r.Settings.Holds()), nil)
	}
	session, served := &credentials.Session{Token: token}, cmp.Or(r.Settings.Lifetime, life)
	for _, c := range response.Cookies() {
		switch now := m.options.Clock.Now(); {
		case c.MaxAge < 0, c.MaxAge == 0 && !c.Expires.IsZero() && !c.Expires.After(now):
			continue // the service takes this cookie back
		case c.MaxAge > 0:
			// The token is bound to its cookies: it is of no use for longer than they are.
			served = min(served, time.Duration(min(c.MaxAge, int(longest/time.Second)))*time.Second)
		case !c.Expires.IsZero():
			served = min(served, c.Expires.Sub(now))
		}
		value := c.Value
		if c.Quoted {
			value = `"` + value + `"`
		}
		session.Cookies = append(session.Cookies, credentials.Cookie{Name: c.Name, Value: secret.Value(value)})
	}
	return session, served, nil
}

// ask makes one call. The answer's body is gone already.
func (m *Manager) ask(ctx context.Context, method string, r credentials.SessionRequest) (*http.Response, error) {
	printable := credentials.PrintableURL(r.URL)
	if err := credentials.CheckURL(r.URL); err != nil {
		return nil, failed(0, fmt.Sprintf("failed to make a request to '%s'", printable), err)
	}
	request, err := http.NewRequestWithContext(ctx, method, r.URL, nil)
	if err != nil {
		return nil, failed(0, "failed to create token request", errors.New("cannot be parsed as a URL"))
	}
	request.Header.Set(r.Settings.Carries(), "fetch")
	request.Header.Set("Accept", "*/*")
	request.Header.Set("Cache-Control", "no-cache")
	for _, f := range r.Header {
		request.Header.Set(f.Name, f.Value.Reveal())
	}
	client := http.Client{
		Transport: m.options.Transports(request.URL.Host, r.Identity, r.Trust),
		// A redirect would carry the credential to wherever the answer says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, failed(0, fmt.Sprintf("failed to make a request to '%s'", printable), transport.Cause(err))
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, drain)) // only the header matters
	_ = response.Body.Close()
	return response, nil
}

func failed(answered int, message string, cause error) error {
	if cause != nil {
		message += ": " + cause.Error()
	}
	return &credentials.CallError{Status: http.StatusBadGateway, Reason: credentials.FailureCSRF, Message: message, Answered: answered, Err: cause}
}
