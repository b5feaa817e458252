package limits_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/gateway/limits"
)

func enter(t *testing.T, g *limits.Gate) *limits.Pass {
	t.Helper()
	pass, refusal := g.Enter()
	if refusal != nil {
		t.Fatalf("refused: %v", refusal)
	}
	return &pass
}

// call is one whole call.
func call(t *testing.T, g *limits.Gate, failed bool) {
	t.Helper()
	pass := enter(t, g)
	pass.Decide(failed)
	pass.Leave()
}

func refused(t *testing.T, g *limits.Gate, want limits.Refusal) {
	t.Helper()
	_, refusal := g.Enter()
	if refusal == nil {
		t.Fatalf("let through, want %+v", want)
	}
	if diff := cmp.Diff(want, *refusal); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutLimitsThereIsNoGate(t *testing.T) {
	g := limits.New(limits.Spec{})
	if g != nil {
		t.Fatal("a gate")
	}
	for range 3 {
		call(t, g, true)
	}
	if g.Spec() != (limits.Spec{}) {
		t.Error("a spec")
	}
}

func TestOnlySoManyCallsAreUnderWayAtOnce(t *testing.T) {
	g := limits.New(limits.Spec{Concurrent: 2})
	one, two := enter(t, g), enter(t, g)
	refused(t, g, limits.Refusal{Reason: limits.ReasonConcurrent, RetryAfter: time.Second})
	one.Leave()
	one.Leave() // twice is once
	three := enter(t, g)
	refused(t, g, limits.Refusal{Reason: limits.ReasonConcurrent, RetryAfter: time.Second})
	if s := g.State(); s != (limits.State{InFlight: 2}) {
		t.Errorf("%+v", s)
	}
	two.Leave()
	three.Leave()
	if s := g.State(); s != (limits.State{}) {
		t.Errorf("%+v", s)
	}
}

func TestTheBoundHoldsWhenManyComeAtOnce(t *testing.T) {
	const bound = 5
	g := limits.New(limits.Spec{Concurrent: bound, Breaker: limits.Breaker{Failures: 1 << 30, Pause: time.Second}})
	var inside, most, through atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 200 {
				pass, refusal := g.Enter()
				if refusal != nil {
					continue
				}
				now := inside.Add(1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				through.Add(1)
				pass.Decide(now%2 == 0)
				inside.Add(-1)
				pass.Leave()
			}
		})
	}
	wg.Wait()
	if most.Load() > bound || through.Load() == 0 || g.State() != (limits.State{}) {
		t.Errorf("%d at once of %d, %+v", most.Load(), through.Load(), g.State())
	}
}

func TestARateLetsABurstThroughAndThenSoManyInATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limits.New(limits.Spec{Rate: limits.Rate{Requests: 10, Per: time.Minute, Burst: 3}})
		for range 3 {
			call(t, g, false)
		}
		refused(t, g, limits.Refusal{Reason: limits.ReasonRate, RetryAfter: 6 * time.Second})
		time.Sleep(2 * time.Second)
		refused(t, g, limits.Refusal{Reason: limits.ReasonRate, RetryAfter: 4 * time.Second})
		time.Sleep(4 * time.Second)
		call(t, g, false)
		refused(t, g, limits.Refusal{Reason: limits.ReasonRate, RetryAfter: 6 * time.Second})
		time.Sleep(time.Hour)
		for range 3 {
			call(t, g, false)
		}
		refused(t, g, limits.Refusal{Reason: limits.ReasonRate, RetryAfter: 6 * time.Second})
	})
}

func TestACallThatIsHeldBackByOneLimitDoesNotUseUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limits.New(limits.Spec{Concurrent: 1, Rate: limits.Rate{Requests: 1, Per: time.Hour, Burst: 2}})
		first := enter(t, g)
		for range 10 {
			refused(t, g, limits.Refusal{Reason: limits.ReasonConcurrent, RetryAfter: time.Second})
		}
		first.Leave()
		call(t, g, false) // the second of the burst is still there
		refused(t, g, limits.Refusal{Reason: limits.ReasonRate, RetryAfter: time.Hour})
	})
}

func TestABreakerOpensAfterFailuresInARowAndOneCallDecidesWhenItCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := limits.New(limits.Spec{Breaker: limits.Breaker{Failures: 3, Pause: 30 * time.Second}})
		call(t, g, true)
		call(t, g, true)
		call(t, g, false) // not in a row
		call(t, g, true)
		call(t, g, true)
		pass := enter(t, g)
		pass.Leave() // neither way
		late := enter(t, g)
		call(t, g, true)
		refused(t, g, limits.Refusal{Reason: limits.ReasonBreaker, RetryAfter: 30 * time.Second})
		late.Decide(false) // began before
		late.Leave()
		time.Sleep(10 * time.Second)
		refused(t, g, limits.Refusal{Reason: limits.ReasonBreaker, RetryAfter: 20 * time.Second})
		if !g.State().Open {
			t.Error("not open")
		}
		time.Sleep(20 * time.Second)
		trial := enter(t, g)
		refused(t, g, limits.Refusal{Reason: limits.ReasonBreaker, RetryAfter: time.Second})
		trial.Decide(true)
		trial.Leave()
		refused(t, g, limits.Refusal{Reason: limits.ReasonBreaker, RetryAfter: 30 * time.Second})
		time.Sleep(30 * time.Second)
		trial = enter(t, g)
		trial.Leave() // the caller left: the next call decides
		trial = enter(t, g)
		trial.Decide(false)
		trial.Decide(true) // only the first word counts
		call(t, g, false)
		trial.Leave()
		if s := g.State(); s != (limits.State{}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestRetryAfterIsInWholeSecondsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 1, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, time.Minute: 60} {
		if got := (&limits.Refusal{RetryAfter: d}).Seconds(); got != want {
			t.Errorf("%s: %d, want %d", d, got, want)
		}
	}
}
