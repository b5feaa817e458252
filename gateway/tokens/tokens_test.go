package tokens

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"github.com/application-connector/application-connector/gateway/credentials"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestATokenServesForMostOfItsLifeAndNeverForEver(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for seconds, want := range map[int64]time.Duration{
		0: 298 * time.Second, -5: 298 * time.Second, 1: 800 * time.Millisecond, 3: 2400 * time.Millisecond, 5: 4 * time.Second, 300: 298 * time.Second,
		3600: 3598 * time.Second, 86400: 86398 * time.Second, 86401: 86398 * time.Second, 1 << 62: 86398 * time.Second,
	} {
		for range 20 {
			f := lifetime("t", now, seconds)
			if got := f.Expires.Sub(now); got != want {
				t.Errorf("expires_in %d: served for %s, want %s", seconds, got, want)
			}
			if early := f.Refresh.Sub(now).Seconds() / want.Seconds(); early < 0.7499 || early > 0.8501 {
				t.Errorf("expires_in %d: renewed after %.3f of that", seconds, early)
			}
		}
	}
}

// endpoint is a token endpoint without a network.
type endpoint struct {
	n      int
	answer func(n int) (int, string)
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	e.n++
	status, body := e.answer(e.n)
	if status == 0 {
		return nil, errors.New(body)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func request(kind string) credentials.TokenRequest {
	return credentials.TokenRequest{Kind: kind, URL: "https://idp/token?key=canary", ClientID: "c", ClientSecret: "canary", Version: credentials.VersionOf(kind)}
}

// TestAcceptance is the one of the cases in package proxy's test of the same name that needs time to pass.
func TestAcceptance(t *testing.T) {
	t.Run("23-a token without expires_in", aTokenIsReplacedBeforeItEndsAndWithoutExpiresInAfterTheDefault)
}

func aTokenIsReplacedBeforeItEndsAndWithoutExpiresInAfterTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{answer: func(n int) (int, string) { return 200, fmt.Sprintf(`{"access_token":"t%d"}`, n) }}
		var fetched []string
		m := New(Options{
			Transports: func(string, *credentials.Identity, credentials.Trust) http.RoundTripper { return e }, Timeout: time.Second, Clock: clock.RealClock{},
			Fetched: func(kind string, err error) { fetched = append(fetched, fmt.Sprint(kind, err)) },
		})
		defer m.Close()
		get := func(want string) {
			t.Helper()
			if token, err := m.Token(t.Context(), request("OAuth")); err != nil || token.Reveal() != want {
				t.Errorf("%s %v, want %s", token.Reveal(), err, want)
			}
		}
		get("t1")
		time.Sleep(3 * time.Minute)
		get("t1")
		time.Sleep(90 * time.Second) // past 85 percent of five minutes
		get("t1")
		synctest.Wait()
		get("t2")
		time.Sleep(time.Hour)
		get("t3")
		m.Forget(request("OAuth"), "t2") // which is no longer kept
		get("t3")
		m.Forget(request("OAuth"), "t3")
		get("t4")
		if strings.Join(fetched, ",") != "OAuth<nil>,OAuth<nil>,OAuth<nil>,OAuth<nil>" {
			t.Error(fetched)
		}
	})
}

func TestFailuresAreTheCallersToSeeAndHoldTheNextCallsBackForAWhile(t *testing.T) {
	for kind, status := range map[string]int{"OAuth": 502, "OAuthWithCert": 500} {
		synctest.Test(t, func(t *testing.T) {
			e := &endpoint{answer: func(n int) (int, string) {
				return map[int]int{1: 0, 2: 503, 3: 200}[n], `{"access_token":"t","expires_in":60}`
			}}
			m := New(Options{Transports: func(string, *credentials.Identity, credentials.Trust) http.RoundTripper { return e }, Timeout: time.Second, Clock: clock.RealClock{}})
			defer m.Close()
			for n := range 50 {
				_, err := m.Token(t.Context(), request(kind))
				answered := 503
				if n == 0 { // the first time the endpoint did not answer
					answered = 0
				}
				var call *credentials.CallError
				if !errors.As(err, &call) || call.Status != status || call.Answered != answered || call.Reason != credentials.FailureToken || strings.Contains(err.Error(), "canary") {
					t.Errorf("%s: %v", kind, err)
				}
			}
			if e.n != 2 {
				t.Errorf("%s: the endpoint was asked %d times", kind, e.n)
			}
			time.Sleep(backoff)
			if token, err := m.Token(t.Context(), request(kind)); err != nil || token.Reveal() != "t" {
				t.Errorf("%s: %v", kind, err)
			}
		})
	}
}

func TestATokensLifeBeginsWhenItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 3 * time.Second
		e := &endpoint{answer: func(n int) (int, string) {
			time.Sleep(slow)
			return 200, fmt.Sprintf(`{"access_token":"t%d","expires_in":10}`, n)
		}}
		m := New(Options{Transports: func(string, *credentials.Identity, credentials.Trust) http.RoundTripper { return e }, Timeout: time.Minute, Clock: clock.RealClock{}})
		defer m.Close()
		asked := time.Now()
		if _, err := m.Token(t.Context(), request("OAuth")); err != nil || time.Since(asked) != slow {
			t.Fatal(err, time.Since(asked))
		}
		time.Sleep(10*time.Second - margin - time.Since(asked))
		// It has ended: this call waits for another one.
		if token, err := m.Token(t.Context(), request("OAuth")); err != nil || token.Reveal() != "t2" {
			t.Errorf("%s %v", token.Reveal(), err)
		}
	})
}

func TestVerifiedAndUnverifiedTokensAreKeptApart(t *testing.T) {
	e := &endpoint{answer: func(n int) (int, string) { return 200, fmt.Sprintf(`{"access_token":"t%d"}`, n) }}
	m := New(Options{Transports: func(string, *credentials.Identity, credentials.Trust) http.RoundTripper { return e }, Timeout: time.Second, Clock: clock.RealClock{}})
	defer m.Close()
	verified, unverified := request("OAuth"), request("OAuth")
	unverified.Trust.SkipVerify = true
	first, err1 := m.Token(t.Context(), verified)
	second, err2 := m.Token(t.Context(), unverified)
	if err1 != nil || err2 != nil || first == second {
		t.Errorf("%v %v", err1, err2)
	}
}
