package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/application-connector/application-connector/gateway/websocket"
)

// closeGrace is how long both ends of a WebSocket have to answer when it is closed: RFC 6455, section 7.1.1, wants a Close
// frame from either.
const closeGrace = time.Second

// upgrades are the calls that have become WebSockets, of which the server knows nothing any more.
type upgrades struct {
	mu   sync.Mutex
	open map[*upgrade]bool
	left chan struct{} // gets something when a call has ended, after it has room
}

func newUpgrades() *upgrades {
	return &upgrades{open: map[*upgrade]bool{}, left: make(chan struct{}, 1)}
}

func (u *upgrades) add(one *upgrade) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open[one] = true
}

func (u *upgrades) remove(one *upgrade) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, one)
	select {
	case u.left <- struct{}{}:
	default:
	}
}

func (u *upgrades) all() []*upgrade {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := make([]*upgrade, 0, len(u.open))
	for one := range u.open {
		list = append(list, one)
	}
	return list
}

// ended closes and forgets a call that has left HTTP, if it has. Where the target alone has, its end is open still: the
// proxy gives up an answer that nobody asked for without closing it.
func (e *Engine) ended(x *exchange) {
	if x.upgrade != nil {
		x.upgrade.close()
		e.upgrades.remove(x.upgrade)
	}
}

// onlyWebSocket drops an offer to go on by another protocol, as any server may (RFC 9110, section 7.8). HTTP within the
// connection, as h2c and TLS are, would let the caller send there what it likes: other paths, and no header that was judged.
func onlyWebSocket(h http.Header) {
	if offer, ok := h["Upgrade"]; ok && (len(offer) != 1 || !strings.EqualFold(offer[0], "websocket")) {
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
}

// wait returns true once there are none, false when ctx ends.
func (u *upgrades) wait(ctx context.Context) bool {
	for len(u.all()) > 0 {
		select {
		case <-u.left:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Drain waits until no WebSocket is open. Those that are when ctx ends it closes: both ends are told that this end is going
// away, and have a second to say goodbye. It returns how many those were. Call it when no call begins any more.
func (e *Engine) Drain(ctx context.Context) (closed int) {
	if e.upgrades.wait(ctx) {
		return 0
	}
	list := e.upgrades.all()
	for _, u := range list {
		go u.goAway()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*closeGrace)
	defer cancel()
	e.upgrades.wait(last)
	return len(list)
}

// upgrade is one call that has left HTTP.
type upgrade struct {
	caller, target end
	goodbyes       chan struct{} // gets something for each party that sends a Close frame

	mu   sync.Mutex
	conn net.Conn // the caller's, once it has left the server's keeping
}

// newUpgrade takes the answer by which a call leaves HTTP, with the target's end as its body. The caller's comes by hijack.
func newUpgrade(r *http.Response) *upgrade {
	u := &upgrade{goodbyes: make(chan struct{}, 2)}
	u.caller.upgrade, u.target.upgrade = u, u
	u.target.server = true
	if conn, ok := r.Body.(io.ReadWriteCloser); ok { // as it is for this status, by the documentation of net/http
		u.target.ReadWriteCloser = conn
		r.Body = &u.target
	}
	return u
}

// hijack takes the caller's end.
func (u *upgrade) hijack(conn net.Conn) net.Conn {
	u.mu.Lock()
	u.conn = conn
	u.mu.Unlock()
	u.caller.mu.Lock()
	defer u.caller.mu.Unlock()
	u.caller.ReadWriteCloser = conn
	return callerConn{conn, &u.caller}
}

// goAway closes both ends as the protocol of WebSockets wants it.
func (u *upgrade) goAway() {
	go u.caller.goAway()
	go u.target.goAway()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	for range cap(u.goodbyes) {
		select {
		case <-u.goodbyes:
			continue
		case <-timer.C:
		}
		break
	}
	u.close()
}

// close ends both connections, also where a write is stuck.
func (u *upgrade) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn != nil {
		_ = u.conn.Close()
	}
	if u.target.ReadWriteCloser != nil {
		_ = u.target.Close()
	}
}

// end is one party's connection. What is written to it comes from the other party.
type end struct {
	io.ReadWriteCloser // nil before the caller's is there
	upgrade            *upgrade
	server             bool // this party is the server

	mu      sync.Mutex
	frames  websocket.Frames // that the other party sends to this one
	leaving bool             // a Close frame of ours is to be sent
	left    bool             // it was sent: nothing more is
}

// callerConn is the caller's end.
type callerConn struct {
	net.Conn
	end *end
}

// Write implements io.Writer.
func (c callerConn) Write(p []byte) (int, error) { return c.end.Write(p) }

// CloseWrite says that nothing more comes from the target.
func (c callerConn) CloseWrite() error { return c.end.CloseWrite() }

// CloseWrite says that nothing more comes from the other party.
func (e *end) CloseWrite() error {
	if conn, ok := e.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return http.ErrNotSupported
}

// Write implements io.Writer. Once this end has gone away, what else the other party sends goes nowhere.
func (e *end) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	passes, leaves := 0, false
	for at := 0; at < len(p); {
		n, goodbye := e.frames.Next(p[at:])
		at += n
		if goodbye {
			e.upgrade.goodbyes <- struct{}{}
		}
		if !e.left && !leaves {
			passes = at
			leaves = e.leaving && e.frames.Between()
		}
	}
	if passes > 0 {
		if n, err := e.ReadWriteCloser.Write(p[:passes]); err != nil {
			return n, err
		}
	}
	if leaves {
		e.leave()
	}
	return len(p), nil
}

// goAway has this party told that the gateway goes away, after the frame that is on its way to it.
func (e *end) goAway() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leaving = true; e.frames.Between() {
		e.leave()
	}
}

// leave says goodbye, unless the other party has. e.mu is held.
func (e *end) leave() {
	if e.left || e.frames.Closed() || e.ReadWriteCloser == nil {
		return
	}
	e.left = true
	_, _ = e.ReadWriteCloser.Write(websocket.GoingAway(e.server)) // who is gone needs no goodbye
}
