package eventing_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/simulator/eventing"
	"github.com/application-connector/application-connector/simulator/listener"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o eventing.Options) *eventing.Server {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	s, err := eventing.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

type answer struct {
	Status int
	Body   string
}

func call(t *testing.T, method, url string, header map[string]string, body string) answer {
	t.Helper()
	got, err := try(t.Context(), method, url, header, body)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func try(ctx context.Context, method, url string, header map[string]string, body string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range header {
		request.Header.Set(k, v)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text)}, err
}

func binary(id string) map[string]string {
	return map[string]string{
		"Ce-Specversion": "1.0", "Ce-Type": "order.created.v1", "Ce-Source": "shop", "Ce-Id": id,
		"Content-Type": "application/json",
	}
}

// seen is what a test compares of a stored event: all but the time stamps.
type seen struct {
	Sequence                  uint64
	Subject, Source, Type, ID string
	DataContentType, Data     string
	Extensions                map[string]any
}

func stored(t *testing.T, s *eventing.Server, f eventing.Filter) []seen {
	t.Helper()
	events, err := s.Events(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var out []seen
	for _, e := range events {
		if e.StoredAt.IsZero() {
			t.Errorf("event %d has no time stamp", e.Sequence)
		}
		x := seen{e.Sequence, e.Subject, e.Event.Source(), e.Event.Type(), e.Event.ID(), e.Event.DataContentType(), string(e.Event.Data()), e.Event.Extensions()}
		if len(x.Extensions) == 0 {
			x.Extensions = nil
		}
		out = append(out, x)
	}
	return out
}

func TestCloudEventsAreStoredInEveryModeAndReadBackAsTheyCame(t *testing.T) {
	s := start(t, eventing.Options{})
	structured := `{"specversion":"1.0","type":"order.created.v1","source":"shop","id":"s-1","datacontenttype":"application/json","data":{"n":2},"extra":"x"}`
	traced := binary("b-2")
	traced["Traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	traced["X-B3-TraceId"] = "0af7651916cd43dd"
	text := binary("b-3")
	text["Content-Type"], text["Ce-Source"], text["Ce-Type"] = "text/plain", "/my.shop/eu", "order/shipped* v1"
	for name, c := range map[string]struct {
		header map[string]string
		body   string
	}{
		"1 binary":     {binary("b-1"), `{"n":1}`},
		"2 structured": {map[string]string{"Content-Type": "application/cloudevents+json"}, structured},
		"3 traced":     {traced, `{"n":3}`},
		"4 odd":        {text, `hello`},
	} {
		if got := call(t, "POST", s.URL()+"/publish", c.header, c.body); got != (answer{204, ""}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	got := map[string]seen{}
	for _, e := range stored(t, s, eventing.Filter{}) {
		e.Sequence = 0 // the map above is published in any order
		got[e.ID] = e
	}
	want := map[string]seen{
		"b-1": {0, "kyma.shop.order.created.v1", "shop", "order.created.v1", "b-1", "application/json", `{"n":1}`, nil},
		"s-1": {0, "kyma.shop.order.created.v1", "shop", "order.created.v1", "s-1", "application/json", `{"n":2}`, map[string]any{"extra": "x"}},
		"b-2": {0, "kyma.shop.order.created.v1", "shop", "order.created.v1", "b-2", "application/json", `{"n":3}`,
			map[string]any{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "b3traceid": "0af7651916cd43dd"}},
		"b-3": {0, "kyma.myshopeu.ordershippedv1", "/my.shop/eu", "order/shipped* v1", "b-3", "text/plain", `hello`, nil},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

func TestWhatIsNoCloudEventIsRefusedWithTheReason(t *testing.T) {
	s := start(t, eventing.Options{MaxRequestBytes: 1000})
	without := func(field string) map[string]string {
		h := binary("1")
		delete(h, field)
		return h
	}
	with := func(field, value string) map[string]string {
		h := binary("1")
		h[field] = value
		return h
	}
	structured := map[string]string{"Content-Type": "application/cloudevents+json"}
	for name, c := range map[string]struct {
		header map[string]string
		body   string
		want   answer
	}{
		"no event at all":        {map[string]string{"Content-Type": "application/json"}, `{}`, answer{400, "unknown Message encoding"}},
		"no id":                  {without("Ce-Id"), `{}`, answer{400, "id: MUST be a non-empty string\n"}},
		"no source":              {without("Ce-Source"), `{}`, answer{400, "source: REQUIRED\n"}},
		"no type":                {without("Ce-Type"), `{}`, answer{400, "type: MUST be a non-empty string\n"}},
		"type of empty segments": {with("Ce-Type", "order..v1"), `{}`, answer{400, "event type cannot have empty segments after cleaning: kyma.shop.order..v1"}},
		"source cleaned away":    {with("Ce-Source", "/"), `{}`, answer{400, "event type cannot have empty segments after cleaning: kyma..order.created.v1"}},
		"JSON that is none":      {binary("1"), `{`, answer{400, ""}},
		"binary body too large":  {binary("1"), `"` + strings.Repeat("x", 1000) + `"`, answer{400, "http: request body too large"}},
		"broken structured":      {structured, `{"specversion":"1.0"`, answer{400, ""}},
	} {
		got := call(t, "POST", s.URL()+"/publish", c.header, c.body)
		if name == "broken structured" && got.Status == 400 && got.Body != "" {
			continue // the text is the JSON parser's
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if got := stored(t, s, eventing.Filter{}); got != nil {
		t.Errorf("stored %v", got)
	}
}

func TestLegacyEventsBecomeCloudEventsOfTheApplicationInThePath(t *testing.T) {
	s := start(t, eventing.Options{})
	const id = "31109198-4d69-4ae0-972d-76117f3748c8"
	body := `{"event-type":"order.created","event-type-version":"v1","event-id":"` + id + `","event-time":"2026-11-02T22:33:22Z","data":{"n":1}}`
	if got := call(t, "POST", s.URL()+"/shop/v1/events", map[string]string{"Content-Type": "application/json"}, body); got != (answer{200, `{"event-id":"` + id + `","status":"","reason":""}` + "\n"}) {
		t.Errorf("got %v", got)
	}
	want := []seen{{1, "kyma.shop.order.created.v1", "shop", "order.created.v1", id, "application/json", `{"n":1}`, map[string]any{"eventtypeversion": "v1"}}}
	if d := cmp.Diff(want, stored(t, s, eventing.Filter{})); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
	got := call(t, "POST", s.URL()+"/shop/v1/events", nil, strings.Replace(body, `"event-id":"`+id+`",`, "", 1))
	var reply struct {
		ID string `json:"event-id"`
	}
	if err := json.Unmarshal([]byte(got.Body), &reply); err != nil || len(reply.ID) != 36 || got.Status != 200 {
		t.Errorf("without an id: %v, want a new UUID", got)
	}
}

func TestLegacyEventsThatAreWrongNameTheField(t *testing.T) {
	s := start(t, eventing.Options{MaxRequestBytes: 1000})
	event := func(change map[string]any) string {
		e := map[string]any{"event-type": "order.created", "event-type-version": "v1", "event-time": "2026-11-02T22:33:22Z", "data": "x"}
		for k, v := range change {
			e[k] = v
			if v == nil {
				delete(e, k)
			}
		}
		text, _ := json.Marshal(e)
		return string(text)
	}
	field := func(name, typ, message string) string {
		return `{"status":400,"type":"validation_violation","message":"` + message + `","moreInfo":"","details":[{"field":"` + name + `","type":"` + typ + `","message":"` + message + `","moreInfo":""}]}`
	}
	for name, c := range map[string]struct {
		body string
		want answer
	}{
		"no body":        {"", answer{400, `{"status":400,"type":"bad_payload_syntax","message":"Bad payload syntax","moreInfo":"Bad payload syntax","details":null}`}},
		"no JSON":        {"{", answer{400, `{"status":400,"type":"bad_payload_syntax","message":"Bad payload syntax","moreInfo":"unexpected EOF","details":null}`}},
		"too large":      {event(map[string]any{"data": strings.Repeat("x", 1000)}), answer{413, `{"status":413,"type":"request_body_too_large","message":"Request body too large","moreInfo":"http: request body too large","details":null}`}},
		"no type":        {event(map[string]any{"event-type": nil}), answer{400, field("event-type", "missing_field", "Missing field")}},
		"no version":     {event(map[string]any{"event-type-version": nil}), answer{400, field("event-type-version", "missing_field", "Missing field")}},
		"wrong version":  {event(map[string]any{"event-type-version": "#"}), answer{400, field("event-type-version", "invalid_field", "Invalid field")}},
		"no time":        {event(map[string]any{"event-time": nil}), answer{400, field("event-time", "missing_field", "Missing field")}},
		"wrong time":     {event(map[string]any{"event-time": "yesterday"}), answer{400, field("event-time", "invalid_field", "Invalid field")}},
		"wrong id":       {event(map[string]any{"event-id": "7"}), answer{400, field("event-id", "invalid_field", "Invalid field")}},
		"no data":        {event(map[string]any{"data": nil}), answer{400, field("data", "missing_field", "Missing field")}},
		"empty data":     {event(map[string]any{"data": ""}), answer{400, field("data", "missing_field", "Missing field")}},
		"empty segments": {event(map[string]any{"event-type": "."}), answer{400, `{"status":400,"type":"bad_payload_syntax","message":"Bad payload syntax","moreInfo":"event type cannot have empty segments after cleaning: kyma.shop...v1","details":null}`}},
	} {
		c.want.Body += "\n"
		if d := cmp.Diff(c.want, call(t, "POST", s.URL()+"/shop/v1/events", nil, c.body)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if got := stored(t, s, eventing.Filter{}); got != nil {
		t.Errorf("stored %v", got)
	}
}

func TestTheSameEventIsStoredOnceAndTheSameIDOfAnotherSourceIsAnotherEvent(t *testing.T) {
	s := start(t, eventing.Options{})
	other := binary("1")
	other["Ce-Source"] = "till"
	for _, h := range []map[string]string{binary("1"), binary("1"), other, binary("2"), other} {
		if got := call(t, "POST", s.URL()+"/publish", h, `{}`); got.Status != 204 {
			t.Errorf("got %v", got)
		}
	}
	var got []string
	for _, e := range stored(t, s, eventing.Filter{}) {
		got = append(got, e.Source+" "+e.ID)
	}
	if d := cmp.Diff([]string{"shop 1", "till 1", "shop 2"}, got); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

func TestEventsSurviveARestartAndStillCountAsSeen(t *testing.T) {
	dir := t.TempDir()
	first := start(t, eventing.Options{StateDir: dir})
	call(t, "POST", first.URL()+"/publish", binary("1"), `{}`)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, eventing.Options{StateDir: dir})
	call(t, "POST", second.URL()+"/publish", binary("1"), `{}`)
	call(t, "POST", second.URL()+"/publish", binary("2"), `{}`)
	var got []string
	for _, e := range stored(t, second, eventing.Filter{}) {
		got = append(got, e.ID)
	}
	if d := cmp.Diff([]string{"1", "2"}, got); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

func TestEventsAreSelectedBySourceTypeNumberAndLimit(t *testing.T) {
	s := start(t, eventing.Options{})
	for _, e := range [][3]string{{"shop", "order.created.v1", "1"}, {"sho p", "order.created.v1", "2"}, {"till", "order.created.v1", "3"}, {"shop", "order.paid.v1", "4"}, {"shop", "order.created.v1", "5"}} {
		h := binary(e[2])
		h["Ce-Source"], h["Ce-Type"] = e[0], e[1]
		if got := call(t, "POST", s.URL()+"/publish", h, `{}`); got.Status != 204 {
			t.Fatalf("%v: %v", e, got)
		}
	}
	for query, want := range map[string][]string{
		"":                                {"1", "2", "3", "4", "5"},
		"?source=shop":                    {"1", "4", "5"},
		"?type=order.created.v1":          {"1", "2", "3", "5"},
		"?source=shop&type=order.paid.v1": {"4"},
		"?after=3":                        {"4", "5"},
		"?after=5":                        nil,
		"?limit=2":                        {"1", "2"},
		"?source=shop&after=1&limit=1":    {"4"},
		"?source=nobody":                  nil,
		"?source=%2F":                     nil,
		"?type=a..b":                      nil,
		"?type=order.*.v1":                nil,
	} {
		got := call(t, "GET", s.URL()+"/events"+query, nil, "")
		var body struct {
			Events []struct {
				Event cloudevents.Event `json:"event"`
			} `json:"events"`
		}
		if err := json.Unmarshal([]byte(got.Body), &body); err != nil || body.Events == nil {
			t.Errorf("%q: %v: %v", query, err, got)
		}
		var ids []string
		for _, e := range body.Events {
			ids = append(ids, e.Event.ID())
		}
		if d := cmp.Diff(want, ids); d != "" {
			t.Errorf("%q (-want +got):\n%s", query, d)
		}
	}
	if got := call(t, "GET", s.URL()+"/events?after=x", nil, ""); got != (answer{400, "query parameter after is \"x\", must be a whole number\n"}) {
		t.Errorf("got %v", got)
	}
}

func TestASubscriberGetsWhatIsStoredAndThenWhatComes(t *testing.T) {
	s := start(t, eventing.Options{})
	call(t, "POST", s.URL()+"/publish", binary("1"), `{}`)
	sub, err := s.Subscribe(t.Context(), eventing.Filter{Source: "shop", Type: "order.created.v1"})
	if err != nil {
		t.Fatal(err)
	}
	other := binary("2")
	other["Ce-Source"] = "till"
	call(t, "POST", s.URL()+"/publish", other, `{}`)
	call(t, "POST", s.URL()+"/publish", binary("3"), `{}`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, want := range []string{"1", "3"} {
		got, err := sub.Next(ctx)
		if err != nil || got.Event.ID() != want {
			t.Fatalf("got %v, %v, want %s", got, err, want)
		}
	}
	if got := call(t, "GET", s.URL()+"/shop/v1/events/subscribed", nil, ""); got != (answer{200, `{"eventsInfo":[{"name":"order.created","version":"v1"}]}` + "\n"}) {
		t.Errorf("subscribed: %v", got)
	}
	sub.Close()
	if _, err := sub.Next(ctx); !errors.Is(err, eventing.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if got := call(t, "GET", s.URL()+"/shop/v1/events/subscribed", nil, ""); got != (answer{200, `{"eventsInfo":[]}` + "\n"}) {
		t.Errorf("subscribed after close: %v", got)
	}
}

func TestClosingTheServerEndsSubscribersThatWait(t *testing.T) {
	s := start(t, eventing.Options{})
	sub, err := s.Subscribe(t.Context(), eventing.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := sub.Next(context.Background())
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, eventing.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestFaultsAffectThePublisherAndNotTheReadingBack(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := start(t, eventing.Options{Clock: clock})
	publish := s.URL() + "/publish"

	s.SetFault(eventing.Fault{Down: true})
	if got, err := try(t.Context(), "POST", publish, binary("1"), `{}`); err == nil {
		t.Errorf("down: got %v", got)
	}
	s.SetFault(eventing.Fault{Status: 503, Body: "later", RetryAfter: "7", Times: 2})
	for range 2 {
		if got := call(t, "POST", publish, binary("2"), `{}`); got != (answer{503, "later"}) {
			t.Errorf("503: got %v", got)
		}
	}
	if got := call(t, "POST", publish, binary("3"), `{}`); got.Status != 204 {
		t.Errorf("after two times: got %v", got)
	}
	s.SetFault(eventing.Fault{Delay: time.Hour, Times: 1})
	done := make(chan answer, 1)
	go func() {
		got, _ := try(context.Background(), "POST", publish, binary("4"), `{}`)
		done <- got
	}()
	for !clock.HasWaiters() {
		if t.Context().Err() != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
	clock.Step(time.Hour)
	if got := <-done; got.Status != 204 {
		t.Errorf("slow: got %v", got)
	}
	s.SetFault(eventing.Fault{Down: true})
	if got := call(t, "GET", s.URL()+"/events", nil, ""); got.Status != 200 || !strings.Contains(got.Body, `"id": "4"`) {
		t.Errorf("reading back: got %v", got)
	}
}

func TestHealthEndpointsAnswerAnyMethod(t *testing.T) {
	s := start(t, eventing.Options{})
	for _, path := range []string{"/healthz", "/readyz"} {
		for _, method := range []string{"GET", "POST"} {
			if got := call(t, method, s.URL()+path, nil, ""); got != (answer{200, ""}) {
				t.Errorf("%s %s: %v", method, path, got)
			}
		}
	}
	if got := call(t, "GET", s.URL()+"/publish", nil, ""); got.Status != 405 {
		t.Errorf("GET /publish: %v", got)
	}
}

func TestATakenPortIsNamedAndNothingIsLeftBehind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = eventing.Start(t.Context(), eventing.Options{Address: l.Addr().String(), StateDir: dir})
	var taken *listener.Error
	if !errors.As(err, &taken) || taken.Option != "Address" || taken.Address != l.Addr().String() {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestAStateDirThatCannotBeWrittenIsAnError(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := eventing.Start(t.Context(), eventing.Options{Address: "127.0.0.1:0", StateDir: file})
	if err == nil {
		s.Close()
		t.Fatal("started")
	}
	if !strings.Contains(err.Error(), file) {
		t.Errorf("%v does not name the folder", err)
	}
}

func TestTheServerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := eventing.Start(ctx, eventing.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Close(); err != nil { // waits for the end that cancel began
		t.Error(err)
	}
	if _, err := try(t.Context(), "GET", s.URL()+"/healthz", nil, ""); err == nil {
		t.Error("still answers")
	}
}
