package sync

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
)

func TestASecretIsThereBeforeTheApplicationNamesItAndGoesAfterItDoesNotAnyMore(t *testing.T) {
	c := newCluster(t)
	c.sync(systems.Whole(systems.Shop()))
	moved := systems.Shop()
	moved.Bundles[0].ID = systems.Bundle2
	_, writes := c.sync(systems.Whole(moved))
	want := []string{
		"create secret mp-shop-" + systems.Bundle2, "create secret params-mp-shop-" + systems.Bundle2, "apply application mp-shop",
		"delete secret " + shopSecret, "delete secret " + shopParameters, "apply status application mp-shop",
	}
	if diff := cmp.Diff(want, writes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"mp-shop-" + systems.Bundle2, "params-mp-shop-" + systems.Bundle2}, c.secretNames()); diff != "" {
		t.Error(diff)
	}
}

func TestSoManyApplicationsAreWrittenAtATimeAndNoMore(t *testing.T) {
	const most = 3
	c := newCluster(t)
	c.syncer.Concurrency = most
	var mu sync.Mutex
	writing, seen := 0, 0
	together := make(chan struct{}) // closed when as many as may be are writing
	c.before = func(string) error {
		mu.Lock()
		writing++
		if seen = max(seen, writing); writing == most && together != nil {
			close(together)
			together = nil
		}
		wait := together
		mu.Unlock()
		if wait != nil {
			select {
			case <-wait:
			case <-time.After(time.Minute):
			}
		}
		mu.Lock()
		defer mu.Unlock()
		writing--
		return nil
	}
	if result, _ := c.sync(systems.Whole(systems.Some(20)...)); result.Synced != 20 {
		t.Errorf("result %+v", result)
	}
	if seen != most {
		t.Errorf("%d were written at a time, want %d", seen, most)
	}
}

func TestASyncEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.before = func(string) error { cancel(); return nil }
	result, err := c.syncer.Sync(ctx, systems.Whole(systems.Some(40)...))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("result %+v, error %v", result, err)
	}
	if names := c.applicationNames(); len(names) == 40 {
		t.Error("it went on to the end")
	}
	c.before = nil
	if result, _ := c.sync(systems.Whole(systems.Some(40)...)); result.Synced != 40 {
		t.Errorf("result %+v", result)
	}
}
