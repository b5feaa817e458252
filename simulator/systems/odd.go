package systems

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// status answers the code of the path with the code as body. An informational one is sent first, and 200 after it.
func status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil || code < 100 || code > 999 || code == http.StatusSwitchingProtocols {
		http.Error(w, "the status code must be a number from 100 to 999 other than 101", http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, r.PathValue("code")) // refused where the status has no body
}

// redirect answers a 3xx code with the Location of the query parameter to, as it is.
func redirect(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	to := r.URL.Query().Get("to")
	if err != nil || code < 300 || code > 399 || to == "" {
		http.Error(w, "want /redirect/{300 to 399}?to={location}", http.StatusBadRequest)
		return
	}
	redirectWith(w, code, to)
}

func redirectWith(w http.ResponseWriter, code int, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(code)
}

// numbers reads query parameters that are whole numbers or durations within bounds.
type numbers struct {
	r    *http.Request
	errs []error
}

func (n *numbers) count(name string, def, most int64) int64 {
	text := n.r.URL.Query().Get(name)
	if text == "" {
		return def
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || v > most {
		n.errs = append(n.errs, fmt.Errorf("%s is %q, must be a whole number from 0 to %d", name, text, most))
	}
	return v
}

func (n *numbers) duration(name string, def, most time.Duration) time.Duration {
	text := n.r.URL.Query().Get(name)
	if text == "" {
		return def
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 || v > most {
		n.errs = append(n.errs, fmt.Errorf("%s is %q, must be a duration from 0s to %s", name, text, most))
	}
	return v
}

func (n *numbers) refused(w http.ResponseWriter) bool {
	err := errors.Join(n.errs...)
	if err == nil {
		return false
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
	return true
}

// wait waits by the clock, or says that the client went away.
func (s *Server) wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return r.Context().Err() == nil
	}
	timer := s.o.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-r.Context().Done():
		return false
	}
}

// slow waits before the header, and before each chunk of the body but the first.
func (s *Server) slow(w http.ResponseWriter, r *http.Request) {
	n := &numbers{r: r}
	delay := n.duration("delay", time.Second, time.Hour)
	chunks := n.count("chunks", 1, 100_000)
	interval := n.duration("interval", time.Second, time.Hour)
	if n.refused(w) || !s.wait(r, delay) {
		return
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	for i := range chunks {
		if i > 0 && !s.wait(r, interval) {
			return
		}
		if _, err := fmt.Fprintf(w, "chunk %d\n", i+1); err != nil || control.Flush() != nil {
			return
		}
	}
}

// sse streams server-sent events.
func (s *Server) sse(w http.ResponseWriter, r *http.Request) {
	n := &numbers{r: r}
	count := n.count("count", 10, 1_000_000)
	interval := n.duration("interval", time.Second, time.Hour)
	if n.refused(w) {
		return
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	for i := range count {
		if i > 0 && !s.wait(r, interval) {
			return
		}
		if _, err := fmt.Fprintf(w, "id: %d\nevent: tick\ndata: {\"n\":%d}\n\n", i+1, i+1); err != nil || control.Flush() != nil {
			return
		}
	}
}

// maxMessage bounds a WebSocket message, in bytes.
const maxMessage = 1 << 20

// websocket sends every message back.
func (s *Server) websocket(w http.ResponseWriter, r *http.Request) {
	s.sockets.Add(1)
	defer s.sockets.Done()
	// Any origin: there is nothing here that a browser's user has and a page must not reach.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxMessage)
	for {
		kind, message, err := conn.Read(r.Context())
		if err == nil {
			err = conn.Write(r.Context(), kind, message)
		}
		if err != nil {
			return
		}
	}
}

// large streams a body of the size in the path: the letters a to z over and over.
func large(w http.ResponseWriter, r *http.Request) {
	left, err := strconv.ParseInt(r.PathValue("bytes"), 10, 64)
	if err != nil || left < 0 || left > 10<<30 {
		http.Error(w, "the size must be a whole number of bytes from 0 to 10737418240", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
	block := []byte(strings.Repeat("abcdefghijklmnopqrstuvwxyz", 1024))
	for left > 0 {
		n, err := w.Write(block[:min(left, int64(len(block)))])
		if err != nil {
			return
		}
		left -= int64(n)
	}
}
