package director

import (
	"context"
	"errors"
	"net/http"
	"time"

	genqlient "github.com/Khan/genqlient/graphql"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director/internal/query"
	"github.com/application-connector/application-connector/secret"
)

// TenantHeader is the HTTP header with the tenant that the runtime belongs to, by its id outside of Compass.
const TenantHeader = "Tenant"

// Client of one Director. It is safe for concurrent use. All errors are of type *graphql.Error.
type Client struct {
	graphql genqlient.Client
}

// New makes a client of the endpoint, an https URL, for the runtimes of one tenant. An empty tenant sends no header:
// Director then takes the one that the client certificate was issued in.
func New(t *graphql.Transport, endpoint, tenant string) *Client {
	h := http.Header{}
	if tenant != "" {
		h.Set(TenantHeader, tenant)
	}
	return &Client{graphql: t.Client(endpoint, h)}
}

// Viewer asks who Director takes us for, and gives the id, of the runtime for a runtime's certificate: the cheapest call that
// proves the client certificate. A revoked certificate
// gives kind Server here, the same as an internal error: calls about the runtime tell more.
func (c *Client) Viewer(ctx context.Context) (string, error) {
	const operation = "Viewer"
	resp, err := query.Viewer(ctx, c.graphql)
	if err != nil {
		return "", err
	}
	if resp.Viewer.Id == "" {
		return "", &graphql.Error{Kind: graphql.Malformed, Operation: operation, Err: errors.New("viewer.id is missing")}
	}
	return resp.Viewer.Id, nil
}

// RuntimeLabels gives the labels of a runtime, any JSON value each. An unknown runtime is kind Rejected.
func (c *Client) RuntimeLabels(ctx context.Context, runtimeID string) (map[string]any, error) {
	const operation = "RuntimeLabels"
	resp, err := query.RuntimeLabels(ctx, c.graphql, runtimeID)
	if err != nil {
		return nil, err
	}
	if resp.Runtime == nil {
		return nil, unknownRuntime(operation)
	}
	labels, err := decode[map[string]any](resp.Runtime.Labels)
	if err != nil {
		return nil, &graphql.Error{Kind: graphql.Malformed, Operation: operation, Err: errors.New("runtime.labels is no object")}
	}
	return labels, nil
}

// SetRuntimeLabel sets a label of a runtime to any value that JSON can hold. Director admits letters, digits and _ in keys,
// and no value that is empty, false or null.
func (c *Client) SetRuntimeLabel(ctx context.Context, runtimeID, key string, value any) error {
	_, err := query.SetRuntimeLabel(ctx, c.graphql, runtimeID, key, value)
	return err
}

// DeleteRuntimeLabel deletes a label of a runtime. One that is not there is kind Rejected.
func (c *Client) DeleteRuntimeLabel(ctx context.Context, runtimeID, key string) error {
	_, err := query.DeleteRuntimeLabel(ctx, c.graphql, runtimeID, key)
	return err
}

// OneTimeToken is what a new runtime or application pairs with.
type OneTimeToken struct {
	// Token is good for one request to ConnectorURL, until ExpiresAt.
	Token        secret.Value
	ConnectorURL string
	ExpiresAt    time.Time
}

// RequestOneTimeTokenForRuntime makes a token to pair a runtime with. Each call makes a new system auth in Director,
// and leaves earlier tokens valid.
func (c *Client) RequestOneTimeTokenForRuntime(ctx context.Context, runtimeID string) (OneTimeToken, error) {
	resp, err := query.RequestOneTimeTokenForRuntime(ctx, c.graphql, runtimeID)
	if err != nil {
		return OneTimeToken{}, err
	}
	t := resp.RequestOneTimeTokenForRuntime
	return oneTimeToken("RequestOneTimeTokenForRuntime", t.Token, t.ConnectorURL, t.ExpiresAt)
}

// RequestOneTimeTokenForApplication makes a token to pair an application with. A runtime's certificate may not do that:
// kind ScopeMissing.
func (c *Client) RequestOneTimeTokenForApplication(ctx context.Context, applicationID string) (OneTimeToken, error) {
	resp, err := query.RequestOneTimeTokenForApplication(ctx, c.graphql, applicationID)
	if err != nil {
		return OneTimeToken{}, err
	}
	t := resp.RequestOneTimeTokenForApplication
	return oneTimeToken("RequestOneTimeTokenForApplication", t.Token, t.ConnectorURL, t.ExpiresAt)
}

func oneTimeToken(operation, token, connectorURL string, expires time.Time) (OneTimeToken, error) {
	if token == "" || connectorURL == "" {
		return OneTimeToken{}, &graphql.Error{Kind: graphql.Malformed, Operation: operation,
			Err: errors.New("token or connectorURL is missing")}
	}
	return OneTimeToken{Token: secret.Value(token), ConnectorURL: connectorURL, ExpiresAt: expires}, nil
}

func unknownRuntime(operation string) error {
	return &graphql.Error{Kind: graphql.Rejected, Operation: operation, Err: ErrUnknownRuntime}
}

// ErrUnknownRuntime is the cause of a *graphql.Error of kind Rejected: the tenant has no such runtime.
var ErrUnknownRuntime = errors.New("Director does not know the runtime: wrong id, or another tenant's")
