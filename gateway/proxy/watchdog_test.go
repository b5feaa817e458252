package proxy

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAWaitIsOverWhenItLastedAsLongAsItMayAndNeverBefore(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		do   func(d *watchdog)
		over []string // what, and when
	}{
		"nothing is waited for": {func(*watchdog) { time.Sleep(100 * second) }, nil},
		"it does not come":      {func(d *watchdog) { d.answer.begin(); time.Sleep(100 * second) }, []string{"answer 10s"}},
		"it begins between two looks": {func(d *watchdog) {
			time.Sleep(7 * second)
			d.answer.begin()
			time.Sleep(100 * second)
		}, []string{"answer 17s"}},
		"it comes in time": {func(d *watchdog) {
			d.answer.begin()
			time.Sleep(9 * second)
			d.answer.end()
			time.Sleep(100 * second)
		}, nil},
		"many come in time": {func(d *watchdog) {
			for range 100 {
				d.piece.begin()
				time.Sleep(2 * second)
				d.piece.end()
			}
		}, nil},
		"the last of many does not": {func(d *watchdog) {
			for range 10 {
				d.piece.begin()
				time.Sleep(2 * second)
				d.piece.end()
			}
			d.piece.begin()
			time.Sleep(100 * second)
		}, []string{"piece 23s"}},
		"it is put off": {func(d *watchdog) {
			d.answer.begin()
			for range 10 {
				time.Sleep(9 * second)
				d.answer.putOff()
			}
			time.Sleep(100 * second)
		}, []string{"answer 1m40s"}},
		"what has ended is not put off": {func(d *watchdog) {
			d.answer.begin()
			d.answer.end()
			d.answer.putOff()
			time.Sleep(100 * second)
		}, nil},
		"it has no bound": {func(d *watchdog) { d.caller.begin(); time.Sleep(100 * second) }, nil},
		"two at once": {func(d *watchdog) {
			d.answer.begin()
			d.piece.begin()
			time.Sleep(100 * second)
		}, []string{"piece 3s", "answer 10s"}},
		"the call has ended": {func(d *watchdog) {
			d.answer.begin()
			d.stop()
			time.Sleep(100 * second)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d watchdog
				var over []string
				start := time.Now()
				note := func(what string) func() {
					return func() { over = append(over, fmt.Sprint(what, " ", time.Since(start))) }
				}
				d.watch(&d.answer, 10*second, note("answer"))
				d.watch(&d.piece, 3*second, note("piece"))
				d.watch(&d.caller, 0, note("caller"))
				d.start()
				c.do(&d)
				d.stop()
				synctest.Wait()
				if diff := cmp.Diff(c.over, over); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}
