package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// rotationRate is how many calls a second are meant to be made while a Secret is changed.
const rotationRate = 500

// rotation is what came of changing a Secret while its API is called.
type rotation struct {
	times     []time.Duration // from before each change until a call carries it, sorted
	calls     int64
	failed    int64   // calls that got anything but 200
	perSecond float64 // calls
}

// rotate changes the password of an API under load, some times. An Application is put in force by apply; the API accepts the
// password that is in force, and until that is seen at the target the one before.
func rotate(h *harness, changes int, apply func(name string, spec v1alpha1.ApplicationSpec)) rotation {
	h.t.Helper()
	var accepted, seen sync.Map // by password; seen holds when it came first
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if _, ok := accepted.Load(password); !ok {
			w.WriteHeader(http.StatusUnauthorized)
		}
		seen.LoadOrStore(password, time.Now())
		io.WriteString(w, password)
	}))
	defer target.Close()
	password := func(i int) string { return fmt.Sprint("password-", i) }
	accepted.Store(password(0), true)
	h.secret("rotated", map[string]string{"username": "u", "password": password(0)})
	apply("rotated", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL, with("Basic", "rotated", ""))}})

	ctx, cancel := context.WithCancel(context.Background())
	var r rotation
	var calls, failed atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	const workers = 10
	started := time.Now()
	for range workers {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * workers / rotationRate)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				a, err := h.try(http.MethodGet, h.addresses.Services, "/rotated/svc", nil)
				if calls.Add(1); err != nil || a.Status != http.StatusOK {
					failed.Add(1)
					h.t.Errorf("%+v %v", a, err)
				}
			}
		})
	}
	for i := 1; i <= changes; i++ {
		accepted.Store(password(i), true)
		begin := time.Now()
		h.secret("rotated", map[string]string{"username": "u", "password": password(i)})
		h.eventually("the new password is in force", func() error {
			first, ok := seen.Load(password(i))
			if ok {
				r.times = append(r.times, first.(time.Time).Sub(begin))
			}
			return expect(ok, "it was not seen")
		})
		// From here on the old one is refused, also for calls that are on their way with it.
		accepted.Delete(password(i - 1))
		enough := calls.Load() + rotationRate/20
		h.eventually("calls went on", func() error { return expect(calls.Load() >= enough, "%d", calls.Load()) })
	}
	cancel()
	wg.Wait()
	slices.Sort(r.times)
	r.calls, r.failed, r.perSecond = calls.Load(), failed.Load(), float64(calls.Load())/time.Since(started).Seconds()
	return r
}

// percentile is the smallest of sorted times that so many percent do not exceed.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}

func aSecretRotatedUnderLoadIsInForceAndNobodySeesA401(t *testing.T) {
	h := start(t)
	r := rotate(h, 20, func(name string, spec v1alpha1.ApplicationSpec) { h.application(name, spec) })
	t.Logf("%d calls, %.0f a second, %d failed; %d changes in force after p50 %v, p99 %v, at most %v", r.calls, r.perSecond, r.failed, len(r.times), percentile(r.times, 50), percentile(r.times, 99), r.times[len(r.times)-1])
	if r.failed > 0 || len(r.times) != 20 {
		t.Errorf("%d of %d calls failed, in %d changes", r.failed, r.calls, len(r.times))
	}
	if r.perSecond < rotationRate/10 {
		t.Errorf("%.0f calls a second", r.perSecond)
	}
	// Ten times the second that it may take: this runs with the race detector, on a machine that does other things too.
	if slowest := r.times[len(r.times)-1]; slowest > 10*time.Second {
		t.Errorf("in force after %v", slowest)
	}
}
