// Package canary finds secrets where they must not be: a test records every secret that it makes or meets, and has looked
// for them whatever its programs tell. It owns how a secret may look once it leaked; it knows nothing of who tells.
package canary

import (
	"encoding/pem"
	"slices"
	"strings"
	"sync"
)

const (
	// shortest is the least length of a text that is looked for, in bytes: shorter ones stand in innocent texts too.
	shortest = gram
	// window is how much of a longer text gives it away, in bytes, wherever in it that stands.
	window = 24
	// gram is how many bytes of a text are looked up, at each place. Of what is looked for there is one every stride bytes,
	// so that each window holds one.
	gram, stride = 8, window - gram
)

// Set holds secrets, each with a name that may be told. The zero value is empty. It is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	forms map[string]string // the name by the form
	added map[[2]string]bool
	index map[uint64][]place
	// filter says of most texts that no gram begins so, which spares the look into the map.
	filter [1 << 16]bool
}

// place is one in a form.
type place struct {
	form string
	at   int
}

// Found is a secret in a text.
type Found struct {
	Name string
	Line int // in which it begins, the first time, counted from 1
}

// Add records a secret under a name. Of a PEM text the private keys are recorded, not the certificates, and of a JSON Web Token
// the signature, since its claims are names that stand in certificates and addresses too. It says whether
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
				s.put(name, string(block.Bytes), func() []string { return keyForms(block.Bytes) })
			}
		}
	}
	value = secretOf(strings.TrimSpace(value))
	if len(value) < shortest {
		return false
	}
	s.put(name, value, func() []string { return textForms(value) })
	return true
}

// put records what forms gives, once for each value.
func (s *Set) put(name, value string, forms func() []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.added[[2]string{name, value}] {
		return
	}
	if s.forms == nil {
		s.forms, s.added, s.index = map[string]string{}, map[[2]string]bool{}, map[uint64][]place{}
	}
	s.added[[2]string{name, value}] = true
	for _, form := range forms() {
		if _, known := s.forms[form]; known || len(form) < shortest {
			continue
		}
		s.forms[form] = name
		for at := 0; at == 0 || at+gram <= len(form) && len(form) >= window; at += stride {
			g := first(form[at:])
			s.index[g] = append(s.index[g], place{form, at})
			s.filter[hash(g)] = true
		}
	}
}

// Len is how many forms are looked for.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.forms)
}

// In gives the names of the secrets that stand in a text, sorted; never the secrets themselves.
func (s *Set) In(text string) (names []string) {
	for _, f := range s.Find(text) {
		names = append(names, f.Name)
	}
	return names
}

// Find is In with the places.
func (s *Set) Find(text string) []Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(text) < gram || len(s.forms) == 0 {
		return nil
	}
	var found []Found
	for i, g := 0, first(text); ; i++ {
		if s.filter[hash(g)] {
			for _, p := range s.index[g] {
				name := s.forms[p.form]
				if p.matches(text, i) && !slices.ContainsFunc(found, func(f Found) bool { return f.Name == name }) {
					found = append(found, Found{name, strings.Count(text[:i], "\n") + 1})
				}
			}
		}
		if i+gram == len(text) {
			break
		}
		g = g>>8 | uint64(text[i+gram])<<(8*(gram-1))
	}
	slices.SortFunc(found, func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// matches says whether a text holds the form, or a window of it, where its gram stands at i.
func (p place) matches(text string, i int) bool {
	length := gram
	for before := 1; before <= min(p.at, i) && text[i-before] == p.form[p.at-before]; before++ {
		length++
	}
	for after := gram; after < min(len(p.form)-p.at, len(text)-i) && text[i+after] == p.form[p.at+after]; after++ {
		length++
	}
	return length >= min(len(p.form), window)
}

// first is the gram that a text begins with, as a number.
func first(text string) (g uint64) {
	for i := range gram {
		g |= uint64(text[i]) << (8 * i)
	}
	return g
}

func hash(g uint64) uint16 { return uint16(g * 0x9e3779b97f4a7c15 >> 48) }
