package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// timing is how long something takes for which there is a time that it must not exceed. Tests, which run with the race
// detector, bound it by ten times as long.
type timing struct {
	Name  string  `json:"name"`
	Runs  int     `json:"runs"`
	P50   float64 `json:"p50Milliseconds"`
	P99   float64 `json:"p99Milliseconds"`
	Most  float64 `json:"mostMilliseconds"`
	Bound float64 `json:"boundMilliseconds"`
}

func newTiming(name string, times []time.Duration, bound time.Duration) timing {
	times = slices.Sorted(slices.Values(times))
	milliseconds := func(d time.Duration) float64 { return thousandth(float64(d) / float64(time.Millisecond)) }
	return timing{name, len(times), milliseconds(percentile(times, 50)), milliseconds(percentile(times, 99)), milliseconds(times[len(times)-1]), milliseconds(bound)}
}

// timed says, for each case of the acceptance tests that has a bound in time, how long the gateway as it is built takes.
func (s *stage) timed() []timing {
	s.b.Helper()
	const runs = 100
	h := *s.h
	h.addresses.Services = s.contestants["gateway"].address("")
	arrived, left := make(chan struct{}), make(chan time.Time)
	target := http.NewServeMux()
	target.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- time.Now()
	})
	target.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	target.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, text, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	})
	target.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(target)
	defer server.Close()
	h.secret("timed", map[string]string{"username": "u", "password": "p"})
	spec := v1alpha1.ApplicationSpec{}
	const cold = 25 // APIs that were never called
	for i := range cold + 1 {
		spec.Services = append(spec.Services, api(fmt.Sprint("svc-", i), server.URL, with("Basic", "timed", "")))
	}
	apply := func(name string, spec v1alpha1.ApplicationSpec) {
		h.applied(name, spec)
		h.eventually("the gateway knows "+name, func() error {
			a := h.get("/" + name + "/" + spec.Services[len(spec.Services)-1].Name)
			return expect(a.Status == http.StatusOK, "%+v", a)
		})
	}
	apply("timed", spec)
	last := fmt.Sprintf("/timed/svc-%d", cold)
	list := []timing{
		newTiming("11 caller leaves, target knows", repeat(runs, func() time.Duration { return s.leave(&h, last+"/wait", arrived, left) }), 100*time.Millisecond),
		newTiming("12 first event of a stream", repeat(runs, func() time.Duration { return s.firstEvent(&h, last+"/events") }), 50*time.Millisecond),
		newTiming("12 WebSocket, there and back", s.echoes(&h, last+"/socket", runs), 50*time.Millisecond),
	}
	next := 0
	list = append(list, newTiming("14 cold API, 60 unknown names", repeat(cold, func() time.Duration { next++; return coldCall(&h, fmt.Sprintf("/timed/svc-%d", next-1)) }), 50*time.Millisecond))
	r := rotate(&h, runs, apply)
	return append(list, newTiming(fmt.Sprintf("18 rotated Secret in force, %.0f calls/s", r.perSecond), r.times, time.Second))
}

func repeat(n int, once func() time.Duration) []time.Duration {
	var times []time.Duration
	for range n {
		times = append(times, once())
	}
	return times
}

// leave makes a call, and says how long after its caller has left the target knows.
func (s *stage) leave(h *harness, path string, arrived <-chan struct{}, left <-chan time.Time) time.Duration {
	ctx, leave := context.WithCancel(s.b.Context())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.addresses.Services+path, nil)
	if err != nil {
		s.b.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if response, err := h.http.Do(request); err == nil {
			response.Body.Close()
			s.b.Error("an answer came")
		}
	})
	<-arrived
	begin := time.Now()
	leave()
	return (<-left).Sub(begin)
}

// firstEvent says how long it takes from the beginning of a call until its first event is there.
func (s *stage) firstEvent(h *harness, path string) time.Duration {
	begin := time.Now()
	response, err := h.http.Get("http://" + h.addresses.Services + path)
	if err != nil {
		s.b.Fatal(err)
	}
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil || line != "data: 1\n" {
		s.b.Fatalf("%q %v", line, err)
	}
	return time.Since(begin)
}

// echoes says how long messages of a WebSocket take to the target and back.
func (s *stage) echoes(h *harness, path string, runs int) []time.Duration {
	ctx := s.b.Context()
	conn, _, err := websocket.Dial(ctx, "ws://"+h.addresses.Services+path, nil)
	if err != nil {
		s.b.Fatal(err)
	}
	defer conn.CloseNow()
	return repeat(runs, func() time.Duration {
		begin := time.Now()
		if err := conn.Write(ctx, websocket.MessageText, []byte("message")); err != nil {
			s.b.Fatal(err)
		}
		if _, got, err := conn.Read(ctx); err != nil || string(got) != "message" {
			s.b.Fatalf("%q %v", got, err)
		}
		return time.Since(begin)
	})
}

// coldCall says how long a call takes among 60 of Applications that there are none.
func coldCall(h *harness, path string) time.Duration {
	h.t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 60 {
		wg.Go(func() {
			if a, err := h.try(http.MethodGet, h.addresses.Services, fmt.Sprintf("/unknown-%d/svc", i), nil); err != nil || a.Status != http.StatusNotFound {
				h.t.Errorf("%+v %v", a, err)
			}
		})
	}
	begin := time.Now()
	a, err := h.try(http.MethodGet, h.addresses.Services, path, nil)
	if err != nil || a.Status != http.StatusOK {
		h.t.Errorf("%+v %v", a, err)
	}
	return time.Since(begin)
}

// writeTimings writes a table, its columns ended by tabs.
func writeTimings(w io.Writer, timings []timing) {
	fmt.Fprintln(w, "acceptance times\truns\tp50 ms\tp99 ms\tmost\t| may be\t")
	for _, t := range timings {
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%.2f\t| %.0f\t\n", strings.TrimSpace(t.Name), t.Runs, t.P50, t.P99, t.Most, t.Bound)
	}
}
