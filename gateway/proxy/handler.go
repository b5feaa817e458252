package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/limits"
	"github.com/application-connector/application-connector/gateway/routes"
)

// handler serves one port.
type handler struct {
	engine   *Engine
	segments int
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{id: requestID(r.Header)}
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &boundedBody{ReadCloser: r.Body, x: x, bound: h.engine.options.RequestTimeout}
		defer x.body.leave(w) // after all else
	}
	rec := &recorder{ResponseWriter: w, x: x, closes: w.Header()["Connection"] != nil}
	r, end := h.engine.traceCall(r, rec, x)
	defer end()
	done := h.engine.observe(r, rec, x)
	defer done() // also when the proxy aborts the connection by a panic
	h.serve(rec, r, x)
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, x *exchange) {
	var ok bool
	if x.address, ok = parseAddress(rawPath(r.URL), h.segments); !ok || r.Method == http.MethodConnect {
		x.refuse(w, SourceCaller, http.StatusBadRequest, FailurePathInvalid, "failed to extract API Identifier from path")
		return
	}
	x.address.entries = h.segments > 2
	route, err := h.engine.find(x.address)
	if err != nil {
		status, source, reason := lookupFailure(err)
		text := err.Error()
		if errors.Is(err, errNotReady) {
			text = "failed to get service with name '" + x.address.service + "': " + text
		}
		x.refuse(w, source, status, reason, text)
		return
	}
	x.route = route
	if allowed := route.Settings.Callers; allowed != nil {
		caller, err := h.engine.options.Mesh.Of(r.RemoteAddr, r.Header)
		if err != nil {
			x.refuse(w, SourceCaller, http.StatusForbidden, FailureCallerUnknown, "only some workloads may call this API (allowedCallers), and it is not known which one this is: "+err.Error())
			return
		}
		x.caller = caller.String()
		if !allowed.Allows(caller) {
			x.refuse(w, SourceCaller, http.StatusForbidden, FailureCallerNotAllowed, "the service account "+x.caller+" may not call this API (allowedCallers)")
			return
		}
	}
	if route.Refused != nil {
		x.refuse(w, SourceGateway, http.StatusInternalServerError, string(route.Refused.Reason), route.Refused.Answer)
		return
	}
	if leaves(x.address.rest) {
		x.refuse(w, SourceCaller, http.StatusBadRequest, FailurePathLeavesTarget, "the path leaves the API: it has more '..' than segments before them")
		return
	}
	if route.Gate != nil {
		pass, refusal := route.Gate.Enter()
		if refusal != nil {
			status := http.StatusServiceUnavailable
			if refusal.Reason == limits.ReasonRate {
				status = http.StatusTooManyRequests
			}
			w.Header().Set("Retry-After", strconv.Itoa(refusal.Seconds()))
			x.refuse(w, SourceLimits, status, string(refusal.Reason), refusal.Error())
			return
		}
		x.pass = pass
		defer x.pass.Leave() // also when the proxy aborts the connection by a panic
	}
	if total := route.Settings.Timeouts.Total; total > 0 {
		ctx, cancel := context.WithTimeoutCause(r.Context(), total, errTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		defer context.AfterFunc(ctx, func() { x.body.end(w) })()
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), exchangeKey{}, x))
	defer cancel(nil)
	r = r.WithContext(ctx) // a copy: net/http goes by what it gave us as the body
	h.engine.watch(w, r, x, cancel)
	defer x.watchdog.stop()
	x.use = route.Use()
	if x.use.External = externalToken(r.Header); x.use.External != "" {
		x.external = true
	}
	if x.value, err = h.engine.options.Resolver.Resolve(r.Context(), x.use); err != nil {
		x.cause = err
		var call *credentials.CallError
		if errors.As(err, &call) {
			x.refuse(w, SourceCredentials, call.Status, callFailure(call), call.Message)
			return
		}
		if errors.Is(err, errTimeout) {
			x.refuse(w, SourceCredentials, http.StatusGatewayTimeout, FailureTimeout, "the time for the call was over before there was a credential (timeouts.total)")
			return
		}
		x.refuse(w, SourceCaller, statusClientGone, FailureClientGone, "the caller went away")
		return
	}
	if x.body != nil {
		if r.Body = x.body; !isSmall(r) {
			// Else net/http reads what is left of the body as soon as an answer begins, and takes it away from the target.
			x.body.shared = http.NewResponseController(w).EnableFullDuplex() == nil
		}
	}
	defer h.engine.ended(x)
	h.engine.proxy.ServeHTTP(w, r)
}

