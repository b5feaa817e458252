package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
)

// body is a request's body, for each attempt to send it anew.
type body interface {
	// put gives an attempt its body.
	put(*http.Request)
	// again says whether another attempt can have all of it. The attempt before gets no more of it.
	again() bool
}

// smallBody is the largest request body, in bytes, that is read before the call is made. Then it goes out in one write with
// the header; a stream does not, for net/http cannot know that it has no reason to wait. A caller who says how long its body
// is waits for nothing before it sends it.
const smallBody = 4 << 10

// isSmall says whether a body is such a one. Whoever waits to be asked for its body is asked by the target alone.
func isSmall(r *http.Request) bool {
	return r.ContentLength > 0 && r.ContentLength <= smallBody && r.Header["Expect"] == nil
}

// bodyOf is the body of a call. It reads a small one; an error is the caller's failure to send it.
func (e *Engine) bodyOf(out *http.Request, x *exchange) (body, error) {
	switch {
	case out.Body == nil || out.Body == http.NoBody:
		return noBody{}, nil
	case isSmall(out):
		text := make(keptBody, out.ContentLength)
		if _, err := io.ReadFull(out.Body, text); err != nil {
			x.bodyFailed.Store(true)
			return nil, err
		}
		return text, nil
	}
	limit := replayLimit
	if x.external {
		limit = 0 // there is no second attempt
	}
	return newReplay(out.Body, out.ContentLength, limit, x.watchdog.answer.putOff), nil
}

// noBody is what a request has that has no body.
type noBody struct{}

// put implements body: with nil the transport may repeat the request by itself, when a kept connection turns out dead.
func (noBody) put(r *http.Request) { r.Body = nil }
func (noBody) again() bool         { return true }

// keptBody is a body in memory.
type keptBody []byte

// put implements body. By GetBody the transport sends it anew when a kept connection turns out dead before anything was sent,
// and header and body fit into its buffer.
func (b keptBody) put(r *http.Request) {
	get := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	r.Body, _ = get()
	r.GetBody = get
}

func (keptBody) again() bool { return true }

// replayLimit is the largest request body, in bytes, that is kept for a second attempt.
const replayLimit = 256 << 10

var errDetached = errors.New("the attempt that read this body is over")

// replay lets a request body be sent twice while it streams: what the first attempt read is kept, up to a limit; a second
// attempt gets that again, and reads on where the first left off. It implements body.
type replay struct {
	source   io.Reader
	length   int64 // -1 if unknown
	limit    int
	progress func() // told of each piece that is read

	mu      sync.Mutex
	idle    *sync.Cond // no read of source is under way
	reading bool
	kept    []byte
	lost    bool // more was read than may be kept
	end     error
	current *attemptBody
}

// newReplay wraps a body of a length, -1 if that is unknown. A body that is known to be larger than limit is never kept.
func newReplay(source io.Reader, length int64, limit int, progress func()) *replay {
	r := &replay{source: source, length: length, limit: limit, lost: length > int64(limit), progress: progress}
	r.idle = sync.NewCond(&r.mu)
	return r
}

// put implements body.
func (r *replay) put(request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = &attemptBody{replay: r}
	request.Body = r.current
}

// again implements body. The rest of a body whose length is known is waited for, as any attempt would; one of unknown length
// must have been read to its end, for its sender may be waiting for the answer.
func (r *replay) again() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	complete := errors.Is(r.end, io.EOF) || r.length >= 0 && int64(len(r.kept)) >= r.length
	if r.lost || r.end != nil && !errors.Is(r.end, io.EOF) || r.length < 0 && !complete {
		return false
	}
	r.current = nil
	for r.reading && !complete {
		r.idle.Wait()
	}
	return !r.lost && (r.end == nil || errors.Is(r.end, io.EOF))
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
	if n > 0 {
		r.progress()
	}
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
