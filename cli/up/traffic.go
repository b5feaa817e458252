package up

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// call is one kind of traffic: a request that must succeed, again and again.
type call struct {
	name string
	do   func(ctx context.Context) error
}

// traffic sends calls at a steady pace until stopped and remembers every failure.
type traffic struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	sent   int
	failed int
	first  error
}

// pace between two calls of one kind: 25 calls a second each.
const pace = 40 * time.Millisecond

// startTraffic starts one goroutine a kind of call.
func startTraffic(ctx context.Context, calls []call) *traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{cancel: cancel}
	for _, c := range calls {
		t.wg.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				// A call that is under way when the traffic ends is let finish: it counts too.
				err := c.do(context.WithoutCancel(ctx))
				t.mu.Lock()
				t.sent++
				if err != nil {
					t.failed++
					if t.first == nil {
						t.first = fmt.Errorf("%s: %w", c.name, err)
					}
				}
				t.mu.Unlock()
			}
		})
	}
	return t
}

// count is how many calls were made so far.
func (t *traffic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// stop ends the traffic and returns how many calls were made, and an error if any of them failed.
func (t *traffic) stop() (int, error) {
	t.cancel()
	t.wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed > 0 {
		return t.sent, fmt.Errorf("%d of %d calls failed, the first: %w", t.failed, t.sent, t.first)
	}
	return t.sent, nil
}

// direct calls what runs on this machine, whatever proxy the environment names.
var direct = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}}

// succeed makes a request and returns an error unless the answer is a 2xx.
func succeed(c *http.Client, r *http.Request) error {
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return nil
}
