package proxy

import (
	"errors"
	"io"
	"sync"
)

// replayLimit is the largest request body, in bytes, that is kept for a second attempt.
const replayLimit = 256 << 10

var errDetached = errors.New("the attempt that read this body is over")

// replay lets a request body be sent twice while it streams: what the first attempt read is kept, up to a limit; a second
// attempt gets that again, and reads on where the first left off.
type replay struct {
	source io.Reader
	length int64 // -1 if unknown
	limit  int

	mu      sync.Mutex
	idle    *sync.Cond // no read of source is under way
	reading bool
	kept    []byte
	lost    bool // more was read than may be kept
	end     error
	current *attemptBody
}

// newReplay wraps a body of a length, -1 if that is unknown. A body that is known to be larger than limit is never kept.
func newReplay(source io.Reader, length int64, limit int) *replay {
	r := &replay{source: source, length: length, limit: limit, lost: length > int64(limit)}
	r.idle = sync.NewCond(&r.mu)
	return r
}

// next is the body for the next attempt; false if it can no longer be sent whole. The attempt before gets no more of it.
// The rest of a body whose length is known is waited for, as any attempt would; one of unknown length must have been
// read to its end, for its sender may be waiting for the answer.
func (r *replay) next() (io.ReadCloser, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil {
		complete := errors.Is(r.end, io.EOF) || r.length >= 0 && int64(len(r.kept)) >= r.length
		if r.lost || r.end != nil && !errors.Is(r.end, io.EOF) || r.length < 0 && !complete {
			return nil, false
		}
		r.current = nil
		for r.reading && !complete {
			r.idle.Wait()
		}
		if r.lost || r.end != nil && !errors.Is(r.end, io.EOF) {
			return nil, false
		}
	}
	r.current = &attemptBody{replay: r}
	return r.current, true
}

// attemptBody is one attempt's view of a replay.
type attemptBody struct {
	replay *replay
	at     int64
}

// Read gives what earlier attempts read, then what the source holds.
func (b *attemptBody) Read(p []byte) (int, error) {
	r := b.replay
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != b {
		return 0, errDetached
	}
	if b.at < int64(len(r.kept)) {
		n := copy(p, r.kept[b.at:])
		b.at += int64(n)
		return n, nil
	}
	if r.end != nil {
		return 0, r.end
	}
	if r.length >= 0 && b.at >= r.length {
		return 0, io.EOF
	}
	r.reading = true
	r.mu.Unlock()
	n, err := r.source.Read(p)
	r.mu.Lock()
	r.reading = false
	r.idle.Broadcast()
	r.end = err
	b.at += int64(n)
	switch {
	case r.lost:
	case len(r.kept)+n > r.limit:
		r.lost, r.kept = true, nil
	default:
		r.kept = append(r.kept, p[:n]...)
	}
	return n, err
}

// Close leaves the source open: it belongs to the server.
func (b *attemptBody) Close() error { return nil }
