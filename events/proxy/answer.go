package proxy

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/application-connector/application-connector/events/identity"
)

// refusal is an answer of our own instead of the publisher's.
type refusal struct {
	status int
	// reason is stable and safe as a label.
	reason Reason
	// text is for the client.
	text   string
	header map[string]string
	// err is for the audit log; it must hold nothing of a body.
	err error
}

var noRoute = &refusal{status: http.StatusNotFound, reason: NoRoute, text: "events are taken at /{application}/v1/events, /{application}/v2/events and /{application}/events"}

func allow(method string, allowed []string) *refusal {
	if slices.Contains(allowed, method) {
		return nil
	}
	return &refusal{
		status: http.StatusMethodNotAllowed, reason: BadMethod, text: "method not allowed, use " + strings.Join(allowed, " or "),
		header: map[string]string{"Allow": strings.Join(allowed, ", ")},
	}
}

func (f *refusal) write(ctx context.Context, w http.ResponseWriter) {
	for name, value := range f.header {
		w.Header().Set(name, value)
	}
	if f.status < http.StatusBadRequest {
		w.WriteHeader(f.status)
		return
	}
	writeError(ctx, w, f.status, f.text)
}

// jsonType is the type of our own answers, spelled as clients of the older validator know it.
const jsonType = "application/json;charset=UTF-8"

// problem is the body that clients of the older validator know, code and error; besides the trace by which the request is found
// again, if it belongs to one.
type problem struct {
	Code    int    `json:"code"`
	Error   string `json:"error"`
	TraceID string `json:"traceId,omitempty"`
}

func writeError(ctx context.Context, w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	// An error here means that the client is gone, and nobody is left to tell.
	_ = json.NewEncoder(w).Encode(problem{status, text, traceID(ctx)})
}

// traceID is that of the trace to which a request belongs, or empty.
func traceID(ctx context.Context) string {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return span.TraceID().String()
	}
	return ""
}

// recorder remembers the status of an answer; 0 means that none has begun.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Words of a decision.
const (
	accepted = "accepted" // the publisher took it
	refused  = "refused"  // by us
	failed   = "failed"   // allowed by us, not taken by the publisher
)

// decision is what is known of a request when it is answered.
type decision struct {
	application  string
	known        bool // application is an Application's name
	route        Route
	method, peer string
	client       identity.Identity
	status       int
	outcome      string
	reason       Reason
	detail       error
	// source is the event's source if it is not the Application's.
	source string
}

func (d *decision) refuse(f *refusal) { d.outcome, d.reason, d.detail = refused, f.reason, f.err }

func (d *decision) label() string {
	if d.known {
		return d.application
	}
	return unknown
}

// audit writes the one line of a request. Accepted requests are routine; everything else is worth a look.
func (h *Handler) audit(ctx context.Context, d decision) {
	level := slog.LevelInfo
	if d.outcome != accepted || d.source != "" {
		level = slog.LevelWarn
	}
	if !h.Log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("decision", d.outcome),
		slog.String("reason", string(d.reason)),
		slog.String("application", bounded(d.application)),
		slog.String("route", string(d.route)),
		slog.String("method", bounded(d.method)),
		slog.Int("status", d.status),
		slog.String("certificateHash", d.client.Hash),
		slog.String("certificateSerial", d.client.Serial()),
		slog.String("subject", bounded(d.client.Subject.String())),
		slog.String("peer", d.peer),
	}
	if d.source != "" {
		attrs = append(attrs, slog.String("source", bounded(d.source)))
	}
	if id := traceID(ctx); id != "" {
		attrs = append(attrs, slog.String("traceId", id))
	}
	if d.detail != nil {
		attrs = append(attrs, slog.String("detail", bounded(d.detail.Error())))
	}
	h.Log.LogAttrs(ctx, level, "event request", attrs...)
}

// bounded keeps what callers chose from filling the log.
func bounded(s string) string {
	const limit = 512
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
