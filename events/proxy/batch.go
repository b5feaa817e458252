package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/application-connector/application-connector/events/cloudevent"
)

// untaken is an event of a batch that the publisher did not take, as the client is told of it.
type untaken struct {
	Index  int    `json:"index"`
	Source string `json:"source"`
	ID     string `json:"id"`
	// Status is the publisher's answer to this event; 0 if there was none, or the event was not sent.
	Status int `json:"status,omitempty"`
}

// forwardBatch sends the events of a batch one by one, in their order, and acknowledges only if the publisher took all.
// It goes on after an event that the publisher refused, and stops when the publisher is away.
func (h *Handler) forwardBatch(w http.ResponseWriter, out *outgoing, d *decision) {
	client := out.Context()
	ctx, cancel := context.WithTimeout(client, h.Timeout+h.RetryWindow)
	defer cancel()
	delivery := h.deliver(d.route)
	out.Header.Set("Content-Type", cloudevent.StructuredType)

	left := []untaken{}
	stopped := false
	var last error
	for i, e := range out.batch {
		u := untaken{Index: i, Source: e.Source, ID: e.ID}
		if !stopped {
			var taken bool
			if u.Status, taken, last = sendOne(delivery, out.with(ctx, e.Body)); taken {
				continue
			}
			stopped = last != nil || away(u.Status) || u.Status == http.StatusTooManyRequests
		}
		left = append(left, u)
	}
	if len(left) == 0 {
		d.outcome, d.reason = accepted, Delivered
		w.WriteHeader(http.StatusNoContent)
		return
	}
	d.refuse(&refusal{reason: BatchIncomplete, err: errors.Join(fmt.Errorf("%d of %d events were not taken", len(left), len(out.batch)), last)})
	d.outcome = failed
	if client.Err() != nil {
		d.reason = ClientGone
	}
	w.Header().Set("Retry-After", retryAfter)
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(struct {
		problem
		NotTaken []untaken `json:"notTaken"`
	}{
		problem{
			http.StatusServiceUnavailable,
			fmt.Sprintf("%d of %d events were not taken, mend those that have a status below 500 and send all of these again with the same ids", len(left), len(out.batch)),
			traceID(client),
		},
		left,
	})
}

// sendOne sends one event and says whether the publisher took it.
func sendOne(d *delivery, request *http.Request) (status int, taken bool, err error) {
	answer, err := d.RoundTrip(request)
	if err != nil {
		return 0, false, err
	}
	// An answer that breaks off after a good status leaves it open whether the event was taken.
	_, err = io.Copy(io.Discard, answer.Body)
	err = errors.Join(err, answer.Body.Close())
	ok := answer.StatusCode >= http.StatusOK && answer.StatusCode < http.StatusMultipleChoices
	return answer.StatusCode, ok && err == nil, err
}
