package scaling

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// workers of each kind, and how often each sends.
	workers = 8
	pause   = 80 * time.Millisecond
	// attempts is how often a request is repeated until it counts as lost.
	attempts = 40
)

// ingress is what the mesh says of an external system: its certificate, and that the ingress gateway saw it.
const ingress = `Subject="CN=shop",By=spiffe://cluster.local/ns/kyma-system/sa/central-application-connectivity-validator;Hash=6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21;Subject="";` +
	`URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account`

// failure is an attempt that failed.
type failure struct {
	kind string
	// dialled is when the making of its connection began. A kept one whose other end has just gone may still be used until the
	// client notices.
	dialled time.Time
	err     error
}

func (f failure) String() string {
	return fmt.Sprintf("%s over a connection of %s: %v", f.kind, f.dialled.Format(time.StampMilli), f.err)
}

// load are workloads that call an API through the gateways, and external systems that send events to the validators. All send
// POSTs, which no client repeats by itself, in turn over connections that are kept and over new ones. Each of them repeats what
// failed, an event under its id.
type load struct {
	kept    *http.Client
	fresh   *http.Client
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu           sync.Mutex
	done         map[string]int // by kind
	failures     []failure
	lost         []failure
	acknowledged map[string]bool // events by id
}

// connection knows when its making began: if that was after an instance was out of the balancer, it leads to another one.
type connection struct {
	net.Conn
	dialled time.Time
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	now := time.Now()
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c, dialled: now}, nil
}

func newLoad(t *testing.T, gateways, validators *balancer) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		kept:   &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 2 * workers}},
		fresh:  &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
		cancel: cancel, done: map[string]int{}, acknowledged: map[string]bool{},
	}
	for range workers {
		l.running.Go(func() {
			l.work(ctx, "call", func(ctx context.Context, c *http.Client, _ string) error {
				return l.post(ctx, c, gateways.url()+"/mp-shop/orders/orders-api", nil)
			})
		})
		l.running.Go(func() {
			l.work(ctx, "event", func(ctx context.Context, c *http.Client, id string) error {
				return l.post(ctx, c, validators.url()+"/shop/events", http.Header{
					"Ce-Specversion": {"1.0"}, "Ce-Type": {"order.created.v1"}, "Ce-Source": {"shop"}, "Ce-Id": {id}, "X-Forwarded-Client-Cert": {ingress},
				})
			})
		})
	}
	t.Cleanup(l.end)
	return l
}

// end stops sending, and waits for what is under way.
func (l *load) end() {
	l.cancel()
	l.running.Wait()
	l.kept.CloseIdleConnections()
}

// work sends until ctx ends; what is under way then is brought to its end.
func (l *load) work(ctx context.Context, kind string, send func(ctx context.Context, c *http.Client, id string) error) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c := l.kept
		if n%2 == 0 {
			c = l.fresh
		}
		id := rand.Text()
		var last failure
		for range attempts {
			last = failure{kind: kind, dialled: time.Now()}
			used := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
				GotConn: func(i httptrace.GotConnInfo) { last.dialled = i.Conn.(*connection).dialled },
			})
			if last.err = send(used, c, id); last.err == nil {
				break
			}
			l.mu.Lock()
			l.failures = append(l.failures, last)
			l.mu.Unlock()
			<-tick.C
		}
		l.mu.Lock()
		l.done[kind]++
		switch {
		case last.err != nil:
			l.lost = append(l.lost, last)
		case kind == "event":
			l.acknowledged[id] = true
		}
		l.mu.Unlock()
	}
}

func (l *load) post(ctx context.Context, c *http.Client, url string, header http.Header) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"n":1}`))
	if err != nil {
		return err
	}
	if header != nil {
		r.Header = header
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := c.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %.300s", response.Status, body)
	}
	return nil
}

func (l *load) seen() (calls, events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done["call"], l.done["event"]
}

// take gives the attempts that failed since it was asked last.
func (l *load) take() (failures, lost []failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	failures, lost = l.failures, l.lost
	l.failures, l.lost = nil, nil
	return failures, lost
}
