// Package tokens obtains and keeps bearer tokens by the client credentials grant (RFC 6749, section 4.4). It owns when a
// token is fetched, renewed and forgotten, and what the token endpoint sees; it knows nothing of the call the token is for.
package tokens

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/cache"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/transport"
	"github.com/application-connector/application-connector/secret"
)

const (
	capacity = 10_000
	// answerLimit is the largest answer of a token endpoint that is read, in bytes.
	answerLimit = 1 << 20
	// defaultLife is for an answer that does not say how long the token is valid (RFC 6749 makes expires_in optional).
	defaultLife = 5 * time.Minute
	// longestLife bounds what an answer may claim.
	longestLife = 24 * time.Hour
	// margin is what is taken off a token's life, so that it does not end on its way; for short lives a fifth instead.
	margin = 2 * time.Second
	// refreshPause is the least time between two failed attempts to renew a token that still serves.
	refreshPause = 5 * time.Second
	// backoff is the first pause after repeated failures to get a token; it grows up to refreshPause.
	backoff = 250 * time.Millisecond
)

// Transports gives the round tripper for a token endpoint.
type Transports func(host string, identity *credentials.Identity, trust credentials.Trust) http.RoundTripper

// Options of a Manager.
type Options struct {
	Transports Transports
	// Timeout bounds one call to a token endpoint, unless the request for a token has one of its own.
	Timeout time.Duration
	Clock   clock.PassiveClock
	// Fetched is told of each call to a token endpoint: the kind of credentials, and whether it failed. May be nil.
	Fetched func(kind string, err error)
	// Looked is told each time that one is asked for: whether there was one that may be used. May be nil.
	Looked func(found bool)
}

// Manager implements credentials.TokenSource. It is safe for concurrent use.
type Manager struct {
	options Options
	tokens  *cache.Cache[key, secret.Value]
}

// key holds the version of the whole credential: URL, client, secret or certificate, and more parameters. A request with
// another time-out is another one: nobody waits for longer than it asked for, nor gives up sooner.
type key struct {
	version credentials.Version
	trust   credentials.Trust
	timeout time.Duration
}

func keyOf(r credentials.TokenRequest) key { return key{r.Version, r.Trust, r.Timeout} }

// New returns a Manager without tokens. Close it to end what it has under way.
func New(o Options) *Manager {
	if o.Fetched == nil {
		o.Fetched = func(string, error) {}
	}
	timeout := func(k key) time.Duration { return cmp.Or(k.timeout, o.Timeout) }
	return &Manager{options: o, tokens: cache.New[key, secret.Value](cache.Options[key]{Capacity: capacity, Timeout: timeout, Pause: refreshPause, Backoff: backoff, Clock: o.Clock, Looked: o.Looked})}
}

// Len is the number of tokens kept.
func (m *Manager) Len() int { return m.tokens.Len() }

// Close ends calls under way.
func (m *Manager) Close() { m.tokens.Close() }

// Token returns a token that is valid for some time yet. However many ask, one call is made. A failure is a
// *credentials.CallError: status 502, or 500 for CredentialsTypeOAuthWithCert.
func (m *Manager) Token(ctx context.Context, r credentials.TokenRequest) (secret.Value, error) {
	return m.tokens.Get(ctx, keyOf(r), func(ctx context.Context) (cache.Fetched[secret.Value], error) {
		f, err := m.fetch(ctx, r)
		m.options.Fetched(r.Kind, err)
		return f, err
	})
}

// Forget drops a token that a target refused, unless it was replaced since.
func (m *Manager) Forget(r credentials.TokenRequest, token secret.Value) {
	m.tokens.Forget(keyOf(r), func(kept secret.Value) bool { return kept == token })
}

