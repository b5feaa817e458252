package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func theFirstEventOfAStreamArrivesBeforeTheStreamEnds(t *testing.T) {
	r := newRig(t)
	more := make(chan struct{})
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
			fmt.Fprint(w, "data: 2\n\n")
		case <-q.Context().Done():
		}
	})
	r.application("app", nil, entry("svc", target.URL))
	within(t, 50*time.Millisecond, func() time.Duration {
		begin := time.Now()
		response, err := r.client.Get(r.services.URL + "/app/svc")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		reader := bufio.NewReader(response.Body)
		line, err := reader.ReadString('\n')
		took := time.Since(begin)
		if err != nil || line != "data: 1\n" {
			t.Fatalf("%q %v", line, err)
		}
		more <- struct{}{} // only now may the target go on
		rest, err := io.ReadAll(reader)
		if err != nil || string(rest) != "\ndata: 2\n\n" {
			t.Errorf("%q %v", rest, err)
		}
		return took
	})
}

func TestAnEventStreamMayPauseLongerThanTheTimeout(t *testing.T) {
	const timeout = 150 * time.Millisecond
	r := newRig(t, timeouts{target: timeout, request: timeout})
	target := r.target(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(4 * timeout) // the pause is what is tested
		fmt.Fprint(w, "data: 2\n\n")
	})
	r.application("app", nil, entry("svc", target.URL))
	if a := r.get("/app/svc"); a.Body != "data: 1\n\ndata: 2\n\n" {
		t.Errorf("%+v", a)
	}
}

func aRequestBodyReachesTheTargetWhileTheCallerStillSends(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		line, err := bufio.NewReader(q.Body).ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "echo %s", line)
	})
	r.application("app", nil, entry("svc", target.URL))
	// HTTP/2 without TLS: both ways at once.
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	body, send := io.Pipe()
	defer send.Close()
	request, err := http.NewRequest(http.MethodPost, r.services.URL+"/app/svc", body)
	if err != nil {
		t.Fatal(err)
	}
	go fmt.Fprint(send, "hello\n")
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil || line != "echo hello\n" || response.ProtoMajor != 2 {
		t.Errorf("%q %v over HTTP/%d", line, err, response.ProtoMajor)
	}
}

func aWebSocketEchoesBothWays(t *testing.T) {
	r := newRig(t, timeouts{target: 2 * time.Second, request: 2 * time.Second})
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		if user, password, ok := q.BasicAuth(); !ok || user != "u" || password != "p" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		conn, err := websocket.Accept(w, q, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		for {
			kind, text, err := conn.Read(q.Context())
			if err != nil {
				return
			}
			if err := conn.Write(q.Context(), kind, text); err != nil {
				return
			}
		}
	})
	r.secret("basic", "username", "u", "password", "p")
	r.application("app", nil, entryWith("svc", target.URL, "Basic", "basic", ""))
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, r.services.URL+"/app/svc/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		text := fmt.Sprint("message ", i)
		if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		_, got, err := conn.Read(ctx)
		if err != nil || string(got) != text {
			t.Fatalf("%q %v", got, err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if line := r.access(1); line["status"] != float64(http.StatusSwitchingProtocols) {
		t.Errorf("%v", line)
	}
}

func TestTrailersAndInformationalAnswersPass(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.WriteHeader(123)
		w.Header().Set("Trailer", "X-Announced")
		io.WriteString(w, "body")
		w.Header().Set("X-Announced", "a")
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "u")
	})
	r.application("app", nil, entry("svc", target.URL))
	want := streamed{
		early: map[int]http.Header{103: {"Link": {"</style.css>; rel=preload"}}, 123: {}}, status: 200, body: "body",
		trailer: http.Header{"X-Announced": {"a"}, "X-Unannounced": {"u"}},
	}
	if diff := cmp.Diff(want, r.stream("/app/svc"), cmp.AllowUnexported(streamed{})); diff != "" {
		t.Error(diff)
	}
}

