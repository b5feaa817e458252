package credentials

import (
	"net/url"
	"strings"
)

// AddQuery appends to a raw query each parameter whose name is not in it. What stands there stays as it is spelt.
func AddQuery(raw string, parameters []Parameter) string {
	if len(parameters) == 0 {
		return raw
	}
	present := map[string]bool{}
	for pair := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		present[name] = true
	}
	var b strings.Builder
	b.WriteString(raw)
	for _, p := range parameters {
		if present[p.Name] {
			continue
		}
		for _, v := range p.Values {
			if b.Len() > 0 {
				b.WriteByte('&')
			}
			b.WriteString(url.QueryEscape(p.Name) + "=" + url.QueryEscape(v.Reveal()))
		}
	}
	return b.String()
}
