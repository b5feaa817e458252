package director

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director/internal/query"
)

// Names that generated code makes of paths, and what they stand for.
type (
	rawApplication = query.ApplicationsForRuntimeApplicationsForRuntimeApplicationPageDataApplication
	rawID          = query.ApplicationIDsApplicationsForRuntimeApplicationPageDataApplication
	rawBundle      = query.BundleFields
	rawAPI         = query.APIPageDataAPIDefinition
	rawEvent       = query.EventPageDataEventDefinition
)

// Snapshot reads all applications of a runtime, and all their bundles, APIs and events, each list to its end. It takes
// a query per 100 applications, as many again for their ids alone if these are more than 100, and two more per 100 items
// of a list within, if that has more than 100: that is read a second time, too.
//
// An error means that nothing is known. Lists that changed while they were read make the snapshot incomplete; an
// application whose own lists did, or whose data cannot be used, is among Invalid.
func (c *Client) Snapshot(ctx context.Context, runtimeID string) (Snapshot, error) {
	r := &reader{client: c, runtimeID: runtimeID}
	raw, err := r.applications(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	for i := range raw {
		app, err := r.application(ctx, raw[i])
		raw[i] = rawApplication{} // a large inventory need not stand in memory twice
		var d *defect
		switch {
		case errors.As(err, &d):
			if d.incomplete {
				r.doubt(app.ID, d.reason)
			}
			r.snapshot.Invalid = append(r.snapshot.Invalid, InvalidApplication{ID: app.ID, Name: app.Name, Reason: d.reason})
		case err != nil:
			return Snapshot{}, err
		default:
			r.snapshot.Applications = append(r.snapshot.Applications, app)
		}
	}
	r.snapshot.Complete = len(r.incomplete) == 0
	r.snapshot.Incomplete = summary(r.incomplete)
	return r.snapshot, nil
}

func summary(reasons []string) string {
	const most = 3
	if len(reasons) > most {
		reasons = append(reasons[:most:most], fmt.Sprintf("%d more", len(reasons)-most))
	}
	return strings.Join(reasons, "; ")
}

// reader is the work of one Snapshot.
type reader struct {
	client     *Client
	runtimeID  string
	snapshot   Snapshot
	incomplete []string
}

// doubt makes the snapshot incomplete because of something in one application.
func (r *reader) doubt(applicationID, reason string) {
	r.incomplete = append(r.incomplete, fmt.Sprintf("application %s: %s", applicationID, reason))
}

// defect is why one application cannot be used.
type defect struct {
	reason string
	// incomplete says that it was not read to its end.
	incomplete bool
}

func (d *defect) Error() string { return d.reason }

// applications reads the list of applications, with the first pages of the lists within.
func (r *reader) applications(ctx context.Context) ([]rawApplication, error) {
	const operation = "ApplicationsForRuntime"
	malformed := func(err error) error {
		return &graphql.Error{Kind: graphql.Malformed, Operation: operation, Err: err}
	}
	all := newList("applications", func(a rawApplication) string { return a.Id })
	for {
		r.snapshot.Queries++
		resp, err := query.ApplicationsForRuntime(ctx, r.client.graphql, r.runtimeID, pageSize, pageSize, after(all.next))
		if err != nil {
			return nil, err
		}
		if resp.Runtime == nil {
			return nil, unknownRuntime(operation)
		}
		page := resp.ApplicationsForRuntime
		if page.Data == nil {
			return nil, malformed(errors.New("applicationsForRuntime.data: null instead of a list"))
		}
		if err := all.add(page.Data, page.PageInfo, page.TotalCount); err != nil {
			return nil, malformed(err)
		}
		if all.more {
			continue
		}
		if r.snapshot.RuntimeLabels, err = decode[map[string]any](resp.Runtime.Labels); err != nil {
			return nil, malformed(errors.New("runtime.labels: want an object"))
		}
		items, err := all.whole()
		if len(items) > 0 && r.snapshot.RuntimeLabels == nil {
			// It has one at least, of the formation that they have in common. By the labels goes which names they get.
			r.incomplete = append(r.incomplete, "runtime.labels: null instead of an object")
		}
		if err == nil && all.pages > 1 {
			if err = r.readAgain(ctx, all); graphql.KindOf(err) != "" {
				return nil, err
			}
		}
		if err != nil {
			r.incomplete = append(r.incomplete, err.Error())
		}
		return items, nil
	}
}

// readAgain reads the ids of the applications a second time, and returns an error without a kind if they are others.
// Pages are cut by offset: if an application goes from a page that was read and another comes at the end, one moves to
// the page before and is skipped, and yet the count is as it was. Two such readings differ.
func (r *reader) readAgain(ctx context.Context, first *list[rawApplication]) error {
	const operation = "ApplicationIDs"
	malformed := func(err error) error {
		return &graphql.Error{Kind: graphql.Malformed, Operation: operation, Err: err}
	}
	again := newList("applications, read again", func(a rawID) string { return a.Id })
	for {
		r.snapshot.Queries++
		resp, err := query.ApplicationIDs(ctx, r.client.graphql, r.runtimeID, pageSize, after(again.next))
		if err != nil {
			return err
		}
		page := resp.ApplicationsForRuntime
		if page.Data == nil {
			return malformed(errors.New("applicationsForRuntime.data: null instead of a list"))
		}
		if err := again.add(page.Data, page.PageInfo, page.TotalCount); err != nil {
			return malformed(err)
		}
		if again.more {
			continue
		}
		if _, err := again.whole(); err != nil {
			return err
		}
		if !maps.Equal(first.ids, again.ids) {
			return errors.New("applications: others when they were read again")
		}
		return nil
	}
}

// application reads what is missing of one application, and converts and checks it. The id and the name of the result
// are there even if it returns a defect.
func (r *reader) application(ctx context.Context, raw rawApplication) (Application, error) {
	out := Application{ID: raw.Id, Name: raw.Name}
	bundles, err := r.bundles(ctx, raw)
	if err != nil {
		return out, err
	}
	if err := convertApplication(raw, &out); err != nil {
		return out, &defect{reason: err.Error()}
	}
	if out.AuthsUnknown {
		r.doubt(raw.Id, "auths: "+errNull.Error())
	}
	for _, b := range bundles {
		bundle, err := r.bundle(ctx, raw.Id, b)
		if err != nil {
			return out, err
		}
		out.Bundles = append(out.Bundles, bundle)
	}
	if reason := check(out); reason != "" {
		return out, &defect{reason: reason}
	}
	return out, nil
}

// bundle reads what is missing of one bundle, and converts it.
func (r *reader) bundle(ctx context.Context, applicationID string, raw rawBundle) (Bundle, error) {
	out, doubt, err := convertBundle(raw, r.runtimeID)
	if err != nil {
		return Bundle{}, &defect{reason: fmt.Sprintf("bundle %s: %v", raw.Id, err)}
	}
	if doubt != "" {
		r.doubt(applicationID, fmt.Sprintf("bundle %s: %s", raw.Id, doubt))
	}
	apis, err := r.apis(ctx, applicationID, raw)
	if err != nil {
		return Bundle{}, err
	}
	for _, a := range apis {
		out.APIs = append(out.APIs, convertAPI(a))
	}
	events, err := r.events(ctx, applicationID, raw)
	if err != nil {
		return Bundle{}, err
	}
	for _, e := range events {
		out.Events = append(out.Events, convertEvent(e))
	}
	return out, nil
}

func after(cursor string) *string {
	if cursor == "" {
		return nil
	}
	return &cursor
}
