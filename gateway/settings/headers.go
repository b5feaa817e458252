package settings

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// HeaderPolicy changes header fields. It is immutable.
type HeaderPolicy struct {
	remove   []string // canonical
	prefixes []string // canonical as far as they go
	set      []field
}

type field struct{ name, value string }

// Apply changes h.
func (p *HeaderPolicy) Apply(h http.Header) {
	p.Strip(h)
	for _, f := range p.set {
		h[f.name] = []string{f.value}
	}
}

// Strip takes out of h all that the policy removes or sets. It is for what comes besides a header: trailers and 1xx.
func (p *HeaderPolicy) Strip(h http.Header) {
	for _, name := range p.remove {
		delete(h, name)
	}
	for _, prefix := range p.prefixes {
		for name := range h {
			if strings.HasPrefix(name, prefix) && untouchable[name] == "" {
				delete(h, name)
			}
		}
	}
	for _, f := range p.set {
		delete(h, f.name)
	}
}

// untouchable are fields that no policy may name, with the reason: what belongs to a connection or to a body, and what is
// the gateway's own to say.
var untouchable = map[string]string{
	"Connection": "it belongs to a connection", "Keep-Alive": "it belongs to a connection", "Proxy-Authenticate": "it belongs to a connection",
	"Proxy-Authorization": "it belongs to a connection", "Proxy-Connection": "it belongs to a connection", "Te": "it belongs to a connection",
	"Upgrade": "it belongs to a connection", "Host": "it is that of targetUrl", "Content-Length": "it belongs to the body",
	"Transfer-Encoding": "it belongs to the body", "Trailer": "it belongs to the body", "Access-Token": "the gateway reads it",
	"Gateway-Error-Reason": "it is the gateway's to say", "Target-System-Status": "it is the gateway's to say",
}

// name checks the name of a header field, which may be empty, and makes it canonical.
func (p *parser) name(name, path string) string {
	if name == "" {
		return ""
	}
	canonical := http.CanonicalHeaderKey(name)
	switch reason := untouchable[canonical]; {
	case !validName(name):
		p.problem(path, fmt.Sprintf("%q is not the name of a header field", name))
	case reason != "":
		p.problem(path, fmt.Sprintf("%s cannot be used: %s", canonical, reason))
	}
	return canonical
}

func (p *parser) headers(h *v1alpha1.HeaderPolicy, path string) *HeaderPolicy {
	if h == nil || len(h.Remove)+len(h.Set) == 0 {
		return nil
	}
	policy := &HeaderPolicy{}
	for i, name := range h.Remove {
		at := fmt.Sprintf("%s.remove[%d]", path, i)
		prefix, wild := strings.CutSuffix(name, "*")
		switch {
		case prefix == "" || !validName(prefix):
			p.problem(at, fmt.Sprintf("%q is not the name of a header field, or its beginning followed by *", name))
		case wild:
			policy.prefixes = append(policy.prefixes, http.CanonicalHeaderKey(prefix))
		default:
			policy.remove = append(policy.remove, p.name(name, at))
		}
	}
	for i, f := range h.Set {
		at := fmt.Sprintf("%s.set[%d]", path, i)
		if f.Name == "" {
			p.problem(at+".name", "is empty")
		}
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			p.problem(at+".value", "holds characters that a header field cannot hold")
		}
		policy.set = append(policy.set, field{p.name(string(f.Name), at+".name"), f.Value})
	}
	return policy
}
