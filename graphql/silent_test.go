package graphql_test

import (
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/application-connector/application-connector/graphql"
)

// forgetful passes connections on until it forgets them: then it takes their bytes, and nothing comes back.
type forgetful struct {
	net.Listener
	to     string
	forgot atomic.Int64 // connections up to this number
	mu     sync.Mutex
	open   []net.Conn
	opened atomic.Int64
}

func newForgetful(t *testing.T, to string) *forgetful {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forgetful{Listener: l, to: to}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			n := f.opened.Add(1)
			out, err := net.Dial("tcp", f.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			f.mu.Lock()
			f.open = append(f.open, in, out)
			f.mu.Unlock()
			running.Go(func() { f.pass(out, in, n); _ = out.Close() })
			running.Go(func() { f.pass(in, out, n); _ = in.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.mu.Lock()
		for _, c := range f.open {
			_ = c.Close()
		}
		f.mu.Unlock()
		running.Wait()
	})
	return f
}

func (f *forgetful) pass(to io.Writer, from io.Reader, n int64) {
	buffer := make([]byte, 4096)
	for {
		read, err := from.Read(buffer)
		if err != nil {
			return
		}
		if n > f.forgot.Load() {
			if _, err := to.Write(buffer[:read]); err != nil {
				return
			}
		}
	}
}

func TestAConnectionThatFellSilentCostsOneRequest(t *testing.T) {
	server := serve(t, answering(`{"data":{"ping":"pong"}}`), func(s *httptest.Server) { s.EnableHTTP2 = true })
	way := newForgetful(t, server.Listener.Addr().String())
	url := strings.Replace(server.URL, server.Listener.Addr().String(), way.Addr().String(), 1)
	transport := transportTo(t, server, func(o *graphql.Options) { o.Timeout = 3 * time.Second })
	for range 2 {
		if _, err := ping(t.Context(), transport, url, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := way.opened.Load(); got != 1 {
		t.Fatalf("%d connections, want one that is used again", got)
	}
	way.forgot.Store(1)
	if _, err := ping(t.Context(), transport, url, nil); graphql.KindOf(err) != graphql.Timeout {
		t.Errorf("on the silent connection: %v", err)
	}
	if _, err := ping(t.Context(), transport, url, nil); err != nil {
		t.Errorf("after that: %v", err)
	}
}
