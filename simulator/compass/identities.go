package compass

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// ownerKind says what a system auth belongs to.
type ownerKind string

const (
	ownerRuntime     ownerKind = "Runtime"
	ownerApplication ownerKind = "Application"
)

// systemAuth is an identity: the common name of client certificates is its id.
type systemAuth struct {
	ID      string    `json:"id"`
	Kind    ownerKind `json:"kind"`
	OwnerID string    `json:"ownerID"`
	Tenant  string    `json:"tenant"`
	Created time.Time `json:"created"`
	// Certificates issued for it, oldest first.
	Certificates []IssuedCertificate `json:"certificates,omitempty"`
}

// IssuedCertificate is a client certificate that the Connector signed.
type IssuedCertificate struct {
	// Hash is the SHA-256 of the certificate's DER, in lower-case hex.
	Hash      string    `json:"hash"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Revoked   bool      `json:"revoked,omitempty"`
}

type oneTimeToken struct {
	AuthID  string    `json:"authID"`
	Expires time.Time `json:"expires"`
}

// identities are the system auths, one-time tokens and revoked certificates.
// Only hashes of tokens are kept; a used token is forgotten, because used,
// expired and unknown tokens are answered alike.
type identities struct {
	mu      sync.Mutex
	auths   map[string]*systemAuth
	tokens  map[string]oneTimeToken
	revoked map[string]bool
	// onSecret is told each token.
	onSecret func(name, text string)
}

// identitiesFile is how identities are stored.
type identitiesFile struct {
	Auths   []*systemAuth           `json:"auths"`
	Tokens  map[string]oneTimeToken `json:"tokens"`
	Revoked []string                `json:"revoked"`
}

func newIdentities(onSecret func(name, text string)) *identities {
	return &identities{auths: map[string]*systemAuth{}, tokens: map[string]oneTimeToken{}, revoked: map[string]bool{}, onSecret: onSecret}
}

func (i *identities) load(f identitiesFile) {
	for _, a := range f.Auths {
		i.auths[a.ID] = a
	}
	maps.Copy(i.tokens, f.Tokens)
	for _, hash := range f.Revoked {
		i.revoked[hash] = true
	}
}

func (i *identities) file() identitiesFile {
	i.mu.Lock()
	defer i.mu.Unlock()
	f := identitiesFile{Tokens: maps.Clone(i.tokens), Revoked: slices.Sorted(maps.Keys(i.revoked))}
	for _, id := range slices.Sorted(maps.Keys(i.auths)) {
		a := *i.auths[id]
		a.Certificates = slices.Clone(a.Certificates)
		f.Auths = append(f.Auths, &a)
	}
	return f
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// newAuth makes a system auth, as each request for a token from outside does.
func (i *identities) newAuth(kind ownerKind, owner, tenant string, now time.Time) systemAuth {
	a := &systemAuth{ID: uuid.NewString(), Kind: kind, OwnerID: owner, Tenant: tenant, Created: now}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.auths[a.ID] = a
	return *a
}

// newToken makes a one-time token for a system auth: 64 random bytes, in
// base64url with padding. It returns false if there is no such auth.
func (i *identities) newToken(authID string, now time.Time, validity time.Duration) (string, bool) {
	var raw [64]byte
	rand.Read(raw[:]) // never fails: documented since Go 1.24
	token := base64.URLEncoding.EncodeToString(raw[:])
	i.onSecret("a one-time token", token)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.auths[authID] == nil {
		return "", false
	}
	maps.DeleteFunc(i.tokens, func(_ string, t oneTimeToken) bool { return !now.Before(t.Expires) })
	i.tokens[tokenHash(token)] = oneTimeToken{AuthID: authID, Expires: now.Add(validity)}
	return token, true
}

// consume takes a token out of the store: it works once, whatever becomes of
// the request that carried it.
func (i *identities) consume(token string, now time.Time) (systemAuth, bool) {
	hash := tokenHash(token)
	i.mu.Lock()
	defer i.mu.Unlock()
	t, ok := i.tokens[hash]
	if !ok || !now.Before(t.Expires) {
		return systemAuth{}, false
	}
	delete(i.tokens, hash)
	return i.get(t.AuthID)
}

// byCertificate resolves a client certificate by its common name and hash.
func (i *identities) byCertificate(commonName, hash string) (systemAuth, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.revoked[hash] {
		return systemAuth{}, false
	}
	return i.get(commonName)
}

func (i *identities) auth(id string) (systemAuth, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.get(id)
}

// get copies; the caller holds the lock.
func (i *identities) get(id string) (systemAuth, bool) {
	a, ok := i.auths[id]
	if !ok {
		return systemAuth{}, false
	}
	out := *a
	out.Certificates = slices.Clone(a.Certificates)
	for n := range out.Certificates {
		out.Certificates[n].Revoked = i.revoked[out.Certificates[n].Hash]
	}
	return out, true
}

// ofOwner lists the system auths of a Runtime or Application, oldest first.
func (i *identities) ofOwner(owner string) []systemAuth {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []systemAuth
	for id, a := range i.auths {
		if a.OwnerID == owner {
			copied, _ := i.get(id)
			out = append(out, copied)
		}
	}
	slices.SortFunc(out, func(a, b systemAuth) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (i *identities) addCertificate(authID string, c IssuedCertificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if a := i.auths[authID]; a != nil {
		a.Certificates = append(a.Certificates, c)
	}
}

func (i *identities) revoke(hash string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.revoked[hash] = true
}

func (i *identities) deleteAuth(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.auths[id]
	delete(i.auths, id)
	return ok
}

func (i *identities) deleteOwner(owner string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.auths, func(_ string, a *systemAuth) bool { return a.OwnerID == owner })
}
