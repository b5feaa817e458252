package proxy

import (
	"net/http"
	"strings"

	"github.com/application-connector/application-connector/gateway/credentials"
)

// setCookies puts cookies before those that a request has, and drops those of the same names. What the caller sent stays
// as it is spelt.
func setCookies(h http.Header, cookies []credentials.Cookie) {
	if len(cookies) == 0 {
		return
	}
	names := map[string]bool{}
	var pairs []string
	for _, c := range cookies {
		names[c.Name] = true
		pairs = append(pairs, c.Name+"="+c.Value.Reveal())
	}
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.TrimSpace(pair)
			name, _, _ := strings.Cut(pair, "=")
			if pair != "" && !names[name] {
				pairs = append(pairs, pair)
			}
		}
	}
	h["Cookie"] = []string{strings.Join(pairs, "; ")}
}
