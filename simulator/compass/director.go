package compass

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

// directorResolvers lead to the resolvers of each type.
type directorResolvers struct{ server *Server }

// directorQueries answer the root fields of the Director's queries.
type directorQueries struct{ server *Server }

func (r directorResolvers) Query() directorapi.QueryResolver             { return directorQueries(r) }
func (r directorResolvers) Mutation() directorapi.MutationResolver       { return directorMutations(r) }
func (r directorResolvers) Runtime() directorapi.RuntimeResolver         { return runtimeFields(r) }
func (r directorResolvers) Application() directorapi.ApplicationResolver { return applicationFields(r) }
func (r directorResolvers) Bundle() directorapi.BundleResolver           { return bundleFields(r) }
func (r directorResolvers) AppSystemAuth() directorapi.AppSystemAuthResolver {
	return appSystemAuthFields(r)
}
func (r directorResolvers) RuntimeSystemAuth() directorapi.RuntimeSystemAuthResolver {
	return runtimeSystemAuthFields(r)
}

// noteConnected makes the caller CONNECTED with its first call that a
// certificate told.
func (s *Server) noteConnected(c consumer) {
	inv := s.inventory.Load()
	if c.certificateHash == "" {
		return
	}
	runtime, application := inv.runtimes[c.id], inv.applications[c.id]
	if (runtime == nil || runtime.Connected) && (application == nil || application.Connected) {
		return
	}
	err := s.change(func(draft *inventory) error {
		if old := draft.runtimes[c.id]; old != nil {
			next := *old
			next.Connected, next.StatusAt = true, s.now()
			draft.putRuntime(&next)
		}
		if old := draft.applications[c.id]; old != nil {
			next := *old
			next.Connected, next.StatusAt = true, s.now()
			draft.putApplication(&next)
		}
		return nil
	})
	if err != nil {
		s.log.Error("the caller's status is not stored", "error", err)
	}
}

// noteBundles labels a Runtime after its first document that says bundle.
func (s *Server) noteBundles(c consumer, query string) {
	r := s.inventory.Load().runtimes[c.id]
	if r == nil || r.Labels[labelUseBundles] != nil || !strings.Contains(strings.ToLower(query), "bundle") {
		return
	}
	err := s.change(func(draft *inventory) error {
		if old := draft.runtimes[c.id]; old != nil {
			next := *old
			next.Labels = withLabel(old.Labels, labelUseBundles, "true")
			draft.putRuntime(&next)
		}
		return nil
	})
	if err != nil {
		s.log.Error("the label useBundles is not stored", "error", err)
	}
}

// tenant of the caller; nobody can do without.
func (c *call) tenant() (string, error) {
	if c.consumer.tenant == "" {
		return "", errTenantRequired()
	}
	return c.consumer.tenant, nil
}

func (r directorQueries) Viewer(ctx context.Context) (*directorapi.Viewer, error) {
	c := callOf(ctx).consumer
	switch c.kind {
	case runtimeConsumer:
		return &directorapi.Viewer{ID: c.id, Type: directorapi.ViewerTypeRuntime}, nil
	case applicationConsumer:
		return &directorapi.Viewer{ID: c.id, Type: directorapi.ViewerTypeApplication}, nil
	case administrator:
		return &directorapi.Viewer{ID: c.id, Type: directorapi.ViewerTypeUser}, nil
	}
	return nil, errors.New("no consumer in the request")
}

func (r directorQueries) Runtime(ctx context.Context, id string) (*directorapi.Runtime, error) {
	c := callOf(ctx)
	tenant, err := c.tenant()
	if err != nil {
		return nil, err
	}
	found := c.inv.Load().runtimes[id]
	if found == nil || found.Tenant != tenant {
		return nil, nil
	}
	return runtimeNode(found), nil
}

