package director

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director/internal/query"
	"github.com/application-connector/application-connector/secret"
)

// NewAsAdministrator makes a client for one who registers runtimes: it authenticates by a bearer token with the scopes
// runtime:read and runtime:write instead of a client certificate, and has to say the tenant.
func NewAsAdministrator(t *graphql.Transport, endpoint, tenant string, token secret.Value) *Client {
	h := http.Header{}
	h.Set(TenantHeader, tenant)
	h.Set("Authorization", "Bearer "+token.Reveal())
	return &Client{graphql: t.Client(endpoint, h)}
}

// RegisteredRuntime is one runtime of the tenant.
type RegisteredRuntime struct {
	// ID is a UUID, Name unique within the tenant.
	ID, Name string
}

// RuntimesWithLabel gives the runtimes of the tenant whose label key is the text value, ordered by id. It reads all pages,
// and is wrong about none: a list that is not whole is an error of kind Malformed. Director is asked for those with the value; if
// it gives none, or does not understand that, all with the key are read, since a runtime that is overlooked would be registered
// a second time.
func (c *Client) RuntimesWithLabel(ctx context.Context, key, value string) ([]RegisteredRuntime, error) {
	exact, err := json.Marshal(value) // the value as JSON is what Director compares
	if err != nil {
		return nil, err
	}
	text := string(exact)
	found, err := c.runtimesWithLabel(ctx, key, value, &text)
	var e *graphql.Error
	if err == nil && len(found) > 0 || errors.As(err, &e) && e.Kind != graphql.Rejected {
		return found, err
	}
	return c.runtimesWithLabel(ctx, key, value, nil)
}

func (c *Client) runtimesWithLabel(ctx context.Context, key, value string, filter *string) ([]RegisteredRuntime, error) {
	const operation = "RuntimesWithLabel"
	malformed := func(err error) error {
		return &graphql.Error{Kind: graphql.Malformed, Operation: operation, Err: err}
	}
	all := newList("runtimes", func(r query.RuntimesWithLabelRuntimesRuntimePageDataRuntime) string { return r.Id })
	var after *string
	for {
		resp, err := query.RuntimesWithLabel(ctx, c.graphql, key, filter, pageSize, after)
		if err != nil {
			return nil, err
		}
		if err := all.add(resp.Runtimes.Data, resp.Runtimes.PageInfo, resp.Runtimes.TotalCount); err != nil {
			return nil, malformed(err)
		}
		if !all.more {
			break
		}
		after = &all.next
	}
	if all.changed || len(all.items) != all.total {
		return nil, malformed(errors.New("the list of runtimes changed while it was read"))
	}
	var found []RegisteredRuntime
	for _, r := range all.items {
		labels, err := decode[map[string]any](r.Labels)
		if err != nil {
			return nil, malformed(errors.New("runtime.labels is no object"))
		}
		if labels[key] == value {
			found = append(found, RegisteredRuntime{ID: r.Id, Name: r.Name})
		}
	}
	return found, nil
}

// RegisterRuntime makes a runtime and gives its id. A name that another runtime of the tenant has is kind Rejected. The
// call must not be repeated blindly: an answer that is lost leaves the runtime registered.
func (c *Client) RegisterRuntime(ctx context.Context, name, description string, labels map[string]string) (string, error) {
	text, err := json.Marshal(labels)
	if err != nil {
		return "", err
	}
	resp, err := query.RegisterRuntime(ctx, c.graphql, name, description, text)
	if err != nil {
		return "", err
	}
	if resp.RegisterRuntime.Id == "" {
		return "", &graphql.Error{Kind: graphql.Malformed, Operation: "RegisterRuntime", Err: errors.New("registerRuntime.id is missing")}
	}
	return resp.RegisterRuntime.Id, nil
}

// UnregisterRuntime removes a runtime: its certificates and tokens stop working. One that is not there is kind Rejected.
func (c *Client) UnregisterRuntime(ctx context.Context, id string) error {
	_, err := query.UnregisterRuntime(ctx, c.graphql, id)
	return err
}

// RuntimeAuths gives the ids of a runtime's system auths: one for each token that was asked for, and the common name of the
// certificate that was got by it.
func (c *Client) RuntimeAuths(ctx context.Context, id string) ([]string, error) {
	const operation = "RuntimeAuths"
	resp, err := query.RuntimeAuths(ctx, c.graphql, id)
	if err != nil {
		return nil, err
	}
	if resp.Runtime == nil {
		return nil, unknownRuntime(operation)
	}
	var ids []string
	for _, a := range resp.Runtime.Auths {
		ids = append(ids, a.Id)
	}
	return ids, nil
}

// DeleteRuntimeAuth deletes a system auth: its token, or the certificate that was got by it, stops working. One that is not
// there is kind Rejected.
func (c *Client) DeleteRuntimeAuth(ctx context.Context, id string) error {
	_, err := query.DeleteSystemAuthForRuntime(ctx, c.graphql, id)
	return err
}
