// Package listener opens the sockets of the simulators and serves HTTP on them: errors name the option that chose the
// address, every read is bounded, and the end is orderly. It knows nothing of what is served.
package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Error says that an address could not be listened on, and which option chose it.
type Error struct {
	// Option is the name of the option that holds the address.
	Option string
	// Address is the host:port that was asked for.
	Address string
	// Err is what the operating system said.
	Err error
}

func (e *Error) Error() string {
	if errors.Is(e.Err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(e.Address)
		return fmt.Sprintf("%s: port %s of %s is taken by another process: end that process or choose another port", e.Option, port, e.Address)
	}
	return fmt.Sprintf("%s: cannot listen on %q, which must be host:port: %v", e.Option, e.Address, e.Err)
}

// Unwrap gives what the operating system said.
func (e *Error) Unwrap() error { return e.Err }

// Listen opens a TCP listener on address (host:port, port 0 for any free port). option is named in errors, which are of
// type *Error.
func Listen(ctx context.Context, option, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &Error{Option: option, Address: address, Err: err}
	}
	return l, nil
}

// HTTP is a running HTTP server. Its methods may be called concurrently.
type HTTP struct {
	server *http.Server
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
	err    error
}

const (
	// drain is how long requests under way may take to end when the server closes.
	drain = 2 * time.Second
	// headerTime bounds how long a client may take for the request line and header fields, and the TLS handshake.
	headerTime = 10 * time.Second
	// idleTime is how long an unused connection is kept.
	idleTime = 2 * time.Minute
	// maxHeader bounds the header fields, in bytes. An X-Forwarded-Client-Cert with a certificate takes about 4 KiB.
	maxHeader = 64 << 10
)

// Serve serves handler on l until Close, over TLS when config is not nil. Contexts of requests end when Close begins, so
// that streams and waits end too.
func Serve(l net.Listener, handler http.Handler, config *tls.Config, log *slog.Logger) *HTTP {
	ctx, cancel := context.WithCancel(context.Background())
	h := &HTTP{cancel: cancel, done: make(chan struct{})}
	h.server = &http.Server{
		Handler:           handler,
		TLSConfig:         config,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(h.done)
		var err error
		if config != nil {
			err = h.server.ServeTLS(l, "", "")
		} else {
			err = h.server.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			log.Error("listener ended", "address", l.Addr().String(), "error", err)
		}
	}()
	return h
}

// Close stops accepting, lets requests under way end for a short while, cuts what is left, and returns when all is down.
// Later calls return what the first returned.
func (h *HTTP) Close() error {
	h.once.Do(func() {
		h.cancel()
		ctx, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		if h.err = h.server.Shutdown(ctx); errors.Is(h.err, context.DeadlineExceeded) {
			h.err = h.server.Close()
		}
		<-h.done
	})
	return h.err
}

// HostPort is how clients on this machine reach l: its address, with localhost for one that stands for all interfaces.
func HostPort(l net.Listener) string {
	a, ok := l.Addr().(*net.TCPAddr)
	if ok && a.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(a.Port))
	}
	return l.Addr().String()
}
