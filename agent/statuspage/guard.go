package statuspage

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// policy lets the page load its own style sheet and send its own form, and nothing else: no script at all. The icon is empty,
// and in the page.
const policy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guarded keeps other pages from reading this one by a browser that can reach it: what has a name that an attacker may let
// point here (DNS rebinding) is refused, and nothing may be framed, kept or taken for something else.
func guarded(next http.Handler, host string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "this page can only be read: GET or HEAD is needed", http.StatusMethodNotAllowed)
			return
		}
		if !served(r.Host, host) {
			http.Error(w, "this page is served for localhost, for IP addresses and for the host of APP_STATUS_PAGE_ADDRESS, not for this name", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// served: no name server can say that this host is ours, unless it is the one that was chosen.
func served(requested, chosen string) bool {
	name := requested
	if host, _, err := net.SplitHostPort(requested); err == nil {
		name = host
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || chosen != "" && name == strings.ToLower(chosen) {
		return true
	}
	_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	return err == nil
}
