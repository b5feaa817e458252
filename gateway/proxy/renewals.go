package proxy

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/credentials"
)

const (
	// renewalPause is how long an API's credential is not renewed after a renewal that did not help; it doubles with each
	// further one, up to longestRenewalPause. The latter is also the longest that a token which was revoked goes on being
	// used, if calls of the same API are refused by the same status whatever they carry.
	renewalPause        = 5 * time.Second
	longestRenewalPause = 30 * time.Second
	renewalsKept        = 10_000
)

// renewals hold back what does not help. A target refuses what its caller may not do as it refuses a token that has ended;
// without this, one caller who asks for such a thing in a loop would have everybody's token fetched anew in a loop.
// It is safe for concurrent use.
type renewals struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	held *lru.Cache[renewal, hold]
}

// renewal is of what, and why. A token that has ended is refused by 401 (RFC 6750, section 3.1), what is forbidden by 403:
// neither keeps the other back.
type renewal struct {
	owner   credentials.Owner
	version credentials.Version
	status  int
}

type hold struct {
	pause time.Duration
	until time.Time
}

func newRenewals(c clock.PassiveClock) *renewals {
	if c == nil {
		c = clock.RealClock{}
	}
	held, err := lru.New[renewal, hold](renewalsKept)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &renewals{clock: c, held: held}
}

// may says whether a credential may be renewed now.
func (r *renewals) may(k renewal) bool {
	h, ok := r.held.Get(k)
	return !ok || !r.clock.Now().Before(h.until)
}

// note says whether a renewal helped. Of several at once that did not, one counts.
func (r *renewals) note(k renewal, helped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if helped {
		r.held.Remove(k)
		return
	}
	now := r.clock.Now()
	h, ok := r.held.Get(k)
	switch {
	case ok && now.Before(h.until):
		return
	case ok && now.Before(h.until.Add(h.pause)):
		h.pause = min(2*h.pause, longestRenewalPause)
	default: // the first one, or the first one for a long time
		h.pause = renewalPause
	}
	h.until = now.Add(h.pause)
	r.held.Add(k, h)
}
