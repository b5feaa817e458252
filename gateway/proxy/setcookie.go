package proxy

import (
	"net/url"
	"strings"
)

// rewriteCookiePath brings the Path of a Set-Cookie line (RFC 6265, 4.1.1) from the target's paths to the gateway's: what
// lies below the target's path lies below prefix; what lies above, and so holds for all of the target, holds for all of
// prefix and not for other APIs on the gateway. The rest of the line stays as it is spelt, and so does any other Path.
func rewriteCookiePath(line string, target *url.URL, prefix string) string {
	parts := strings.Split(line, ";")
	for i, part := range parts[1:] {
		name, path, _ := strings.Cut(part, "=")
		path = strings.TrimSpace(path)
		if !strings.EqualFold(strings.TrimSpace(name), "Path") || !strings.HasPrefix(path, "/") {
			continue // without a slash the path is that of the request, which is right as it is
		}
		base := strings.TrimSuffix(rawPath(target), "/")
		if rest, ok := below(path, base); ok && (base != "" || path != "/") {
			parts[i+1] = name + "=" + prefix + rest
		} else if _, above := below(base+"/", path); above {
			parts[i+1] = name + "=" + prefix
		}
	}
	return strings.Join(parts, ";")
}
