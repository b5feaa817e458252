package eventing

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// backendError is an event that could not be stored, with the status that the publisher answers for it.
type backendError struct {
	status int
	text   string
	err    error
}

func (e *backendError) Error() string { return e.text }
func (e *backendError) Unwrap() error { return e.err }

// publish stores a CloudEvent 1.0, binary or structured. The real publisher answers 400 to everything it cannot read as
// an event, a body over the limit included.
func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	event, err := readEvent(r)
	if err == nil {
		var out cloudevents.Event
		if out, err = prepared(*event); err == nil {
			s.answer(w, s.put(r, out))
			return
		}
	}
	s.log.Info("refused an event", "error", err)
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(err.Error()))
}

func (s *Server) answer(w http.ResponseWriter, err error) {
	var backend *backendError
	switch {
	case errors.As(err, &backend):
		w.WriteHeader(backend.status)
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func readEvent(r *http.Request) (*cloudevents.Event, error) {
	message := cehttp.NewMessageFromHttpRequest(r)
	defer func() { _ = message.Finish(nil) }()
	event, err := binding.ToEvent(r.Context(), message)
	if err != nil {
		return nil, err
	}
	return event, event.Validate()
}

// put adds the tracing fields of the request to a prepared event and stores it.
func (s *Server) put(r *http.Request, event cloudevents.Event) error {
	trace(r.Header, &event)
	data, err := json.Marshal(event)
	if err != nil {
		return &backendError{status: http.StatusBadRequest, text: "cannot convert the event: " + err.Error(), err: err}
	}
	sequence, duplicate, err := s.store.put(r.Context(), event, data)
	if err != nil {
		failed := backendFailure(err)
		s.log.Warn("event not stored", "source", event.Source(), "id", event.ID(), "status", failed.status, "error", err)
		return failed
	}
	s.log.Info("stored an event", "sequence", sequence, "subject", event.Type(), "source", event.Source(), "id", event.ID(), "duplicate", duplicate)
	return nil
}

// backendFailure gives the status that the publisher answers when JetStream refuses or is away.
func backendFailure(err error) *backendError {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected):
		return &backendError{http.StatusBadGateway, "no connection to NATS JetStream server", err}
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, context.DeadlineExceeded):
		return &backendError{http.StatusGatewayTimeout, "cannot send to stream", err}
	case errors.As(err, &api) && api.ErrorCode == jsStoreFailed:
		return &backendError{http.StatusInsufficientStorage, "insufficient resources on target stream", err}
	case errors.As(err, &api) && api.Code >= http.StatusBadRequest && api.Code < 600:
		return &backendError{api.Code, api.Description, err}
	}
	return &backendError{http.StatusInternalServerError, "internal error on event publishing backend", err}
}

// jsStoreFailed is JetStream's error code for a message that could not be written.
const jsStoreFailed = 10077

// trace copies W3C and B3 tracing fields into extensions, as the publisher does.
func trace(header http.Header, event *cloudevents.Event) {
	for field, extension := range map[string]string{
		"Traceparent": "traceparent", "X-B3-Traceid": "b3traceid", "X-B3-Parentspanid": "b3parentspanid",
		"X-B3-Spanid": "b3spanid", "X-B3-Sampled": "b3sampled", "X-B3-Flags": "b3flags",
	} {
		if v := header.Get(field); v != "" {
			event.SetExtension(extension, v)
		}
	}
}
