package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/cloudevent"
	"github.com/application-connector/application-connector/events/legacyevent"
)

// Headers that tell the publisher whom we verified. Whatever a client sends under these names is removed.
const (
	HeaderVerifiedApplication = "X-Verified-Application"
	HeaderVerifiedCertificate = "X-Verified-Certificate" // SHA-256 of the certificate's DER in hex, if it is known
	verifiedPrefix            = "x-verified-"
)

// headerTargetStatus carries the publisher's own status when it failed.
const headerTargetStatus = "Target-System-Status"

// outgoing is a request that may be sent.
type outgoing struct {
	*http.Request
	body []byte
	// batch holds the events of a batch; then body is not sent.
	batch   []cloudevent.BatchEvent
	isBatch bool
}

// prepare builds the request to the publisher: header first, then the body, and the event is read from exactly what will
// be sent, so that nothing that is removed on the way can have been part of what was checked.
func (h *Handler) prepare(w http.ResponseWriter, r *http.Request, d *decision, app *v1alpha1.Application) (*outgoing, *refusal) {
	body, refused := h.read(w, r)
	if refused != nil {
		return nil, refused
	}
	out := &outgoing{Request: r.Clone(r.Context()), body: body}
	h.clean(out.Header, r.RemoteAddr)
	out.Header.Set(HeaderVerifiedApplication, app.Name)
	if d.client.Hash != "" {
		out.Header.Set(HeaderVerifiedCertificate, d.client.Hash)
	}
	out.URL.Scheme, out.URL.Host, out.Host = "http", h.PublisherHost, h.PublisherHost
	switch {
	case d.route != RouteV1:
		out.URL.Path, out.URL.RawPath = h.DestinationPath, ""
		if refused := h.check(out, d, app); refused != nil {
			return nil, refused
		}
	case r.Method == http.MethodPost:
		out.body = legacyevent.WithID(body, uuid.NewString())
	}
	if refused := h.limiter.take(app.Name, len(out.batch)); refused != nil {
		return nil, refused
	}
	if d.route == RouteV1 && h.Compatible {
		out.URL.RawPath = "" // what was decided on is what is sent: "%2F" was read as a separator
	}
	return out, nil
}

func (h *Handler) read(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.MaxBodyBytes))
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, reason: TooLarge, text: fmt.Sprintf("the body is larger than %d bytes", h.MaxBodyBytes)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &refusal{status: http.StatusRequestTimeout, reason: BodyTimeout, text: "the body did not arrive in time"}
	}
	return nil, &refusal{status: http.StatusBadRequest, reason: BodyUnreadable, text: "the body could not be read to its end", err: err}
}

// clean removes from a header what must not reach the publisher.
func (h *Handler) clean(header http.Header, peer string) {
	for name := range header {
		// Some servers read "_" as "-", so a look-alike must go as well.
		normal := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case strings.HasPrefix(normal, verifiedPrefix),
			normal == "x-forwarded-client-cert", normal == "client-cert", normal == "client-cert-chain",
			// Named header fields would be removed further on, among them an event's attributes.
			normal == "connection",
			// We have the whole body already.
			normal == "expect",
			// Credentials that are meant for us, not for the publisher.
			!h.Compatible && (normal == "authorization" || normal == "cookie"):
			delete(header, name)
		}
	}
	if host, _, err := net.SplitHostPort(peer); err == nil {
		if before := header.Values("X-Forwarded-For"); len(before) > 0 {
			host = strings.Join(before, ", ") + ", " + host
		}
		header.Set("X-Forwarded-For", host)
	}
}

// check reads the CloudEvent and binds its source to the Application.
func (h *Handler) check(out *outgoing, d *decision, app *v1alpha1.Application) *refusal {
	if cloudevent.IsBatch(out.Header) && out.Method == http.MethodPost {
		out.isBatch = true
		return h.checkBatch(out, d, app)
	}
	if h.Compatible && h.SourcePolicy == SourceOff {
		return nil
	}
	event, err := cloudevent.Read(out.Header, out.body)
	if err != nil {
		if h.Compatible && h.SourcePolicy == SourceWarn {
			h.Metrics.violations.WithLabelValues(app.Name, "unread").Inc()
			return nil
		}
		return unread(err)
	}
	if event.Structured {
		cloudevent.DropAttributes(out.Header)
	}
	var refused *refusal
	out.body, refused = h.bind(event, out.Header, out.body, d, app)
	return refused
}

// checkBatch does for each event of a batch what check does for one. Nothing is sent unless all can be.
func (h *Handler) checkBatch(out *outgoing, d *decision, app *v1alpha1.Application) *refusal {
	var err error
	if out.batch, err = cloudevent.ReadBatch(out.Header, out.body); err != nil {
		return unread(err)
	}
	cloudevent.DropAttributes(out.Header)
	for i := range out.batch {
		e := &out.batch[i]
		var refused *refusal
		if e.Body, refused = h.bind(e.Event, nil, e.Body, d, app); refused != nil {
			return refused
		}
	}
	return nil
}

