package eventing

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/uuid"
)

// legacyEvent is the body of POST /{application}/v1/events.
type legacyEvent struct {
	Type        string          `json:"event-type"`
	TypeVersion string          `json:"event-type-version"`
	ID          string          `json:"event-id"`
	Time        string          `json:"event-time"`
	Data        json.RawMessage `json:"data"`
}

// legacyAnswer is the body of 200.
type legacyAnswer struct {
	ID     string `json:"event-id"`
	Status string `json:"status"`
	Reason string `json:"reason"`
}

// legacyError is the body of every other status.
type legacyError struct {
	Status   int            `json:"status"`
	Type     string         `json:"type"`
	Message  string         `json:"message"`
	MoreInfo string         `json:"moreInfo"`
	Details  []legacyDetail `json:"details"`
}

type legacyDetail struct {
	Field    string `json:"field"`
	Type     string `json:"type"`
	Message  string `json:"message"`
	MoreInfo string `json:"moreInfo"`
}

var (
	// versionPattern is not anchored in the publisher either: one letter or digit is enough.
	versionPattern = regexp.MustCompile(`[a-zA-Z0-9]+`)
	idPattern      = regexp.MustCompile(`^[a-fA-F0-9]{8}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{12}$`)
)

func badPayload(moreInfo string) *legacyError {
	return &legacyError{Status: http.StatusBadRequest, Type: "bad_payload_syntax", Message: "Bad payload syntax", MoreInfo: moreInfo}
}

func violation(field, typ, message string) *legacyError {
	return &legacyError{
		Status: http.StatusBadRequest, Type: "validation_violation", Message: message,
		Details: []legacyDetail{{Field: field, Type: typ, Message: message}},
	}
}

func missing(field string) *legacyError { return violation(field, "missing_field", "Missing field") }
func invalid(field string) *legacyError { return violation(field, "invalid_field", "Invalid field") }

// publishLegacy stores an event of the old format as a CloudEvent whose source is the application of the path.
func (s *Server) publishLegacy(w http.ResponseWriter, r *http.Request) {
	event, refused := s.readLegacy(r)
	if refused != nil {
		s.log.Info("refused an event", "application", r.PathValue("application"), "type", refused.Type, "details", refused.Details)
		writeJSON(w, refused.Status, refused)
		return
	}
	if err := s.put(r, event); err != nil {
		failed := &legacyError{Status: http.StatusInternalServerError, Message: err.Error()}
		var backend *backendError
		if errors.As(err, &backend) {
			failed.Status = backend.status
		}
		writeJSON(w, failed.Status, failed)
		return
	}
	writeJSON(w, http.StatusOK, legacyAnswer{ID: event.ID()})
}

func (s *Server) readLegacy(r *http.Request) (cloudevents.Event, *legacyError) {
	var none cloudevents.Event
	if r.ContentLength == 0 {
		return none, badPayload("Bad payload syntax")
	}
	var in legacyEvent
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return none, &legacyError{
				Status: http.StatusRequestEntityTooLarge, Type: "request_body_too_large", Message: "Request body too large",
				MoreInfo: "http: request body too large",
			}
		}
		return none, badPayload(err.Error())
	}
	at, refused := in.check()
	if refused != nil {
		return none, refused
	}
	event := cloudevents.NewEvent(cloudevents.VersionV1)
	event.SetSource(r.PathValue("application"))
	event.SetType(in.Type + "." + in.TypeVersion)
	event.SetExtension("eventtypeversion", in.TypeVersion)
	event.SetTime(at)
	event.SetID(in.ID)
	if in.ID == "" {
		event.SetID(uuid.NewString())
	}
	if err := event.SetData(cloudevents.ApplicationJSON, in.Data); err != nil {
		return none, badPayload(err.Error())
	}
	out, err := prepared(event)
	if err != nil {
		return none, badPayload(err.Error())
	}
	return out, nil
}

// check looks at the fields in the publisher's order and names the first that is wrong.
func (in *legacyEvent) check() (time.Time, *legacyError) {
	var none time.Time
	switch {
	case in.Type == "":
		return none, missing("event-type")
	case in.TypeVersion == "":
		return none, missing("event-type-version")
	case !versionPattern.MatchString(in.TypeVersion):
		return none, invalid("event-type-version")
	case in.Time == "":
		return none, missing("event-time")
	}
	at, err := time.Parse(time.RFC3339, in.Time)
	if err != nil {
		return none, invalid("event-time")
	}
	if in.ID != "" && !idPattern.MatchString(in.ID) {
		return none, invalid("event-id")
	}
	if text := string(in.Data); text == "" || text == "null" || text == `""` {
		return none, missing("data")
	}
	return at, nil
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
