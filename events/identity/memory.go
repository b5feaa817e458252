package identity

import (
	"crypto/sha256"
	"net/http"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/application-connector/application-connector/events/xfcc"
)

const (
	// remembered is how many identities are kept; one takes some 10 KiB. Beyond it, those not asked for the longest go.
	remembered = 512
	// longestRemembered is the longest header line that is kept an identity for; with a chain it would be much memory.
	longestRemembered = 16 << 10
)

// Memory is a Verifier that remembers what it found in a header: a client sends the same one with each event, and reading a
// certificate takes longer than all the rest.
//
// It decides nothing. What Of returns depends on the header's bytes and the Verifier alone, neither on time nor on what is in
// the cluster, so that it can't go stale; whether the identity may do what it wants must be asked for each request. Refusals
// are not remembered. A Memory is safe for concurrent use.
type Memory struct {
	verifier Verifier
	found    *lru.Cache[memoryKey, Identity]
}

// memoryKey holds the SHA-256 of each header line that Of reads; that of a header that it does not read is zero.
type memoryKey struct{ xfcc, clientCert [sha256.Size]byte }

// NewMemory returns a Memory that has found nothing so far.
func NewMemory(v Verifier) *Memory {
	found, _ := lru.New[memoryKey, Identity](remembered) // fails only for a size of 0
	return &Memory{verifier: v, found: found}
}

// Of returns what Verifier.Of returns. The result is shared and must not be changed.
func (m *Memory) Of(header http.Header) (Identity, error) {
	key, ok := m.key(header)
	if !ok {
		return m.verifier.Of(header)
	}
	if id, ok := m.found.Get(key); ok {
		return id, nil
	}
	id, err := m.verifier.Of(header)
	if err == nil {
		m.found.Add(key, id)
	}
	return id, err
}

// key is not ok for a header that can't be accepted, or is not worth to be remembered.
func (m *Memory) key(header http.Header) (key memoryKey, ok bool) {
	byCertificate := m.verifier.Header == ClientCertHeader
	if byCertificate && !digest(&key.clientCert, header.Values(ClientCertHeader)) {
		return memoryKey{}, false
	}
	if byCertificate && m.verifier.TrustedHops == 0 {
		return key, true // X-Forwarded-Client-Cert is not read
	}
	return key, digest(&key.xfcc, header.Values(xfcc.HeaderName))
}

func digest(sum *[sha256.Size]byte, lines []string) bool {
	if len(lines) != 1 || len(lines[0]) > longestRemembered {
		return false
	}
	*sum = sha256.Sum256([]byte(lines[0]))
	return true
}
