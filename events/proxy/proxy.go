// Package proxy takes events from external systems and hands them to the Eventing publisher: it finds the client's
// identity (package identity), asks whether that client may speak for the Application in the path (package binding),
// checks the event (package cloudevent) and forwards it. It owns routes, status codes, headers on the wire, metrics of
// requests and the audit line.
//
// It never acknowledges by itself: a 2xx is the publisher's own, or, for a batch, says that it gave one for each event.
package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/binding"
	"github.com/application-connector/application-connector/events/denial"
	"github.com/application-connector/application-connector/events/identity"
)

// Applications is what the proxy asks for Applications. It is called on each request and must not block.
type Applications interface {
	// Application returns the Application as it is now, or nil if there is none. The result is shared: it must not be changed.
	Application(name string) *v1alpha1.Application
	// Synced says that Application can be believed; until then every request is answered 503.
	Synced() bool
}

// Denied says which clients an operator has shut out. It is called on each request and must not block.
type Denied interface {
	// Check returns nil, or an error of package denial. It is asked only while Applications are synced.
	Check(client identity.Identity) error
}

// SourcePolicy says what is done with a CloudEvent whose source is not the Application's.
type SourcePolicy string

// Source policies.
const (
	SourceOff     SourcePolicy = "off"     // not looked at
	SourceWarn    SourcePolicy = "warn"    // forwarded, logged and counted
	SourceRewrite SourcePolicy = "rewrite" // replaced by the Application's name
	SourceEnforce SourcePolicy = "enforce" // refused with 403
)

// TypeLabel is the label of an Application whose value is an allowed source besides the Application's name: the
// publisher names event types after it.
const TypeLabel = "application-type"

// Config is what a Handler needs.
type Config struct {
	Applications Applications
	// Denied tells certificates that are not believed; nil means that all are.
	Denied   Denied
	Verifier identity.Verifier
	Policy   binding.Policy
	Limits   Limits
	// Compatible answers with the status codes of the older validator and leaves checking events to the publisher; see
	// docs/reference/validator.md.
	Compatible bool
	Paths      Paths
	// PublisherHost is host or host:port of the publisher, spoken to by plain HTTP.
	PublisherHost string
	// DestinationPath is the publisher's path for CloudEvents.
	DestinationPath string
	SourcePolicy    SourcePolicy
	// MaxBodyBytes bounds an event.
	MaxBodyBytes int64
	// Timeout bounds each attempt, from the first byte sent to the publisher to the last byte of its answer.
	Timeout time.Duration
	// Attempts is how often an event is sent at most while the publisher is away; 1 means no repeats.
	Attempts int
	// RetryWindow is the time after the first attempt in which further ones begin.
	RetryWindow time.Duration
	// Clock times the repeats; nil means the real clock. Timeouts go by the real clock.
	Clock   clock.Clock
	Metrics *Metrics
	Log     *slog.Logger
	// Transport speaks to the publisher; NewTransport makes one.
	Transport http.RoundTripper
}

// Handler serves the routes of events. It is safe for concurrent use.
type Handler struct {
	Config
	clients  *identity.Memory
	errorLog *slog.Logger
	limiter  *limiter
	surplus  surplus
}

// New returns a Handler. Metrics must not be in use yet.
func New(c Config) *Handler {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	c.Metrics.certificates.applications = c.Applications
	return &Handler{Config: c, clients: identity.NewMemory(c.Verifier), errorLog: c.Log.With("component", "proxy"), limiter: newLimiter(c.Limits, c.Clock)}
}

// ServeHTTP answers one request and leaves one audit line.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.Metrics.inFlight.Inc()
	defer h.Metrics.inFlight.Dec()
	room := h.limiter.enter()
	defer h.limiter.leave()
	recorder := &recorder{ResponseWriter: w}
	d := &decision{route: RouteNone, method: r.Method, peer: r.RemoteAddr}
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares by identity
			h.errorLog.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
			d.refuse(&refusal{reason: Panicked})
			if recorder.status == 0 {
				writeError(r.Context(), recorder, http.StatusInternalServerError, "internal error")
				p = nil
			}
		}
		d.status = recorder.status
		h.Metrics.request(*d)
		h.audit(r.Context(), *d)
		if p != nil {
			panic(http.ErrAbortHandler) // the answer has begun: only a broken connection says that it is not whole
		}
	}()

	if !room {
		d.refuse(overloaded)
		overloaded.write(r.Context(), recorder)
		return
	}
	decide := h.strict
	if h.Compatible {
		decide = h.compatible
	}
	event, refused := decide(recorder, r, d)
	if refused != nil {
		d.refuse(refused)
		refused.write(r.Context(), recorder)
		return
	}
	if event.isBatch {
		h.forwardBatch(recorder, event, d)
		return
	}
	h.forward(recorder, event, d)
}

