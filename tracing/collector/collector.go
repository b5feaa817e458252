// Package collector is a collector of spans for tests: it takes OTLP over HTTP as protobuf, and keeps what it got.
package collector

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	tracev1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// limit is the largest request that is taken, in bytes.
const limit = 16 << 20

// Span is what is kept of one.
type Span struct {
	Name string
	// TraceID, SpanID and ParentID are in hex; ParentID is empty if there is none.
	TraceID, SpanID, ParentID string
	Resource                  map[string]string
	Attributes                map[string]string // those that are text
}

// Collector is running. Its methods may be called concurrently.
type Collector struct {
	// URL is for OTEL_EXPORTER_OTLP_ENDPOINT.
	URL string

	mu      sync.Mutex
	spans   []Span
	headers []http.Header
}

// Start runs a collector until the test ends.
func Start(t testing.TB) *Collector {
	c := &Collector{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.take)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c.URL = s.URL
	return c
}

// Spans are all that came.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Names are the spans' names, sorted, each once.
func (c *Collector) Names() []string {
	var names []string
	for _, s := range c.Spans() {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Headers are those of all requests.
func (c *Collector) Headers() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.headers)
}

func (c *Collector) take(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unpacked
	}
	text, err := io.ReadAll(io.LimitReader(body, limit))
	request := &tracev1.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(text, request)
	}
	if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "not OTLP as protobuf", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, r.Header.Clone())
	for _, of := range request.ResourceSpans {
		about := map[string]string{}
		for _, a := range of.Resource.GetAttributes() {
			about[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				attributes := map[string]string{}
				for _, a := range s.Attributes {
					attributes[a.Key] = a.Value.GetStringValue()
				}
				c.spans = append(c.spans, Span{s.Name, hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId), about, attributes})
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}
