package impostor

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/cloudevents/sdk-go/v2/binding"
)

// taken is one event as the publisher takes it.
type taken struct {
	// verified is the Application that the validator vouches for, and source the one in whose name it is published.
	verified, source string
}

// Publisher takes every event, as the Eventing publisher does: a CloudEvent in the name of its source, a legacy event in
// the name that stands in the path.
type Publisher struct {
	server *httptest.Server
	mu     sync.Mutex
	taken  map[string][]taken // by attempt
}

// NewPublisher starts one.
func NewPublisher() *Publisher {
	p := &Publisher{taken: map[string][]taken{}}
	p.server = httptest.NewServer(p)
	return p
}

// URL is where it listens.
func (p *Publisher) URL() string { return p.server.URL }

// Close ends it.
func (p *Publisher) Close() { p.server.Close() }

// ServeHTTP implements http.Handler.
func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := taken{verified: strings.Join(r.Header.Values("X-Verified-Application"), "|")}
	status := http.StatusNoContent
	if r.URL.Path == "/publish" {
		e, err := binding.ToEvent(r.Context(), cehttp.NewMessageFromHttpRequest(r))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		t.source = e.Source()
	} else {
		t.source, _, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		status = http.StatusOK
	}
	_, _ = io.Copy(io.Discard, r.Body)
	// A proxy may join the field with a line behind it that begins with a space.
	attempt, _, _ := strings.Cut(strings.Join(r.Header.Values(attemptHeader), "|"), " ")
	p.mu.Lock()
	p.taken[attempt] = append(p.taken[attempt], t)
	p.mu.Unlock()
	w.WriteHeader(status)
}

// of returns what was taken of an attempt so far.
func (p *Publisher) of(attempt string) []taken {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]taken{}, p.taken[attempt]...)
}

// attempts are all of which something was taken.
func (p *Publisher) attempts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for attempt := range p.taken {
		all = append(all, attempt)
	}
	return all
}
