package events

import (
	"context"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
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

// traced and tracedTransport make a span for each request that comes in, and for each attempt that goes out. Spans go to the
// process's tracer provider; without one nothing is recorded, and the context passes through.
func traced(next http.Handler) http.Handler {
	return otelhttp.NewHandler(next, "event", otelhttp.WithPropagators(propagator()))
}

func tracedTransport(next http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(next, otelhttp.WithPropagators(propagator()))
}
