package proxy_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/proxy"
)

// says is a publisher, or a proxy before it, that answers a status.
func says(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "text/x")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "its own words")
	}
}

// TestWhoIsAwayIsA503AndAWordOnTheEventIsKept is the table of what becomes of an event that the publisher did not take.
func TestWhoIsAwayIsA503AndAWordOnTheEventIsKept(t *testing.T) {
	const attempts = 3
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	hijacked := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			if tcp, ok := conn.(*net.TCPConn); ok && text == "" {
				_ = tcp.SetLinger(0) // a reset instead of an orderly end
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}
	type row struct {
		publisher http.HandlerFunc
		// change is what is special about the validator.
		change func(*proxy.Config)
		// target is the publisher's status; 0 if it gave none.
		target int
		// strict and after are the client's status and Retry-After in strict mode.
		strict int
		after  string
		sent   int
		reason string
	}
	rows := map[string]row{
		"connections are refused":      {nil, func(c *proxy.Config) { c.PublisherHost = closed.Addr().String() }, 0, 503, "5", 0, "publisher_unreachable"},
		"connections are reset":        {hijacked(""), nil, 0, 503, "5", attempts, "publisher_unreachable"},
		"connections end":              {answers("", 0), nil, 0, 503, "5", attempts, "publisher_unreachable"},
		"answers break off":            {hijacked("HTTP/1.1 204 No"), nil, 0, 503, "5", attempts, "publisher_unreachable"},
		"answers are no HTTP":          {hijacked("SSH-2.0-x\r\n\r\n"), nil, 0, 503, "5", attempts, "publisher_unreachable"},
		"protocols are switched":       {hijacked("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), nil, 0, 503, "5", 1, "publisher_unreachable"},
		"no answer in time":            {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(c *proxy.Config) { c.Timeout = 50 * time.Millisecond }, 0, 503, "5", attempts, "publisher_timeout"},
		"502 with a Retry-After":       {says(502, "Retry-After", "1"), nil, 502, 503, "1", attempts, "publisher_failed"},
		"503 with a Retry-After":       {says(503, "Retry-After", "1"), nil, 503, 503, "1", attempts, "publisher_failed"},
		"504 with a Retry-After":       {says(504, "Retry-After", "1"), nil, 504, 503, "1", attempts, "publisher_failed"},
		"503 with a date to come back": {says(503, "Retry-After", "Thu, 01 Jan 2026 00:00:00 GMT"), nil, 503, 503, "Thu, 01 Jan 2026 00:00:00 GMT", attempts, "publisher_failed"},
		"500 with a Retry-After":       {says(500, "Retry-After", "1"), nil, 500, 500, "1", 1, "publisher_failed"},
		"429 with a Retry-After":       {says(429, "Retry-After", "1"), nil, 429, 429, "1", 1, "publisher_refused"},
	}
	for _, status := range []int{400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 425, 429, 499} {
		rows[strconv.Itoa(status)] = row{says(status), nil, status, status, "", 1, "publisher_refused"}
	}
	for _, status := range []int{500, 501, 505, 507, 508, 511, 599} {
		rows[strconv.Itoa(status)] = row{says(status), nil, status, status, "", 1, "publisher_failed"}
	}
	for _, status := range []int{502, 503, 504} {
		rows[strconv.Itoa(status)] = row{says(status), nil, status, 503, "5", attempts, "publisher_failed"}
	}
	for what, tc := range rows {
		for _, mode := range []string{"strict", "compatible"} {
			t.Run(what+", "+mode, func(t *testing.T) {
				r := newRig(t, tc.publisher, func(c *proxy.Config) {
					patient(c)
					c.Attempts, c.Compatible = attempts, mode == "compatible"
					if tc.change != nil {
						tc.change(c)
					}
				})
				want := answer{tc.strict, http.Header{}, "its own words"}
				if mode == "compatible" && (tc.target == 0 || tc.target >= 500) {
					want.Status = http.StatusBadGateway // the older validator has one status for all of these
				}
				if after := tc.after; after != "" && (mode == "strict" || tc.target != 0 && after != "5") {
					want.Header.Set("Retry-After", after)
				}
				if tc.target >= 500 {
					want.Header.Set("Target-System-Status", strconv.Itoa(tc.target))
				}
				got := r.send("POST", "/test-application/v2/events", event("CN=test-application"), "{}")
				if tc.target == 0 {
					got.refused(t, want.Status)
					want.Body = got.Body
					want.Header.Set("Content-Type", jsonType)
				} else {
					want.Header.Set("Content-Type", "text/x")
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
				if n := len(r.saw()); n != tc.sent {
					t.Errorf("sent %d times, want %d", n, tc.sent)
				}
				if got := r.sum("validator_publisher_retries_total"); tc.sent > 0 && got != float64(tc.sent-1) || tc.sent == 0 && got != attempts-1 {
					t.Errorf("%v repeats counted", got)
				}
				documented(t, tc.reason, mode, want.Status)
				if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != tc.reason || audit[0]["status"] != float64(want.Status) {
					t.Errorf("audit: %v", audit)
				}
			})
		}
	}
}
