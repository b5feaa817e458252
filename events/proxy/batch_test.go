package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/application-connector/application-connector/events/proxy"
)

// The publisher takes events of one source and id for the same one, so that the second would be lost, and yet acknowledged.
func TestABatchWhoseEventsBecomeOneByTheRewrittenSourceIsRefused(t *testing.T) {
	one := func(source string) string {
		return `{"specversion":"1.0","id":"a","source":"` + source + `","type":"t"}`
	}
	for what, tc := range map[string]struct {
		body   string
		policy proxy.SourcePolicy
		status int
		sent   int
	}{
		"two other sources":               {`[` + one("x") + `,` + one("y") + `]`, proxy.SourceRewrite, 400, 0},
		"another one and the Application": {`[` + one("test-application") + `,` + one("y") + `]`, proxy.SourceRewrite, 400, 0},
		"sources that stay different":     {`[` + one("x") + `,` + one("y") + `]`, proxy.SourceWarn, 204, 2},
		"one other source":                {`[` + one("x") + `]`, proxy.SourceRewrite, 204, 1},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil, func(c *proxy.Config) { c.SourcePolicy = tc.policy })
			got := r.send("POST", "/test-application/events", batched("CN=test-application"), tc.body)
			if got.Status != tc.status || len(r.saw()) != tc.sent {
				t.Errorf("got %+v, the publisher saw %d", got, len(r.saw()))
			}
			if tc.status == 400 && !strings.Contains(got.refused(t, 400), "events 0 and 1 of the batch (counted from 0) have the same id") {
				t.Errorf("got %s", got.Body)
			}
		})
	}
}

func TestABatchsEventForWhichThePublisherSwitchesProtocolsIsNotTakenAndHoldsNothingUp(t *testing.T) {
	end := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		<-end // and keeps the connection
	}, nil)
	t.Cleanup(func() { close(end) })
	answered := make(chan answer, 1)
	go func() {
		answered <- r.send("POST", "/test-application/events", batched("CN=test-application"), batch("a"))
	}()
	select {
	case got := <-answered:
		if got.Status != 503 {
			t.Errorf("got %+v", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("no answer in 20 s")
	}
}
