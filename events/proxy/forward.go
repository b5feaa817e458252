package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
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
	verifiedPrefix            = "X-Verified-"
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
	header := h.forwarded(r.Header, r.RemoteAddr)
	header[HeaderVerifiedApplication] = []string{app.Name}
	if d.client.Hash != "" {
		header[HeaderVerifiedCertificate] = []string{d.client.Hash}
	}
	target := &url.URL{
		Scheme: "http", Host: h.PublisherHost, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery,
	}
	request := &http.Request{Method: r.Method, URL: target, Host: h.PublisherHost, Header: header, ProtoMajor: 1, ProtoMinor: 1}
	out := &outgoing{Request: request.WithContext(r.Context()), body: body}
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

// firstRead is how much of a body is made room for because its sender says so; the rest is when it comes.
const firstRead = 8 << 10

func (h *Handler) read(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	if r.ContentLength > h.MaxBodyBytes {
		return nil, h.tooLarge() // unread, so that a client that asks first (Expect: 100-continue) does not send it
	}
	var buffer bytes.Buffer
	buffer.Grow(int(min(max(r.ContentLength, 0), firstRead)) + bytes.MinRead)
	_, err := buffer.ReadFrom(http.MaxBytesReader(w, r.Body, h.MaxBodyBytes))
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case err == nil:
		return buffer.Bytes(), nil
	case errors.As(err, &tooLarge):
		return nil, h.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &refusal{status: http.StatusRequestTimeout, reason: BodyTimeout, text: "the body did not arrive in time"}
	}
	return nil, &refusal{status: http.StatusBadRequest, reason: BodyUnreadable, text: "the body could not be read to its end", err: err}
}

func (h *Handler) tooLarge() *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, reason: TooLarge, text: fmt.Sprintf("the body is larger than %d bytes", h.MaxBodyBytes)}
}

// forwarded is the header that the publisher gets. It is a new one, with values that belong to the client's.
func (h *Handler) forwarded(client http.Header, peer string) http.Header {
	header := make(http.Header, len(client)+4)
	for name, values := range client {
		if !h.removes(name) {
			header[name] = values
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{""} // else the transport adds its own
	}
	if host, _, err := net.SplitHostPort(peer); err == nil {
		if before := header["X-Forwarded-For"]; len(before) > 0 {
			host = strings.Join(before, ", ") + ", " + host
		}
		header["X-Forwarded-For"] = []string{host}
	}
	return header
}

// removes says of a client's header field whether it must not reach the publisher.
func (h *Handler) removes(name string) bool {
	// Some servers read "_" as "-", so a look-alike must go as well, also of an event's attributes.
	if strings.Contains(name, "_") {
		if name = strings.ReplaceAll(name, "_", "-"); strings.HasPrefix(http.CanonicalHeaderKey(name), "Ce-") {
			return true
		}
	}
	switch name = http.CanonicalHeaderKey(name); name {
	case "X-Forwarded-Client-Cert", "Client-Cert", "Client-Cert-Chain":
		return true
	case "Content-Length", "Expect": // we have the whole body
		return true
	case "Authorization", "Cookie": // meant for us, not for the publisher
		return !h.Compatible
	}
	return strings.HasPrefix(name, verifiedPrefix) || hopByHop(name)
}

// hopByHop says of a header field whether it speaks of one connection only (RFC 9110, section 7.6.1). Those that a client's
// Connection names besides stay: they could be an event's attributes.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
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
	type key struct{ source, id string }
	first := make(map[key]int, len(out.batch))
	for i := range out.batch {
		e := &out.batch[i]
		before := d.source
		d.source = ""
		var refused *refusal
		if e.Body, refused = h.bind(e.Event, nil, e.Body, d, app); refused != nil {
			return refused
		}
		// Two events that were different by their sources alone are one to the publisher, and the second would be lost.
		sent := key{e.Source, e.ID}
		if d.source == "" {
			d.source = before
		} else if h.SourcePolicy == SourceRewrite {
			sent.source = app.Name
		}
		if other, ok := first[sent]; ok {
			return unread(&cloudevent.Error{Status: http.StatusBadRequest, Reason: fmt.Sprintf(
				"events %d and %d of the batch (counted from 0) have the same id and would have the same source, which is replaced by the Application's name", other, i)})
		}
		first[sent] = i
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
	answer, err := h.deliver(d.route).RoundTrip(out.with(client, out.body))
	if err != nil {
		h.undelivered(client, w, err, d)
		return
	}
	defer answer.Body.Close()
	h.judge(answer, d)
	copyHeader(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	if reason, err := copyBody(w, answer.Body); err != nil {
		if client.Err() != nil {
			reason = ClientGone
		}
		if d.outcome == accepted {
			d.outcome, d.reason, d.detail = failed, reason, err
		}
		panic(http.ErrAbortHandler) // the answer has begun: only a broken connection says that it is not whole
	}
}

// with is the request with a body, for one delivery.
func (o *outgoing) with(ctx context.Context, body []byte) *http.Request {
	request := o.WithContext(ctx)
	request.ContentLength = int64(len(body))
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return request
}

// copyHeader copies what an answer says to whoever gets it, not what it says to us.
func copyHeader(to, from http.Header) {
	for name, values := range from {
		if !hopByHop(name) {
			to[name] = values
		}
	}
	for _, line := range from["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			to.Del(strings.TrimSpace(name))
		}
	}
}

// buffers are for copying answers, most of which are empty or a line.
var buffers = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// copyBody copies an answer to its end, or says what broke.
func copyBody(to io.Writer, from io.Reader) (Reason, error) {
	buffer := buffers.Get().(*[4 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return ClientGone, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return "", nil
		case err != nil:
			return PublisherAnswerBroken, err
		}
	}
}

// maxAnswerBytes bounds the publisher's answer, which is empty or a short text.
const maxAnswerBytes = 1 << 20

func (h *Handler) judge(answer *http.Response, d *decision) {
	d.outcome, d.reason = accepted, Delivered
	if answer.StatusCode < http.StatusMultipleChoices {
		return
	}
	// A redirect is not followed, so that nobody took the event.
	d.outcome, d.reason = failed, PublisherRefused
	if answer.StatusCode < http.StatusInternalServerError {
		return
	}
	d.reason = PublisherFailed
	answer.Header.Set(headerTargetStatus, strconv.Itoa(answer.StatusCode))
	switch {
	case h.Compatible:
		answer.StatusCode = http.StatusBadGateway
	case away(answer.StatusCode):
		// As if there were no connection: what a proxy says between us and the publisher is no word on the event.
		answer.StatusCode = http.StatusServiceUnavailable
		if answer.Header.Get("Retry-After") == "" {
			answer.Header.Set("Retry-After", retryAfter)
		}
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
		// It may have taken the event: the same id makes a repeat harmless.
		f.reason, f.text = PublisherTimeout, "the Eventing publisher did not answer in time, try again with the same event id"
	}
	if h.Compatible {
		f.status, f.header = http.StatusBadGateway, nil
	}
	d.refuse(f)
	d.outcome = failed
	f.write(client, w)
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

// maxAnswerHeaderBytes bounds the header of the publisher's answer.
const maxAnswerHeaderBytes = 64 << 10

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

		MaxResponseHeaderBytes: maxAnswerHeaderBytes,
	}
}
