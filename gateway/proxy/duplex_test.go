package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// byHand sends the beginning of a request, and returns what reads the answer.
func (r *rig) byHand(text string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(generous))
	io.WriteString(conn, text)
	return conn, bufio.NewReader(conn)
}

func TestBothEndsTalkAtOnceAlsoByHTTP1(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		control := http.NewResponseController(w)
		if err := control.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		for lines := bufio.NewScanner(q.Body); lines.Scan(); {
			fmt.Fprintf(w, "echo %s\n", lines.Text())
			_ = control.Flush()
		}
		io.WriteString(w, "end\n")
	})
	r.application("app", nil, entry("svc", target.URL))
	for name, c := range map[string]struct{ header, before, after, end string }{
		"of unknown length": {"Transfer-Encoding: chunked", "6\r\n", "\r\n", "0\r\n\r\n"},
		"of a large length": {"Content-Length: 60000", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, reader := r.byHand("POST /app/svc HTTP/1.1\r\nHost: g\r\n" + c.header + "\r\n\r\n")
			const line = "hello\n"
			io.WriteString(conn, c.before+line+c.after)
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			answer := bufio.NewReader(response.Body)
			for i := range 10_000 {
				if got, err := answer.ReadString('\n'); err != nil || got != "echo "+line {
					t.Fatalf("line %d: %q %v", i, got, err)
				}
				if i == 9_999 {
					break
				}
				io.WriteString(conn, c.before+line+c.after)
			}
			io.WriteString(conn, c.end)
			if rest, err := io.ReadAll(answer); err != nil || string(rest) != "end\n" {
				t.Errorf("%q %v", rest, err)
			}
		})
	}
}

func TestABodyOfUnknownLengthArrivesWholeHoweverSoonItIsAnswered(t *testing.T) {
	r := newRig(t)
	const size = 100_000
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.CopyN(io.Discard, q.Body, size/2)
		io.WriteString(w, "half ")
		_ = http.NewResponseController(w).Flush()
		n, err := io.Copy(io.Discard, q.Body)
		fmt.Fprint(w, n, err)
	})
	r.application("app", nil, entry("svc", target.URL))
	body := strings.Repeat("x", size)
	for range 50 {
		// A reader of a type that net/http does not know has no length.
		if a := r.do(http.MethodPost, "/app/svc", io.MultiReader(strings.NewReader(body))); a.Body != fmt.Sprint("half ", size/2, " <nil>") {
			t.Fatalf("%+v", a)
		}
	}
}

func TestABodyThatNobodyWantsHoldsNoConnectionForLong(t *testing.T) {
	r := newRig(t, timeouts{target: generous, request: 300 * time.Millisecond})
	target := r.target(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		io.WriteString(w, "early")
		_ = http.NewResponseController(w).Flush()
	})
	r.application("app", nil, entry("svc", target.URL))
	for path, want := range map[string]int{"/app/svc": 200, "/app/absent": 404, "/app": 400} {
		for _, length := range []string{"Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n", "Content-Length: 100000\r\n\r\nbegin", "Content-Length: 1000000000\r\n\r\nbegin"} {
			t.Run(fmt.Sprint(path, " ", length[:10], len(length)), func(t *testing.T) {
				conn, reader := r.byHand("POST " + path + " HTTP/1.1\r\nHost: g\r\n" + length)
				response, err := http.ReadResponse(reader, nil)
				if err != nil || response.StatusCode != want {
					t.Fatalf("%+v %v", response, err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				// It stands where the body should go on, and is no request.
				io.WriteString(conn, "GET /app/svc HTTP/1.1\r\nHost: g\r\n\r\n")
				if more, err := io.ReadAll(reader); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(more) > 0 {
					t.Errorf("%q %v", more, err)
				}
			})
		}
	}
}

func TestAConnectionServesOnAfterABodyOfAnyKind(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		n, err := io.Copy(io.Discard, q.Body)
		fmt.Fprint(w, n, err)
	})
	r.application("app", nil, entry("svc", target.URL))
	large := strings.Repeat("x", 1<<20)
	conn, reader := r.byHand("")
	for range 2 {
		for name, c := range map[string]struct {
			text string
			want string
		}{
			"none":    {"Host: g\r\n\r\n", "0<nil>"},
			"small":   {"Host: g\r\nContent-Length: 5\r\n\r\nhello", "5<nil>"},
			"large":   {"Host: g\r\nContent-Length: 1048576\r\n\r\n" + large, "1048576<nil>"},
			"chunked": {"Host: g\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n100000\r\n" + large + "\r\n0\r\n\r\n", "1048581<nil>"},
		} {
			io.WriteString(conn, "POST /app/svc HTTP/1.1\r\n"+c.text)
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if text, err := io.ReadAll(response.Body); err != nil || strings.ReplaceAll(string(text), " ", "") != c.want || response.Close {
				t.Errorf("%s: %q %v, closes: %v", name, text, err, response.Close)
			}
		}
	}
}

func TestTheTimeOfACallEndsTheWaitForItsBodyToo(t *testing.T) {
	r := newRig(t)
	target := r.target(func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) })
	r.application("app", settings(v1alpha1.TargetSettings{Timeouts: &v1alpha1.TimeoutSettings{Total: "200ms"}}), entry("svc", target.URL))
	for _, length := range []string{"Content-Length: 10", "Content-Length: 100000"} {
		_, reader := r.byHand("POST /app/svc HTTP/1.1\r\nHost: g\r\n" + length + "\r\n\r\nbegin")
		begin := time.Now()
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%s: %v", length, err)
		}
		response.Body.Close()
		// Whichever is noticed first.
		reason := response.Header.Get("Gateway-Error-Reason")
		if took := time.Since(begin); took > generous/2 || response.StatusCode != 502 && response.StatusCode != 504 || reason != "RequestBodyIncomplete" && reason != "TargetTimeout" {
			t.Errorf("%s: %d %s after %s", length, response.StatusCode, reason, took)
		}
	}
}
