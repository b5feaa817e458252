package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/gateway/proxy"
)

// lines are connections to a target that can break without the gateway noticing, until it next writes: as when the target has
// closed one that was kept, and its word of that is still under way.
type lines struct {
	dials  atomic.Int64
	broken atomic.Int64 // the first so many connections are
}

type line struct {
	net.Conn
	number int64
	lines  *lines
}

func (l *line) Write(p []byte) (int, error) {
	if l.number <= l.lines.broken.Load() {
		return 0, syscall.EPIPE
	}
	return l.Conn.Write(p)
}

func (l *lines) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &line{conn, l.dials.Add(1), l}, nil
}

// TestACallOnADeadConnectionIsSentAnewOnceIfItMayBe has a first call make a connection that is kept, and a second one find it
// dead: before anything of it was sent, or after the target has read it.
func TestACallOnADeadConnectionIsSentAnewOnceIfItMayBe(t *testing.T) {
	small := strings.Repeat("s", 4<<10)
	const gone = 502
	for name, c := range map[string]struct {
		method string
		body   string
		header []string
		// unsent and sent are the statuses that the caller gets, after the connection broke before and after sending.
		unsent, sent int
	}{
		"GET":                              {http.MethodGet, "", nil, 200, 200},
		"GET with a body":                  {http.MethodGet, "x", nil, 200, 200},
		"POST without a body":              {http.MethodPost, "", nil, 200, gone},
		"POST":                             {http.MethodPost, "x", nil, 200, gone},
		"POST of what is just small":       {http.MethodPost, small, nil, 200, gone},
		"POST of what is streamed":         {http.MethodPost, small + "s", nil, gone, gone},
		"DELETE":                           {http.MethodDelete, "", nil, 200, gone},
		"PATCH":                            {http.MethodPatch, "x", nil, 200, gone},
		"POST with an idempotency key":     {http.MethodPost, "x", []string{"Idempotency-Key", "k"}, 200, 200},
		"a stream with an idempotency key": {http.MethodPost, small + "s", []string{"Idempotency-Key", "k"}, gone, gone},
	} {
		// call gives the caller's answer, what the target saw, and how many connections were made.
		call := func(t *testing.T, breaks bool, broken int64) (answer, []string, int64) {
			r := newRig(t)
			var seen calls
			target := r.target(func(w http.ResponseWriter, q *http.Request) {
				body, err := io.ReadAll(q.Body)
				if err != nil {
					t.Error(err)
				}
				if seen.add(q.Method+" "+string(body)) == 2 && breaks {
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(w, "taken")
			})
			r.application("app", nil, entry("svc", target.URL))
			route, err := r.snapshot.Load().Service("app", "svc")
			if err != nil {
				t.Fatal(err)
			}
			kept := &lines{}
			r.pool.For(proxy.Connection(route, nil)).DialContext = kept.dial
			if a := r.get("/app/svc"); a.Status != 200 || kept.dials.Load() != 1 {
				t.Fatalf("the first call: %+v on %d connections", a, kept.dials.Load())
			}
			kept.broken.Store(broken)
			a := r.do(c.method, "/app/svc", strings.NewReader(c.body), c.header...)
			return a, seen.seen()[1:], kept.dials.Load()
		}
		check := func(t *testing.T, got answer, status int, seen []string, times int, dials, wantDials int64) {
			t.Helper()
			if got.Status != status || status == 200 && got.Body != "taken" {
				t.Errorf("the caller got %d %q, want %d", got.Status, got.Body, status)
			}
			want := []string{}
			for range times {
				want = append(want, c.method+" "+c.body)
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("the target saw (-want +got):\n%s", diff)
			}
			if dials != wantDials {
				t.Errorf("%d connections, want %d", dials, wantDials)
			}
		}
		t.Run(name+", dead before it", func(t *testing.T) {
			got, seen, dials := call(t, false, 1)
			if c.unsent == 200 {
				check(t, got, 200, seen, 1, dials, 2)
			} else {
				check(t, got, gone, seen, 0, dials, 1)
			}
		})
		t.Run(name+", and so is the next one", func(t *testing.T) {
			got, seen, dials := call(t, false, 2)
			if c.unsent == 200 {
				check(t, got, gone, seen, 0, dials, 2)
			} else {
				check(t, got, gone, seen, 0, dials, 1)
			}
		})
		t.Run(name+", dead after it", func(t *testing.T) {
			got, seen, dials := call(t, true, 0)
			if c.sent == 200 {
				check(t, got, 200, seen, 2, dials, 2)
			} else {
				check(t, got, gone, seen, 1, dials, 1)
			}
		})
	}
}
