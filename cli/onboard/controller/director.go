package controller

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/cli/onboard/enrolment"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

const (
	// tokenMargin is how long before its end an access token is replaced, and how long one is good that does not say.
	tokenMargin = time.Minute
	// tokenPause is how long no access token is asked for after one could not be had.
	tokenPause = 3 * time.Second
	// pause is how long Director is left alone that wants to be and does not say for how long. The buckets of Compass are
	// filled every 30 s.
	pause = 30 * time.Second
)

// Director is what the controller asks of Compass, for one tenant.
type Director interface {
	enrolment.Director
	SetRuntimeLabel(ctx context.Context, id, key string, value any) error
}

// pausedError says that Director is left alone until a time.
type pausedError struct{ until time.Time }

// Error implements error.
func (e *pausedError) Error() string {
	return "Director wants fewer requests, and is left alone until " + e.until.UTC().Format(time.RFC3339)
}

// accessError is an access token that could not be had.
type accessError struct{ error }

// Unwrap gives the cause.
func (e accessError) Unwrap() error { return e.error }

// gate is the one way to the Director for all clusters: it owns the access token, keeps to the rate, and lets nobody through while
// Director wants to be left alone. It is safe for concurrent use.
type gate struct {
	transport   *graphql.Transport
	url         string
	credentials string // the path of the file, which is read anew for each token
	roots       *x509.CertPool
	limiter     *rate.Limiter
	clock       clock.PassiveClock
	metrics     *Metrics

	mu    sync.Mutex // guards what follows, and is held while a token is asked for, so that one is
	token enrolment.AccessToken
	until time.Time
	// failed is why there was no token, which is not tried again before retry: one that asks in vain does it for all.
	failed error
	retry  time.Time
}

// tenant gives the Director as one tenant sees it.
func (g *gate) tenant(tenant string) Director { return &tenantDirector{g, tenant} }

// access gives an access token.
func (g *gate) access(ctx context.Context) (enrolment.AccessToken, error) {
	if err := g.limiter.Wait(ctx); err != nil {
		return enrolment.AccessToken{}, &failure{reason: ReasonDirectorFailed, text: fmt.Sprintf("waiting for the rate of requests at Director: %v", err)}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Now()
	if now.Before(g.until) {
		return enrolment.AccessToken{}, &pausedError{g.until}
	}
	if g.token.Value != "" && now.Add(tokenMargin).Before(g.token.Ends) {
		return g.token, nil
	}
	if now.Before(g.retry) {
		return enrolment.AccessToken{}, g.failed
	}
	token, err := enrolment.NewAccessToken(ctx, g.credentials, g.roots)
	if err != nil {
		g.failed = accessError{err}
		if ctx.Err() == nil { // the attempt was not given up
			g.retry = g.clock.Now().Add(tokenPause)
		}
		if errors.Is(err, enrolment.ErrTooManyTokens) {
			g.retry = g.clock.Now().Add(pause)
		}
		return enrolment.AccessToken{}, g.failed
	}
	if token.Ends.IsZero() {
		token.Ends = now.Add(2 * tokenMargin)
	}
	g.token = token
	return token, nil
}

// told learns from how a request ended.
func (g *gate) told(operation string, used enrolment.AccessToken, err error) {
	g.metrics.requested(operation, err)
	e, ok := err.(*graphql.Error) //nolint:errorlint // it is of this very type: see package director
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch e.Kind {
	case graphql.Throttled:
		if until := g.clock.Now().Add(cmp.Or(e.RetryAfter, pause)); until.After(g.until) {
			g.until = until
		}
	case graphql.Refused, graphql.ScopeMissing, graphql.Ambiguous: // a token that was withdrawn
		if g.token.Value == used.Value {
			g.token = enrolment.AccessToken{}
		}
	}
}

// ask makes one request.
func ask[T any](ctx context.Context, d *tenantDirector, operation string, f func(*director.Client) (T, error)) (T, error) {
	token, err := d.access(ctx)
	if err != nil {
		var none T
		return none, err
	}
	answer, err := f(director.NewAsAdministrator(d.transport, d.url, d.of, token.Value))
	d.told(operation, token, err)
	return answer, err
}

// tenantDirector implements Director.
type tenantDirector struct {
	*gate
	of string
}

type nothing struct{}

func (d *tenantDirector) RuntimesWithLabel(ctx context.Context, key, value string) ([]director.RegisteredRuntime, error) {
	return ask(ctx, d, "RuntimesWithLabel", func(c *director.Client) ([]director.RegisteredRuntime, error) {
		return c.RuntimesWithLabel(ctx, key, value)
	})
}

func (d *tenantDirector) RuntimeLabels(ctx context.Context, id string) (map[string]any, error) {
	return ask(ctx, d, "RuntimeLabels", func(c *director.Client) (map[string]any, error) { return c.RuntimeLabels(ctx, id) })
}

func (d *tenantDirector) SetRuntimeLabel(ctx context.Context, id, key string, value any) error {
	_, err := ask(ctx, d, "SetRuntimeLabel", func(c *director.Client) (nothing, error) { return nothing{}, c.SetRuntimeLabel(ctx, id, key, value) })
	return err
}

func (d *tenantDirector) RegisterRuntime(ctx context.Context, name, description string, labels map[string]string) (string, error) {
	return ask(ctx, d, "RegisterRuntime", func(c *director.Client) (string, error) { return c.RegisterRuntime(ctx, name, description, labels) })
}

func (d *tenantDirector) UnregisterRuntime(ctx context.Context, id string) error {
	_, err := ask(ctx, d, "UnregisterRuntime", func(c *director.Client) (nothing, error) { return nothing{}, c.UnregisterRuntime(ctx, id) })
	return err
}

func (d *tenantDirector) RuntimeAuths(ctx context.Context, id string) ([]string, error) {
	return ask(ctx, d, "RuntimeAuths", func(c *director.Client) ([]string, error) { return c.RuntimeAuths(ctx, id) })
}

func (d *tenantDirector) DeleteRuntimeAuth(ctx context.Context, id string) error {
	_, err := ask(ctx, d, "DeleteRuntimeAuth", func(c *director.Client) (nothing, error) { return nothing{}, c.DeleteRuntimeAuth(ctx, id) })
	return err
}

func (d *tenantDirector) RequestOneTimeTokenForRuntime(ctx context.Context, id string) (director.OneTimeToken, error) {
	return ask(ctx, d, "RequestOneTimeTokenForRuntime", func(c *director.Client) (director.OneTimeToken, error) {
		return c.RequestOneTimeTokenForRuntime(ctx, id)
	})
}