// streamed is an answer with what came before and after it.
type streamed struct {
	early   map[int]http.Header
	status  int
	closes  bool
	body    string
	trailer http.Header
}

// stream makes a call and keeps all that comes.
func (r *rig) stream(path string) streamed {
	r.t.Helper()
	var mu sync.Mutex
	got := streamed{early: map[int]http.Header{}}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		mu.Lock()
		defer mu.Unlock()
		got.early[code] = http.Header(header)
		return nil
	}}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodGet, r.services.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	got.status, got.closes, got.body, got.trailer = response.StatusCode, response.Close, string(text), response.Trailer
	return got
}

func TestWhatAHeaderPolicyRemovesIsNeitherInTrailersNorInInformationalAnswers(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"X-Secret", "X-Set", "Link", "Gateway-Error-Reason"} {
			w.Header().Set(name, "early")
		}
		w.WriteHeader(http.StatusEarlyHints)
		clear(w.Header())
		w.Header().Set("Trailer", "X-Secret, X-Announced")
		io.WriteString(w, "body")
		for _, name := range []string{"X-Secret", "X-Announced", http.TrailerPrefix + "X-Secret-Too", http.TrailerPrefix + "X-Set", http.TrailerPrefix + "X-Unannounced"} {
			w.Header().Set(name, "late")
		}
	})
	r.application("app", settings(v1alpha1.TargetSettings{Headers: &v1alpha1.HeaderSettings{
		Response: &v1alpha1.HeaderPolicy{Remove: []string{"X-Secret*"}, Set: []v1alpha1.HeaderField{{Name: "X-Set", Value: "ours"}}},
	}}), entry("svc", target.URL))
	want := streamed{early: map[int]http.Header{103: {"Link": {"early"}}}, status: 200, body: "body", trailer: http.Header{"X-Announced": {"late"}, "X-Unannounced": {"late"}}}
	if diff := cmp.Diff(want, r.stream("/app/svc"), cmp.AllowUnexported(streamed{})); diff != "" {
		t.Error(diff)
	}
	if a := r.get("/app/svc"); a.Header.Get("X-Set") != "ours" {
		t.Errorf("%+v", a)
	}
}

func TestAnAnswerThatClosesTheConnectionDoesSoAfterInformationalOnesToo(t *testing.T) {
	r := newRig(t)
	next := r.services.Config.Handler
	r.services.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Connection", "close") // as the gateway does when it is ending
		next.ServeHTTP(w, q)
	})
	target := r.target(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "body")
	})
	r.application("app", nil, entry("svc", target.URL))
	want := streamed{early: map[int]http.Header{103: {}}, status: 200, closes: true, body: "body"}
	if diff := cmp.Diff(want, r.stream("/app/svc"), cmp.AllowUnexported(streamed{})); diff != "" {
		t.Error(diff)
	}
}

