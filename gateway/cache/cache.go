// Package cache keeps values that cost a call to somebody: bounded in number, fetched once for all who wait for the same
// key, renewed before they end. It knows nothing of what the values are.
package cache

import (
	"context"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/utils/clock"
)

// Fetched is a value and how long it may be used.
type Fetched[V any] struct {
	Value V
	// Expires is when the value must no longer be given out.
	Expires time.Time
	// Refresh is when a new value is sought in the background, while this one still serves. Zero means never.
	Refresh time.Time
}

// Options of a Cache with keys K.
type Options[K comparable] struct {
	// Capacity is the number of values kept; the least recently used goes first.
	Capacity int
	// Timeout bounds one fetch for a key.
	Timeout func(K) time.Duration
	// Pause is the least time between two failed attempts to refresh a value that still serves.
	Pause time.Duration
	// Backoff is how long fetches for a key pause after the second failure in a row; it doubles with each further one, up
	// to Pause. Zero means never.
	Backoff time.Duration
	Clock   clock.PassiveClock
	// Looked is told of each Get: whether there was a value that may be used. May be nil.
	Looked func(found bool)
}

// Cache keeps values by key. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	options Options[K]
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	values *lru.Cache[K, Fetched[V]]
	calls  map[K]*call[V]
	failed *lru.Cache[K, failure]
	closed bool
}

// call is one fetch under way. Its result may be read once done is closed.
type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// failure is what came of the last fetches for a key.
type failure struct {
	err   error
	pause time.Duration // after it; zero after the first
	until time.Time
}

// New returns an empty Cache. Close it to end what it has under way.
func New[K comparable, V any](o Options[K]) *Cache[K, V] {
	values, err := lru.New[K, Fetched[V]](o.Capacity)
	if err != nil {
		panic(err) // only for a capacity below one, which is a constant of the program
	}
	failed, err := lru.New[K, failure](o.Capacity)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Cache[K, V]{options: o, ctx: ctx, cancel: cancel, values: values, failed: failed, calls: map[K]*call[V]{}}
}

// Get returns the value for key, by fetch if there is none that may be used. Callers who come while a fetch is under way
// share its result, and each may leave by its own context without harm to the others: the fetch has a context of its own,
// bounded by Options.Timeout. An error is given out again only while fetches pause by Options.Backoff.
func (c *Cache[K, V]) Get(ctx context.Context, key K, fetch func(context.Context) (Fetched[V], error)) (V, error) {
	var none V
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return none, context.Canceled
	}
	now := c.options.Clock.Now()
	f, ok := c.values.Get(key)
	found := ok && now.Before(f.Expires)
	if c.options.Looked != nil {
		c.options.Looked(found)
	}
	if found {
		if !f.Refresh.IsZero() && !now.Before(f.Refresh) && c.calls[key] == nil {
			f.Refresh = now.Add(c.options.Pause) // stands only if this attempt fails
			c.values.Add(key, f)
			c.start(key, fetch)
		}
		c.mu.Unlock()
		return f.Value, nil
	}
	running := c.calls[key]
	if f, ok := c.failed.Peek(key); ok && running == nil && now.Before(f.until) {
		c.mu.Unlock()
		return none, f.err
	}
	if running == nil {
		running = c.start(key, fetch)
	}
	c.mu.Unlock()
	select {
	case <-running.done:
		return running.value, running.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// start runs fetch in the background. c.mu is held.
func (c *Cache[K, V]) start(key K, fetch func(context.Context) (Fetched[V], error)) *call[V] {
	running := &call[V]{done: make(chan struct{})}
	c.calls[key] = running
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.options.Timeout(key))
		defer cancel()
		f, err := fetch(ctx)
		running.value, running.err = f.Value, err
		c.mu.Lock()
		delete(c.calls, key)
		if err == nil {
			c.values.Add(key, f)
			c.failed.Remove(key)
		} else {
			c.note(key, err)
		}
		c.mu.Unlock()
		close(running.done)
	})
	return running
}

// note counts a failure. c.mu is held.
func (c *Cache[K, V]) note(key K, err error) {
	if c.options.Backoff == 0 {
		return
	}
	f := failure{err: err}
	if last, ok := c.failed.Peek(key); ok {
		f.pause = min(max(2*last.pause, c.options.Backoff), c.options.Pause)
	}
	f.until = c.options.Clock.Now().Add(f.pause)
	c.failed.Add(key, f)
}

// Forget drops the value for key if match says so.
func (c *Cache[K, V]) Forget(key K, match func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.values.Peek(key); ok && match(f.Value) {
		c.values.Remove(key)
	}
}

// EndBy makes the value for key expire at a time, if it would later.
func (c *Cache[K, V]) EndBy(key K, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.values.Peek(key); ok && end.Before(f.Expires) {
		f.Expires = end
		c.values.Add(key, f)
	}
}

// Len is the number of values kept.
func (c *Cache[K, V]) Len() int { return c.values.Len() }

// Close ends fetches under way, waits for them, and refuses new ones.
func (c *Cache[K, V]) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}
