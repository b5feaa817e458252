package proxy

import (
	"net/url"
	"strings"
)

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
