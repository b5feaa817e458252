package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// watchdog ends what takes too long in a call. A call waits many times, for each piece of two bodies; so a wait only notes
// until when it may last, and one timer for the whole call looks at these notes, never later than a wait may last.
type watchdog struct {
	began time.Time
	often time.Duration // the least that a wait of this call may last, if it is bounded
	// caller is the wait for the next piece of the caller's body, answer that for the beginning of the target's answer, and
	// piece that for its next piece.
	caller, answer, piece wait

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// wait is what a call waits for, again and again, but only once at a time.
type wait struct {
	dog   *watchdog
	bound time.Duration // zero for none
	over  func()        // called when it took too long
	due   atomic.Int64  // nanoseconds after the call began; 0 while nothing is waited for
}

// watch prepares one of the waits. Call it before start, for answer at least.
func (d *watchdog) watch(w *wait, bound time.Duration, over func()) {
	if d.began.IsZero() {
		d.began = time.Now()
	}
	w.dog, w.bound, w.over = d, bound, over
	if bound > 0 && (d.often == 0 || bound < d.often) {
		d.often = bound
	}
}

// start makes it look, until stop.
func (d *watchdog) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer == nil && !d.stopped {
		d.timer = time.AfterFunc(d.often, d.look)
	}
}

// stop ends it for good.
func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// look ends waits that are over and comes back when the next one may be: a wait that begins meanwhile may last at least as
// long as often.
func (d *watchdog) look() {
	now, next := time.Since(d.began), d.often
	for _, w := range [...]*wait{&d.caller, &d.answer, &d.piece} {
		due := w.due.Load()
		switch left := time.Duration(due) - now; {
		case due == 0:
		case left > 0:
			next = min(next, left)
		case w.due.CompareAndSwap(due, 0):
			w.over()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped {
		d.timer.Reset(next)
	}
}

// begin notes that something is waited for.
func (w *wait) begin() {
	if w.bound > 0 {
		w.due.Store(w.soonest())
	}
}

// soonest is when a wait that begins now is over.
func (w *wait) soonest() int64 { return int64(time.Since(w.dog.began) + w.bound) }

// putOff makes a wait that has begun, and has not ended, begin now.
func (w *wait) putOff() {
	for {
		due := w.due.Load()
		if due == 0 || w.due.CompareAndSwap(due, w.soonest()) {
			return
		}
	}
}

// end notes that it came.
func (w *wait) end() { w.due.Store(0) }