func (r directorQueries) Runtimes(ctx context.Context, filter []*directorapi.LabelFilter, first *int, after *string) (*directorapi.RuntimePage, error) {
	c := callOf(ctx)
	tenant, err := c.tenant()
	if err != nil {
		return nil, err
	}
	var all []*runtimeState
	if t := c.inv.Load().tenants[tenant]; t != nil {
		all = filtered(t.runtimes, filter)
	}
	page, err := topPage(ctx, all, pageArgs{first, after}, "all Runtimes")
	if err != nil {
		return nil, err
	}
	return &directorapi.RuntimePage{Data: mapped(page.items, runtimeNode), PageInfo: page.info, TotalCount: page.total}, nil
}

// Application is the plain view: the name is as it is stored. A Runtime gets
// it only for Applications that share a formation with it.
func (r directorQueries) Application(ctx context.Context, id string) (*directorapi.Application, error) {
	c := callOf(ctx)
	tenant, err := c.tenant()
	if err != nil {
		return nil, err
	}
	inv := c.inv.Load()
	a := inv.applications[id]
	if a == nil || a.Tenant != tenant {
		return nil, nil
	}
	if c.consumer.kind == runtimeConsumer {
		if rt := inv.runtimes[c.consumer.id]; rt == nil || !shareFormation(a.Formations, rt.Formations) {
			return nil, errInvalidOperation("reason=requested application does not belong to a common formation with the runtime")
		}
	}
	return applicationNode(a, nil), nil
}

// Applications gives a Runtime the same as ApplicationsForRuntime of itself,
// but with names as they are stored.
func (r directorQueries) Applications(ctx context.Context, filter []*directorapi.LabelFilter, first *int, after *string) (*directorapi.ApplicationPage, error) {
	c := callOf(ctx)
	tenant, err := c.tenant()
	if err != nil {
		return nil, err
	}
	inv := c.inv.Load()
	var all []*applicationState
	if c.consumer.kind == runtimeConsumer {
		if rt := inv.runtimes[c.consumer.id]; rt != nil {
			all = inv.visibleTo(rt)
		}
	} else if t := inv.tenants[tenant]; t != nil {
		all = t.applications
	}
	return applicationPage(ctx, filtered(all, filter), nil, pageArgs{first, after}, "all Applications")
}

func (r directorQueries) ApplicationsForRuntime(ctx context.Context, runtimeID string, first *int, after *string) (*directorapi.ApplicationPage, error) {
	c := callOf(ctx)
	tenant, err := c.tenant()
	if err != nil {
		return nil, err
	}
	if _, err := uuid.Parse(runtimeID); err != nil {
		return nil, errInternal("while converting runtimeID to UUID: %v", err)
	}
	inv := c.inv.Load()
	rt := inv.runtimes[runtimeID]
	if rt == nil || rt.Tenant != tenant {
		return nil, errInvalidData("runtime does not exist")
	}
	var all []*applicationState
	if c.consumer.kind != runtimeConsumer || c.consumer.id == runtimeID {
		all = inv.visibleTo(rt)
	}
	return applicationPage(ctx, all, rt, pageArgs{first, after}, "all Application for Runtime")
}

func applicationPage(ctx context.Context, all []*applicationState, rt *runtimeState, args pageArgs, what string) (*directorapi.ApplicationPage, error) {
	page, err := topPage(ctx, all, args, what)
	if err != nil {
		return nil, err
	}
	return &directorapi.ApplicationPage{
		Data:     mapped(page.items, func(a *applicationState) *directorapi.Application { return applicationNode(a, rt) }),
		PageInfo: page.info, TotalCount: page.total,
	}, nil
}

func (r directorQueries) BundleInstanceAuth(ctx context.Context, id string) (*directorapi.BundleInstanceAuth, error) {
	inv := callOf(ctx).inv.Load()
	a := inv.instanceAuths[id]
	if a == nil || inv.bundleOwner[a.BundleID] == nil || inv.bundleOwner[a.BundleID].Tenant != callOf(ctx).consumer.tenant {
		return nil, nil
	}
	return instanceAuthNode(a), nil
}
