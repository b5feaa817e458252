package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/nats-io/nats.go/jetstream"
)

// Stored is an event as JetStream holds it, its type being the one it was published with.
type Stored struct {
	// Sequence is the event's number in the stream, counted from 1.
	Sequence uint64 `json:"sequence"`
	// Subject is the NATS subject it is stored under.
	Subject string `json:"subject"`
	// StoredAt is JetStream's time stamp.
	StoredAt time.Time `json:"storedAt"`
	// Event is the CloudEvent.
	Event cloudevents.Event `json:"event"`
}

// Filter selects events. Empty fields select all.
type Filter struct {
	// Source and Type must be equal to the event's.
	Source, Type string
	// After selects events with a higher sequence number.
	After uint64
	// Limit is the highest number of events that Events returns; 0 means MaxEvents. Subscribe ignores it.
	Limit int
}

// MaxEvents is how many events one answer of Events holds at most.
const MaxEvents = 1000

func (f Filter) matches(e cloudevents.Event) bool {
	return (f.Source == "" || f.Source == e.Source()) && (f.Type == "" || f.Type == e.Type())
}

// subjects narrows the stream before single events are compared. Cleaning loses characters, so it cannot replace that.
func (f Filter) subjects() []string {
	source, typ := "*", ">"
	if f.Source != "" {
		source = clean(f.Source, false)
	}
	if f.Type != "" {
		typ = clean(f.Type, true)
	}
	s := strings.Join([]string{subjectPrefix, source, typ}, ".")
	if slices.Contains(strings.Split(s, "."), "") {
		return nil // such an event is never stored; comparing finds none
	}
	return []string{s}
}

func (f Filter) start() (jetstream.DeliverPolicy, uint64) {
	if f.After == 0 {
		return jetstream.DeliverAllPolicy, 0
	}
	return jetstream.DeliverByStartSequencePolicy, f.After + 1
}

// Events reads events back from JetStream through a consumer, oldest first.
func (s *Server) Events(ctx context.Context, f Filter) ([]Stored, error) {
	if f.Limit <= 0 || f.Limit > MaxEvents {
		f.Limit = MaxEvents
	}
	ctx, cancel := context.WithTimeout(ctx, 2*storeTimeout)
	defer cancel()
	policy, from := f.start()
	consumer, err := s.store.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubjects: f.subjects(), DeliverPolicy: policy, OptStartSeq: from,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: storeTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	info := consumer.CachedInfo()
	defer func() {
		_ = s.store.stream.DeleteConsumer(context.WithoutCancel(ctx), info.Name) // it ends by itself otherwise
	}()
	out := []Stored{}
	// What is stored while this reads is left for the next call, so that it ends.
	for pending := info.NumPending; pending > 0 && len(out) < f.Limit; {
		batch, err := consumer.Fetch(int(min(pending, 256)), jetstream.FetchContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("reading events: %w", err)
		}
		for m := range batch.Messages() {
			pending--
			stored, err := read(m)
			if err != nil {
				return nil, err
			}
			if f.matches(stored.Event) && len(out) < f.Limit {
				out = append(out, stored)
			}
		}
		if err := errors.Join(batch.Error(), ctx.Err()); err != nil {
			return nil, fmt.Errorf("reading events: %w", err)
		}
	}
	return out, nil
}

func read(m jetstream.Msg) (Stored, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Stored{}, fmt.Errorf("reading events: %w", err)
	}
	out := Stored{Sequence: meta.Sequence.Stream, Subject: m.Subject(), StoredAt: meta.Timestamp}
	if err := json.Unmarshal(m.Data(), &out.Event); err != nil {
		return Stored{}, fmt.Errorf("reading event %d: %w", out.Sequence, err)
	}
	out.Event = restored(out.Event)
	return out, nil
}

// Subscription delivers events in the order in which they were stored.
type Subscription struct {
	server   *Server
	filter   Filter
	messages jetstream.MessagesContext
}

// ErrClosed is returned by Subscription.Next after Close of the subscription or the server.
var ErrClosed = errors.New("subscription is closed")

// Subscribe delivers every event that f selects, those already stored first. The caller must Close it.
func (s *Server) Subscribe(ctx context.Context, f Filter) (*Subscription, error) {
	policy, from := f.start()
	consumer, err := s.store.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: f.subjects(), DeliverPolicy: policy, OptStartSeq: from,
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	sub := &Subscription{server: s, filter: f, messages: messages}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions[sub] = struct{}{}
	return sub, nil
}

// Next waits for the next event, until ctx is done. It is not for concurrent use.
func (sub *Subscription) Next(ctx context.Context) (Stored, error) {
	for {
		m, err := sub.messages.Next(jetstream.NextContext(ctx))
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return Stored{}, ErrClosed
		}
		if err != nil {
			return Stored{}, fmt.Errorf("waiting for an event: %w", err)
		}
		stored, err := read(m)
		if err != nil || sub.filter.matches(stored.Event) {
			return stored, err
		}
	}
}

// Close ends the subscription.
func (sub *Subscription) Close() {
	sub.messages.Stop()
	sub.server.mu.Lock()
	defer sub.server.mu.Unlock()
	delete(sub.server.subscriptions, sub)
}

// readBack is GET /events.
func (s *Server) readBack(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := Filter{Source: q.Get("source"), Type: q.Get("type")}
	for name, set := range map[string]func(uint64){
		"after": func(n uint64) { f.After = n },
		"limit": func(n uint64) { f.Limit = int(n) },
	} {
		if text := q.Get(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 31)
			if err != nil {
				http.Error(w, fmt.Sprintf("query parameter %s is %q, must be a whole number", name, text), http.StatusBadRequest)
				return
			}
			set(n)
		}
	}
	events, err := s.Events(r.Context(), f)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	pretty := json.NewEncoder(w)
	pretty.SetIndent("", "  ")
	_ = pretty.Encode(struct {
		Events []Stored `json:"events"`
	}{events})
}

// subscribedEvents is the answer of GET /{application}/v1/events/subscribed.
type subscribedEvents struct {
	Events []subscribedEvent `json:"eventsInfo"`
}

type subscribedEvent struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// subscribed lists the types that subscribers of this process want from an application, split at the last dot as the
// publisher does. Where a real cluster reads Subscription objects, here Subscribe says it.
func (s *Server) subscribed(w http.ResponseWriter, r *http.Request) {
	out := subscribedEvents{Events: []subscribedEvent{}}
	s.mu.Lock()
	for sub := range s.subscriptions {
		if dot := strings.LastIndexByte(sub.filter.Type, '.'); dot > 0 && sub.filter.Source == r.PathValue("application") {
			out.Events = append(out.Events, subscribedEvent{Name: sub.filter.Type[:dot], Version: sub.filter.Type[dot+1:]})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out.Events, func(a, b subscribedEvent) int {
		return strings.Compare(a.Name+"."+a.Version, b.Name+"."+b.Version)
	})
	out.Events = slices.Compact(out.Events)
	writeJSON(w, http.StatusOK, out)
}
