package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// longAgo is a deadline that ends a read at once.
var longAgo = time.Unix(1, 0)

// boundedBody is a caller's request body, whose pieces must each come in time.
type boundedBody struct {
	io.ReadCloser
	x      *exchange
	bound  time.Duration // zero for none
	shared bool          // net/http lets it be read while the answer is written
	ended  atomic.Bool   // all of it was read

	mu      sync.Mutex // held while it is read
	left    bool
	reading atomic.Bool
	over    atomic.Bool // the time of the whole call
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading.Store(true)
	defer b.reading.Store(false)
	switch {
	case b.over.Load():
		return 0, errTimeout
	case b.left:
		return 0, http.ErrBodyReadAfterClose
	}
	b.x.watchdog.caller.begin()
	n, err := b.ReadCloser.Read(p)
	b.x.watchdog.caller.end()
	switch err {
	case nil:
	case io.EOF:
		b.ended.Store(true)
	default:
		b.x.bodyFailed.Store(true)
	}
	return n, err
}

// end ends the wait for the body, of which a context knows nothing. It accepts nil.
func (b *boundedBody) end(w http.ResponseWriter) {
	if b == nil {
		return
	}
	if b.over.Store(true); b.reading.Load() {
		_ = http.NewResponseController(w).SetReadDeadline(longAgo)
	}
}

// hurry bounds the time in which net/http reads what nobody wanted of a body, before it answers. It accepts nil.
func (b *boundedBody) hurry(w http.ResponseWriter) {
	if b != nil && b.bound > 0 && !b.ended.Load() && !b.x.bodyFailed.Load() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(b.bound))
	}
}

// leave is for the end of the call. w is the server's own.
func (b *boundedBody) leave(w http.ResponseWriter) {
	if !b.shared || b.ended.Load() {
		b.hurry(w)
		return
	}
	// The transport may still be reading. net/http would end that too, but would forget our bound.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(longAgo)
	b.mu.Lock()
	b.left = true
	b.mu.Unlock()
	var until time.Time
	if b.bound > 0 {
		until = time.Now().Add(b.bound)
	}
	_ = control.SetReadDeadline(until)
	// If net/http fails to read the rest, it takes for another request what comes then. So the connection ends too.
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
