package proxy

import (
	"net/http"
	"path"
	"strings"
)

// Route is one of the ways on which events come in. Its values are those of the metrics.
type Route string

// Routes.
const (
	RouteV1     Route = "v1"
	RouteV2     Route = "v2"
	RouteEvents Route = "events"
	RouteNone   Route = "none"
)

// Paths are templates of the paths on which events come in.
type Paths struct {
	// V1, V2 and Events hold Placeholder where the Application's name stands.
	V1, V2, Events string
	// Placeholder may be empty: then the three paths are literal and the same for every Application.
	Placeholder string
}

// DefaultPaths are those of a Kyma cluster.
var DefaultPaths = Paths{
	V1:          "/%%APP_NAME%%/v1/events",
	V2:          "/%%APP_NAME%%/v2/events",
	Events:      "/%%APP_NAME%%/events",
	Placeholder: "%%APP_NAME%%",
}

// subscribed is the part behind the legacy path under which a client asks what the cluster subscribed to.
const subscribed = "/subscribed"

// application is the first segment of a path that has at least one more, or empty.
func application(p string) string {
	name, _, ok := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if !ok || !strings.HasPrefix(p, "/") {
		return ""
	}
	return name
}

// route finds the route of a decoded path for an Application, and what stands behind the template.
func (t Paths) route(p, app string) (Route, string) {
	for _, r := range []struct {
		route    Route
		template string
	}{{RouteV1, t.V1}, {RouteV2, t.V2}, {RouteEvents, t.Events}} {
		prefix := r.template
		if t.Placeholder != "" {
			prefix = strings.ReplaceAll(prefix, t.Placeholder, app)
		}
		// Bounded by a segment: /shop/eventsource is not /shop/events.
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(prefix, "/")); ok && (rest == "" || rest[0] == '/') {
			return r.route, rest
		}
	}
	return RouteNone, ""
}

// methods are those that a route takes.
func methods(route Route, rest string) []string {
	if route == RouteV1 && strings.TrimSuffix(rest, "/") == subscribed {
		return []string{http.MethodGet}
	}
	return []string{http.MethodPost}
}

// cleaned is the path without empty, "." and ".." segments.
func cleaned(p string) string {
	c := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

// ambiguous says that two readers could see two paths: encoded separators or dots, also those encoded
// twice, a backslash, control characters. No Application has a "%" in its name.
func ambiguous(decoded, escaped string) bool {
	lower := strings.ToLower(escaped)
	return strings.Contains(lower, "%2f") || strings.Contains(lower, "%2e") || strings.Contains(lower, "%25") || strings.Contains(decoded, `\`) ||
		strings.ContainsFunc(decoded, func(r rune) bool { return r < 0x20 || r == 0x7f }) ||
		cleaned(decoded) != decoded
}
