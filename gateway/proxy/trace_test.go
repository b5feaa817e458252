package proxy_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// spans is a tracer that keeps what it is told.
type spans struct {
	embedded.TracerProvider
	mu    sync.Mutex
	n     uint64
	ended []string
}

type span struct {
	noop.Span
	of         *spans
	name       string
	kind       trace.SpanKind
	context    trace.SpanContext
	parent     trace.SpanID
	attributes []attribute.KeyValue
}

func (s *spans) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracing{of: s} }

type tracing struct {
	embedded.Tracer
	of *spans
}

func (t tracing) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	s := t.of
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	parent, config := trace.SpanContextFromContext(ctx), trace.NewSpanStartConfig(options...)
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], s.n)
	traceID := parent.TraceID()
	if !traceID.IsValid() {
		traceID = trace.TraceID{15: 1}
	}
	sp := &span{of: s, name: name, kind: config.SpanKind(), parent: parent.SpanID(), attributes: config.Attributes(),
		context: trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: id, TraceFlags: parent.TraceFlags(), TraceState: parent.TraceState()})}
	return trace.ContextWithSpan(ctx, sp), sp
}

func (s *span) SpanContext() trace.SpanContext { return s.context }
func (s *span) IsRecording() bool              { return true }
func (s *span) SetAttributes(list ...attribute.KeyValue) {
	s.attributes = append(s.attributes, list...)
}
func (s *span) TracerProvider() trace.TracerProvider { return s.of }
func (s *span) End(...trace.SpanEndOption) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	var attributes []string
	for _, a := range s.attributes {
		attributes = append(attributes, string(a.Key)+"="+a.Value.String())
	}
	s.of.ended = append(s.of.ended, fmt.Sprintf("%s %s %s<%s %s", s.kind, s.name, s.context.SpanID(), s.parent, strings.Join(attributes, " ")))
}

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "00-" + traceID + "-b7ad6b7169203331-01"
)

func traceContextsReachTheTargetAndTheAccessLine(t *testing.T) {
	r := newRig(t)
	seen := make(chan http.Header, 10)
	target := r.target(func(_ http.ResponseWriter, q *http.Request) { seen <- q.Header })
	r.application("app", nil, entry("svc", target.URL))
	// Without a tracer provider the context passes as it came.
	r.get("/app/svc?q=canary", "Traceparent", parent, "Tracestate", "a=b", "Baggage", "k = v")
	h := <-seen
	if got := []string{h.Get("Traceparent"), h.Get("Tracestate"), h.Get("Baggage")}; cmp.Diff([]string{parent, "a=b", "k = v"}, got) != "" {
		t.Error(got)
	}
	if line := r.access(1); line["trace"] != traceID {
		t.Errorf("%v", line)
	}
	r.get("/app/svc")
	if h := <-seen; h.Get("Traceparent") != "" {
		t.Errorf("a trace was made up: %v", h)
	}
	if line := r.access(2); line["trace"] != nil {
		t.Errorf("%v", line)
	}
}

func TestSpansAreMadeForTheCallAndEachAttempt(t *testing.T) {
	s := &spans{}
	r := newTracedRig(t, s)
	seen := make(chan string, 10)
	tokens, _ := r.tokenServer()
	first := true
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		seen <- q.Header.Get("Traceparent")
		if first {
			first = false
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	r.secret("s", "clientId", "c", "clientSecret", "s")
	r.application("app", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	r.get("/app/svc/path?key=canary", "Traceparent", parent)
	r.get("/app/absent")
	r.access(2)
	r.services.Close() // so that the calls have ended
	for _, want := range []string{"00-" + traceID + "-0000000000000002-01", "00-" + traceID + "-0000000000000003-01"} {
		if got := <-seen; got != want {
			t.Errorf("the target saw %s, want %s", got, want)
		}
	}
	want := []string{
		"client attempt 0000000000000002<0000000000000001 attempt=1 http.response.status_code=401",
		"client attempt 0000000000000003<0000000000000001 attempt=2 http.response.status_code=200",
		"server call 0000000000000001<b7ad6b7169203331 http.request.method=GET http.response.status_code=200 application=app service=svc entry=svc",
		"server call 0000000000000004<0000000000000000 http.request.method=GET http.response.status_code=404 error.type=NotFound",
	}
	if diff := cmp.Diff(want, s.ended); diff != "" {
		t.Error(diff)
	}
}
