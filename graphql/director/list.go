package director

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/application-connector/application-connector/graphql/director/internal/query"
)

// pageSize of every list. Director admits up to 200 for bundles, APIs and events, and documents 100 for applications.
const pageSize = 100

// maxPages of one list: 100,000 items. More pages than that do not come from an inventory.
const maxPages = 1000

// list gathers the pages of one list.
type list[T any] struct {
	name  string
	id    func(T) string
	items []T
	// next is the cursor of the next page, if there is one.
	next string
	more bool

	pages    int
	ids      map[string]struct{}
	cursors  map[string]struct{}
	total    int
	changed  bool
	nameless int
}

func newList[T any](name string, id func(T) string) *list[T] {
	return &list[T]{name: name, id: id, ids: map[string]struct{}{}, cursors: map[string]struct{}{}}
}

// add takes a page: items whose ids came before are dropped, because offsets shift while the list changes. An error
// says that the pages lead nowhere.
func (l *list[T]) add(items []T, cursor query.Cursor, total int) error {
	l.pages++
	if l.pages > 1 && total != l.total {
		l.changed = true
	}
	l.total = total
	for _, item := range items {
		id := l.id(item)
		if id == "" {
			l.nameless++
			continue
		}
		if _, ok := l.ids[id]; ok {
			continue
		}
		l.ids[id] = struct{}{}
		l.items = append(l.items, item)
	}
	l.more, l.next = cursor.HasNextPage, cursor.EndCursor
	if !l.more {
		return nil
	}
	if _, again := l.cursors[l.next]; again || l.next == "" {
		return fmt.Errorf("%s: the cursor of page %d does not advance", l.name, l.pages)
	}
	if l.pages >= maxPages {
		return fmt.Errorf("%s: no end after %d pages", l.name, l.pages)
	}
	l.cursors[l.next] = struct{}{}
	return nil
}

// whole gives the items in the order of their ids, or an error that says why they are not known to be all.
func (l *list[T]) whole() ([]T, error) {
	slices.SortFunc(l.items, func(a, b T) int { return cmp.Compare(l.id(a), l.id(b)) })
	switch {
	case l.nameless > 0:
		return l.items, fmt.Errorf("%s: %d without an id", l.name, l.nameless)
	case l.changed:
		return l.items, fmt.Errorf("%s: the count changed while the pages were read", l.name)
	case len(l.items) != l.total:
		return l.items, fmt.Errorf("%s: %d read, Director counts %d", l.name, len(l.items), l.total)
	}
	return l.items, nil
}

var errNull = errors.New("null instead of a list")
