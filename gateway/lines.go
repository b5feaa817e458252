package gateway

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// pendingLimit is how many bytes of log lines wait to be written before who logs has to wait too.
const pendingLimit = 1 << 20

// writePause is the least time between two writes.
const writePause = 2 * time.Millisecond

// lines writes in the background, a line at once, and what is logged in the writePause after that together, so that under
// load many access lines share a write. Nothing is dropped. Safe for concurrent use.
type lines struct {
	to io.Writer

	mu      sync.Mutex
	changed *sync.Cond
	pending bytes.Buffer
	closed  bool
	ended   chan struct{}
}

// newLines starts to write. Close it to have all written.
func newLines(to io.Writer) *lines {
	l := &lines{to: to, ended: make(chan struct{})}
	l.changed = sync.NewCond(&l.mu)
	go l.run()
	return l
}

// Write implements io.Writer. After Close it writes at once.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.pending.Len() > pendingLimit && !l.closed {
		l.changed.Wait()
	}
	if l.closed {
		return l.to.Write(p)
	}
	if l.pending.Len() == 0 {
		l.changed.Broadcast()
	}
	return l.pending.Write(p)
}

func (l *lines) run() {
	defer close(l.ended)
	var taken bytes.Buffer
	for {
		l.mu.Lock()
		for l.pending.Len() == 0 && !l.closed {
			l.changed.Wait()
		}
		if l.pending.Len() == 0 {
			l.mu.Unlock()
			return
		}
		taken, l.pending = l.pending, taken
		l.changed.Broadcast()
		l.mu.Unlock()
		_, _ = l.to.Write(taken.Bytes()) // there is nobody to tell that standard error is gone
		taken.Reset()
		if taken.Cap() > 2*pendingLimit {
			taken = bytes.Buffer{}
		}
		time.Sleep(writePause)
	}
}

// Close returns when all is written.
func (l *lines) Close() {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	<-l.ended
}
