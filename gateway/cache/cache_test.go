package cache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options() cache.Options[string] {
	return cache.Options[string]{Capacity: 2, Timeout: func(string) time.Duration { return time.Minute }, Pause: 5 * time.Second, Clock: clock.RealClock{}}
}

// counter is a fetch that counts, takes a while, and gives values that live an hour and are renewed after half of it.
type counter struct {
	mu  sync.Mutex
	n   int
	err error
}

func (c *counter) fetch(ctx context.Context) (cache.Fetched[int], error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return cache.Fetched[int]{}, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	now := time.Now()
	return cache.Fetched[int]{Value: c.n, Expires: now.Add(time.Hour), Refresh: now.Add(30 * time.Minute)}, c.err
}

func (c *counter) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestAValueIsFetchedOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		defer c.Close()
		var f counter
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if v, err := c.Get(t.Context(), "k", f.fetch); v != 1 || err != nil {
					t.Error(v, err)
				}
			})
		}
		wg.Wait()
		if f.count() != 1 {
			t.Errorf("%d fetches", f.count())
		}
	})
}

func TestAWaiterMayLeaveWithoutHarmToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		defer c.Close()
		var f counter
		ctx, leave := context.WithCancel(t.Context())
		first := make(chan error)
		go func() { _, err := c.Get(ctx, "k", f.fetch); first <- err }()
		second := make(chan int)
		go func() { v, _ := c.Get(t.Context(), "k", f.fetch); second <- v }()
		synctest.Wait()
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if v := <-second; v != 1 {
			t.Error(v)
		}
	})
}

func TestAValueIsRenewedEarlyWhileItServesAndNeverServedAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		defer c.Close()
		var f counter
		get := func(want int) {
			t.Helper()
			if v, err := c.Get(t.Context(), "k", f.fetch); v != want || err != nil {
				t.Errorf("%d %v, want %d", v, err, want)
			}
		}
		get(1)
		time.Sleep(31 * time.Minute)
		get(1) // and a new one is sought
		time.Sleep(2 * time.Second)
		get(2)

		f.fail(errors.New("down"))
		time.Sleep(31 * time.Minute)
		for range 10 {
			get(2)
		}
		time.Sleep(2 * time.Second)
		if n := f.count(); n != 3 {
			t.Errorf("%d fetches", n)
		}
		get(2) // within the pause: nobody asks
		time.Sleep(2 * time.Second)
		if n := f.count(); n != 3 {
			t.Errorf("%d fetches within the pause", n)
		}
		time.Sleep(5 * time.Second)
		get(2)
		time.Sleep(2 * time.Second)
		if n := f.count(); n != 4 {
			t.Errorf("%d fetches after the pause", n)
		}
		time.Sleep(time.Hour)
		if v, err := c.Get(t.Context(), "k", f.fetch); err == nil {
			t.Errorf("%d was served after its end", v)
		}
		f.fail(nil)
		get(6)
	})
}

func TestFetchesPauseAfterFailuresInARowAndUntilOneSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Backoff = 2 * time.Second
		c := cache.New[string, int](o)
		defer c.Close()
		f := &counter{err: errors.New("down")}
		get := func(fetches int, want error) {
			t.Helper()
			if _, err := c.Get(t.Context(), "k", f.fetch); !errors.Is(err, want) || f.count() != fetches {
				t.Errorf("%v after %d fetches, want %v after %d", err, f.count(), want, fetches)
			}
		}
		down := f.err
		get(1, down)
		get(2, down) // one failure may be chance
		get(2, down)
		time.Sleep(o.Backoff)
		get(3, down)
		time.Sleep(o.Backoff)
		get(3, down) // twice as long
		time.Sleep(o.Backoff)
		get(4, down)
		time.Sleep(o.Pause) // but not longer than this
		f.fail(nil)
		if _, err := c.Get(t.Context(), "other", f.fetch); err != nil {
			t.Error("another key has to wait too:", err)
		}
		get(6, nil)
		c.Forget("k", func(int) bool { return true })
		f.fail(down)
		get(7, down)
		get(8, down) // the count began anew
		get(8, down)
	})
}

func TestForgetDropsOnlyWhatMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		defer c.Close()
		var f counter
		for i, want := range []int{1, 1, 2} {
			if v, err := c.Get(t.Context(), "k", f.fetch); v != want || err != nil {
				t.Error(i, v, err)
			}
			refused := i // 0 is not kept, 1 is
			c.Forget("k", func(v int) bool { return v == refused })
		}
		c.Forget("absent", func(int) bool { return true })
	})
}

func TestTheNumberOfValuesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		defer c.Close()
		var f counter
		for i := range 10 {
			if _, err := c.Get(t.Context(), fmt.Sprint(i), f.fetch); err != nil {
				t.Error(err)
			}
		}
		if c.Len() != 2 {
			t.Errorf("%d values", c.Len())
		}
	})
}

func TestAValueCanBeMadeToEndSoonerButNotLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		defer c.Close()
		n := 0
		get := func() int {
			t.Helper()
			v, err := c.Get(t.Context(), "k", func(context.Context) (cache.Fetched[int], error) {
				n++
				return cache.Fetched[int]{Value: n, Expires: time.Now().Add(time.Hour)}, nil
			})
			if err != nil {
				t.Error(err)
			}
			return v
		}
		c.EndBy("k", time.Now()) // is not kept
		get()
		c.EndBy("k", time.Now().Add(time.Minute))
		c.EndBy("k", time.Now().Add(2*time.Hour))
		for _, step := range []struct {
			pass time.Duration
			want int
		}{{time.Minute - 1, 1}, {1, 2}, {time.Hour - 1, 2}, {1, 3}} {
			time.Sleep(step.pass)
			if got := get(); got != step.want {
				t.Errorf("after %s: %d, want %d", step.pass, got, step.want)
			}
		}
	})
}

func TestAFetchIsBoundedInTimeAndEndsWithTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string, int](options())
		forever := func(ctx context.Context) (cache.Fetched[int], error) {
			<-ctx.Done()
			return cache.Fetched[int]{}, ctx.Err()
		}
		if _, err := c.Get(t.Context(), "k", forever); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		got := make(chan error)
		go func() { _, err := c.Get(t.Context(), "k", forever); got <- err }()
		synctest.Wait()
		c.Close()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := c.Get(t.Context(), "k", forever); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
