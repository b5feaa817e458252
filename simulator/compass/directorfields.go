package compass

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

type (
	runtimeFields           struct{ server *Server }
	applicationFields       struct{ server *Server }
	bundleFields            struct{ server *Server }
	appSystemAuthFields     struct{ server *Server }
	runtimeSystemAuthFields struct{ server *Server }
)

type labelled interface{ allLabels() map[string]any }

func selectLabels(all map[string]any, key *string) map[string]any {
	if key == nil {
		return all
	}
	if value, ok := all[*key]; ok {
		return map[string]any{*key: value}
	}
	return map[string]any{}
}

// filtered keeps what has every label, with the value that query is the JSON
// of, if there is one.
func filtered[T labelled](all []T, filters []*directorapi.LabelFilter) []T {
	if len(filters) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(item T) bool {
		labels := item.allLabels()
		return slices.ContainsFunc(filters, func(f *directorapi.LabelFilter) bool {
			value, ok := labels[f.Key]
			return !ok || (f.Query != nil && !matchesLabel(value, *f.Query))
		})
	})
}

// matchesLabel takes a query that is the JSON of the value, or the path
// expression that matches one element of a list: $[*] ? (@ == "x").
func matchesLabel(value any, query string) bool {
	want, ok := elementQuery(query)
	if !ok {
		want = query
	}
	candidates := []any{value}
	if ok {
		raw, err := json.Marshal(value)
		if err != nil || json.Unmarshal(raw, &candidates) != nil {
			return false
		}
	}
	return slices.ContainsFunc(candidates, func(candidate any) bool {
		raw, err := json.Marshal(candidate)
		return err == nil && formatJSONB(string(raw)) == formatJSONB(want)
	})
}

var elementExpr = regexp.MustCompile(`^\$\[\*\] \? \(\s*@ == (.*?)\s*\)$`)

func elementQuery(query string) (string, bool) {
	m := elementExpr.FindStringSubmatch(query)
	if m == nil {
		return "", false
	}
	return m[1], true
}

func (r runtimeFields) Labels(ctx context.Context, obj *directorapi.Runtime, key *string) (map[string]any, error) {
	rt := callOf(ctx).inv.Load().runtimes[obj.ID]
	if rt == nil {
		return nil, nil
	}
	return selectLabels(rt.allLabels(), key), nil
}

func (r runtimeFields) Auths(_ context.Context, obj *directorapi.Runtime) ([]*directorapi.RuntimeSystemAuth, error) {
	return mapped(r.server.identities.ofOwner(obj.ID), func(a systemAuth) *directorapi.RuntimeSystemAuth {
		return &directorapi.RuntimeSystemAuth{ID: a.ID}
	}), nil
}

func (r runtimeFields) EventingConfiguration(ctx context.Context, obj *directorapi.Runtime) (*directorapi.RuntimeEventingConfiguration, error) {
	return &directorapi.RuntimeEventingConfiguration{DefaultURL: eventServiceURL(callOf(ctx).inv.Load().runtimes[obj.ID])}, nil
}

func eventServiceURL(r *runtimeState) string {
	if r == nil {
		return ""
	}
	url, _ := r.Labels[labelEventServiceURL].(string)
	return url
}

func (r runtimeSystemAuthFields) Auth(context.Context, *directorapi.RuntimeSystemAuth) (*directorapi.Auth, error) {
	return authNode(&Auth{}), nil
}

func (r appSystemAuthFields) Auth(context.Context, *directorapi.AppSystemAuth) (*directorapi.Auth, error) {
	return authNode(&Auth{}), nil
}

// ApplicationTemplate is none: Applications here come without templates.
func (r applicationFields) ApplicationTemplate(context.Context, *directorapi.Application) (*directorapi.ApplicationTemplate, error) {
	return nil, nil
}

// Webhooks are none.
func (r applicationFields) Webhooks(context.Context, *directorapi.Application) ([]*directorapi.Webhook, error) {
	return []*directorapi.Webhook{}, nil
}

func (r applicationFields) Labels(ctx context.Context, obj *directorapi.Application, key *string) (map[string]any, error) {
	a := callOf(ctx).inv.Load().applications[obj.ID]
	if a == nil {
		return nil, nil
	}
	return selectLabels(a.allLabels(), key), nil
}

func (r applicationFields) Auths(_ context.Context, obj *directorapi.Application) ([]*directorapi.AppSystemAuth, error) {
	return mapped(r.server.identities.ofOwner(obj.ID), func(a systemAuth) *directorapi.AppSystemAuth {
		return &directorapi.AppSystemAuth{ID: a.ID}
	}), nil
}

// EventingConfiguration is at the Runtime that looks, else at the first one
// in a common formation that has set its URL.
func (r applicationFields) EventingConfiguration(ctx context.Context, obj *directorapi.Application) (*directorapi.ApplicationEventingConfiguration, error) {
	inv := callOf(ctx).inv.Load()
	a := inv.applications[obj.ID]
	if a == nil {
		return nil, nil
	}
	rt := inv.runtimes[obj.ForRuntime]
	if rt == nil {
		for _, candidate := range inv.tenants[a.Tenant].runtimes {
			if shareFormation(candidate.Formations, a.Formations) && eventServiceURL(candidate) != "" {
				rt = candidate
				break
			}
		}
	}
	url := eventServiceURL(rt)
	if url != "" {
		url += "/" + applicationNode(a, rt).Name + "/v1/events"
	}
	return &directorapi.ApplicationEventingConfiguration{DefaultURL: url}, nil
}

