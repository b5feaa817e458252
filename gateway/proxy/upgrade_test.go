package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// switched is a call that left HTTP, by hand at both ends.
func (r *rig) switched(protocol string) (caller *bufio.Reader, callerConn, target net.Conn) {
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
	fmt.Fprintf(callerConn, "GET /by-hand/svc HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if target, err = l.Accept(); err != nil {
		r.t.Fatal(err)
	}
	_ = target.SetDeadline(time.Now().Add(generous))
	r.t.Cleanup(func() { callerConn.Close(); target.Close() })
	if _, err := http.ReadRequest(bufio.NewReader(target)); err != nil {
		r.t.Fatal(err)
	}
	fmt.Fprintf(target, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	caller = bufio.NewReader(callerConn)
	response, err := http.ReadResponse(caller, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("%+v %v", response, err)
	}
	return caller, callerConn, target
}

func TestACloseFrameWaitsForTheEndOfTheFrameThatIsOnItsWay(t *testing.T) {
	r := newRig(t)
	caller, callerConn, target := r.switched("WebSocket")
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

func TestConnectionsWhoseEndsSayNothingAreClosedAllTheSame(t *testing.T) {
	for _, protocol := range []string{"websocket", "other"} {
		t.Run(protocol, func(t *testing.T) {
			r := newRig(t)
			caller, _, target := r.switched(protocol)
			if n := r.engine.Drain(ended()); n != 1 {
				t.Errorf("%d were closed", n)
			}
			want := map[string]string{"websocket": "\x88\x02\x03\xe9"}[protocol]
			if got, err := io.ReadAll(caller); string(got) != want || err != nil {
				t.Errorf("the caller gets %q %v", got, err)
			}
			if _, err := io.ReadAll(target); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Errorf("the target: %v", err)
			}
		})
	}
}
