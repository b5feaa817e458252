package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAuditOfAnAcceptedEvent(t *testing.T) {
	r := newRig(t, nil, nil)
	if got := r.send("POST", "/test-application-meta/events", event("CN=test-application-id,OU=eu", "Ce-Source", "test-application-meta"), "x"); got.Status != 204 {
		t.Fatalf("got %+v", got)
	}
	want := []map[string]any{{
		"level": "INFO", "msg": "event request", "decision": "accepted", "reason": "delivered", "application": "test-application-meta", "route": "events",
		"method": "POST", "status": 204.0, "certificateHash": certHash, "certificateSerial": "", "subject": "CN=test-application-id,OU=eu",
	}}
	if d := cmp.Diff(want, r.audit()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := r.sum("validator_publisher_duration_seconds"); got != 1 {
		t.Errorf("%v observations of the publisher", got)
	}
	if got := r.sum("validator_requests_in_flight"); got != 0 {
		t.Errorf("%v in flight", got)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, nil)
	h := event("CN=test-application", "Authorization", "Bearer canary-a", "Cookie", "canary-b=1", "Ce-Subject", "canary-c", "X-Api-Key", "canary-d")
	r.send("POST", "/test-application/events?token=canary-e", h, "canary-f")
	h.Set("Ce-Time", "canary-g")
	r.send("POST", "/test-application/events", h, "canary-f")
	r.send("POST", "/test-application/events", http.Header{"Content-Type": {"application/cloudevents+json"}, "X-Forwarded-Client-Cert": h["X-Forwarded-Client-Cert"]}, `{"canary-h`)
	r.send("POST", "/test-application/v1/events", h, strings.Repeat("canary-i", 1000))
	if n := len(r.audit()); n != 4 {
		t.Errorf("%d audit lines", n)
	}
	if strings.Contains(r.log.String(), "canary") {
		t.Errorf("the log holds a canary: %s", r.log)
	}
}
