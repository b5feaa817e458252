// Package limits holds calls back: too many at once, too many in a time, or to a target that fails. It knows nothing of
// HTTP but the status that says so, and nothing of where calls go. It reads the time from the runtime, so that
// testing/synctest can fake it.
package limits

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Spec of a Gate. Its zero value holds nothing back. It is comparable.
type Spec struct {
	// Concurrent is how many calls may be under way at once; zero for any number.
	Concurrent int
	Rate       Rate
	Breaker    Breaker
}

// Rate lets a number of calls through in a time, and Burst of them at once. Zero Requests is for any number.
type Rate struct {
	Requests int
	Per      time.Duration
	Burst    int
}

// Breaker lets no call through for a pause after a number of failures in a row. Zero Failures is for never.
type Breaker struct {
	Failures int
	Pause    time.Duration
}

// Reason of a Refusal, in one word for callers.
type Reason string

// Reasons.
const (
	ReasonConcurrent Reason = "ConcurrencyLimited"
	ReasonRate       Reason = "RateLimited"
	ReasonBreaker    Reason = "CircuitOpen"
)

// Refusal says why a call is held back.
type Refusal struct { //nolint:errname // it reads as what it is: a call that is refused
	Reason Reason
	// RetryAfter is when it is worth another try; a second if nobody can know.
	RetryAfter time.Duration
}

// Error implements error.
func (r *Refusal) Error() string {
	switch r.Reason {
	case ReasonRate:
		return "too many calls of this API in a short time (rateLimit)"
	case ReasonConcurrent:
		return "too many calls of this API are under way (maxConcurrent)"
	}
	return "this API failed repeatedly and is left alone for a while (circuitBreaker)"
}

// Seconds are RetryAfter in whole seconds, rounded up, as the header field Retry-After wants them.
func (r *Refusal) Seconds() int { return max(1, int(math.Ceil(r.RetryAfter.Seconds()))) }

// Gate holds the calls of one API back. It is safe for concurrent use.
type Gate struct {
	spec    Spec
	limiter *rate.Limiter // nil for none

	mu       sync.Mutex
	inFlight int
	failures int       // in a row
	until    time.Time // no call before that; zero while the breaker is closed
	trial    bool      // the call that decides is under way
}

// New returns a Gate; nil for a Spec that holds nothing back.
func New(s Spec) *Gate {
	if s == (Spec{}) {
		return nil
	}
	g := &Gate{spec: s}
	if s.Rate.Requests > 0 {
		g.limiter = rate.NewLimiter(rate.Limit(float64(s.Rate.Requests)/s.Rate.Per.Seconds()), max(1, s.Rate.Burst))
	}
	return g
}

// Spec is what the Gate was made of. It accepts nil.
func (g *Gate) Spec() Spec {
	if g == nil {
		return Spec{}
	}
	return g.spec
}

// Pass is the permission for one call. Its zero value needs no Leave and is what a nil Gate gives.
type Pass struct {
	gate    *Gate
	trial   bool
	decided bool
}

// Enter lets a call through, or says why not. Whoever was let through must call Leave. It accepts nil.
func (g *Gate) Enter() (Pass, *Refusal) {
	if g == nil {
		return Pass{}, nil
	}
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	open := !g.until.IsZero()
	switch {
	case open && now.Before(g.until):
		return Pass{}, &Refusal{ReasonBreaker, g.until.Sub(now)}
	case open && g.trial:
		return Pass{}, &Refusal{ReasonBreaker, time.Second}
	case g.spec.Concurrent > 0 && g.inFlight >= g.spec.Concurrent:
		return Pass{}, &Refusal{ReasonConcurrent, time.Second}
	}
	if g.limiter != nil {
		reservation := g.limiter.ReserveN(now, 1)
		if delay := reservation.DelayFrom(now); delay > 0 {
			reservation.CancelAt(now)
			return Pass{}, &Refusal{ReasonRate, delay}
		}
	}
	g.inFlight++
	g.trial = open
	return Pass{gate: g, trial: open}, nil
}

// Decide says how the target did: whether it failed. Only the first word of a call counts; a call without one counts
// neither way. Late words of calls that began before the breaker opened do not count either.
func (p *Pass) Decide(failed bool) {
	if p.gate == nil || p.decided || p.gate.spec.Breaker.Failures == 0 {
		return
	}
	p.decided = true
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.until.IsZero() && !p.trial:
	case !failed:
		g.failures, g.until = 0, time.Time{}
	case p.trial:
		g.until = time.Now().Add(g.spec.Breaker.Pause)
	default:
		if g.failures++; g.failures >= g.spec.Breaker.Failures {
			g.until = time.Now().Add(g.spec.Breaker.Pause)
		}
	}
	if p.trial {
		g.trial = false
	}
}

// Leave ends the call.
func (p *Pass) Leave() {
	if p.gate == nil {
		return
	}
	g := p.gate
	p.gate = nil
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if p.trial && !p.decided {
		g.trial = false
	}
}

// State is what is to be seen of a Gate.
type State struct {
	InFlight int
	// Open says that the breaker keeps calls back, or lets one through that decides.
	Open bool
}

// State of the Gate now.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return State{g.inFlight, !g.until.IsZero()}
}
