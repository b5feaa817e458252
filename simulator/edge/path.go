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
