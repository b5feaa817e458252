package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/transport"
)

func TestConnectionsArePooledByHostIdentityAndVerification(t *testing.T) {
	p := transport.New(transport.Options{})
	one, two := &credentials.Identity{Version: credentials.VersionOf("1")}, &credentials.Identity{Version: credentials.VersionOf("2")}
	targets := []transport.Target{
		{Host: "a"}, {Host: "b"}, {Host: "a", Trust: credentials.Trust{SkipVerify: true}}, {Host: "a", Trust: credentials.Trust{MinVersion: tls.VersionTLS13}},
		{Host: "a", Trust: credentials.Trust{CA: credentials.NewAuthorities("x")}}, {Host: "a", Connect: time.Second}, {Host: "a", Direct: true}, {Host: "a", Identity: one}, {Host: "a", Identity: two},
	}
	seen := map[any]transport.Target{}
	for _, target := range targets {
		got := p.For(target)
		if other, shared := seen[got]; shared {
			t.Errorf("%+v and %+v share a pool", target, other)
		}
		seen[got] = target
		if p.For(target) != got {
			t.Errorf("%+v has two pools", target)
		}
		if got.TLSClientConfig.InsecureSkipVerify != target.Trust.SkipVerify || got.TLSClientConfig.MinVersion != target.Trust.MinVersion || (got.TLSClientConfig.GetClientCertificate != nil) != (target.Identity != nil) || (got.Proxy == nil) != target.Direct {
			t.Errorf("%+v: the transport is made otherwise", target)
		}
	}
	same := &credentials.Identity{Version: credentials.VersionOf("1")}
	if p.For(transport.Target{Host: "a", Identity: same}) != p.For(transport.Target{Host: "a", Identity: one}) {
		t.Error("the same certificate, parsed twice, has two pools")
	}
}

func TestALookUpOfConnectionsDoesNotReadTheCertificatesThatAreTrusted(t *testing.T) {
	p := transport.New(transport.Options{})
	none := transport.Target{Host: "a"}
	large := transport.Target{Host: "a", Trust: credentials.Trust{CA: credentials.NewAuthorities(strings.Repeat("x", 1<<20))}}
	took := func(target transport.Target) time.Duration {
		p.For(target)
		fastest := time.Hour
		for range 20 {
			begin := time.Now()
			for range 10 {
				p.For(target)
			}
			fastest = min(fastest, time.Since(begin))
		}
		return fastest
	}
	// Reading a MiB takes hundreds of times as long as all else.
	if few, many := took(none), took(large); many > 20*few {
		t.Errorf("%v with a large bundle, %v without", many, few)
	}
	again := large
	again.Trust.CA = credentials.NewAuthorities(strings.Repeat("x", 1<<20))
	if p.For(again) != p.For(large) {
		t.Error("the same certificates, read twice, have two pools")
	}
}

// deaf is a listener whose first connection hears nothing any more once it is told so, and is not closed either.
type deaf struct {
	net.Listener
	accepted atomic.Int64
	now      atomic.Bool
}

func (d *deaf) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err == nil && d.accepted.Add(1) == 1 {
		conn = deafConn{conn, d}
	}
	return conn, err
}

type deafConn struct {
	net.Conn
	deaf *deaf
}

func (c deafConn) Read(p []byte) (int, error) {
	for {
		if n, err := c.Conn.Read(p); err != nil || !c.deaf.now.Load() {
			return n, err
		}
	}
}

func TestAConnectionOnWhichNothingIsAnsweredAnyMoreIsNotSharedByLaterCalls(t *testing.T) {
	const generous = 30 * time.Second
	arrived := make(chan struct{})
	for _, c := range []struct {
		name        string
		http2       bool
		gone        bool  // the peer, without a word
		meanwhile   bool  // another call is answered while the one waits that is given up
		connections int64 // in the end
		retired     bool
	}{
		{"the peer is gone", true, true, false, 2, true},
		{"one call is slow, others are answered", true, false, true, 1, false},
		{"one call is slow, and there is no other", true, false, false, 2, true},
		{"HTTP/1, where no two calls share a connection", false, false, false, 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path == "/slow" {
					arrived <- struct{}{}
					<-q.Context().Done()
					panic(http.ErrAbortHandler) // an answer could come before the end of the connection
				}
				io.WriteString(w, q.Proto)
			}))
			listener := &deaf{Listener: server.Listener}
			server.Listener, server.EnableHTTP2 = listener, c.http2
			server.StartTLS()
			defer server.Close()
			pool := transport.New(transport.Options{})
			defer pool.CloseIdleConnections()
			target := transport.Target{Host: server.URL, Trust: credentials.Trust{SkipVerify: true}}
			call := func(ctx context.Context, path string) error {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
				if err != nil {
					return err
				}
				response, err := pool.For(target).RoundTrip(request)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, response.Body)
				return errors.Join(err, response.Body.Close())
			}
			whole, cancel := context.WithTimeout(t.Context(), generous)
			defer cancel()
			if err := call(whole, "/"); err != nil {
				t.Fatal(err)
			}
			before := pool.For(target)
			defer before.CloseIdleConnections()
			listener.now.Store(c.gone)
			patience, giveUp := context.WithCancel(whole)
			defer giveUp()
			waiting := make(chan error, 1)
			go func() { waiting <- call(patience, "/slow") }()
			if c.gone {
				time.AfterFunc(50*time.Millisecond, giveUp) // nothing tells that it was sent; without, there is only less to see
			} else {
				<-arrived
			}
			if c.meanwhile {
				if err := call(whole, "/"); err != nil {
					t.Error(err)
				}
			}
			if !c.gone {
				giveUp()
			}
			if err := <-waiting; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			for range 3 {
				if err := call(whole, "/"); err != nil {
					t.Error(err)
				}
			}
			if n := listener.accepted.Load(); n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
			if retired := pool.For(target) != before; retired != c.retired {
				t.Errorf("its connections were given up: %v, want %v", retired, c.retired)
			}
		})
	}
}
