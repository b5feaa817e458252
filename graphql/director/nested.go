package director

import (
	"context"
	"fmt"
	"maps"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director/internal/query"
)

// page is one of a list within an application; generated code has a type of that shape for each list.
type page[T any] struct {
	Data       []T
	PageInfo   query.Cursor
	TotalCount int
}

// nested is a list within an application, of which the first page is there.
type nested[T any] struct {
	applicationID, name string
	id                  func(T) string
	first               *page[T]
	// operation is the name of the query that next sends: for the page at that cursor, or for the first one.
	operation string
	next      func(after *string) (*page[T], error)
}

// read gives all items. If there is more than one page it reads the list a second time, and compares the ids: what readAgain
// says of applications holds here, too. A list that is not known to be whole would take APIs out of use if it were applied,
// so that is a defect, and the application is kept out as a whole.
func (n nested[T]) read(r *reader) ([]T, error) {
	all := newList(n.name, n.id)
	if err := n.pages(r, all, n.first); err != nil {
		return nil, err
	}
	items, err := all.whole()
	if err != nil {
		return nil, &defect{reason: err.Error(), incomplete: true}
	}
	if all.pages == 1 {
		return items, nil
	}
	again := newList(n.name+", read again", n.id)
	r.snapshot.Queries++
	first, err := n.next(nil)
	if err != nil {
		return nil, err
	}
	if err := n.pages(r, again, first); err != nil {
		return nil, err
	}
	if _, err := again.whole(); err != nil {
		return nil, &defect{reason: err.Error(), incomplete: true}
	}
	if !maps.Equal(all.ids, again.ids) {
		return nil, &defect{reason: n.name + ": others when they were read again", incomplete: true}
	}
	return items, nil
}

// pages reads from a page on to the end.
func (n nested[T]) pages(r *reader, all *list[T], page *page[T]) error {
	for {
		if page == nil || page.Data == nil {
			return &defect{reason: all.name + ": " + errNull.Error(), incomplete: true}
		}
		if err := all.add(page.Data, page.PageInfo, page.TotalCount); err != nil {
			return &graphql.Error{Kind: graphql.Malformed, Operation: n.operation, Err: fmt.Errorf("application %s: %w", n.applicationID, err)}
		}
		if !all.more {
			return nil
		}
		r.snapshot.Queries++
		var err error
		if page, err = n.next(after(all.next)); err != nil {
			return err
		}
	}
}

func (r *reader) bundles(ctx context.Context, raw rawApplication) ([]rawBundle, error) {
	return nested[rawBundle]{
		applicationID: raw.Id, name: "bundles", operation: "BundlesOfApplication",
		id:    func(b rawBundle) string { return b.Id },
		first: (*page[rawBundle])(raw.Bundles),
		next: func(after *string) (*page[rawBundle], error) {
			resp, err := query.BundlesOfApplication(ctx, r.client.graphql, raw.Id, pageSize, after)
			if err := vanished(err, err == nil && resp.Application == nil); err != nil {
				return nil, err
			}
			return (*page[rawBundle])(resp.Application.Bundles), nil
		},
	}.read(r)
}

func (r *reader) apis(ctx context.Context, applicationID string, raw rawBundle) ([]rawAPI, error) {
	return nested[rawAPI]{
		applicationID: applicationID, name: "bundle " + raw.Id + ": APIs", operation: "APIsOfBundle",
		id:    func(a rawAPI) string { return a.Id },
		first: (*page[rawAPI])(raw.ApiDefinitions),
		next: func(after *string) (*page[rawAPI], error) {
			resp, err := query.APIsOfBundle(ctx, r.client.graphql, applicationID, raw.Id, pageSize, after)
			if err := vanished(err, err == nil && (resp.Application == nil || resp.Application.Bundle == nil)); err != nil {
				return nil, err
			}
			return (*page[rawAPI])(resp.Application.Bundle.ApiDefinitions), nil
		},
	}.read(r)
}

func (r *reader) events(ctx context.Context, applicationID string, raw rawBundle) ([]rawEvent, error) {
	return nested[rawEvent]{
		applicationID: applicationID, name: "bundle " + raw.Id + ": events", operation: "EventsOfBundle",
		id:    func(e rawEvent) string { return e.Id },
		first: (*page[rawEvent])(raw.EventDefinitions),
		next: func(after *string) (*page[rawEvent], error) {
			resp, err := query.EventsOfBundle(ctx, r.client.graphql, applicationID, raw.Id, pageSize, after)
			if err := vanished(err, err == nil && (resp.Application == nil || resp.Application.Bundle == nil)); err != nil {
				return nil, err
			}
			return (*page[rawEvent])(resp.Application.Bundle.EventDefinitions), nil
		},
	}.read(r)
}

// vanished makes a defect of the ways in which Director says that an application or bundle is not there (for us) any
// more: null, NotFound, InvalidOperation. It may well have been removed since the first page.
func vanished(err error, null bool) error {
	if null || graphql.KindOf(err) == graphql.Rejected {
		return &defect{reason: "went away while its pages were read", incomplete: true}
	}
	return err
}
