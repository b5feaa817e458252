package connection

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// agents is a heap of simulated agents by the time of their next attempt.
type agents []*simulated

type simulated struct {
	identity string
	next     time.Time
	phases   []time.Duration // of its attempts within the period
}

func (a agents) Len() int           { return len(a) }
func (a agents) Less(i, j int) bool { return a[i].next.Before(a[j].next) }
func (a agents) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agents) Push(x any)        { *a = append(*a, x.(*simulated)) }
func (a *agents) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// The agents' clocks are one; what they do besides calling is left out. Their times pass through whole seconds, as through
// the status. Half-way all of them are down together for a while.
func TestTenThousandAgentsSpreadTheirCallsEvenlyAlsoAfterACommonRestart(t *testing.T) {
	const many, period, window = 10_000, 3 * time.Minute, 10 * time.Second
	for name, down := range map[string]time.Duration{"restarted at once": 0, "down for 40 seconds": 40 * time.Second, "down for ten minutes": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			s := Schedule{Floor: 15 * time.Second, Period: period}
			random := rand.New(rand.NewPCG(1, 2))
			start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			end, restart := start.Add(time.Hour), start.Add(30*time.Minute)
			fleet := make(agents, many)
			for i := range fleet {
				id := fmt.Sprintf("1ae04041-17e5-478f-91f8-%012x", i)
				paired := start.Add(-time.Duration(random.Int64N(int64(time.Hour))))
				fleet[i] = &simulated{identity: id, next: stamp(s.AfterSuccess(paired, id), paired)}
				for fleet[i].next.Before(start) {
					fleet[i].next = stamp(s.AfterSuccess(fleet[i].next, id), fleet[i].next)
				}
			}
			heap.Init(&fleet)
			var calls []time.Time
			restarted := false
			for fleet[0].next.Before(end) {
				if !restarted && !fleet[0].next.Before(restart) {
					restarted = true
					back := restart.Add(down)
					for _, a := range fleet {
						if back.After(a.next) {
							a.next = stamp(s.AfterStart(back, a.identity), back)
						}
					}
					heap.Init(&fleet)
					continue
				}
				a := fleet[0]
				calls = append(calls, a.next)
				a.phases = append(a.phases, time.Duration(a.next.UnixNano()%int64(period)))
				done := a.next.Add(time.Duration(random.Int64N(int64(4 * time.Second))))
				a.next = stamp(s.AfterSuccess(done, a.identity), done)
				heap.Fix(&fleet, 0)
			}
			up := time.Hour - down
			mean := float64(len(calls)) * float64(window) / float64(up)
			peak, first := 0, 0
			for last := range calls { // sorted
				for calls[last].Sub(calls[first]) >= window {
					first++
				}
				peak = max(peak, last-first+1)
			}
			t.Logf("%d calls, on average %.0f in %s, at most %d (%.2f times)", len(calls), mean, window, peak, float64(peak)/mean)
			if float64(peak) > 1.3*mean {
				t.Errorf("at most %d calls in %s, more than 1.3 times the mean of %.0f", peak, window, mean)
			}
			if least := float64(many) * float64(up) / float64(period) * 0.9; float64(len(calls)) < least {
				t.Errorf("only %d calls, want %.0f at least", len(calls), least)
			}
			for _, a := range fleet {
				if len(slices.Compact(a.phases)) != 1 {
					t.Fatalf("agent %s called at %v of its period", a.identity, a.phases)
				}
			}
		})
	}
}