func TestTrailersOfARequestReachTheTarget(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		fmt.Fprint(w, string(body), err, q.Trailer)
	})
	r.application("app", nil, entry("svc", target.URL))
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	for name, through := range map[string]http.RoundTripper{"HTTP/1": r.client.Transport, "HTTP/2": transport} {
		request, err := http.NewRequest(http.MethodPost, r.services.URL+"/app/svc", io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		request.Trailer = http.Header{"X-Sum": {"7"}}
		response, err := through.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if text, err := io.ReadAll(response.Body); string(text) != "body<nil> map[X-Sum:[7]]" || err != nil {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
}

func aCallerWhoLeavesEndsTheTargetsWork(t *testing.T) {
	r := newRig(t)
	arrived, ended := make(chan struct{}), make(chan time.Time, 1)
	target := r.target(func(_ http.ResponseWriter, q *http.Request) {
		arrived <- struct{}{}
		<-q.Context().Done()
		ended <- time.Now()
	})
	r.application("app", nil, entry("svc", target.URL))
	calls := 0
	within(t, 100*time.Millisecond, func() time.Duration {
		ctx, leave := context.WithCancel(context.Background())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.services.URL+"/app/svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan time.Time, 1)
		go func() { <-arrived; left <- time.Now(); leave() }()
		if response, err := r.client.Do(request); err == nil {
			response.Body.Close()
			t.Error("an answer came")
		}
		calls++
		select {
		case end := <-ended:
			if line := r.access(calls); line["source"] != "caller" || line["status"] != float64(499) {
				t.Errorf("%v", line)
			}
			return end.Sub(<-left)
		case <-time.After(generous):
			t.Fatal("the target goes on")
			return 0
		}
	})
}

func aTargetThatBreaksOffIsVisibleToTheCaller(t *testing.T) {
	for _, length := range []string{"", "Content-Length: 100\r\n"} {
		r := newRig(t)
		target := r.target(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			if length == "" {
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n")
			} else {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s\r\nbegin", length)
			}
			conn.Close()
		})
		r.application("app", nil, entry("svc", target.URL))
		if a, err := r.try("GET", r.services.URL+"/app/svc", nil); err == nil {
			t.Errorf("the caller takes %q for the whole answer", a.Body)
		}
		if line := r.access(1); line["aborted"] != true || line["source"] != "target" {
			t.Errorf("%v", line)
		}
	}
}

func TestAHeadRequestAndAnUncompressedAnswerStayAsTheyAre(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Header().Set("X-Seen", fmt.Sprint(q.Header["Accept-Encoding"], q.Header["User-Agent"]))
		w.WriteHeader(200)
	})
	r.application("app", nil, entry("svc", target.URL))
	conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(generous))
	fmt.Fprint(conn, "HEAD /app/svc HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.Contains(s, "Content-Length: 10\r\n") || !strings.Contains(s, "X-Seen: [] []\r\n") {
		t.Error(s)
	}
}

func TestASmallBodyLeavesInOneWriteWithTheHeader(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const calls = 20 // two writes can look like one
	first := make(chan string, calls)
	go func() {
		for range calls {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 64<<10)
			n, _ := conn.Read(buffer) // what was written at once arrives at once on the loopback interface
			first <- string(buffer[:n])
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			conn.Close()
		}
	}()
	r.application("app", nil, entry("svc", "http://"+l.Addr().String()))
	body := strings.Repeat("x", 3<<10)
	for range calls {
		if a := r.do(http.MethodPost, "/app/svc", strings.NewReader(body)); a.Status != http.StatusOK {
			t.Fatalf("%+v", a)
		}
		if got := <-first; !strings.HasPrefix(got, "POST / HTTP/1.1\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+body) {
			t.Fatalf("the target got first: %q", got)
		}
	}
}

func TestACallerWhoWaitsToBeAskedForItsBodyIsAskedOnlyByTheTarget(t *testing.T) {
	for name, asks := range map[string]bool{"it asks": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			target := r.target(func(w http.ResponseWriter, q *http.Request) {
				text := []byte("nothing")
				if asks {
					text, _ = io.ReadAll(q.Body)
				}
				fmt.Fprintf(w, "got %s", text)
			})
			r.application("app", nil, entry("svc", target.URL))
			conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(generous))
			fmt.Fprint(conn, "POST /app/svc HTTP/1.1\r\nHost: g\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			reader := bufio.NewReader(conn)
			if asks {
				line, err := reader.ReadString('\n')
				if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
					t.Fatalf("%q %v", line, err)
				}
				_, _ = reader.ReadString('\n')
				fmt.Fprint(conn, "body")
			}
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			want := map[bool]string{true: "got body", false: "got nothing"}[asks]
			if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || string(text) != want {
				t.Errorf("%d %q %v", response.StatusCode, text, err)
			}
		})
	}
}