func (m *Manager) fetch(ctx context.Context, r credentials.TokenRequest) (cache.Fetched[secret.Value], error) {
	request, err := newRequest(ctx, r)
	if err != nil {
		return fail(r, 0, fmt.Sprintf("failed to make a request to '%s'", credentials.PrintableURL(r.URL)), err)
	}
	client := http.Client{
		Transport: m.options.Transports(request.URL.Host, r.Identity, r.Trust),
		// A redirect would carry the client's secret to whatever host the answer names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	asked := m.options.Clock.Now() // a token's life begins before its answer is here
	response, err := client.Do(request)
	if err != nil {
		return fail(r, 0, fmt.Sprintf("failed to make a request to '%s'", credentials.PrintableURL(r.URL)), transport.Cause(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit+1))
	switch {
	case response.StatusCode != http.StatusOK:
		return fail(r, response.StatusCode, fmt.Sprintf("incorrect response code '%d' while getting token from %s", response.StatusCode, credentials.PrintableURL(r.URL)), nil)
	case err != nil:
		return fail(r, response.StatusCode, fmt.Sprintf("failed to make a request to '%s'", credentials.PrintableURL(r.URL)), transport.Cause(err))
	case len(body) > answerLimit:
		return fail(r, response.StatusCode, fmt.Sprintf("failed to read token response body from %s: larger than %d bytes", credentials.PrintableURL(r.URL), answerLimit), nil)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		// The error of the JSON library can quote the answer, which may hold the token.
		return fail(r, response.StatusCode, fmt.Sprintf("failed to unmarshal token response body: the answer of %s is not a JSON object with access_token and a whole number expires_in", credentials.PrintableURL(r.URL)), nil)
	}
	token := secret.Value(answer.AccessToken)
	if token == "" || !credentials.ValidHeaderValue(token) {
		return fail(r, response.StatusCode, fmt.Sprintf("failed to unmarshal token response body: the answer of %s holds no usable access_token", credentials.PrintableURL(r.URL)), nil)
	}
	return lifetime(token, asked, answer.ExpiresIn), nil
}

// lifetime says until when a token serves that was given, at the earliest, at a time. seconds is what the answer said; none, or nonsense, gives the default.
func lifetime(token secret.Value, now time.Time, seconds int64) cache.Fetched[secret.Value] {
	life := defaultLife
	if seconds > 0 {
		life = longestLife
		if seconds < int64(longestLife/time.Second) {
			life = time.Duration(seconds) * time.Second
		}
	}
	usable := life - min(margin, life/5)
	// Between 75 and 85 percent: replicas that started together do not ask together.
	early := time.Duration(float64(usable) * (0.75 + 0.1*rand.Float64()))
	return cache.Fetched[secret.Value]{Value: token, Expires: now.Add(usable), Refresh: now.Add(early)}
}

// newRequest builds the request. Without settings it is byte for byte as clients of the system in use know it: for OAuth
// the client authenticates by form fields and by Basic, for OAuthWithCert by its certificate alone.
func newRequest(ctx context.Context, r credentials.TokenRequest) (*http.Request, error) {
	if err := credentials.CheckURL(r.URL); err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	for name, value := range r.OAuth.Form {
		form.Set(name, value)
	}
	secretly := r.Kind == v1alpha1.CredentialsTypeOAuth
	if !secretly || !r.OAuth.OnlyHeader {
		form.Set("client_id", r.ClientID)
	}
	if secretly && !r.OAuth.OnlyHeader {
		form.Set("client_secret", r.ClientSecret.Reveal())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("cannot be parsed as a URL")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	switch {
	case !secretly, r.OAuth.OnlyBody:
	case r.OAuth.OnlyHeader: // RFC 6749, section 2.3.1 wants both encoded; without settings they never were
		request.Header.Set("Authorization", credentials.Basic(url.QueryEscape(r.ClientID), secret.Value(url.QueryEscape(r.ClientSecret.Reveal()))).Reveal())
	default:
		request.Header.Set("Authorization", credentials.Basic(r.ClientID, r.ClientSecret).Reveal())
	}
	if r.Parameters != nil {
		for _, p := range r.Parameters.Header {
			if _, set := request.Header[p.Name]; set {
				continue
			}
			for _, v := range p.Values {
				request.Header.Add(p.Name, v.Reveal())
			}
		}
		request.URL.RawQuery = credentials.AddQuery(request.URL.RawQuery, r.Parameters.Query)
	}
	if _, set := request.Header["User-Agent"]; !set {
		request.Header["User-Agent"] = []string{""} // the library would name itself
	}
	return request, nil
}

func fail(r credentials.TokenRequest, answered int, message string, cause error) (cache.Fetched[secret.Value], error) {
	if cause != nil {
		message += ": " + cause.Error()
	}
	status := http.StatusBadGateway
	if r.Kind == v1alpha1.CredentialsTypeOAuthWithCert {
		// Callers know this case as 500, whatever the cause.
		status, message = http.StatusInternalServerError, "Failed to get token: Failed to fetch token, possible certificate problem: "+message
	}
	return cache.Fetched[secret.Value]{}, &credentials.CallError{Status: status, Reason: credentials.FailureToken, Message: message, Answered: answered, Err: cause}
}
