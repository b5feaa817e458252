package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestABodyThatDoesNotArriveIsA408(t *testing.T) {
	r := newRig(t, nil, nil, func(s *http.Server) { s.ReadTimeout = 200 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nContent-Length: 100\r\n\r\nhalf")
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %d", got.StatusCode)
	}
	if audit := r.audit(); len(audit) != 1 || audit[0]["reason"] != "body_timeout" {
		t.Errorf("audit: %v", audit)
	}
}

func TestAClientThatLeaves(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-release }, nil)
	t.Cleanup(func() { close(release) })
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.server.URL+"/test-application/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = event("CN=test-application")
	go func() { <-arrived; leave() }()
	if got, err := r.server.Client().Do(request); err == nil {
		got.Body.Close()
		t.Error("an answer")
	}
	if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "client_gone" {
		t.Errorf("audit: %v", audit)
	}
}

func TestAClientThatLeavesWithinTheAnswer(t *testing.T) {
	left, begun := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 8<<10))
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-left
		for b := make([]byte, 64<<10); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nContent-Length: 2\r\n\r\n{}")
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	conn.Close()
	close(left)
	if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "client_gone" {
		t.Errorf("audit: %v", audit)
	}
}

func TestABodyThatBreaksOffIsNotSent(t *testing.T) {
	r := newRig(t, nil, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nContent-Length: 100\r\n\r\nhalf")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(conn)
	conn.Close()
	if audit := r.audit(); len(audit) != 1 || audit[0]["reason"] != "body_unreadable" || len(r.seen) != 0 {
		t.Errorf("audit: %v, seen: %v", audit, r.seen)
	}
}
