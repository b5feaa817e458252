package envoy

import "strings"

// Normalise resolves dot segments and turns backslashes, as Istio's default path normalization (BASE) does. Double and
// encoded slashes stay.
func Normalise(escaped string) string {
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
