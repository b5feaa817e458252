package statuspage

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// perPage is how many Applications one page shows.
	perPage = 50
	// longestName is that of an Application.
	longestName = 253
	// refreshing is how often a page asks for itself if it is to.
	refreshing = 15 * time.Second
)

// query is what the address of a page asks for.
type query struct {
	// Only shows Applications of one state; empty means all.
	Only state
	// Name shows Applications with this text in their name.
	Name string
	// Page counts from 1.
	Page int
	// Refresh has the browser ask again and again.
	Refresh bool
}

// parse reads the query of an address. Its error says what would be right.
func parse(values url.Values) (query, error) {
	q := query{Only: state(values.Get("only")), Name: values.Get("name"), Page: 1}
	if q.Only != "" && !slices.Contains(states, q.Only) {
		return q, fmt.Errorf("only=%q: it must be one of %s, %s and %s, or left out", shortened(string(q.Only), longestName), failed, unknown, ready)
	}
	if len(q.Name) > longestName {
		return q, fmt.Errorf("name has %d bytes: the names of Applications have %d at most", len(q.Name), longestName)
	}
	if text := values.Get("page"); text != "" {
		var err error
		if q.Page, err = strconv.Atoi(text); err != nil || q.Page < 1 {
			return q, fmt.Errorf("page=%q: it must be a whole number from 1", shortened(text, longestName))
		}
	}
	switch text := values.Get("refresh"); text {
	case "", "off":
	case "on":
		q.Refresh = true
	default:
		return q, fmt.Errorf("refresh=%q: it must be on or off", shortened(text, longestName))
	}
	return q, nil
}

// Link is the address of a page.
func (q query) Link() string {
	values := url.Values{}
	if q.Only != "" {
		values.Set("only", string(q.Only))
	}
	if q.Name != "" {
		values.Set("name", q.Name)
	}
	if q.Page > 1 {
		values.Set("page", strconv.Itoa(q.Page))
	}
	if q.Refresh {
		values.Set("refresh", "on")
	}
	return cmp.Or(strings.TrimSuffix("?"+values.Encode(), "?"), "/")
}