func (r applicationFields) Bundles(ctx context.Context, obj *directorapi.Application, first *int, after *string) (*directorapi.BundlePage, error) {
	a := callOf(ctx).inv.Load().applications[obj.ID]
	if a == nil {
		return nil, nil
	}
	page, err := nestedPage(ctx, a.Bundles, pageArgs{first, after}, "Bundles")
	if err != nil {
		return nil, err
	}
	return &directorapi.BundlePage{
		Data:     mapped(page.items, func(b Bundle) *directorapi.Bundle { return bundleNode(a, b, obj.ForRuntime) }),
		PageInfo: page.info, TotalCount: page.total,
	}, nil
}

// Bundle does not replace default credentials by a Runtime's own, unlike the
// list of bundles: that is how the real Director is.
func (r applicationFields) Bundle(ctx context.Context, obj *directorapi.Application, id string) (*directorapi.Bundle, error) {
	a := callOf(ctx).inv.Load().applications[obj.ID]
	if a == nil {
		return nil, nil
	}
	b, ok := a.bundle(id)
	if !ok {
		return nil, nil
	}
	return bundleNode(a, b, ""), nil
}

// stored finds the bundle that obj shows.
func (r bundleFields) stored(ctx context.Context, obj *directorapi.Bundle) (Bundle, bool) {
	owner := callOf(ctx).inv.Load().bundleOwner[obj.ID]
	if owner == nil {
		return Bundle{}, false
	}
	return owner.bundle(obj.ID)
}

func (r bundleFields) InstanceAuth(ctx context.Context, obj *directorapi.Bundle, id string) (*directorapi.BundleInstanceAuth, error) {
	a := callOf(ctx).inv.Load().instanceAuths[id]
	if a == nil || a.BundleID != obj.ID {
		return nil, nil
	}
	return instanceAuthNode(a), nil
}

func (r bundleFields) InstanceAuths(ctx context.Context, obj *directorapi.Bundle) ([]*directorapi.BundleInstanceAuth, error) {
	return mapped(callOf(ctx).inv.Load().ofBundle(obj.ID), instanceAuthNode), nil
}

// DefaultInstanceAuth is replaced by the Runtime's own credentials if it asked
// for some, whatever their state: while they are pending there are none.
func (r bundleFields) DefaultInstanceAuth(ctx context.Context, obj *directorapi.Bundle) (*directorapi.Auth, error) {
	b, ok := r.stored(ctx, obj)
	if !ok {
		return nil, nil
	}
	if obj.ForRuntime != "" {
		for _, own := range callOf(ctx).inv.Load().ofBundle(obj.ID) {
			if own.RuntimeID == obj.ForRuntime {
				return authNode(own.Auth), nil
			}
		}
	}
	return authNode(b.Auth), nil
}

func (r bundleFields) APIDefinitions(ctx context.Context, obj *directorapi.Bundle, group *string, first *int, after *string) (*directorapi.APIDefinitionPage, error) {
	b, _ := r.stored(ctx, obj)
	page, err := nestedPage(ctx, inGroup(b.APIs, group, func(a API) string { return a.Group }), pageArgs{first, after}, "APIDefinitions")
	if err != nil {
		return nil, err
	}
	return &directorapi.APIDefinitionPage{Data: mapped(page.items, apiNode), PageInfo: page.info, TotalCount: page.total}, nil
}

func (r bundleFields) EventDefinitions(ctx context.Context, obj *directorapi.Bundle, group *string, first *int, after *string) (*directorapi.EventDefinitionPage, error) {
	b, _ := r.stored(ctx, obj)
	page, err := nestedPage(ctx, inGroup(b.Events, group, func(e Event) string { return e.Group }), pageArgs{first, after}, "EventDefinitions")
	if err != nil {
		return nil, err
	}
	return &directorapi.EventDefinitionPage{Data: mapped(page.items, eventNode), PageInfo: page.info, TotalCount: page.total}, nil
}

func inGroup[T any](all []T, group *string, of func(T) string) []T {
	if group == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(item T) bool { return of(item) != *group })
}

func (r bundleFields) Documents(ctx context.Context, obj *directorapi.Bundle, first *int, after *string) (*directorapi.DocumentPage, error) {
	b, _ := r.stored(ctx, obj)
	page, err := nestedPage(ctx, b.Documents, pageArgs{first, after}, "Documents")
	if err != nil {
		return nil, err
	}
	return &directorapi.DocumentPage{Data: mapped(page.items, documentNode), PageInfo: page.info, TotalCount: page.total}, nil
}

func (r bundleFields) APIDefinition(ctx context.Context, obj *directorapi.Bundle, id string) (*directorapi.APIDefinition, error) {
	b, _ := r.stored(ctx, obj)
	for _, a := range b.APIs {
		if a.ID == id {
			return apiNode(a), nil
		}
	}
	return nil, nil
}

func (r bundleFields) EventDefinition(ctx context.Context, obj *directorapi.Bundle, id string) (*directorapi.EventDefinition, error) {
	b, _ := r.stored(ctx, obj)
	for _, e := range b.Events {
		if e.ID == id {
			return eventNode(e), nil
		}
	}
	return nil, nil
}