// retryAfter is in seconds; an informer that lost its API server or a publisher that restarts needs about that long.
const retryAfter = "5"

var notSynced = &refusal{
	status: http.StatusServiceUnavailable, reason: NotSynced, text: "Applications are not loaded yet, try again",
	header: map[string]string{"Retry-After": retryAfter},
}

// strict decides in the order: what the path says, whether we can decide at all, who the client is, whether it may, and
// only then what it sends. Nothing before the identity depends on which Applications exist.
func (h *Handler) strict(w http.ResponseWriter, r *http.Request, d *decision) (*outgoing, *refusal) {
	if ambiguous(r.URL.Path, r.URL.EscapedPath()) {
		return nil, &refusal{status: http.StatusBadRequest, reason: BadPath, text: "the path must be clean: no empty, \".\" or \"..\" segments and no encoded separators or dots"}
	}
	name := application(r.URL.Path)
	route, rest := h.Paths.route(r.URL.Path, name)
	if name == "" || route == RouteNone {
		return nil, noRoute
	}
	d.application, d.route = name, route
	if refused := allow(r.Method, methods(route, rest)); refused != nil {
		return nil, refused
	}
	if !h.Applications.Synced() {
		return nil, notSynced
	}
	app := h.Applications.Application(name)
	d.known = app != nil
	client, err := h.identify(r.Header)
	if err != nil {
		return nil, unidentified(err, http.StatusUnauthorized)
	}
	d.client = client
	if err := h.authorize(app, client); err != nil {
		return nil, unauthorized(err, http.StatusForbidden)
	}
	return h.prepare(w, r, d, app)
}

// compatible decides as the older validator does: identity header first, then Application, certificate, and route last.
func (h *Handler) compatible(w http.ResponseWriter, r *http.Request, d *decision) (*outgoing, *refusal) {
	if clean := cleaned(r.URL.Path); clean != r.URL.Path {
		location := *r.URL
		location.Path, location.RawPath = clean, ""
		return nil, &refusal{status: http.StatusMovedPermanently, reason: BadPath, header: map[string]string{"Location": location.RequestURI()}}
	}
	name := application(r.URL.Path)
	if name == "" {
		return nil, noRoute
	}
	d.application = name
	if !h.Applications.Synced() {
		return nil, notSynced
	}
	app := h.Applications.Application(name)
	d.known = app != nil
	client, err := h.identify(r.Header)
	if e := (*identity.Error)(nil); errors.As(err, &e) && e.Reason == identity.NoHeader {
		return nil, unidentified(err, http.StatusInternalServerError)
	}
	d.client = client
	if app == nil || !app.DeletionTimestamp.IsZero() {
		return nil, unauthorized(h.Policy.Authorize(app, client), http.StatusNotFound)
	}
	if err != nil {
		return nil, unidentified(err, http.StatusForbidden)
	}
	if err := h.authorize(app, client); err != nil {
		return nil, unauthorized(err, http.StatusForbidden)
	}
	if d.route, _ = h.Paths.route(r.URL.Path, name); d.route == RouteNone {
		return nil, noRoute
	}
	return h.prepare(w, r, d, app)
}

func (h *Handler) identify(header http.Header) (identity.Identity, error) {
	client, err := h.clients.Of(header)
	if e := (*identity.Error)(nil); errors.As(err, &e) && e.Surplus {
		h.Metrics.surplus.Inc()
		h.surplus.seen(h.Log)
	}
	return client, err
}

// authorize looks at the list of denied certificates after everything else, so that a stranger's certificate counts as
// just that.
func (h *Handler) authorize(app *v1alpha1.Application, client identity.Identity) error {
	if err := h.Policy.Authorize(app, client); err != nil {
		return err
	}
	if h.Denied != nil {
		if err := h.Denied.Check(client); err != nil {
			return err
		}
	}
	h.Metrics.certificates.saw(app.Name, client)
	return nil
}

// unauthorized answers the same for an unknown Application and a wrong certificate; the reason stays in metrics and log.
func unauthorized(err error, status int) *refusal {
	refused := &refusal{status: status, text: "the client certificate does not belong to this Application"}
	if status == http.StatusNotFound {
		refused.text = "no such Application"
	}
	if e := (*binding.Error)(nil); errors.As(err, &e) {
		refused.reason = Reason(e.Reason)
	}
	if e := (*denial.Error)(nil); errors.As(err, &e) {
		refused.reason = Reason(e.Reason)
	}
	return refused
}

func unidentified(err error, status int) *refusal {
	refused := &refusal{
		status: status, err: err,
		text: "no verified client identity: send the request with a client certificate through the ingress gateway",
	}
	if e := (*identity.Error)(nil); errors.As(err, &e) {
		refused.reason = Reason(e.Reason)
	}
	return refused
}
