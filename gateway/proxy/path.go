package proxy

import (
	"net/url"
	"strings"
)

// address is what a path on one of the gateway's ports says.
type address struct {
	// application, service and entry are segments as the caller wrote them; they are compared, never decoded.
	application, service, entry string
	// prefix is /application/service[/entry].
	prefix  string
	entries bool // entry was asked for
	// rest is what follows, as the caller wrote it: empty, or from a slash on.
	rest string
}

// rawPath is the path as it stands in the request line.
func rawPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.EscapedPath() // without RawPath this is exactly what was sent
}

// parseAddress splits a raw path into n segments and the rest. Slashes before the first segment do not count, and slashes
// at the end make no segment.
func parseAddress(raw string, n int) (address, bool) {
	path := strings.TrimLeft(raw, "/")
	if strings.Count(strings.TrimRight(path, "/"), "/") < n-1 || path == "" {
		return address{}, false
	}
	var a address
	at := 0
	for i, segment := range []*string{&a.application, &a.service, &a.entry}[:n] {
		if i > 0 {
			at++ // the slash
		}
		length := strings.IndexByte(path[at:], '/')
		if length < 0 {
			length = len(path) - at
		}
		*segment = path[at : at+length]
		at += length
	}
	a.prefix, a.rest = "/"+path[:at], path[at:]
	return a, true
}

// leaves says whether a rest, once decoded, climbs above the path of the target that it is added to. Servlet containers read
// what follows a semicolon in a segment as its parameters, so that for them ..;x is .. too.
func leaves(rest string) bool {
	if !strings.Contains(rest, "..") && !strings.Contains(rest, "%") {
		return false
	}
	decoded, err := url.PathUnescape(rest)
	if err != nil {
		return true
	}
	depth := 0
	for segment := range strings.SplitSeq(strings.ReplaceAll(decoded, `\`, "/"), "/") {
		name, _, _ := strings.Cut(segment, ";")
		switch name {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

// joinPath gives Path and RawPath of a URL for a call. Nothing, or one slash, added to a target leaves its path as it is.
// With encode, rest is decoded, empty segments at its ends go, and the library encodes it anew; without, the caller's
// bytes go out as they came, but for those that no URL may hold.
func joinPath(target *url.URL, rest string, encode bool) (path, raw string) {
	base := rawPath(target)
	if rest == "" || rest == "/" || encode && strings.Trim(rest, "/") == "" {
		return target.Path, encodeIllegal(base)
	}
	if encode {
		decoded, err := url.PathUnescape(strings.Trim(rest, "/"))
		if err != nil {
			decoded = strings.Trim(rest, "/") // cannot be: the server refuses such a request
		}
		return strings.TrimSuffix(target.Path, "/") + "/" + decoded, ""
	}
	raw = encodeIllegal(strings.TrimSuffix(base, "/") + rest)
	path, err := url.PathUnescape(raw)
	if err != nil {
		return raw, ""
	}
	return path, raw
}

// legal are the bytes, besides letters and digits, that a path may hold as they are (RFC 3986, section 3.3; "[" and "]"
// because net/url leaves them).
const legal = "-._~!$&'()*+,;=:@/%[]"

// encodeIllegal percent-encodes the bytes that a path may not hold, and no others.
func encodeIllegal(raw string) string {
	first := 0
	for first < len(raw) && isLegal(raw[first]) {
		first++
	}
	if first == len(raw) {
		return raw
	}
	var b strings.Builder
	b.WriteString(raw[:first])
	const hex = "0123456789ABCDEF"
	for i := first; i < len(raw); i++ {
		c := raw[i]
		if isLegal(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

func isLegal(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(legal, c) >= 0
}

// joinQuery puts the target's query before the caller's, each as it is spelt.
func joinQuery(target, caller string) string {
	if target == "" || caller == "" {
		return target + caller
	}
	return target + "&" + caller
}
