package controller

import (
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// firstPause is how long after a failure a cluster is tried again; each further failure doubles it, up to longestPause.
	firstPause, longestPause = 5 * time.Second, 10 * time.Minute
	// firstTokenPause is how long after a token that the agent spent in vain another one is given, and doubles likewise.
	firstTokenPause, longestTokenPause = time.Minute, time.Hour
)

// backoff doubles from first to longest: after n failures, from 1. A fifth more or less, by chance, keeps clusters that failed at
// the same time from coming back at the same time.
func backoff(n int, first, longest time.Duration) time.Duration {
	d := longest
	if n = max(n, 1) - 1; n < 20 {
		d = min(first<<n, longest)
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// entry is what this process remembers of a cluster. After a restart it begins anew, which costs an attempt and loses nothing.
type entry struct {
	// seen is the Secret as it was at the last attempt, and next when the next one is due; zero if only a change makes it so.
	seen [sha256.Size]byte
	next time.Time
	// failures in a row.
	failures int
	// tokens that were given since the cluster was last connected, when the last one was, and when the next one may be if that is
	// spent in vain.
	tokens           int
	given, nextToken time.Time
	// proven is the UID of the cluster whose runtime is known to be that of this Secret.
	proven string
	// told is what the record says. It is written under the lock of the memory.
	told record
}

// memory of all clusters. It is safe for concurrent use.
type memory struct {
	mu      sync.Mutex
	entries map[types.NamespacedName]*entry
	// owners are the Secrets by the UIDs of the clusters that they lead to: as long as an attempt lasts, and then those that are
	// proven. A cluster says itself which one it is, and must not keep another one from being attended to.
	owners map[string]types.NamespacedName
}

func newMemory() *memory {
	return &memory{entries: map[types.NamespacedName]*entry{}, owners: map[string]types.NamespacedName{}}
}

// of gives the entry of a Secret, of which one reconcile at a time has hold.
func (m *memory) of(secret types.NamespacedName) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[secret]
	if e == nil {
		e = &entry{}
		m.entries[secret] = e
	}
	return e
}

// note notes what is told of a cluster.
func (m *memory) note(e *entry, told record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.told = told
}

// tally is how many clusters are in which state, and why, and of how many the API server is not verified.
type tally struct {
	states     map[State]int
	reasons    map[Reason]int
	unverified int
}

// tally counts the clusters.
func (m *memory) tally() tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := tally{states: map[State]int{}, reasons: map[Reason]int{}}
	for _, e := range m.entries {
		if e.told.state == "" {
			continue
		}
		found.states[e.told.state]++
		found.reasons[e.told.reason]++
		if e.told.unverified {
			found.unverified++
		}
	}
	return found
}

// forget forgets a Secret that is gone.
func (m *memory) forget(secret types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, secret)
	m.releaseLocked(secret, "")
}

// release gives up all clusters of a Secret but one.
func (m *memory) release(secret types.NamespacedName, but string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releaseLocked(secret, but)
}

func (m *memory) releaseLocked(secret types.NamespacedName, but string) {
	for uid, owner := range m.owners {
		if owner == secret && uid != but {
			delete(m.owners, uid)
		}
	}
}

// claim makes a cluster that of a Secret. It gives the one whose it is: another, if that was first.
func (m *memory) claim(uid string, secret types.NamespacedName) types.NamespacedName {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releaseLocked(secret, uid)
	if owner, taken := m.owners[uid]; taken {
		return owner
	}
	m.owners[uid] = secret
	return secret
}

// fingerprint changes with everything of a Secret that an attempt depends on.
func fingerprint(s *corev1.Secret, key string) [sha256.Size]byte {
	text, err := json.Marshal([]any{s.UID, s.Data[key], s.Labels, s.Annotations[AnnotationCluster], s.Annotations[AnnotationTenant], s.Annotations[AnnotationAdopt], s.DeletionTimestamp != nil})
	if err != nil { // of texts and maps of texts
		panic(err)
	}
	return sha256.Sum256(text)
}
