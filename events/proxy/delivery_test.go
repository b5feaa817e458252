package proxy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/events/proxy"
)

// eager is a clock on which each timer runs out at once, and time goes on by as much.
type eager struct{ *clocktesting.FakeClock }

func (c eager) NewTimer(d time.Duration) clock.Timer {
	timer := c.FakeClock.NewTimer(d)
	c.Step(d)
	return timer
}

// saw is what the publisher saw so far.
func (r *rig) saw() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

func patient(c *proxy.Config) {
	c.Attempts, c.RetryWindow, c.Clock = 10, 10*time.Second, eager{clocktesting.NewFakeClock(time.Unix(0, 0))}
}

// answers gives one answer after the other, and the last for ever; 0 breaks the connection.
func answers(retryAfter string, statuses ...int) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		i := min(int(n.Add(1)), len(statuses)) - 1
		if statuses[i] == 0 {
			panic(http.ErrAbortHandler)
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(statuses[i])
	}
}

func TestAnEventIsSentAgainWhileThePublisherIsAway(t *testing.T) {
	for what, tc := range map[string]struct {
		retryAfter string
		publisher  []int
		config     func(*proxy.Config)
		status     int
		attempts   int
		after      string
	}{
		"taken at once":                        {"", []int{204}, patient, 204, 1, ""},
		"each kind of absence":                 {"", []int{0, 502, 503, 504, 204}, patient, 204, 5, ""},
		"away for ever: the window ends it":    {"", []int{0}, func(c *proxy.Config) { patient(c); c.Attempts = 1000 }, 503, 0, "5"},
		"away for ever: the count ends it":     {"", []int{0}, func(c *proxy.Config) { patient(c); c.Attempts = 3 }, 503, 3, "5"},
		"no repeats":                           {"", []int{0, 204}, func(c *proxy.Config) { patient(c); c.Attempts = 1 }, 503, 1, "5"},
		"a proxy's status for ever":            {"", []int{502}, func(c *proxy.Config) { patient(c); c.Attempts = 4 }, 503, 4, "5"},
		"Retry-After is waited for":            {"4", []int{503, 503, 204}, patient, 204, 3, "4"},
		"Retry-After beyond the window is not": {"11", []int{503, 204}, patient, 503, 1, "11"},
		"a broken event":                       {"", []int{400, 204}, patient, 400, 1, ""},
		"too many requests":                    {"1", []int{429, 204}, patient, 429, 1, "1"},
		"an error of the publisher's own":      {"", []int{500, 204}, patient, 500, 1, ""},
		"a full store":                         {"", []int{507, 204}, patient, 507, 1, ""},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, answers(tc.retryAfter, tc.publisher...), tc.config)
			got := r.send("POST", "/test-application/events", event("CN=test-application"), "x")
			if got.Status != tc.status || got.Header.Get("Retry-After") != tc.after {
				t.Errorf("got %+v", got)
			}
			if n := len(r.saw()); tc.attempts != 0 && n != tc.attempts || tc.attempts == 0 && (n < 6 || n > 30) {
				t.Errorf("%d attempts", n)
			}
			for _, s := range r.saw()[1:] {
				if d := cmp.Diff(r.saw()[0], s); d != "" {
					t.Errorf("a repeat is another request: %s", d)
				}
			}
			if got := r.sum("validator_publisher_retries_total"); got != float64(len(r.saw())-1) {
				t.Errorf("%v repeats counted, %d seen", got, len(r.saw())-1)
			}
			if n := len(r.audit()); n != 1 {
				t.Errorf("%d audit lines", n)
			}
		})
	}
}

func TestALegacyEventHasOneIDInAllAttempts(t *testing.T) {
	r := newRig(t, answers("", 0, 503, 200), patient)
	h := http.Header{"Content-Type": {"application/json"}, "X-Forwarded-Client-Cert": {xfcc("CN=test-application")}}
	if got := r.send("POST", "/test-application/v1/events", h, `{"event-type":"a"}`); got.Status != 200 {
		t.Fatalf("got %+v", got)
	}
	id := regexp.MustCompile(`^{"event-id":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}","event-type":"a"}$`)
	if len(r.saw()) != 3 || !id.MatchString(r.saw()[0].Body) || r.saw()[0].Body != r.saw()[2].Body || r.saw()[0].Body != r.saw()[1].Body {
		t.Errorf("the publisher saw %+v", r.saw())
	}
}

func batch(ids ...string) string {
	var all []json.RawMessage
	for _, id := range ids {
		all = append(all, json.RawMessage(`{"specversion":"1.0","id":"`+id+`","source":"test-application","type":"t"}`))
	}
	text, _ := json.Marshal(all)
	return string(text)
}

