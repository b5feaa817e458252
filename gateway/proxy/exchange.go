package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/limits"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/transport"
)

// Source says who is to blame for what a caller got, in one word for logs and metrics.
type Source string

// Sources of errors.
const (
	SourceNone        Source = "none"        // no error
	SourceCaller      Source = "caller"      // the request itself, or the caller went away
	SourceGateway     Source = "gateway"     // the Application, its Secrets, or the gateway
	SourceCredentials Source = "credentials" // a token endpoint or a CSRF token endpoint
	SourceTarget      Source = "target"      // the API
	SourceLimits      Source = "limits"      // limits that the Application sets
)

// exchange is one call, from the caller's request to the target's answer.
type exchange struct {
	id       string // by which the call is found in the log
	address  address
	route    *routes.Route
	use      credentials.Use
	value    credentials.Value
	external bool // the caller brought its own Authorization

	source       Source
	reason       string // why, if it is an error
	attempts     int
	targetStatus int // 0 if the target did not answer
	cause        error
	caller       string       // the workload, if it was asked for
	body         *boundedBody // the caller's; nil for none
	bodyFailed   atomic.Bool  // the caller did not send all of it
	callersQuery string       // as it came
	query        string       // of the request before the first attempt
	cookies      []string     // likewise
	watchdog     watchdog
	upgrade      *upgrade // nil while the call is HTTP
	pass         limits.Pass
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// errTimeout says that a target took too long.
var errTimeout = errors.New("the target did not answer in time")

// credentialsError says that the credential for a second attempt could not be had.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// RoundTrip implements http.RoundTripper for the reverse proxy: it sends the call with its credential, and once more if the
// target refused it, another credential can be had, and the request can be repeated. It never changes who is calling: what
// the caller brought as Access-Token is sent once.
func (e *Engine) RoundTrip(out *http.Request) (*http.Response, error) {
	x := exchangeOf(out.Context())
	x.watchdog.start()
	response, err := e.send(out, x)
	if x.route.Gate != nil {
		x.decide(out.Context(), response, err)
	}
	return response, err
}

// decide tells the breaker how the target did. What is not the target's doing counts neither way.
func (x *exchange) decide(ctx context.Context, response *http.Response, err error) {
	var credential *credentialsError
	switch {
	case err == nil:
		x.pass.Decide(response.StatusCode >= 500)
	case x.bodyFailed.Load(), errors.As(err, &credential), transport.Forbidden(err) != nil:
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
	default:
		x.pass.Decide(true)
	}
}

// send makes one attempt or two.
func (e *Engine) send(out *http.Request, x *exchange) (*http.Response, error) {
	body, err := e.bodyOf(out, x)
	if err != nil {
		return nil, err
	}
	response, err := e.attempt(out, x, body)
	if err != nil || !refused(response) {
		return response, err
	}
	if x.external {
		e.options.Resolver.Forget(x.use, x.value) // only a session can be in it
		return response, nil
	}
	why := renewal{x.use.Owner, x.use.Credentials.Version, response.StatusCode}
	again, different, err := e.renew(out.Context(), x, why)
	if err != nil {
		discard(response)
		return nil, &credentialsError{err}
	}
	if !different {
		return response, nil
	}
	if !body.again() {
		e.renewals.note(why, false) // for all that is known
		return response, nil        // the next call has the new credential
	}
	discard(response)
	before := renewed{x.use, x.value}
	x.use, x.value = again.use, again.value
	// A service refuses a session that has ended by 403. A token that has ended is refused by 401 (RFC 6750, section 3.1).
	ended := response.StatusCode == http.StatusForbidden && before.use.Credentials.Version == again.use.Credentials.Version
	if response, err = e.attempt(out, x, body); err != nil {
		return nil, err
	}
	helped := !refused(response)
	e.renewals.note(why, helped)
	if helped && ended {
		e.options.Resolver.Outlived(before.use, before.value)
	}
	return response, nil
}

func refused(r *http.Response) bool {
	return r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden
}

// renewed is a credential for a second attempt.
type renewed struct {
	use   credentials.Use
	value credentials.Value
}

// renew forgets what was refused and obtains the credential anew, by what the Secret holds now. It says whether the
// result differs from what was refused. A route that now leads elsewhere is not followed in the middle of a call, and
// whoever the Secret names now does not make a call that another one began.
func (e *Engine) renew(ctx context.Context, x *exchange, why renewal) (renewed, bool, error) {
	use := x.use
	rotated := false
	if now, err := e.find(x.address); err == nil && now.Refused == nil && now.Target.String() == x.route.Target.String() &&
		now.Trust == x.route.Trust && now.Credentials.Kind == x.route.Credentials.Kind && now.CSRF == x.route.CSRF && now.Settings.CSRF == x.route.Settings.CSRF {
		use = now.Use()
		if use.Credentials.Principal != x.use.Credentials.Principal {
			return renewed{}, false, nil
		}
		rotated = use.Credentials.Version != x.use.Credentials.Version
	}
	if !rotated && (!x.value.Renewable() || !e.renewals.may(why)) {
		return renewed{}, false, nil
	}
	e.options.Resolver.Forget(x.use, x.value)
	value, err := e.options.Resolver.Resolve(ctx, use)
	if err != nil {
		return renewed{}, false, err
	}
	different := value.Version() != x.value.Version()
	if !different {
		e.renewals.note(why, false)
	}
	return renewed{use, value}, different, nil
}

// attempt sends the call once. The first attempt takes out as it is; the connection may still read that when the second
// attempt, which the target can provoke at any time, is made of a copy.
func (e *Engine) attempt(out *http.Request, x *exchange, body body) (*http.Response, error) {
	limit := x.route.Settings.Timeouts
	x.watchdog.answer.begin()
	if x.attempts++; x.attempts == 1 {
		x.query, x.cookies = out.URL.RawQuery, out.Header["Cookie"]
	} else {
		out = again(out, x)
	}
	ctx, end := e.traceAttempt(out.Context(), x.attempts, out.Header)
	request := out
	if ctx != out.Context() {
		request = out.WithContext(ctx)
	}
	body.put(request)
	if policy := x.route.Settings.Request; policy != nil {
		policy.Apply(request.Header)
	}
	apply(request, x.value, x.route.Parameters)
	response, err := e.options.Transports.For(Connection(x.route, x.value.Identity)).RoundTrip(request)
	x.watchdog.answer.end()
	end(response)
	if err != nil {
		var slow net.Error // a connection that was not made in time
		if errors.Is(context.Cause(ctx), errTimeout) || ctx.Err() == nil && errors.As(err, &slow) && slow.Timeout() {
			err = errTimeout
		}
		return nil, err
	}
	x.targetStatus = response.StatusCode
	if response.StatusCode == http.StatusSwitchingProtocols {
		x.watchdog.stop() // the connection now belongs to both ends, for as long as they like
		x.upgrade = newUpgrade(response)
		e.upgrades.add(x.upgrade) // before it leaves the server's keeping
		return response, nil
	}
	if limit.Idle > 0 || !pauses(response) {
		response.Body = &timedBody{response.Body, &x.watchdog.piece}
	}
	return response, nil
}

// Connection says which connections calls of a route take, with an identity that may be nil.
func Connection(r *routes.Route, identity *credentials.Identity) transport.Target {
	return transport.Target{Host: r.Target.Scheme + "://" + r.Target.Host, Identity: identity, Trust: r.Trust, Connect: r.Settings.Timeouts.Connect}
}

// again is a copy of a request that was sent, for another attempt. Of what an attempt adds, the next one replaces all but
// cookies and the query, which are as the caller sent them.
func again(sent *http.Request, x *exchange) *http.Request {
	// Not sent.Clone, which copies each value: fields are replaced, never changed.
	request, target := *sent, *sent.URL
	request.Header, request.URL = maps.Clone(sent.Header), &target
	request.URL.RawQuery = x.query
	if delete(request.Header, "Cookie"); x.cookies != nil {
		request.Header["Cookie"] = x.cookies
	}
	return &request
}

// discard gives a response up so that its connection can be used again if little is left of it.
func discard(r *http.Response) {
	_, _ = io.CopyN(io.Discard, r.Body, 64<<10)
	_ = r.Body.Close()
}

// timedBody is an answer's body whose pieces must each come in time.
type timedBody struct {
	io.ReadCloser
	piece *wait
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	b.piece.begin()
	n, err := b.ReadCloser.Read(p)
	b.piece.end()
	return n, err
}

// apply puts a credential on a request, then what the request does not have yet of the parameters: the credential wins
// over the caller, the caller over parameters.
func apply(r *http.Request, v credentials.Value, p *credentials.Parameters) {
	for _, f := range v.Header {
		r.Header.Set(f.Name, f.Value.Reveal())
	}
	setCookies(r.Header, v.Cookies)
	for _, f := range v.Query {
		r.URL.RawQuery = joinQuery(r.URL.RawQuery, url.QueryEscape(f.Name)+"="+url.QueryEscape(f.Value.Reveal()))
	}
	if p == nil {
		return
	}
	for _, h := range p.Header {
		// An empty User-Agent only keeps the library from sending its own.
		if present, ok := r.Header[h.Name]; ok && !(h.Name == "User-Agent" && len(present) == 1 && present[0] == "") {
			continue
		}
		r.Header.Del(h.Name)
		for _, value := range h.Values {
			r.Header.Add(h.Name, value.Reveal())
		}
	}
	r.URL.RawQuery = credentials.AddQuery(r.URL.RawQuery, p.Query)
}
