package proxy

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Waits between attempts: the first is about firstWait, each further one twice as long, up to longestWait.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 2 * time.Second
)

// delivery sends requests to the publisher, each again and again while the publisher is away. Every attempt sends the
// same bytes, and so the same event id, by which the publisher knows a repeat.
type delivery struct {
	*Handler
	route Route
	// until ends the repeats: no attempt begins after it.
	until time.Time
}

// deliver returns the delivery of what one request brought.
func (h *Handler) deliver(route Route) *delivery {
	return &delivery{h, route, h.Clock.Now().Add(h.RetryWindow)}
}

// RoundTrip is that of http.RoundTripper, but for the request's body: each attempt has what GetBody returns.
func (d *delivery) RoundTrip(request *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		answer, err := d.attempt(request)
		wait, again := d.again(request.Context(), attempt, answer, err)
		if !again {
			if err == nil && answer.StatusCode < http.StatusOK {
				// The body of such an answer is the connection: it would not end with the request's context.
				_ = answer.Body.Close()
				return nil, errors.New("the publisher switched protocols, which nobody asked for")
			}
			return answer, err
		}
		if answer != nil {
			// What is short is read, so that the connection can be used again.
			_, _ = io.CopyN(io.Discard, answer.Body, 4<<10)
			_ = answer.Body.Close()
		}
		timer := d.Clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-request.Context().Done():
			timer.Stop()
			return nil, request.Context().Err()
		}
		d.Metrics.retries.WithLabelValues(string(d.route)).Inc()
	}
}

func (d *delivery) attempt(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(request.Context(), d.Timeout)
	out := request.WithContext(ctx)
	if out.ContentLength > 0 {
		var err error
		if out.Body, err = request.GetBody(); err != nil {
			cancel()
			return nil, err
		}
	}
	begin := time.Now()
	answer, err := d.Transport.RoundTrip(out)
	if err != nil {
		cancel()
		d.Metrics.published(d.route, 0, time.Since(begin))
		return nil, err
	}
	d.Metrics.published(d.route, answer.StatusCode, time.Since(begin))
	answer.Body = &cancelling{&limited{answer.Body, maxAnswerBytes}, cancel}
	return answer, nil
}

// again says whether and when to try once more. Without a connection, when it broke before an answer, or without an answer
// in time the publisher is away, and so it is when it, or a proxy before it, says that what stands behind is (502, 503,
// 504). Any other answer is the publisher's word on the event, and 429 is a wish to be left alone: both are passed on.
func (d *delivery) again(ctx context.Context, attempt int, answer *http.Response, err error) (time.Duration, bool) {
	if attempt >= d.Attempts || ctx.Err() != nil {
		return 0, false
	}
	wait := min(firstWait<<min(attempt-1, 10), longestWait)
	wait = wait/2 + rand.N(wait)
	if err == nil {
		if !away(answer.StatusCode) {
			return 0, false
		}
		if seconds, err := strconv.ParseUint(answer.Header.Get("Retry-After"), 10, 16); err == nil {
			wait = max(wait, time.Duration(seconds)*time.Second)
		}
	}
	return wait, !d.Clock.Now().Add(wait).After(d.until)
}

// away says that a status tells of a publisher, or of its store, that can't be reached just now.
func away(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// timedOut says that the publisher was reached and did not answer in time.
func timedOut(err error) bool {
	dial, timeout := (*net.OpError)(nil), net.Error(nil)
	if errors.As(err, &dial) && dial.Op == "dial" {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// cancelling ends an attempt's context when its answer was read.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *cancelling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}
