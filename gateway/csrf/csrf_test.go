package csrf

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/credentials"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint is a CSRF token endpoint without a network.
type endpoint struct {
	asked  []string
	answer func(method string) (int, []string)
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	e.asked = append(e.asked, r.Method)
	status, cookies := e.answer(r.Method)
	header := http.Header{"Set-Cookie": cookies, "X-Csrf-Token": {fmt.Sprint("t", len(e.asked))}}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func manager(e *endpoint) *Manager {
	return New(Options{Transports: func(string, *credentials.Identity, credentials.Trust) http.RoundTripper { return e }, Timeout: time.Second, Clock: clock.RealClock{}})
}

var request = credentials.SessionRequest{URL: "https://h/csrf", Header: []credentials.Field{{Name: "Authorization", Value: "Basic eA=="}}}

func TestAServiceThatRefusesGetIsAskedByHead(t *testing.T) {
	for status, want := range map[int][]string{200: {"GET"}, 405: {"GET", "HEAD"}, 501: {"GET", "HEAD"}, 404: {"GET"}, 403: {"GET"}} {
		e := &endpoint{answer: func(method string) (int, []string) {
			if method == http.MethodGet {
				return status, nil
			}
			return 200, nil
		}}
		m := manager(e)
		_, err := m.Session(t.Context(), request)
		var call *credentials.CallError
		if refused := status == 404 || status == 403; refused != errors.As(err, &call) || refused != (err != nil) {
			t.Errorf("%d: %v", status, err)
		}
		if diff := cmp.Diff(want, e.asked); diff != "" {
			t.Errorf("%d: %s", status, diff)
		}
		m.Close()
	}
}

func TestASessionServesNoLongerThanItsCookies(t *testing.T) {
	for _, c := range []struct {
		cookies []string
		life    time.Duration
		sent    int
	}{
		{nil, life, 0},
		{[]string{"a=1", "b=2; Max-Age=999999999"}, life, 2},
		{[]string{"a=1; Max-Age=60", "b=2; Max-Age=30"}, 30 * time.Second, 2},
		{[]string{"a=1; Expires=Sat, 01 Jan 2000 00:01:30 GMT"}, 90 * time.Second, 1},
		{[]string{"a=1; Max-Age=0", "b=2; Expires=Fri, 31 Dec 1999 00:00:00 GMT", "c=3"}, life, 1},
	} {
		synctest.Test(t, func(t *testing.T) { // begins at 2000-01-01 00:00:00 UTC
			e := &endpoint{answer: func(string) (int, []string) { return 200, c.cookies }}
			m := manager(e)
			defer m.Close()
			session, err := m.Session(t.Context(), request)
			if err != nil || session.Token != "t1" || len(session.Cookies) != c.sent {
				t.Fatalf("%v: %+v %v", c.cookies, session, err)
			}
			time.Sleep(c.life - time.Millisecond)
			if session, err := m.Session(t.Context(), request); err != nil || session.Token != "t1" {
				t.Errorf("%v: %v ended too early", c.cookies, err)
			}
			time.Sleep(time.Millisecond)
			if session, err := m.Session(t.Context(), request); err != nil || session.Token != "t2" {
				t.Errorf("%v: %v served too long", c.cookies, err)
			}
		})
	}
}

func TestSessionsAreUsedForLessLongThanTheyWereSeenToLastAndForLongerAgainWhenTheyDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(string) (int, []string) { return 200, nil }}
		m := manager(e)
		defer m.Close()
		open := func(want string) *credentials.Session {
			t.Helper()
			session, err := m.Session(t.Context(), request)
			if err != nil || session.Token.Reveal() != want {
				t.Fatalf("%v %v, want %s", session, err, want)
			}
			return session
		}
		// refused after 100 seconds, and the one after it is not
		first := open("t1")
		time.Sleep(100 * time.Second)
		m.Forget(request, first)
		open("t2")
		m.Outlived(request, first)
		time.Sleep(90*time.Second - time.Millisecond)
		open("t2")
		time.Sleep(time.Millisecond)
		// 90 seconds, then a 32nd more each time, up to what it was before all that
		lasts := 90 * time.Second
		for n := 3; lasts < life; n++ {
			open(fmt.Sprint("t", n))
			time.Sleep(lasts - time.Millisecond)
			open(fmt.Sprint("t", n))
			time.Sleep(time.Millisecond)
			lasts += lasts / patience
		}
		n := len(e.asked) + 1
		open(fmt.Sprint("t", n))
		time.Sleep(life - time.Millisecond)
		open(fmt.Sprint("t", n))
		if m.learned.Len() != 0 {
			t.Error("what was learned is kept although it does not matter any more")
		}
		// A session that is refused at once teaches no less than a second, and others of the same service nothing.
		time.Sleep(time.Millisecond)
		m.Outlived(request, open(fmt.Sprint("t", n+1)))
		time.Sleep(shortest)
		open(fmt.Sprint("t", n+2))
		time.Sleep(shortest - time.Millisecond)
		open(fmt.Sprint("t", n+2))
		other := request
		other.Owner.Service = "other"
		if _, err := m.Session(t.Context(), other); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		asked := len(e.asked)
		if _, err := m.Session(t.Context(), other); err != nil || len(e.asked) != asked {
			t.Errorf("another API's session ended too: %v", err)
		}
	})
}

func TestABrokenServiceIsNotAskedForEachCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(string) (int, []string) { return 503, nil }}
		m := manager(e)
		defer m.Close()
		for range 100 {
			var call *credentials.CallError
			if _, err := m.Session(t.Context(), request); !errors.As(err, &call) || call.Reason != credentials.FailureCSRF || call.Status != 502 || call.Answered != 503 {
				t.Errorf("%v", err)
			}
		}
		if len(e.asked) != 2 {
			t.Errorf("asked %d times", len(e.asked))
		}
	})
}
