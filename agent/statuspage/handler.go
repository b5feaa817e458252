package statuspage

import (
	"bytes"
	"context"
	_ "embed"
	"log/slog"
	"net/http"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/report"
)

const (
	// readTimeout bounds the reading of the caches, which only takes time before they are filled, and, besides, of the events.
	readTimeout = 5 * time.Second
	// rendered is how many requests are answered at a time: the report on 10,000 Applications takes megabytes.
	rendered = 4
)

// Options of a page.
type Options struct {
	// Objects are CompassConnections and Applications, of a cache: they are all read for each request.
	Objects client.Reader
	// Events is the API server: few ask for events, and rarely.
	Events client.Reader
	// Controller is whose events are shown: their reportingController.
	Controller string
	// Acts says whether this agent is the one that acts.
	Acts func() bool
	// Host is served besides localhost and IP addresses: the name that the page listens on, without the port; may be empty.
	Host string
	// Version is that of the program.
	Version string
	Clock   clock.PassiveClock
	Log     *slog.Logger
}

// page answers requests. It is safe for concurrent use.
type page struct {
	Options
	slots chan struct{}
}

//go:embed style.css
var style []byte

// New gives the handler of the page at /, of the same as JSON at /status.json, and of what the page needs.
func New(o Options) http.Handler {
	p := &page{Options: o, slots: make(chan struct{}, rendered)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.limited(p.html))
	mux.HandleFunc("GET /status.json", p.limited(p.json))
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(style) // whoever asked has gone
	})
	return guarded(mux, o.Host)
}

// limited has requests wait for each other as long as who asked waits.
func (p *page) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
			next(w, r)
		case <-r.Context().Done():
		}
	}
}

func (p *page) json(w http.ResponseWriter, r *http.Request) {
	found, ok := p.read(w, r)
	if !ok {
		return
	}
	var text bytes.Buffer
	if err := found.WriteJSON(&text); err != nil {
		p.failed(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text.Bytes()) // whoever asked has gone
}

func (p *page) html(w http.ResponseWriter, r *http.Request) {
	q, err := parse(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	found, ok := p.read(w, r)
	if !ok {
		return
	}
	events, err := p.events(r.Context())
	if err != nil && r.Context().Err() == nil {
		p.Log.WarnContext(r.Context(), "the status page shows no events", "error", err)
	}
	var text bytes.Buffer
	if err := layout.Execute(&text, p.view(&found, q, events, err)); err != nil {
		p.failed(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(text.Bytes()) // whoever asked has gone
}

// read answers the request itself if nothing can be read.
func (p *page) read(w http.ResponseWriter, r *http.Request) (report.Report, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	found, err := report.Read(ctx, p.Objects, p.Clock.Now(), 0)
	if err != nil {
		p.Log.WarnContext(r.Context(), "the status page cannot read the caches", "error", err)
		w.Header().Set("Retry-After", "5")
		http.Error(w, "the agent has not read the cluster yet: try again in some seconds; if it stays so, look at /readyz and at the agent's log", http.StatusServiceUnavailable)
		return report.Report{}, false
	}
	return found, true
}

func (p *page) failed(w http.ResponseWriter, r *http.Request, err error) {
	p.Log.ErrorContext(r.Context(), "the status page cannot be written", "error", err)
	http.Error(w, "the page cannot be written: the agent's log says why", http.StatusInternalServerError)
}
