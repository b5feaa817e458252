package connection

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// Bounds of waiting.
const (
	// maxBackoff bounds the waiting time after failures, however many.
	maxBackoff = 10 * time.Minute
	// locateEvery is how often the Connector is asked for the URLs at least.
	locateEvery = 24 * time.Hour
	// heartbeat is how often the worker looks at everything, whatever else there is to wait for. Timers stand still while
	// a machine sleeps, and know nothing of a clock that is set.
	heartbeat = time.Hour
	// maxRetryAfter bounds what a server may ask for.
	maxRetryAfter = time.Hour
	// stalePeriods and leastStale: see Schedule.StaleAfter. A failure or two is no news.
	stalePeriods = 10
	leastStale   = 30 * time.Minute
)

// Schedule says when Compass is called next. It is the only place that does.
type Schedule struct {
	// Floor is the least time between two attempts.
	Floor time.Duration
	// Period of syncs while all is well.
	Period time.Duration
	// Random gives numbers in [0,1), for the jitter; nil means math/rand.
	Random func() float64
}

// AfterSuccess is the first of the identity's moments that is more than half a period away. The moments are a period
// apart; where they lie is given by a hash of the identity. So many clusters spread evenly over the period, and stay
// spread when all of them restart together.
func (s Schedule) AfterSuccess(now time.Time, identity string) time.Time {
	period := max(s.Period, s.Floor, time.Second)
	earliest := now.Add(max(period/2, s.Floor))
	slot := earliest.Truncate(period).Add(phase(identity, period)) // Truncate counts from the zero time: the same moments for ever
	if slot.Before(earliest) {
		slot = slot.Add(period)
	}
	return slot
}

// AfterStart is when a process syncs whose last attempt is overdue when it starts: at the next of the identity's moments, ten
// minutes ahead at most. So clusters that were down together do not all call Compass in the moment they are back.
func (s Schedule) AfterStart(now time.Time, identity string) time.Time {
	period := min(max(s.Period, s.Floor, time.Second), maxBackoff)
	slot := now.Truncate(period).Add(phase(identity, period))
	if slot.Before(now) {
		slot = slot.Add(period)
	}
	return slot
}

// Longest is how far ahead an attempt can lie at most. One that lies further ahead was noted while the clock was wrong.
func (s Schedule) Longest() time.Duration {
	return max(2*s.Period, 2*s.Floor, s.Floor+maxBackoff, maxRetryAfter) + time.Minute
}

// StaleAfter is for how long syncs may fail before what the last one brought counts as out of date.
func (s Schedule) StaleAfter() time.Duration { return max(stalePeriods*s.Period, leastStale) }

// stamp makes a time one that a status can hold, in whole seconds, without making it sooner. What is past stays so.
func stamp(at, now time.Time) time.Time {
	whole := at.Truncate(time.Second)
	if whole.Equal(at) || !at.After(now) {
		return whole
	}
	return whole.Add(time.Second)
}

// phase is where in a period the moments of an identity lie.
func phase(identity string, period time.Duration) time.Duration {
	sum := sha256.Sum256([]byte("phase\x00" + identity))
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(period))
}

// AfterFailure is the floor, and on top a random part ("full jitter") of a time that doubles with every failure in a row,
// from the floor up to ten minutes. A server that asks for more is left alone as long as it asked, for an hour at most.
func (s Schedule) AfterFailure(now time.Time, failures int32, retryAfter time.Duration) time.Time {
	random := s.Random
	if random == nil {
		random = rand.Float64
	}
	window := max(s.Floor, time.Second)
	for i := int32(1); i < failures && window < maxBackoff; i++ {
		window *= 2
	}
	wait := max(s.Floor, time.Second) + time.Duration(random()*float64(min(window, maxBackoff)))
	return now.Add(max(wait, min(retryAfter, maxRetryAfter)))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
