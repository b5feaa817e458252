package proxy

import (
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

// Limits bound what is taken. They hold for one process.
type Limits struct {
	// Rate is how many events each Application may send a second, on average; 0 means as many as it likes.
	Rate float64
	// Burst is how many it may send at once; at least 1 if there is a Rate.
	Burst int
	// InFlight is how many requests are served at once; 0 means any number.
	InFlight int
}

// maxBuckets is how many Applications' buckets are kept. Beyond it, those that sent nothing for the longest time begin
// with a full bucket again.
const maxBuckets = 10_000

// limiter holds what Limits need to remember.
type limiter struct {
	Limits
	clock    clock.PassiveClock
	inFlight atomic.Int64
	buckets  *lru.Cache[string, *rate.Limiter]
}

func newLimiter(l Limits, c clock.PassiveClock) *limiter {
	buckets, _ := lru.New[string, *rate.Limiter](maxBuckets) // fails only for a size of 0
	return &limiter{Limits: l, clock: c, buckets: buckets}
}

var overloaded = &refusal{
	status: http.StatusServiceUnavailable, reason: Overloaded, text: "too many requests are being served, try again",
	header: map[string]string{"Retry-After": "1"},
}

// enter counts a request in, and says whether there is room for it. Each must leave.
func (l *limiter) enter() bool {
	n := l.inFlight.Add(1)
	return l.InFlight == 0 || n <= int64(l.InFlight)
}

func (l *limiter) leave() { l.inFlight.Add(-1) }

// take takes events out of an Application's bucket, or refuses and takes none. More events at once than fit into the
// bucket need a full one.
func (l *limiter) take(application string, events int) *refusal {
	if l.Rate == 0 {
		return nil
	}
	bucket, ok := l.buckets.Get(application)
	if !ok {
		bucket = rate.NewLimiter(rate.Limit(l.Rate), l.Burst)
		if before, ok, _ := l.buckets.PeekOrAdd(application, bucket); ok {
			bucket = before
		}
	}
	now := l.clock.Now()
	reservation := bucket.ReserveN(now, min(max(events, 1), l.Burst))
	wait := reservation.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	reservation.CancelAt(now)
	seconds := int(math.Ceil(min(wait, time.Hour).Seconds()))
	return &refusal{
		status: http.StatusTooManyRequests, reason: RateLimited, text: "the Application sends more events than it may, send this again later",
		header: map[string]string{"Retry-After": strconv.Itoa(seconds)},
	}
}