func unread(err error) *refusal {
	status := http.StatusBadRequest
	if e := (*cloudevent.Error)(nil); errors.As(err, &e) {
		status = e.Status
	}
	return &refusal{status: status, reason: NotACloudEvent, text: err.Error()}
}

// bind holds an event's source against the Application and returns the body to send.
func (h *Handler) bind(event cloudevent.Event, header http.Header, body []byte, d *decision, app *v1alpha1.Application) ([]byte, *refusal) {
	if h.SourcePolicy == SourceOff || event.Source == app.Name || event.Source == app.Labels[TypeLabel] {
		return body, nil
	}
	d.source = event.Source
	h.Metrics.violations.WithLabelValues(app.Name, string(h.SourcePolicy)).Inc()
	switch h.SourcePolicy {
	case SourceEnforce:
		return nil, &refusal{status: http.StatusForbidden, reason: ForeignSource, text: "the event's source must be the Application's name or its type"}
	case SourceRewrite:
		body = event.WithSource(header, body, app.Name)
	}
	return body, nil
}

// forward sends the request and copies the publisher's answer.
func (h *Handler) forward(w http.ResponseWriter, out *outgoing, d *decision) {
	client := out.Context()
	delivery, ctx, cancel := h.deliver(client, d.route)
	defer cancel()
	request := out.WithContext(ctx)
	request.Body = io.NopCloser(bytes.NewReader(out.body))
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.body)), nil }
	request.ContentLength = int64(len(out.body))
	request.TransferEncoding, request.Trailer = nil, nil

	proxy := &httputil.ReverseProxy{
		Transport: delivery,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values := p.In.Header.Values(name); len(values) > 0 {
					p.Out.Header[name] = values
				}
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			h.judge(answer, d)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			h.undelivered(client, w, err, d)
		},
		ErrorLog: slog.NewLogLogger(h.errorLog.Handler(), slog.LevelWarn),
	}
	proxy.ServeHTTP(w, request)
}

// maxAnswerBytes bounds the publisher's answer, which is empty or a short text.
const maxAnswerBytes = 1 << 20

func (h *Handler) judge(answer *http.Response, d *decision) {
	d.outcome, d.reason = accepted, Delivered
	if answer.StatusCode < http.StatusBadRequest {
		return
	}
	d.outcome, d.reason = failed, PublisherRefused
	if answer.StatusCode < http.StatusInternalServerError {
		return
	}
	d.reason = PublisherFailed
	answer.Header.Set(headerTargetStatus, strconv.Itoa(answer.StatusCode))
	if !h.Compatible && away(answer.StatusCode) && answer.Header.Get("Retry-After") == "" {
		answer.Header.Set("Retry-After", retryAfter)
	}
	if h.Compatible {
		answer.StatusCode = http.StatusBadGateway
		answer.Status = ""
	}
}

// undelivered answers when the publisher did not.
func (h *Handler) undelivered(client context.Context, w http.ResponseWriter, err error, d *decision) {
	f := &refusal{
		status: http.StatusServiceUnavailable, reason: PublisherUnreachable, text: "the Eventing publisher can't be reached, try again with the same event id",
		header: map[string]string{"Retry-After": retryAfter}, err: err,
	}
	switch {
	case client.Err() != nil:
		f.reason = ClientGone
	case timedOut(err):
		// It may have taken the event: the status says so, and the same id makes a repeat harmless.
		f.status, f.reason, f.text = http.StatusGatewayTimeout, PublisherTimeout, "the Eventing publisher did not answer in time, try again with the same event id"
	}
	if h.Compatible {
		f.status, f.header = http.StatusBadGateway, nil
	}
	d.refuse(f)
	d.outcome = failed
	f.write(w)
}

// limited ends an answer that is too long with an error, which breaks the connection to the client.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		// One more byte tells a long answer from one of exactly the limit.
		if n, err := l.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, errors.New("the publisher's answer is too long")
	}
	if int64(len(b)) > l.left {
		b = b[:l.left]
	}
	n, err := l.ReadCloser.Read(b)
	l.left -= int64(n)
	return n, err
}

// NewTransport returns a transport to the publisher: plain HTTP/1.1, no environment proxies, bounded connections.
func NewTransport() *http.Transport {
	const perHost = 200
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConns:          2 * perHost,
		MaxIdleConnsPerHost:   perHost,
		MaxConnsPerHost:       perHost,
		IdleConnTimeout:       10 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
	}
}
