package proxy

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const tracerName = "github.com/application-connector/application-connector/gateway/proxy"

// w3c reads and writes traceparent and tracestate (W3C Trace Context). Baggage passes as it came.
var w3c propagation.TraceContext

// tracer makes one span for each call and one for each attempt at the target. Spans hold names of Applications and
// services, never a path or a query: the attributes that OpenTelemetry's own instrumentation of HTTP sets would hold the
// API keys that go out as query parameters. Without a provider there is none.
func tracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer(tracerName)
}

// traceCall begins the span of a call; what it returns ends it.
func (e *Engine) traceCall(r *http.Request, rec *recorder, x *exchange) (*http.Request, func()) {
	if e.tracer == nil {
		return r, func() {}
	}
	ctx, span := e.tracer.Start(w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), "call",
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("http.request.method", r.Method)))
	return r.WithContext(ctx), func() {
		if span.IsRecording() {
			span.SetAttributes(attribute.Int("http.response.status_code", rec.status))
			if x.route != nil {
				span.SetAttributes(attribute.String("application", x.route.Application), attribute.String("service", x.route.Service), attribute.String("entry", x.route.Entry))
			}
			if x.reason != "" {
				span.SetAttributes(attribute.String("error.type", x.reason))
				span.SetStatus(codes.Error, x.reason)
			}
		}
		span.End()
	}
}

// traceID is the trace that a call belongs to; empty for none.
func (e *Engine) traceID(r *http.Request) string {
	ctx := r.Context()
	if e.tracer == nil {
		if r.Header["Traceparent"] == nil {
			return ""
		}
		ctx = w3c.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return span.TraceID().String()
	}
	return ""
}

// traceAttempt begins the span of one attempt, up to the beginning of the target's answer, and names it in the header.
// Without spans the header stays as the caller sent it.
func (e *Engine) traceAttempt(ctx context.Context, number int, h http.Header) (context.Context, func(*http.Response)) {
	if e.tracer == nil {
		return ctx, func(*http.Response) {}
	}
	ctx, span := e.tracer.Start(ctx, "attempt", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.Int("attempt", number)))
	w3c.Inject(ctx, propagation.HeaderCarrier(h))
	return ctx, func(r *http.Response) {
		if r != nil {
			span.SetAttributes(attribute.Int("http.response.status_code", r.StatusCode))
		} else {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
