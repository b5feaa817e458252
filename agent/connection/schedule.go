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
	// maxRetryAfter bounds what a server may ask for.
	maxRetryAfter = time.Hour
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
	sum := sha256.Sum256([]byte("phase\x00" + identity))
	phase := time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(period))
	earliest := now.Add(max(period/2, s.Floor))
	slot := earliest.Truncate(period).Add(phase) // Truncate counts from the zero time: the same moments for ever
	if slot.Before(earliest) {
		slot = slot.Add(period)
	}
	return slot
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
