package rotation

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// call is one kind of request, which must succeed.
type call struct {
	name string
	do   func(context.Context) error
}

// traffic sends requests at a fixed rate, however long each takes, and counts.
type traffic struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	sent   int
	failed int
	first  error
}

// begin sends rate requests a second, of each kind in turn. next gives the kinds, which may change.
func begin(ctx context.Context, rate int, next func(n int) call) *traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{cancel: cancel}
	t.running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		underway := make(chan struct{}, 256) // a machine that is too slow gets no more than that at once
		began := time.Now()
		for n := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// What a late tick left out is made up for, as far as there is room.
			for due := int(time.Since(began).Seconds() * float64(rate)); n < due; n++ {
				select {
				case underway <- struct{}{}:
				case <-ctx.Done():
					return
				}
				c := next(n)
				t.running.Go(func() {
					defer func() { <-underway }()
					t.count(c.name, c.do(context.WithoutCancel(ctx)))
				})
			}
		}
	})
	return t
}

func (t *traffic) count(name string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	if err != nil {
		t.failed++
		if t.first == nil {
			t.first = fmt.Errorf("%s: %w", name, err)
		}
	}
}

func (t *traffic) seen() (sent, failed int, first error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent, t.failed, t.first
}

// more waits until so many more requests were answered.
func (t *traffic) more(test *testing.T, n int) {
	test.Helper()
	before, _, _ := t.seen()
	eventually(test, fmt.Sprintf("%d more requests", n), func() error {
		if now, _, _ := t.seen(); now < before+n {
			return fmt.Errorf("%d so far", now-before)
		}
		return nil
	})
}

// end stops sending, and waits for what is under way.
func (t *traffic) end() {
	t.cancel()
	t.running.Wait()
}

func succeed(c *http.Client, r *http.Request) error {
	response, err := c.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %.300s", response.Status, body)
	}
	return nil
}

// deadline is far more than anything here needs.
const deadline = 8 * time.Minute

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
