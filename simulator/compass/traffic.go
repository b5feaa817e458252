package compass

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// keptRequests is how many requests Admin.Requests remembers.
const keptRequests = 1000

// Request is one GraphQL request that was received.
type Request struct {
	// Number counts from 1.
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	// Endpoint is token, mtls or admin; API is connector or director.
	Endpoint string `json:"endpoint"`
	API      string `json:"api"`
	// Operations are the root fields, in the document's order; empty if the
	// document did not parse.
	Operations []string `json:"operations,omitempty"`
	RequestID  string   `json:"requestID,omitempty"`
	Tenant     string   `json:"tenant,omitempty"`
	UserAgent  string   `json:"userAgent,omitempty"`
	// CertificateHash is of the client certificate: SHA-256 of its DER in hex.
	CertificateHash string `json:"certificateHash,omitempty"`
	// WithToken says that a one-time token was sent; never which.
	WithToken bool `json:"withToken,omitempty"`
	// BodyBytes is the size of the request's body.
	BodyBytes int `json:"bodyBytes"`
	// Executed says that the request has had the effect that it has; the
	// answer may be on its way still.
	Executed bool `json:"executed,omitempty"`
	// Status is the HTTP status of the answer; 0 while there is none, or
	// when the connection was cut.
	Status int `json:"status,omitempty"`
}

// Counter counts the requests of an operation.
type Counter struct {
	Received int `json:"received"`
	Answered int `json:"answered"`
}

// Counters are all counts since the start or the last reset.
type Counters struct {
	// Requests of any operation, GraphQL requests only.
	Requests Counter `json:"requests"`
	// Operations by root field; a request with two counts at both.
	Operations map[string]Counter `json:"operations"`
}

// traffic counts and remembers.
type traffic struct {
	mu       sync.Mutex
	number   int
	all      Counter
	byName   map[string]Counter
	requests []Request
	changed  chan struct{}
}

func newTraffic() *traffic {
	return &traffic{byName: map[string]Counter{}, changed: make(chan struct{})}
}

func (t *traffic) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *traffic) received(r Request) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	r.Number = t.number
	t.all.Received++
	for _, name := range uniqueStrings(r.Operations) {
		c := t.byName[name]
		c.Received++
		t.byName[name] = c
	}
	if len(t.requests) == keptRequests {
		t.requests = slices.Delete(t.requests, 0, 1)
	}
	t.requests = append(t.requests, r)
	t.notify()
	return r.Number
}

func (t *traffic) executed(number int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.requests {
		if t.requests[i].Number == number {
			t.requests[i].Executed = true
		}
	}
	t.notify()
}

func (t *traffic) answered(number int, operations []string, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Answered++
	for _, name := range uniqueStrings(operations) {
		c := t.byName[name]
		c.Answered++
		t.byName[name] = c
	}
	for i := range t.requests {
		if t.requests[i].Number == number {
			t.requests[i].Status = status
		}
	}
	t.notify()
}

func (t *traffic) counters() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Counters{Requests: t.all, Operations: maps.Clone(t.byName)}
}

func (t *traffic) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all, t.requests = Counter{}, nil
	clear(t.byName)
	t.notify()
}

func (t *traffic) list() []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.requests)
}

// wait returns when enough says so of the counter of operation ("": of all).
func (t *traffic) wait(ctx context.Context, operation string, enough func(Counter) bool) error {
	for {
		t.mu.Lock()
		counter, changed := t.all, t.changed
		if operation != "" {
			counter = t.byName[operation]
		}
		t.mu.Unlock()
		if enough(counter) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waited for requests %q, saw %d received and %d answered: %w", operation, counter.Received, counter.Answered, context.Cause(ctx))
		}
	}
}

func uniqueStrings(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
