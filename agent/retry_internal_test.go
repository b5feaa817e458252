package agent

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestAnAgentIsBackWithinAMinuteOfTheAPIServer(t *testing.T) {
	r := retries()
	var last time.Duration
	for range 1000 {
		wait := r.When(reconcile.Request{})
		if wait < last || wait > time.Minute {
			t.Fatalf("waits %s after %s", wait, last)
		}
		last = wait
	}
	if last != time.Minute {
		t.Errorf("waits %s at most", last)
	}
}
