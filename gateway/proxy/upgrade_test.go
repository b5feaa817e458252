package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// ended is a context that has ended: there is no time to wait.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// echo is a WebSocket server; how each of its connections ended comes by the channel.
func (r *rig) echo() (url string, ends chan error) {
	ends = make(chan error, 10)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		conn, err := websocket.Accept(w, q, nil)
		if err != nil {
			ends <- err
			return
		}
		defer conn.CloseNow()
		for {
			kind, text, err := conn.Read(q.Context())
			if err == nil {
				err = conn.Write(q.Context(), kind, text)
			}
			if err != nil {
				ends <- err
				return
			}
		}
	})
	return target.URL, ends
}

func TestAWebSocketThatIsOpenAtTheEndIsClosedAtBothEndsAsItsProtocolWantsIt(t *testing.T) {
	r := newRig(t)
	url, ends := r.echo()
	r.application("app", nil, entry("svc", url))
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, r.services.URL+"/app/svc", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.Read(ctx); err != nil || string(text) != "hello" {
		t.Fatalf("%q %v", text, err)
	}
	closed := make(chan int)
	go func() { closed <- r.engine.Drain(ended()) }()
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the caller sees: %v", err)
	}
	if err := <-ends; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the target sees: %v", err)
	}
	if n := <-closed; n != 1 {
		t.Errorf("%d were closed", n)
	}
	if line := r.access(1); line["status"] != float64(http.StatusSwitchingProtocols) {
		t.Errorf("%v", line)
	}
}

func TestTheEndWaitsForWebSocketsWhileThereIsTime(t *testing.T) {
	r := newRig(t)
	url, ends := r.echo()
	r.application("app", nil, entry("svc", url))
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	if n := r.engine.Drain(ctx); n != 0 {
		t.Errorf("%d were closed", n)
	}
	conn, _, err := websocket.Dial(ctx, r.services.URL+"/app/svc", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	closed := make(chan int, 1)
	go func() { closed <- r.engine.Drain(ctx) }()
	for range 3 {
		if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, text, err := conn.Read(ctx); err != nil || string(text) != "hello" {
			t.Fatalf("%q %v", text, err)
		}
		select {
		case <-closed:
			t.Fatal("it did not wait")
		default:
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if err := <-ends; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the target sees: %v", err)
	}
	if n := <-closed; n != 0 {
		t.Errorf("%d were closed", n)
	}
}

// switched is a call that became a WebSocket, by hand at both ends.
func (r *rig) switched() (caller *bufio.Reader, callerConn, target net.Conn) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	r.application("by-hand", nil, entry("svc", "http://"+l.Addr().String()))
	if callerConn, err = net.Dial("tcp", r.services.Listener.Addr().String()); err != nil {
		r.t.Fatal(err)
	}
	_ = callerConn.SetDeadline(time.Now().Add(generous))
	fmt.Fprint(callerConn, "GET /by-hand/svc HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
	if target, err = l.Accept(); err != nil {
		r.t.Fatal(err)
	}
	_ = target.SetDeadline(time.Now().Add(generous))
	r.t.Cleanup(func() { callerConn.Close(); target.Close() })
	if _, err := http.ReadRequest(bufio.NewReader(target)); err != nil {
		r.t.Fatal(err)
	}
	fmt.Fprint(target, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
	caller = bufio.NewReader(callerConn)
	response, err := http.ReadResponse(caller, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("%+v %v", response, err)
	}
	return caller, callerConn, target
}

func TestACloseFrameWaitsForTheEndOfTheFrameThatIsOnItsWay(t *testing.T) {
	r := newRig(t)
	caller, callerConn, target := r.switched()
	const first, rest = "\x81\x05he", "llo"
	io.WriteString(target, first)
	got := make([]byte, len(first))
	if _, err := io.ReadFull(caller, got); err != nil || string(got) != first {
		t.Fatalf("%q %v", got, err)
	}
	closed := make(chan int)
	go func() { closed <- r.engine.Drain(ended()) }()
	// Nothing is on its way to the target: it gets its Close frame, with a mask, at once.
	goodbye := make([]byte, 8)
	if _, err := io.ReadFull(target, goodbye); err != nil || goodbye[0] != 0x88 || goodbye[1] != 0x82 {
		t.Fatalf("%x %v", goodbye, err)
	}
	io.WriteString(target, rest+"\x81\x05never")
	got = make([]byte, len(rest)+4)
	if _, err := io.ReadFull(caller, got); err != nil || string(got) != rest+"\x88\x02\x03\xe9" {
		t.Fatalf("%q %v", got, err)
	}
	io.WriteString(target, "\x88\x02\x03\xe9")
	io.WriteString(callerConn, "\x88\x82\x00\x00\x00\x00\x03\xe9")
	if n := <-closed; n != 1 {
		t.Errorf("%d were closed", n)
	}
	for who, conn := range map[string]io.Reader{"caller": caller, "target": target} {
		if more, err := io.ReadAll(conn); len(more) > 0 || err != nil {
			t.Errorf("the %s gets more: %q %v", who, more, err)
		}
	}
}

func TestAWebSocketWhoseEndsSayNothingIsClosedAllTheSame(t *testing.T) {
	r := newRig(t)
	caller, _, target := r.switched()
	if n := r.engine.Drain(ended()); n != 1 {
		t.Errorf("%d were closed", n)
	}
	if got, err := io.ReadAll(caller); string(got) != "\x88\x02\x03\xe9" || err != nil {
		t.Errorf("the caller gets %q %v", got, err)
	}
	if _, err := io.ReadAll(target); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("the target: %v", err)
	}
}

// noting is a target that answers each connection's first request as the test says, and then only notes what else comes.
// What came, the first request with its header, is sent when the gateway has closed the connection.
func (r *rig) noting(answer string) (url string, came chan string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	came = make(chan string, 10)
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(generous))
				var text strings.Builder
				reader := bufio.NewReader(io.TeeReader(conn, &text))
				for line := ""; line != "\r\n"; {
					if line, err = reader.ReadString('\n'); err != nil {
						return
					}
				}
				io.WriteString(conn, answer)
				if _, err := io.Copy(io.Discard, reader); err != nil {
					text.WriteString(err.Error())
				}
				came <- port.ReplaceAllString(text.String(), "TARGET")
			})
		}
	})
	r.t.Cleanup(func() { l.Close(); connections.Wait() })
	return "http://" + l.Addr().String(), came
}

