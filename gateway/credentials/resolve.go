package credentials

import (
	"context"
	"fmt"
	"time"

	"github.com/application-connector/application-connector/secret"
)

// Value is what one call carries to prove itself. It is immutable.
type Value struct {
	Header   []Field  // set, over what the call already has
	Query    []Field  // added
	Cookies  []Cookie // set, over cookies of the same names
	Identity *Identity

	token   secret.Value
	session *Session
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (Value) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// Cookie is a cookie to be sent.
type Cookie struct {
	Name  string
	Value secret.Value
}

// Session is a CSRF token with the cookies it is bound to. Together they are one credential.
type Session struct {
	Token   secret.Value
	Cookies []Cookie
	Opened  time.Time
}

// Owner is the API a credential is used for. Sessions are never shared between owners.
type Owner struct{ Application, Service, Entry string }

// SessionRequest is what a CSRF token endpoint is asked with.
type SessionRequest struct {
	Owner    Owner
	URL      string
	Header   []Field
	Identity *Identity
	Trust    Trust
	Settings CSRF
	Timeout  time.Duration // of what it takes, zero for the default
	Version  Version       // of the credential that stays the same when a token is renewed
}

// TokenSource obtains bearer tokens.
type TokenSource interface {
	Token(context.Context, TokenRequest) (secret.Value, error)
	// Forget makes sure that a refused token is not given out again. A token that came since stays.
	Forget(TokenRequest, secret.Value)
}

// SessionSource obtains CSRF sessions.
type SessionSource interface {
	Session(context.Context, SessionRequest) (*Session, error)
	// Forget makes sure that a refused session is not given out again. A session that came since stays.
	Forget(SessionRequest, *Session)
	// Outlived says that a session was refused, and another one in its place was not: so long sessions do not last.
	Outlived(SessionRequest, *Session)
}

// Reasons of a CallError.
const (
	FailureToken = "TokenUnavailable"
	FailureCSRF  = "CSRFTokenUnavailable"
)

// CallError says that a token endpoint or a CSRF token endpoint did not give what is needed.
type CallError struct {
	// Status is the HTTP status that the gateway answers with.
	Status int
	// Reason is FailureToken or FailureCSRF.
	Reason string
	// Message is for the caller. It holds no secret and no query string.
	Message string
	// Answered is the HTTP status of the endpoint's answer, 0 if there was none.
	Answered int
	// Err is the cause, if there is one besides the answer itself.
	Err error
}

// Error implements error.
func (e *CallError) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *CallError) Unwrap() error { return e.Err }

// Use says for which API, with what and how a call is to prove itself.
type Use struct {
	Owner       Owner
	Credentials *Credentials
	// CSRF is the URL of the CSRF token endpoint, empty for none.
	CSRF         string
	CSRFSettings CSRF
	Trust        Trust
	// TokenTimeout bounds what it takes to get a token or a session, zero for the default.
	TokenTimeout time.Duration
	// External is the Authorization that the caller brought. If it is set, Credentials are not used at all.
	External secret.Value
}

// Resolver turns Use into a Value. It is safe for concurrent use.
type Resolver struct {
	Tokens   TokenSource
	Sessions SessionSource
}

// Resolve obtains what is needed and returns what the call carries. A failure is a *CallError, or the context's error.
func (r *Resolver) Resolve(ctx context.Context, u Use) (Value, error) {
	var v Value
	switch {
	case u.External != "":
		v.Header = []Field{{"Authorization", u.External}}
	case u.Credentials.Token != nil:
		token, err := r.Tokens.Token(ctx, u.tokenRequest())
		if err != nil {
			return Value{}, err
		}
		v.token = token
		v.Header = []Field{{"Authorization", Bearer(token)}}
		v.Identity = u.Credentials.Identity // for tokens that are bound to it
	default:
		v.Header, v.Identity = u.Credentials.Header, u.Credentials.Identity
	}
	if u.CSRF != "" {
		session, err := r.Sessions.Session(ctx, u.sessionRequest(v))
		if err != nil {
			return Value{}, err
		}
		v.session = session
		// A new slice: what came from Credentials is shared by all calls.
		v.Header = append(append([]Field{}, v.Header...), Field{u.CSRFSettings.Carries(), session.Token})
		v.Cookies = session.Cookies
	}
	return v, nil
}

// Forget makes sure that tokens and sessions of a value that was refused are not given out again.
func (r *Resolver) Forget(u Use, refused Value) {
	if refused.session != nil {
		r.Sessions.Forget(u.sessionRequest(refused), refused.session)
	}
	if refused.token != "" {
		r.Tokens.Forget(u.tokenRequest(), refused.token)
	}
}

// Outlived says that a value was refused, and another one was accepted in its place.
func (r *Resolver) Outlived(u Use, refused Value) {
	if refused.session != nil {
		r.Sessions.Outlived(u.sessionRequest(refused), refused.session)
	}
}

// Renewable says whether resolving again after Forget can give another value.
func (v Value) Renewable() bool { return v.session != nil || v.token != "" }

func (u Use) tokenRequest() TokenRequest {
	t := *u.Credentials.Token
	t.Trust, t.Timeout = u.Trust, u.TokenTimeout
	return t
}

func (u Use) sessionRequest(v Value) SessionRequest {
	version := u.Credentials.Version
	if u.External != "" {
		// A session belongs to who opened it: a caller with a token of its own gets a session of its own.
		version = VersionOf("external", u.External.Reveal())
	}
	s := SessionRequest{Owner: u.Owner, URL: u.CSRF, Identity: v.Identity, Trust: u.Trust, Settings: u.CSRFSettings, Timeout: u.TokenTimeout, Version: version}
	for _, f := range v.Header {
		if f.Name == "Authorization" {
			s.Header = append(s.Header, f)
		}
	}
	return s
}

// Version is equal for values that are equal in all that a call carries. It is computed at each call: only a refused call
// asks for it.
func (v Value) Version() Version {
	fields := []string{fmt.Sprint(len(v.Header), len(v.Query), len(v.Cookies))}
	for _, list := range [][]Field{v.Header, v.Query} {
		for _, f := range list {
			fields = append(fields, f.Name, f.Value.Reveal())
		}
	}
	for _, c := range v.Cookies {
		fields = append(fields, c.Name, c.Value.Reveal())
	}
	if v.Identity != nil {
		fields = append(fields, string(v.Identity.Version[:]))
	}
	return VersionOf(fields...)
}
