package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestABodyThatIsTooLargeIsRefusedBeforeItIsSentToAClientThatAsksFirst(t *testing.T) {
	r := newRig(t, nil, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /test-application/v1/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: "+xfcc("CN=test-application")+"\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadResponse(bufio.NewReader(conn), nil) // that of 100 Continue, if there is one
	if err != nil {
		t.Fatal(err)
	}
	got.Body.Close()
	if got.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %s", got.Status)
	}
	if len(r.saw()) != 0 {
		t.Errorf("the publisher saw %+v", r.saw())
	}
}

func TestAnAnswerWhoseHeaderIsTooLargeIsNone(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", 128<<10))
		w.WriteHeader(http.StatusNoContent)
	}, nil)
	r.send("POST", "/test-application/events", event("CN=test-application"), "x").refused(t, 503)
	if audit := r.audit(); len(audit) != 1 || audit[0]["reason"] != "publisher_unreachable" {
		t.Errorf("audit: %v", audit)
	}
}
