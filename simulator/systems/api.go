package systems

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

const (
	// maxBody bounds a request body, which is counted and hashed but not kept, in bytes.
	maxBody = 1 << 30
	// shownBody is how much of a body an answer holds at most, in bytes.
	shownBody = 4 << 10
)

// Seen is what an API answers with 200: the request as it arrived.
type Seen struct {
	API string `json:"api"`
	// Caller is who the API takes the caller for, and by what.
	Caller Caller `json:"caller"`
	Method string `json:"method"`
	Proto  string `json:"proto"`
	Host   string `json:"host"`
	// Path is as on the wire; Query too.
	Path  string `json:"path"`
	Query string `json:"query"`
	// Headers has credentials masked: the scheme of Authorization and the names of cookies stay.
	Headers http.Header `json:"headers"`
	// BodyBytes and BodySHA256 describe the whole body; Body is it, when it is short text.
	BodyBytes  int64  `json:"bodyBytes"`
	BodySHA256 string `json:"bodySha256,omitempty"`
	Body       string `json:"body,omitempty"`
}

// Caller says how a caller was authenticated. Passwords and tokens never stand here.
type Caller struct {
	// Kind is none, basic, oauth, oauth-mtls, certificate or parameters.
	Kind               string `json:"kind"`
	User               string `json:"user,omitempty"`
	ClientID           string `json:"clientId,omitempty"`
	CertificateSubject string `json:"certificateSubject,omitempty"`
	// CSRF says that a valid token came with its session.
	CSRF bool `json:"csrf,omitempty"`
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	header http.Header
	text   string
}

// authenticate finds out who the caller is. Header fields in a refusal go with its answer.
type authenticate func(w http.ResponseWriter, r *http.Request) (Caller, *refusal)

// api makes an endpoint that answers what it saw, or why it refuses.
func (s *Server) api(name string, who authenticate) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		caller, refused := who(w, r)
		if refused != nil {
			for k, v := range refused.header {
				w.Header()[k] = v
			}
			writeJSON(w, refused.status, map[string]string{"api": name, "error": refused.text})
			return
		}
		seen := Seen{
			API: name, Caller: caller, Method: r.Method, Proto: r.Proto, Host: r.Host,
			Path: rawPath(r), Query: r.URL.RawQuery, Headers: masked(r.Header),
		}
		if err := seen.readBody(r.Body); err != nil {
			status := http.StatusBadRequest
			if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			writeJSON(w, status, map[string]string{"api": name, "error": "reading the body: " + err.Error()})
			return
		}
		writeJSON(w, http.StatusOK, seen)
	}
}

// rawPath is the path as on the wire, which URL.EscapedPath may have changed.
func rawPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}

func (seen *Seen) readBody(body io.Reader) error {
	head := &strings.Builder{}
	hash := sha256.New()
	n, err := io.Copy(hash, io.TeeReader(body, &limited{head, shownBody}))
	seen.BodyBytes = n
	if n > 0 {
		seen.BodySHA256 = hex.EncodeToString(hash.Sum(nil))
	}
	if n <= shownBody && utf8.ValidString(head.String()) {
		seen.Body = head.String()
	}
	return err
}

// limited keeps the first bytes and drops the rest.
type limited struct {
	to   *strings.Builder
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), l.left)]
	l.left -= len(keep)
	_, _ = l.to.Write(keep)
	return len(p), nil
}

// mask stands where a credential would.
const mask = "[masked]"

// masked copies header fields without the values of credentials.
func masked(h http.Header) http.Header {
	out := h.Clone()
	for _, name := range []string{"Authorization", "Proxy-Authorization", "Access-Token"} {
		for i, v := range out[name] {
			if scheme, _, ok := strings.Cut(v, " "); ok {
				out[name][i] = scheme + " " + mask
			} else {
				out[name][i] = mask
			}
		}
	}
	for _, name := range []string{"X-Csrf-Token", "X-Api-Key"} {
		for i, v := range out[name] {
			if !strings.EqualFold(v, "fetch") {
				out[name][i] = mask
			}
		}
	}
	for i, line := range out["Cookie"] {
		var names []string
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			names = append(names, name+"="+mask)
		}
		out["Cookie"][i] = strings.Join(names, "; ")
	}
	return out
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	pretty := json.NewEncoder(w)
	pretty.SetEscapeHTML(false)
	pretty.SetIndent("", "  ")
	_ = pretty.Encode(body)
}
