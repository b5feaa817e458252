package edge

import (
	"regexp"
	"strings"
)

// routes are the URI matches of the VirtualService central-application-connectivity-validator. Envoy matches the whole
// path, without query.
var routes = []string{
	`^/[^/]+/v1/metadata(/|/.*)?`,
	`^/[^/]+/v1/events(/|/.*)?`,
	`^/[^/]+/v2/events(/|/.*)?`,
	`^/[^/]+/events(/|/.*)?`,
}

var routePattern = regexp.MustCompile(`^(?:` + strings.Join(routes, "|") + `)$`)

// Routes lists the URI patterns that are forwarded, each matched against the whole path.
func Routes() []string { return append([]string(nil), routes...) }

// normalise resolves dot segments and turns backslashes, as Istio's default path normalization (BASE) does. Double and
// encoded slashes stay.
func normalise(escaped string) string {
	var out []string
	segments := strings.Split(strings.ReplaceAll(escaped, `\`, "/"), "/")
	for i, s := range segments {
		dots := strings.ReplaceAll(strings.ReplaceAll(s, "%2e", "."), "%2E", ".")
		switch dots {
		case ".", "..":
			if dots == ".." && len(out) > 1 {
				out = out[:len(out)-1]
			}
			if i == len(segments)-1 {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return strings.Join(out, "/")
}
