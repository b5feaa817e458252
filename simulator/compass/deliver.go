package compass

import (
	"context"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// rateLimited is what the local rate limit of the real one's proxy sends.
func rateLimited(retryAfter string) answer {
	a := answer{status: http.StatusTooManyRequests, contentType: "text/plain", body: []byte("local_rate_limited"),
		header: http.Header{"X-Local-Rate-Limit": {"gateway"}}}
	return a.withRetryAfter(retryAfter)
}

func (a answer) withRetryAfter(value string) answer {
	if value != "" {
		a.header = maps.Clone(a.header)
		if a.header == nil {
			a.header = http.Header{}
		}
		a.header.Set("Retry-After", value)
	}
	return a
}

// directorError is the error that a fault asks for.
func (f *standingFault) directorError() *directorError {
	err := &directorError{Name: f.Error, Code: f.Code, Message: f.Message}
	setDefault(&err.Message, defaultGraphQLErrorMsg)
	setDefault(&err.Name, "InternalError")
	setDefault(&err.Code, codeInternal)
	return err
}

// replacedAnswer is the answer that a fault puts in the place of the real one,
// or cut for none at all. executed tells whether the request has had its
// effect already.
func replacedAnswer(faults activeFaults, operations []string, executed bool) (replaced *answer, cut bool) {
	for _, f := range faults {
		if f.Executed != executed {
			continue
		}
		switch f.Kind {
		case FaultReset:
			return nil, true
		case FaultStatus:
			a := answer{status: f.Status, contentType: f.ContentType, body: []byte(f.Body)}.withRetryAfter(f.RetryAfter)
			return &a, false
		case FaultGraphQLError:
			own := f.directorError()
			err := &gqlerror.Error{Message: own.Message}
			if f.Code != 0 {
				err.Extensions = directorExtensions(own.Name, own.Code)
			}
			if len(operations) > 0 {
				err.Path = ast.Path{ast.PathName(operations[0])}
			}
			status := f.Status
			if status == 0 {
				status = http.StatusOK
			}
			a := graphQLAnswer(status, gqlerror.List{err}, nil).withRetryAfter(f.RetryAfter)
			return &a, false
		}
	}
	return nil, false
}

// deliver writes the answer, with the faults of writing, and returns the
// status that was sent.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, a answer, faults activeFaults) int {
	if faults.has(FaultNullData) {
		a.body = []byte(`{"data":null}`)
	}
	if f, ok := faults.find(FaultStatusWithData); ok {
		a.status = f.Status
	}
	if f, ok := faults.find(FaultSlow); ok {
		waitFor(r.Context(), time.Duration(f.Delay), f.cleared)
	}
	if f, ok := faults.find(FaultHang); ok {
		select {
		case <-f.cleared:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	for key, values := range a.header {
		w.Header()[key] = values
	}
	w.Header()["Content-Type"] = nil
	if a.contentType != "" {
		w.Header().Set("Content-Type", a.contentType)
	}
	size, send := len(a.body), a.body
	truncated, cut := faults.find(FaultTruncated)
	if cut {
		send = send[:len(send)/2]
		if truncated.Bytes > 0 {
			send = a.body[:min(truncated.Bytes, len(a.body))]
		}
	}
	oversized, padded := faults.find(FaultOversized)
	padding := defaultOversizedBytes
	if padded && oversized.Bytes > 0 {
		padding = oversized.Bytes
	}
	if !padded {
		padding = 0
	}
	if cut && len(send) == size {
		size++ // the client must see that something is missing
	}
	w.Header().Set("Content-Length", strconv.Itoa(size+padding))
	w.WriteHeader(a.status)
	if _, err := w.Write(send); err != nil {
		return a.status
	}
	if cut {
		// What was written so far shall arrive before the connection is cut.
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	writeSpaces(w, padding)
	return a.status
}

// waitFor waits for the delay, or less if the fault is cleared or the client
// goes away. It is real time: a client waits in real time.
func waitFor(ctx context.Context, delay time.Duration, cleared <-chan struct{}) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-cleared:
	case <-ctx.Done():
	}
}

func writeSpaces(w http.ResponseWriter, n int) {
	spaces := make([]byte, min(n, 64<<10))
	for i := range spaces {
		spaces[i] = ' '
	}
	for n > 0 {
		written, err := w.Write(spaces[:min(n, len(spaces))])
		if err != nil {
			return // the client had enough
		}
		n -= written
	}
}
