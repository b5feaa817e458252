package proxy

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Call is what can be said of one call without saying anything secret.
type Call struct {
	// Application, Service and Entry are empty if the call matched no route, so that callers cannot make up names.
	Application, Service, Entry string
	Status                      int
	Source                      Source
	// Reason is empty if it is no error.
	Reason   string
	Duration time.Duration
}

// Observer is told of calls.
type Observer interface {
	// Begin is called when a call begins; what it returns is called when the call has ended.
	Begin() func(Call)
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	x      *exchange
	closes bool // the server wants the connection to end with this answer
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	header := r.Header()
	if status < 200 && status != http.StatusSwitchingProtocols {
		// What comes before the answer, after which the proxy clears the header.
		delete(header, "Connection")
		delete(header, HeaderReason)
		if r.x.route != nil && r.x.route.Settings.Response != nil {
			r.x.route.Settings.Response.Strip(header)
		}
		r.ResponseWriter.WriteHeader(status)
		return
	}
	if r.closes {
		header["Connection"] = []string{"close"}
	}
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Hijack implements http.Hijacker for a call that leaves HTTP.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil && r.x.upgrade != nil {
		conn = r.x.upgrade.hijack(conn)
	}
	return conn, buffer, err
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observe starts the clock; what it returns writes the access line. Neither path nor query nor any value is in it.
func (e *Engine) observe(r *http.Request, w *recorder, x *exchange) func() {
	start := time.Now()
	end := func(Call) {}
	if e.options.Observer != nil {
		end = e.options.Observer.Begin()
	}
	return func() {
		call := Call{Status: w.status, Source: x.source, Reason: x.reason, Duration: time.Since(start)}
		aborted := recover()
		if aborted != nil {
			// The target's answer broke off, or the caller left while it was being copied.
			call.Source = SourceTarget
			if r.Context().Err() != nil {
				call.Source = SourceCaller
			}
		}
		if call.Status == 0 && x.targetStatus == http.StatusSwitchingProtocols {
			call.Status = x.targetStatus // the proxy answers on the bare connection
		}
		if call.Source == "" {
			call.Source = SourceNone
		}
		attributes := append(make([]slog.Attr, 0, 16),
			slog.String("request", x.id), slog.String("method", r.Method), slog.Int("status", call.Status), slog.String("source", string(call.Source)),
			slog.Duration("duration", call.Duration), slog.Int64("bytes", w.bytes), slog.Int("attempts", x.attempts),
		)
		if id := e.traceID(r); id != "" {
			attributes = append(attributes, slog.String("trace", id))
		}
		if x.route != nil {
			call.Application, call.Service = x.route.Application, x.route.Service
			if x.address.entries {
				call.Entry = x.route.Entry
			}
			attributes = append(attributes, slog.String("application", call.Application), slog.String("service", call.Service), slog.String("entry", call.Entry))
		}
		if x.caller != "" {
			attributes = append(attributes, slog.String("caller", x.caller))
		}
		if x.reason != "" {
			attributes = append(attributes, slog.String("reason", x.reason))
		}
		if x.targetStatus != 0 {
			attributes = append(attributes, slog.Int("target_status", x.targetStatus))
		}
		if x.cause != nil {
			attributes = append(attributes, slog.String("error", x.cause.Error()))
		}
		if aborted != nil {
			attributes = append(attributes, slog.Bool("aborted", true))
		}
		// Not Logger.LogAttrs, which looks up for each line who calls it.
		if handler := e.options.Log.Handler(); handler.Enabled(r.Context(), slog.LevelInfo) {
			line := slog.NewRecord(start.Add(call.Duration), slog.LevelInfo, "call", 0)
			line.AddAttrs(attributes...)
			_ = handler.Handle(r.Context(), line) // there is nobody to tell
		}
		end(call)
		if aborted != nil {
			panic(aborted) // the server closes the connection: the caller sees that the answer is incomplete
		}
	}
}
