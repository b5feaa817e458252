package events

import (
	"context"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/application-connector/application-connector/tracing"
)

// propagator reads and writes trace contexts by W3C and by B3, single and multiple headers. Where they differ, W3C's is
// read, since it comes last.
func propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(
		valid{b3.New(b3.WithInjectEncoding(b3.B3MultipleHeader))}, propagation.TraceContext{}, propagation.Baggage{},
	)
}

// valid writes only what belongs to a trace: B3's own propagator would write "not sampled" into a request that has none, and
// so take the decision away from those behind.
type valid struct{ propagation.TextMapPropagator }

// Inject implements propagation.TextMapPropagator.
func (v valid) Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		v.TextMapPropagator.Inject(ctx, carrier)
	}
}

// traced and tracedTransport make a span for each request that comes in, and for each attempt that goes out, if spans are
// exported. If not, the context that came is passed on, and nothing else is done, since OpenTelemetry's instrumentation works
// as hard for spans and metrics that nobody collects.
func traced(next http.Handler) http.Handler {
	p := propagator()
	if tracing.Provider() != nil {
		return otelhttp.NewHandler(next, "event", otelhttp.WithPropagators(p))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if bringsContext(r.Header) {
			r = r.WithContext(p.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
		}
		next.ServeHTTP(w, r)
	})
}

func tracedTransport(next http.RoundTripper) http.RoundTripper {
	p := propagator()
	if tracing.Provider() != nil {
		return otelhttp.NewTransport(next, otelhttp.WithPropagators(p))
	}
	return passing{next, p}
}

// bringsContext says whether a header may hold the context of a trace.
func bringsContext(header http.Header) bool {
	for _, name := range [...]string{"Traceparent", "B3", "X-B3-Traceid"} {
		if _, ok := header[name]; ok {
			return true
		}
	}
	return false
}

// passing writes the context of a trace into a request that belongs to one.
type passing struct {
	next http.RoundTripper
	propagation.TextMapPropagator
}

// RoundTrip implements http.RoundTripper.
func (t passing) RoundTrip(r *http.Request) (*http.Response, error) {
	if trace.SpanContextFromContext(r.Context()).IsValid() {
		r = r.Clone(r.Context()) // a RoundTripper must not change what it is given
		t.Inject(r.Context(), propagation.HeaderCarrier(r.Header))
	}
	return t.next.RoundTrip(r)
}
