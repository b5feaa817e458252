// Package canary finds secrets where they must not be: a test records every secret that it makes or meets, and has looked
// for them whatever its programs tell. It owns how a secret may look once it leaked; it knows nothing of who tells.
package canary

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// shortest is the least length of a text that is looked for: shorter ones stand in innocent texts too.
const shortest = 8

// Set holds secrets, each with a name that may be told. The zero value is empty. It is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	names map[string]string // by the form that is looked for
}

// Add records a secret under a name. Of a PEM text the private keys are recorded, not the certificates. It says whether
// there is anything to look for: short texts and public ones are not.
func (s *Set) Add(name, value string) bool {
	if strings.Contains(value, "-----BEGIN ") {
		found := false
		for rest := []byte(value); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				return found
			}
			if strings.HasSuffix(block.Type, "PRIVATE KEY") {
				found = true
				s.addKey(name, block)
			}
		}
	}
	value = strings.TrimSpace(value)
	if len(value) < shortest {
		return false
	}
	s.put(name, forms(value)...)
	return true
}

// addKey records pieces of a private key: one line is enough to know that it leaked, however it is wrapped.
func (s *Set) addKey(name string, block *pem.Block) {
	text := base64.StdEncoding.EncodeToString(block.Bytes)
	middle := len(block.Bytes) / 2
	middle -= middle % 3 // so that base64 of the whole holds base64 of the piece
	piece := block.Bytes[middle:min(middle+24, len(block.Bytes))]
	s.put(name, base64.StdEncoding.EncodeToString(piece), hex.EncodeToString(piece), string(piece))
	// As a PEM text in base64 once more, as Secrets hold it: three alignments.
	start := len(text) / 2 / 64 * 64 // where a line of a PEM text begins
	line := text[start:min(start+32, len(text))]
	s.put(name, line)
	s.put(name, aligned(line)...)
}

func (s *Set) put(name string, found ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[string]string{}
	}
	for _, form := range found {
		if len(form) >= shortest {
			s.names[form] = name
		}
	}
}

// forms are all in which a text may be told.
func forms(value string) []string {
	out := []string{
		value, url.QueryEscape(value), url.PathEscape(value), hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value))),
		base64.RawURLEncoding.EncodeToString([]byte(value)),
	}
	out = append(out, aligned(value)...)
	if len(value) > 40 { // told in part
		out = append(out, value[:32], value[len(value)-32:])
	}
	return out
}

// aligned are the base64 forms of a text wherever it stands in what is encoded.
func aligned(value string) (out []string) {
	for shift := range 3 {
		if cut := (3 - shift) % 3; len(value) > cut {
			whole := value[cut:]
			whole = whole[:len(whole)-len(whole)%3]
			out = append(out, base64.StdEncoding.EncodeToString([]byte(whole)))
		}
	}
	return out
}

// Len is how many forms are looked for.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names)
}

// In gives the names of the secrets that stand in a text, sorted; never the secrets themselves.
func (s *Set) In(text string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for form, name := range s.names {
		if !slices.Contains(found, name) && strings.Contains(text, form) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}
