package scaling

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// probe is how often a backend is asked whether it is ready. Kubernetes asks every five seconds; what must hold is the order:
// not ready, then out of the balancer, then gone.
const probe = 100 * time.Millisecond

// balancer does what a Service of Kubernetes does: each new connection goes to the next backend that is ready, and stays
// there. It repeats nothing, and knows nothing of HTTP: who was sent to one that is gone, finds the connection closed.
type balancer struct {
	listener net.Listener
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex
	backends []*backend
	next     int
	open     map[net.Conn]struct{}
	closed   bool
}

// backend is one instance, once it was added.
type backend struct {
	address, ready string // host:port of its traffic, and URL of its readiness
	cancel         context.CancelFunc
	// Below belongs to the balancer's lock.
	in     bool
	out    time.Time // when it was taken out last
	served int       // connections
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &balancer{listener: l, cancel: cancel, open: map[net.Conn]struct{}{}}
	b.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.running.Go(func() { b.serve(ctx, c) })
		}
	})
	t.Cleanup(b.close)
	return b
}

func (b *balancer) url() string { return "http://" + b.listener.Addr().String() }

func (b *balancer) close() {
	b.cancel()
	_ = b.listener.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		_ = c.Close()
	}
	for _, x := range b.backends {
		x.cancel()
	}
	b.mu.Unlock()
	b.running.Wait()
}

// add asks an instance from now on whether it is ready.
func (b *balancer) add(address, ready string) *backend {
	ctx, cancel := context.WithCancel(context.Background())
	x := &backend{address: address, ready: ready, cancel: cancel}
	b.mu.Lock()
	b.backends = append(b.backends, x)
	b.mu.Unlock()
	b.running.Go(func() {
		c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for ctx.Err() == nil {
			b.set(x, isReady(ctx, c, x.ready))
			select {
			case <-ctx.Done():
			case <-time.After(probe):
			}
		}
		b.set(x, false)
	})
	return x
}

// remove asks no more.
func (b *balancer) remove(x *backend) {
	x.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = slices.DeleteFunc(b.backends, func(y *backend) bool { return x == y })
}

func isReady(ctx context.Context, c *http.Client, url string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := c.Do(r)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (b *balancer) set(x *backend, in bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x.in && !in {
		x.out = time.Now()
	}
	x.in = in
}

// isIn says whether a backend gets connections, when it was taken out last, and how many it got.
func (b *balancer) isIn(x *backend) (in bool, out time.Time, served int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return x.in, x.out, x.served
}

// pick is the next backend that is ready; empty if none is.
func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.backends {
		b.next++
		if x := b.backends[b.next%len(b.backends)]; x.in {
			x.served++
			return x.address
		}
	}
	return ""
}

// track holds a connection so that close ends it; false if it is closed already.
func (b *balancer) track(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = c.Close()
		return false
	}
	b.open[c] = struct{}{}
	return true
}

func (b *balancer) end(c net.Conn) {
	b.mu.Lock()
	delete(b.open, c)
	b.mu.Unlock()
	_ = c.Close()
}

func (b *balancer) serve(ctx context.Context, client net.Conn) {
	if !b.track(client) {
		return
	}
	defer b.end(client)
	address := b.pick()
	if address == "" {
		return
	}
	server, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil || !b.track(server) {
		return
	}
	var copies sync.WaitGroup
	copies.Go(func() { _, _ = io.Copy(server, client); b.end(server) })
	_, _ = io.Copy(client, server)
	b.end(client)
	copies.Wait()
}
