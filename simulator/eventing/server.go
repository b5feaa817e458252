// Package eventing is a local Eventing: the HTTP contract of Kyma's eventing publisher proxy in front of a NATS JetStream
// server in this process, so that events are really stored and can be read back. It knows nothing of Applications,
// certificates or who may publish what: a real publisher trusts the source that an event names, and so does this one.
package eventing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/simulator/listener"
)

// DefaultMaxRequestBytes is the publisher's default limit of a request body.
const DefaultMaxRequestBytes = 65536

// Options say where to listen and what to keep.
type Options struct {
	// Address is the host:port of the HTTP listener; port 0 takes any free port. Required.
	Address string
	// StateDir is the folder of the event store; events in it survive a restart. Empty means a temporary folder that
	// Close removes.
	StateDir string
	// MaxRequestBytes limits request bodies; 0 means DefaultMaxRequestBytes.
	MaxRequestBytes int64
	// Clock times the faults that SetFault asks for; nil means the real clock. JetStream stamps events by its own.
	Clock clock.Clock
	// Log receives one line per stored or refused event; nil discards.
	Log *slog.Logger
}

// Server is a running Eventing. Its methods may be called concurrently.
type Server struct {
	maxBytes int64
	clock    clock.Clock
	log      *slog.Logger
	url      string

	store *store
	http  *listener.HTTP

	mu            sync.Mutex
	fault         Fault
	subscriptions map[*Subscription]struct{}

	close    sync.Once
	closeErr error
}

// Start starts Eventing; it runs until Close, or until ctx is done. When the port is taken the error is a *listener.Error.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.MaxRequestBytes < 0 {
		return nil, fmt.Errorf("eventing: MaxRequestBytes is %d, must not be negative", o.MaxRequestBytes)
	}
	if o.MaxRequestBytes == 0 {
		o.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	// The socket comes first: of two instances on one StateDir and port, the second must not touch the store.
	l, err := listener.Listen(ctx, "Address", o.Address)
	if err != nil {
		return nil, fmt.Errorf("eventing: %w", err)
	}
	st, err := openStore(ctx, o.StateDir, o.Log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventing: %w", err), l.Close())
	}
	s := &Server{
		maxBytes: o.MaxRequestBytes, clock: o.Clock, log: o.Log, store: st,
		url:           "http://" + listener.HostPort(l),
		subscriptions: map[*Subscription]struct{}{},
	}
	s.http = listener.Serve(l, s.handler(), nil, o.Log)
	context.AfterFunc(ctx, func() { _ = s.Close() })
	o.Log.Info("eventing is ready", "url", s.url)
	return s, nil
}

// URL is the base URL of the HTTP listener, without a trailing slash.
func (s *Server) URL() string { return s.url }

// Close ends the listener, then the subscriptions, then the store. Events stay in StateDir. Later calls return what the
// first returned.
func (s *Server) Close() error {
	s.close.Do(func() {
		err := s.http.Close()
		s.mu.Lock()
		open := s.subscriptions
		s.subscriptions = map[*Subscription]struct{}{}
		s.mu.Unlock()
		for sub := range open {
			sub.messages.Stop()
		}
		s.closeErr = errors.Join(err, s.store.close())
	})
	return s.closeErr
}

// Route is one line of the table of endpoints in docs/reference/simulator-eventing.md.
type Route struct{ Method, Path string }

type route struct {
	Route
	serve http.HandlerFunc
	// faulty routes answer as SetFault says.
	faulty bool
}

func (s *Server) routes() []route {
	return []route{
		{Route{"POST", "/publish"}, s.publish, true},
		{Route{"POST", "/{application}/v1/events"}, s.publishLegacy, true},
		{Route{"GET", "/{application}/v1/events/subscribed"}, s.subscribed, true},
		{Route{"", "/readyz"}, s.ready, true},
		{Route{"", "/healthz"}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, true},
		{Route{"GET", "/events"}, s.readBack, false},
	}
}

// Routes lists the endpoints. An empty method means any.
func (s *Server) Routes() []Route {
	var out []Route
	for _, r := range s.routes() {
		out = append(out, r.Route)
	}
	return out
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		serve := http.Handler(r.serve)
		if r.faulty {
			serve = s.withFault(serve)
		}
		pattern := r.Path
		if r.Method != "" {
			pattern = r.Method + " " + r.Path
		}
		mux.Handle(pattern, serve)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, s.maxBytes)
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.store.ready(r.Context()); err != nil {
		s.log.Warn("not ready", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusOK)
}
