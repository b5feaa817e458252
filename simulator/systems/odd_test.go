package systems_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/simulator/systems"
)

func TestRedirectsLeadWhereTheyAreToldTo(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	for query, want := range map[string]answer{
		"301?to=/a/b%3Fc":             {Status: 301, Body: "/a/b?c"},
		"308?to=https://other.test/x": {Status: 308, Body: "https://other.test/x"},
		"302":                         {Status: 400},
		"200?to=/":                    {Status: 400},
		"x?to=/":                      {Status: 400},
	} {
		got := c.do("GET", s.HTTPURL()+"/redirect/"+query, nil, "")
		if got.Status != want.Status || got.header.Get("Location") != want.Body {
			t.Errorf("%s: %d to %q", query, got.Status, got.header.Get("Location"))
		}
	}
}

func TestSlowAnswersAndStreamsGoByTheClock(t *testing.T) {
	for path, want := range map[string][]string{
		"/slow?delay=1h&chunks=3&interval=1h": {"chunk 1", "chunk 2", "chunk 3"},
		"/sse?count=2&interval=1h":            {"id: 1", "event: tick", `data: {"n":1}`, "", "id: 2", "event: tick", `data: {"n":2}`, ""},
	} {
		clock := clocktesting.NewFakeClock(time.Now())
		o := options()
		o.Clock = clock
		s := start(t, o)
		c := client(t, s)
		stepping, stop := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() { // time passes whenever the server waits for it
			defer close(stopped)
			for stepping.Err() == nil {
				if clock.HasWaiters() {
					clock.Step(time.Hour)
				}
				time.Sleep(time.Millisecond)
			}
		}()
		before := clock.Now()
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.HTTPURL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			got = append(got, lines.Text())
		}
		resp.Body.Close()
		stop()
		<-stopped
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
		if clock.Since(before) < time.Hour {
			t.Errorf("%s did not wait", path)
		}
	}
	s := start(t, options())
	c := client(t, s)
	for _, path := range []string{"/slow?delay=2h", "/slow?delay=x", "/slow?chunks=-1", "/slow?interval=-1s", "/sse?count=x", "/large/x", "/large/-1"} {
		if got := c.do("GET", s.HTTPURL()+path, nil, ""); got.Status != 400 {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestLargeBodiesHaveTheSizeThatWasAskedFor(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	for size, want := range map[string]int{"0": 0, "1": 1, "3000000": 3_000_000} {
		got := c.do("GET", s.HTTPURL()+"/large/"+size, nil, "")
		if got.Status != 200 || len(got.Body) != want || got.header.Get("Content-Length") != size || !strings.HasPrefix("abcdef", got.Body[:min(3, want)]) {
			t.Errorf("%s: %d, %d bytes", size, got.Status, len(got.Body))
		}
	}
}

func TestWebSocketsEchoAndEndWithTheServer(t *testing.T) {
	s := start(t, options())
	c := client(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, s.HTTPSURL()+"/websocket", &websocket.DialOptions{HTTPClient: &http.Client{Transport: c.http.Transport}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("got %s", resp.Status)
	}
	defer conn.CloseNow()
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		if err := conn.Write(ctx, kind, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		gotKind, got, err := conn.Read(ctx)
		if err != nil || gotKind != kind || string(got) != "hello" {
			t.Errorf("got %v %q, %v", gotKind, got, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, got, err := conn.Read(ctx); err == nil {
		t.Errorf("after close: %q", got)
	}
	if ctx.Err() != nil {
		t.Error("the connection stayed open after close")
	}
}

func TestTheReferencePageListsExactlyTheEndpoints(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/simulator-systems.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []systems.Route
	for _, row := range regexp.MustCompile("(?m)^\\| ([A-Za-z]+) \\| `([^`]+)` \\| ([a-z, ]+) \\|").FindAllStringSubmatch(string(page), -1) {
		r := systems.Route{Method: row[1], Path: row[2]}
		for l := range strings.SplitSeq(row[3], ", ") {
			r.Listeners = append(r.Listeners, systems.Listener(l))
		}
		documented = append(documented, r)
	}
	if d := cmp.Diff(start(t, options()).Routes(), documented); d != "" {
		t.Errorf("routes (-code +page):\n%s", d)
	}
}