func batched(client string) http.Header {
	return http.Header{
		"Content-Type": {"application/cloudevents-batch+json"}, "X-Forwarded-Client-Cert": {xfcc(client)}, "Ce-Source": {"victim"}, "User-Agent": {"shop/1"},
		"X-Verified-Application": {"victim"}, "Te": {"trailers"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Authorization": {"Bearer x"},
	}
}

func TestABatchIsSentEventByEvent(t *testing.T) {
	r := newRig(t, nil, patient)
	got := r.send("POST", "/test-application/v2/events", batched("CN=test-application"), batch("a", "b"))
	if got.Status != 204 || got.Body != "" {
		t.Fatalf("got %+v", got)
	}
	var want []seen
	for _, id := range []string{"a", "b"} {
		body := `{"specversion":"1.0","id":"` + id + `","source":"test-application","type":"t"}`
		want = append(want, seen{Method: "POST", Target: "/publish", Host: r.publisher.Listener.Addr().String(), Header: http.Header{
			"Content-Type": {"application/cloudevents+json"}, "Content-Length": {strconv.Itoa(len(body))}, "X-Verified-Application": {"test-application"}, "X-Verified-Certificate": {certHash},
			"X-Forwarded-For": {"127.0.0.1"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "User-Agent": {"shop/1"}, "Accept-Encoding": {"gzip"},
		}, Body: body})
	}
	if d := cmp.Diff(want, r.saw()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := r.send("POST", "/test-application/events", batched("CN=test-application"), "[]"); got.Status != 204 || len(r.saw()) != 2 {
		t.Errorf("an empty batch: %+v", got)
	}
	for _, line := range r.audit() {
		if line["reason"] != "delivered" {
			t.Errorf("audit: %v", line)
		}
	}
}

func TestABatchThatIsNotTakenWholeIsA503ThatNamesTheRest(t *testing.T) {
	type untaken struct {
		Index      int
		Source, ID string
		Status     int
	}
	for what, tc := range map[string]struct {
		publisher []int
		sent      int
		want      []untaken
	}{
		"one is refused, the others are taken":  {[]int{204, 400, 204}, 3, []untaken{{1, "test-application", "b", 400}}},
		"the publisher goes away in the middle": {[]int{204, 0}, 6, []untaken{{1, "test-application", "b", 0}, {2, "test-application", "c", 0}}},
		"it wants to be left alone":             {[]int{429}, 1, []untaken{{0, "test-application", "a", 429}, {1, "test-application", "b", 0}, {2, "test-application", "c", 0}}},
		"it comes back":                         {[]int{503, 204, 0, 204, 500}, 5, []untaken{{2, "test-application", "c", 500}}},
		"a redirect is no receipt":              {[]int{302, 204}, 3, []untaken{{0, "test-application", "a", 302}}},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, answers("", tc.publisher...), func(c *proxy.Config) { patient(c); c.Attempts = 5 })
			got := r.send("POST", "/test-application/events", batched("CN=test-application"), batch("a", "b", "c"))
			var body struct {
				Code     int
				Error    string
				NotTaken []untaken
			}
			if err := json.Unmarshal([]byte(got.Body), &body); err != nil || got.Status != 503 || body.Code != 503 || got.Header.Get("Retry-After") != "5" || got.Header.Get("Content-Type") != jsonType {
				t.Fatalf("got %+v, %v", got, err)
			}
			if d := cmp.Diff(tc.want, body.NotTaken); d != "" {
				t.Errorf("not taken (-want +got)\n%s", d)
			}
			if len(r.saw()) != tc.sent {
				t.Errorf("%d requests to the publisher, want %d", len(r.saw()), tc.sent)
			}
			documented(t, "batch_incomplete", "strict", 503)
			if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "batch_incomplete" || audit[0]["detail"] == nil {
				t.Errorf("audit: %v", audit)
			}
		})
	}
}

func TestAnAnswerToABatchsEventThatBreaksOffIsNoReceipt(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}, patient)
	if got := r.send("POST", "/test-application/events", batched("CN=test-application"), batch("a")); got.Status != 503 {
		t.Errorf("got %+v", got)
	}
}

func TestABatchIsRefusedWholeBeforeAnythingIsSent(t *testing.T) {
	foreign := `[{"specversion":"1.0","id":"a","source":"test-application","type":"t"},{"specversion":"1.0","id":"b","source":"victim","type":"t"}]`
	for what, tc := range map[string]struct {
		body   string
		policy proxy.SourcePolicy
		status int
		reason string
	}{
		"a broken event":            {`[{"specversion":"1.0","id":"a","source":"test-application","type":"t"},{}]`, proxy.SourceOff, 400, "not_a_cloudevent"},
		"no array":                  {`{}`, proxy.SourceOff, 400, "not_a_cloudevent"},
		"another source, enforced":  {foreign, proxy.SourceEnforce, 403, "source"},
		"another source, rewritten": {foreign, proxy.SourceRewrite, 204, "delivered"},
		"another source, warned of": {foreign, proxy.SourceWarn, 204, "delivered"},
	} {
		for _, mode := range []string{"strict", "compatible"} {
			t.Run(what+", "+mode, func(t *testing.T) {
				r := newRig(t, nil, func(c *proxy.Config) { patient(c); c.SourcePolicy, c.Compatible = tc.policy, mode == "compatible" })
				got := r.send("POST", "/test-application/events", batched("CN=test-application"), tc.body)
				if got.Status != tc.status {
					t.Errorf("got %+v", got)
				}
				want := 0
				if tc.status == 204 {
					want = 2
				}
				if len(r.saw()) != want {
					t.Errorf("the publisher saw %+v", r.saw())
				}
				for _, s := range r.saw() {
					var e struct{ Source string }
					if err := json.Unmarshal([]byte(s.Body), &e); err != nil || tc.policy == proxy.SourceRewrite && e.Source != "test-application" {
						t.Errorf("the publisher saw %+v, %v", s, err)
					}
				}
				if audit := r.audit(); len(audit) != 1 || audit[0]["reason"] != tc.reason {
					t.Errorf("audit: %v", audit)
				}
			})
		}
	}
}