func TestACallBecomesNothingButAWebSocket(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
	for _, c := range []struct {
		offer  string // of the caller
		sent   string // to the target, of that offer
		answer string // of the target
		status int
	}{
		{"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "", ok, 200},
		{"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "", ok, 200},
		{"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", "", ok, 200},
		{"Connection: Upgrade\r\nUpgrade: h2c\r\n", "", switching("h2c"), 502},
		{"Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n", switching("h2c"), 502},
		{"Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n", ok, 200},
		{"", "", switching("websocket"), 502},
	} {
		r := newRig(t)
		url, came := r.noting(c.answer)
		r.application("app", nil, entry("svc", url))
		conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(generous))
		fmt.Fprintf(conn, "GET /app/svc/x HTTP/1.1\r\nHost: g\r\n%s\r\n", c.offer)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != c.status {
			t.Errorf("%q: %+v %v", c.offer, response, err)
		}
		fmt.Fprint(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		// Sent only once the connection is closed, also where its answer was refused.
		want := "GET /x HTTP/1.1\r\nHost: TARGET\r\n" + c.sent + "X-Forwarded-For: 127.0.0.1\r\n\r\n"
		select {
		case got := <-came:
			if got != want {
				t.Errorf("after %q the target saw %q, want %q", c.offer, got, want)
			}
		case <-time.After(generous):
			t.Errorf("after %q and %q the target's connection stays open", c.offer, c.answer)
		}
		conn.Close()
	}
}

func switching(to string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + to + "\r\n\r\n"
}
