package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// What makes load and what answers it parse no more of HTTP than they must, so that on a machine that all share, what is
// measured is the contestant.

// benchTarget is an API. It answers each request that carries what it must by 200 and as many bytes as the request had.
type benchTarget struct {
	listener net.Listener
	must     []byte // in the request's header; empty for anything
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newBenchTarget(t testing.TB, must string, config *tls.Config) *benchTarget {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	b := &benchTarget{listener: l, must: []byte(must), open: map[net.Conn]bool{}}
	b.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.open[conn] = true
			b.mu.Unlock()
			b.wg.Go(func() {
				defer conn.Close()
				b.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for c := range b.open {
			c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *benchTarget) address() string { return b.listener.Addr().String() }

// largestEcho is how many bytes an answer has at most: an upload is not sent back.
const largestEcho = 1 << 20

func (b *benchTarget) serve(conn net.Conn) {
	reader := bufio.NewReaderSize(conn, 64<<10)
	var answer []byte
	size := -1
	for {
		head, err := readHead(reader)
		if err != nil {
			return
		}
		if !bytes.Contains(head, b.must) {
			io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		n, ok := contentLength(head)
		if !ok {
			io.WriteString(conn, "HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		if _, err := reader.Discard(n); err != nil {
			return
		}
		if n = min(n, largestEcho); n != size {
			size = n
			answer = append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", n), make([]byte, n)...)
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// readHead is a message's header up to the empty line. It is valid until the next read.
func readHead(r *bufio.Reader) ([]byte, error) {
	for want := 1; ; {
		if _, err := r.Peek(want); err != nil {
			return nil, err
		}
		buffered, _ := r.Peek(r.Buffered())
		if end := bytes.Index(buffered, []byte("\r\n\r\n")); end >= 0 {
			if _, err := r.Discard(end + 4); err != nil {
				return nil, err
			}
			return buffered[:end+2], nil
		}
		want = len(buffered) + 1
	}
}

func contentLength(head []byte) (int, bool) {
	const name = "\r\ncontent-length:"
	for rest := head; ; {
		at := bytes.IndexByte(rest, '\n')
		if at < 1 || at+len(name)-1 > len(rest) {
			return 0, false
		}
		if line := rest[at-1:]; len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			value, _, _ := bytes.Cut(line[len(name):], []byte("\r\n"))
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return n, err == nil && n >= 0
		}
		rest = rest[at+1:]
	}
}

// load is how one contestant is called.
type load struct {
	address  string
	tls      *tls.Config // nil for plain HTTP
	requests [][]byte    // sent in turn
}

// round is what one contestant did in one round.
type round struct {
	PerSecond float64 `json:"requestsPerSecond"`
	P50       float64 `json:"p50Milliseconds"`
	P99       float64 `json:"p99Milliseconds"`
	CPU       float64 `json:"cpuMicrosecondsPerRequest,omitempty"` // of the contestant's processes
}

// run makes calls over a number of connections for a time.
func (l *load) run(ctx context.Context, connections int, duration time.Duration) (round, error) {
	var wg sync.WaitGroup
	results, errs := make([][]time.Duration, connections), make([]error, connections)
	begin := make(chan struct{})
	var ready sync.WaitGroup
	ready.Add(connections)
	var start time.Time
	for i := range connections {
		wg.Go(func() {
			conn, err := l.dial(ctx)
			ready.Done()
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(duration + generous))
			<-begin
			results[i], errs[i] = l.calls(conn, i, start.Add(duration))
		})
	}
	ready.Wait()
	start = time.Now()
	close(begin)
	wg.Wait()
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return round{}, err
	}
	all := slices.Concat(results...)
	slices.Sort(all)
	at := func(percent int) float64 { return float64(all[len(all)*percent/100]) / float64(time.Millisecond) }
	return round{PerSecond: float64(len(all)) / took.Seconds(), P50: at(50), P99: at(99)}, nil
}

func (l *load) dial(ctx context.Context) (net.Conn, error) {
	if l.tls == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.address)
	}
	return (&tls.Dialer{Config: l.tls}).DialContext(ctx, "tcp", l.address)
}

func (l *load) calls(conn net.Conn, first int, end time.Time) ([]time.Duration, error) {
	reader := bufio.NewReaderSize(conn, 64<<10)
	took := make([]time.Duration, 0, 1<<14)
	for i := first; ; i++ {
		begin := time.Now()
		if begin.After(end) && len(took) > 0 {
			return took, nil
		}
		if err := call(conn, reader, l.requests[i%len(l.requests)]); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
}

// call makes one call and expects 200.
func call(conn net.Conn, reader *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	head, err := readHead(reader)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the answer is %q", head)
	}
	n, ok := contentLength(head)
	if !ok {
		return fmt.Errorf("the answer tells no length: %q", head)
	}
	_, err = reader.Discard(n)
	return err
}

// upload sends a body of n bytes and expects 200.
func (l *load) upload(ctx context.Context, path string, n int64) error {
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(4 * generous))
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n", path, n); err != nil {
		return err
	}
	chunk := make([]byte, 64<<10)
	for n > 0 {
		sent, err := conn.Write(chunk[:min(n, int64(len(chunk)))])
		if err != nil {
			return err
		}
		n -= int64(sent)
	}
	return call(conn, bufio.NewReader(conn), nil)
}
