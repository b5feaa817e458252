package compass

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/99designs/gqlgen/graphql"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

const (
	// cursorPrefix stands before the offset in a cursor, so that cursors of a
	// real Director work here too.
	cursorPrefix = "DpKtJ4j9jDq"
	// maxNestedPage is the largest page of lists in lists.
	maxNestedPage = 200
)

func encodeCursor(offset int) string {
	return base64.StdEncoding.EncodeToString([]byte(cursorPrefix + strconv.Itoa(offset)))
}

// decodeCursor returns the offset; the empty cursor is the beginning.
func decodeCursor(cursor string) (int, error) {
	if cursor == "" {
		return 0, nil
	}
	raw, err := base64.StdEncoding.DecodeString(cursor)
	if err != nil {
		return 0, fmt.Errorf("cursor is not correct: %w", err)
	}
	offset, err := strconv.Atoi(strings.TrimPrefix(string(raw), cursorPrefix))
	if err != nil {
		return 0, fmt.Errorf("cursor is not correct: %w", err)
	}
	if offset < 0 {
		return 0, fmt.Errorf("cursor is not correct: offset %d", offset)
	}
	return offset, nil
}

// pageArgs are the arguments of a list.
type pageArgs struct {
	first *int
	after *string
}

// pageOf is a page of any list, before it gets its GraphQL type.
type pageOf[T any] struct {
	items []T
	info  *directorapi.PageInfo
	total int
}

// topPage is a page of a list at the root. what says in errors what was read.
func topPage[T any](ctx context.Context, all []T, args pageArgs, what string) (pageOf[T], error) {
	if args.first == nil {
		return pageOf[T]{}, errInvalidData("missing required parameter 'first'")
	}
	if *args.first < 1 {
		return pageOf[T]{}, errInvalidData("page size cannot be smaller than 1")
	}
	return cutPage(ctx, all, args, what)
}

// nestedPage is a page of a list in a list. Its arguments are those that the
// document first asked a list of this name with: the real Director loads all
// of them together, and takes the arguments of one.
func nestedPage[T any](ctx context.Context, all []T, args pageArgs, what string) (pageOf[T], error) {
	shared, _ := callOf(ctx).nested.LoadOrStore(graphql.GetFieldContext(ctx).Field.Name, args)
	args = shared.(pageArgs)
	if args.first == nil {
		return pageOf[T]{}, errInvalidData("missing required parameter 'first'")
	}
	if *args.first < 1 || *args.first > maxNestedPage {
		return pageOf[T]{}, errInvalidData("page size must be between 1 and %d", maxNestedPage)
	}
	return cutPage(ctx, all, args, what)
}

func cutPage[T any](ctx context.Context, all []T, args pageArgs, what string) (pageOf[T], error) {
	after := ""
	if args.after != nil {
		after = *args.after
	}
	offset, err := decodeCursor(after)
	if err != nil {
		return pageOf[T]{}, errInternal("while getting %s: while decoding page cursor: %v", what, err)
	}
	begin := min(offset, len(all))
	end := begin + min(*args.first, len(all)-begin)
	page := pageOf[T]{items: all[begin:end], total: len(all), info: &directorapi.PageInfo{StartCursor: after}}
	if end < len(all) {
		page.info.HasNextPage, page.info.EndCursor = true, encodeCursor(end)
	}
	faults, field := callOf(ctx).faults, graphql.GetFieldContext(ctx).Field.Name
	if f, ok := faults.onField(FaultShortPage, field); ok {
		page.items = page.items[:max(0, len(page.items)-f.By)]
	}
	if f, ok := faults.onField(FaultWrongCount, field); ok {
		page.total += f.By
	}
	if _, ok := faults.onField(FaultEndlessPages, field); ok {
		page.info.HasNextPage, page.info.EndCursor = true, after
		if after == "" {
			page.info.EndCursor = encodeCursor(0)
		}
	}
	return page, nil
}

func mapped[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, item := range in {
		out[i] = f(item)
	}
	return out
}
