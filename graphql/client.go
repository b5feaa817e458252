package graphql

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	genqlient "github.com/Khan/genqlient/graphql"
	"github.com/google/uuid"
)

const mediaType = "application/json; charset=utf-8"

// client implements the interface that generated code calls.
type client struct {
	transport *Transport
	endpoint  string
	header    http.Header
}

// MakeRequest implements genqlient's Client. Every failure is an *Error; resp.Data is whole if and only if it returns
// nil.
func (c *client) MakeRequest(ctx context.Context, req *genqlient.Request, resp *genqlient.Response) error {
	o := c.transport.options
	e := &Error{Operation: req.OpName, RequestID: uuid.NewString()}
	started := o.Clock.Now()
	err := c.do(ctx, req, resp, e)
	o.Log.DebugContext(ctx, "request to Compass", "operation", e.Operation, "endpoint", e.Endpoint, "status", e.Status,
		"kind", e.Kind, "requestID", e.RequestID, "duration", o.Clock.Since(started))
	return err
}

// do sends the request. It fills in e on its way and returns it, or nil.
func (c *client) do(ctx context.Context, req *genqlient.Request, resp *genqlient.Response, e *Error) error {
	fail := func(kind Kind, cause error) error {
		if e.Kind, e.Err = kind, cause; kind == Timeout {
			c.transport.redial()
		}
		return e
	}
	u, err := url.Parse(c.endpoint)
	if err != nil {
		return fail(Invalid, errors.New("the endpoint is not a URL")) // err would repeat all of it
	}
	e.Endpoint = u.Host + u.EscapedPath()
	if u.Scheme != "https" || u.Host == "" {
		return fail(Invalid, fmt.Errorf("the endpoint has scheme %q, want an https URL", u.Scheme))
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fail(Invalid, fmt.Errorf("encoding the request: %w", err))
	}
	o := c.transport.options
	bounded, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(bounded, http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return fail(Invalid, withoutURL(err))
	}
	for k, v := range c.header {
		r.Header[k] = v
	}
	r.Header.Set("Content-Type", mediaType)
	r.Header.Set("Accept", mediaType)
	r.Header.Set("User-Agent", o.UserAgent)
	r.Header.Set("X-Request-Id", e.RequestID)

	hr, err := c.transport.http.Do(r)
	if err != nil {
		return fail(KindOfTransport(ctx, err), withoutURL(err))
	}
	defer func() { _ = hr.Body.Close() }()
	e.Status = hr.StatusCode
	raw, err := io.ReadAll(io.LimitReader(hr.Body, o.MaxResponseBytes+1))
	if int64(len(raw)) > o.MaxResponseBytes {
		return fail(TooLarge, fmt.Errorf("more than %d bytes", o.MaxResponseBytes))
	}
	if err != nil {
		kind := KindOfTransport(ctx, err)
		if kind == Unreachable { // it was reached: there is a status
			kind = Malformed
		}
		return fail(kind, fmt.Errorf("broke off after %d bytes: %w", len(raw), withoutURL(err)))
	}

	a := answer{Data: data{target: resp.Data}}
	parseErr := json.Unmarshal(raw, &a)
	if parseErr == nil {
		e.Errors = a.serverErrors(c.secrets())
	}
	if hr.StatusCode < 200 || hr.StatusCode > 299 || len(e.Errors) > 0 {
		e.RetryAfter = retryAfter(hr.Header.Get("Retry-After"), o.Clock.Now())
		return fail(kindOfStatus(hr.StatusCode, e.Errors, len(bytes.TrimSpace(raw)) == 0), nil)
	}
	switch {
	case parseErr != nil:
		return fail(Malformed, fmt.Errorf("%d bytes that are no GraphQL response%s", len(raw), where(parseErr)))
	case !a.Data.present:
		return fail(Malformed, errors.New("neither data nor errors"))
	case a.Data.err != nil:
		return fail(Malformed, fmt.Errorf("data is not what was asked for%s", where(a.Data.err)))
	}
	return nil
}

// where tells the place of a JSON error without its words, which repeat what was read.
func where(err error) string {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf(", at field %s", t.Field)
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf(", at byte %d", s.Offset)
	}
	return ""
}

// secrets of this client's header: whole values, and for Authorization what comes after the scheme.
func (c *client) secrets() []string {
	var out []string
	for _, v := range c.header.Values("Connector-Token") {
		if v != "" {
			out = append(out, v)
		}
	}
	for _, v := range c.header.Values("Authorization") {
		if _, credentials, ok := strings.Cut(v, " "); ok && credentials != "" {
			v = credentials
		}
		if v != "" {
			out = append(out, v)
		}
	}
	return out
}
