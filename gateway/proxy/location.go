package proxy

import (
	"net/url"
	"strings"
)

// location is what the caller gets of a URL that the target gave. The target sees a query that the caller did not write: its
// URL's own, and parameters from a Secret. They are added anew to a call that follows the URL, so that what is rewritten loses
// them; what comes from a Secret is nobody's, wherever the URL leads.
func (x *exchange) location(value string, sent *url.URL, rewrite bool) string {
	added := strings.TrimPrefix(strings.TrimPrefix(sent.RawQuery, x.query), "&")
	if rewrite {
		requested := *sent
		requested.RawQuery = x.callersQuery
		if rewritten, ok := rewriteLocation(value, &requested, x.route.Target, x.address.prefix); ok {
			return withoutPairs(rewritten, joinQuery(x.route.Target.RawQuery, added))
		}
	}
	return withoutPairs(value, added)
}

// withoutPairs takes those pairs out of the query of a reference that are in another query too, however they are encoded. The
// rest of it stays as it is spelt.
func withoutPairs(reference, pairs string) string {
	beginning, fragment, hasFragment := strings.Cut(reference, "#")
	path, query, _ := strings.Cut(beginning, "?")
	if pairs == "" || query == "" {
		return reference
	}
	unwanted := map[[2]string]bool{}
	for pair := range strings.SplitSeq(pairs, "&") {
		unwanted[decoded(pair)] = true
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" || !unwanted[decoded(pair)] {
			kept = append(kept, pair)
		}
	}
	if len(kept) > 0 {
		path += "?" + strings.Join(kept, "&")
	}
	if hasFragment {
		path += "#" + fragment
	}
	return path
}

// decoded are name and value of a pair in a query. What cannot be decoded stays as it is.
func decoded(pair string) [2]string {
	name, value, _ := strings.Cut(pair, "=")
	both := [2]string{name, value}
	for i, s := range both {
		if text, err := url.QueryUnescape(s); err == nil {
			both[i] = text
		}
	}
	return both
}

// rewriteLocation turns a URL that a target gave in a response header into a path on the gateway, if it lies below the
// target: same scheme, host and port, and the target's path as a prefix in whole segments. What follows stays as it is
// spelt. Else it returns the value as it is, and false. requested is the URL that the target was called with.
func rewriteLocation(value string, requested, target *url.URL, prefix string) (string, bool) {
	reference, err := url.Parse(value)
	if err != nil || reference.Opaque != "" {
		return value, false
	}
	location := requested.ResolveReference(reference)
	if !sameOrigin(location, target) {
		return value, false
	}
	rest, ok := below(rawPath(location), rawPath(target))
	if !ok {
		return value, false
	}
	rewritten := prefix + rest
	if location.RawQuery != "" || location.ForceQuery {
		rewritten += "?" + location.RawQuery
	}
	if location.Fragment != "" {
		rewritten += "#" + location.EscapedFragment()
	}
	return rewritten, true
}

func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if strings.EqualFold(u.Scheme, "https") {
		return "443"
	}
	return "80"
}

// below cuts base off path, segment by segment; segments are compared decoded, and what remains stays encoded.
func below(path, base string) (rest string, ok bool) {
	base = strings.TrimSuffix(base, "/")
	for base != "" {
		base = strings.TrimPrefix(base, "/")
		want, more, _ := cutSegment(base)
		if !strings.HasPrefix(path, "/") {
			return "", false
		}
		got, remaining, _ := cutSegment(path[1:])
		if !sameSegment(want, got) {
			return "", false
		}
		base, path = more, remaining
	}
	return path, true
}

// cutSegment cuts before the next slash, which stays with what remains.
func cutSegment(s string) (segment, remaining string, found bool) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i:], true
	}
	return s, "", false
}

func sameSegment(a, b string) bool {
	if a == b {
		return true
	}
	da, errA := url.PathUnescape(a)
	db, errB := url.PathUnescape(b)
	return errA == nil && errB == nil && da == db
}