// statusClientGone is for logs and metrics: nobody is there to read it. The number is nginx's.
const statusClientGone = 499

// watch prepares the bounds of a call: of what its target does, and of each piece of its caller's body, which does not bound
// the answer. Streams that both ends keep open have none for the caller.
func (e *Engine) watch(w http.ResponseWriter, r *http.Request, x *exchange, cancel context.CancelCauseFunc) {
	dog, limit := &x.watchdog, x.route.Settings.Timeouts
	late := func() { cancel(errTimeout) }
	dog.watch(&dog.answer, cmp.Or(limit.Header, e.options.Timeout), late)
	dog.watch(&dog.piece, cmp.Or(limit.Idle, e.options.Timeout), late)
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		// Writers that know no deadlines, as in tests without a server, are read without.
		dog.watch(&dog.caller, e.options.RequestTimeout, func() { _ = http.NewResponseController(w).SetReadDeadline(longAgo) })
	}
}

// refuse answers by an error before anything was sent to the target.
func (x *exchange) refuse(w http.ResponseWriter, source Source, status int, reason, text string) {
	x.source, x.reason = source, reason
	if x.cause == nil {
		x.cause = errors.New(text)
	}
	x.body.hurry(w)
	w.Header().Set(HeaderReason, reason)
	w.Header().Set(HeaderRequestID, x.id)
	writeError(w, status, reason, text)
}

// WriteError answers by an error of the gateway's own: {"code":status,"error":text} and a newline.
func WriteError(w http.ResponseWriter, status int, text string) { writeError(w, status, "", text) }

func writeError(w http.ResponseWriter, status int, reason, text string) {
	body, err := json.Marshal(struct {
		Code   int    `json:"code"`
		Error  string `json:"error"`
		Reason string `json:"reason,omitempty"`
	}{status, text, reason})
	if err != nil {
		body = []byte(`{}`) // cannot be: a number and strings
	}
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a caller who is gone needs no answer
}

// proxyError answers by an error after the target was, or should have been, called: a status and no body.
func (e *Engine) proxyError(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	x.cause, x.source, x.reason = callCause(err), SourceTarget, targetFailure(err)
	if err := credentials.CheckURL(x.route.Target.String()); err != nil {
		x.cause, x.reason = fmt.Errorf("targetUrl %w", err), string(routes.ReasonTargetInvalid)
	}
	status := http.StatusBadGateway
	var credential *credentialsError
	var call *credentials.CallError
	switch {
	case x.bodyFailed.Load(): // first, because a body that does not arrive ends the caller's context too
		x.source, x.reason = SourceCaller, FailureRequestBody
	case r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), errTimeout):
		x.source, x.reason, status = SourceCaller, FailureClientGone, statusClientGone
	case errors.Is(context.Cause(r.Context()), errTimeout): // also when it ended the wait for another credential
		x.reason, status = FailureTimeout, http.StatusGatewayTimeout
	case errors.As(err, &credential):
		x.source = SourceCredentials
		if errors.As(err, &call) {
			x.reason = callFailure(call)
		}
	case errors.Is(err, errTimeout):
		status = http.StatusGatewayTimeout
	}
	w.Header().Set(HeaderReason, x.reason)
	w.Header().Set(HeaderRequestID, x.id)
	w.WriteHeader(status)
}
