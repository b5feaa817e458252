package eventing

import (
	"net/http"
	"time"
)

// Fault says how the publisher's endpoints misbehave. GET /events is never affected, so that what was stored can be
// looked at meanwhile. The zero Fault is none.
type Fault struct {
	// Down cuts every connection without an answer.
	Down bool
	// Delay is waited before the request is looked at, by Options.Clock, or until the client goes away.
	Delay time.Duration
	// Status, when not 0, is answered instead of storing the event.
	Status int
	// Body and RetryAfter go with Status.
	Body, RetryAfter string
	// Times is how many requests are affected; 0 means all until SetFault is called again.
	Times int
}

// SetFault makes the publisher's endpoints misbehave from the next request on. SetFault(Fault{}) ends that.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// takeFault gives the fault for one request and counts it.
func (s *Server) takeFault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	switch {
	case f.Times == 1:
		s.fault = Fault{}
	case f.Times > 1:
		s.fault.Times--
	}
	return f
}

func (s *Server) withFault(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := s.takeFault()
		if f.Delay > 0 {
			timer := s.clock.NewTimer(f.Delay)
			defer timer.Stop()
			select {
			case <-timer.C():
			case <-r.Context().Done():
				return
			}
		}
		if f.Down {
			panic(http.ErrAbortHandler)
		}
		if f.Status != 0 {
			if f.RetryAfter != "" {
				w.Header().Set("Retry-After", f.RetryAfter)
			}
			w.WriteHeader(f.Status)
			_, _ = w.Write([]byte(f.Body))
			return
		}
		next.ServeHTTP(w, r)
	})
}
