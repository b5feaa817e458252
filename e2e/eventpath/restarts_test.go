package eventpath_test

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/eventing"
)

// TestEventsSurvivePublisherRestarts sends over 32 connections, through nginx, while the publisher and its store are
// stopped and started again.
func TestEventsSurvivePublisherRestarts(t *testing.T) { survive(t, 20_000, 4) }

func survive(t *testing.T, total, outages int) {
	const connections = 32
	createApplications(t, newKube(t), "shop")
	state := t.TempDir()
	store, err := eventing.Start(t.Context(), eventing.Options{Address: "127.0.0.1:0", StateDir: state})
	must(t, err)
	address := strings.TrimPrefix(store.URL(), "http://")
	t.Cleanup(func() { must(t, store.Close()) })
	validator := newValidator(t, store.URL(), func(o *events.Options) { direct(o); o.RetryWindow = time.Second })
	r := newTerminator(t, "nginx", validator.ProxyAddr().String(), nginx)
	client := r.client(r.certificate(authority.Request{Subject: pkix.Name{CommonName: "shop"}}), connections)

	// Each answer is told of, so that an outage begins and ends by what was seen, not by time.
	var mu sync.Mutex
	changed := sync.NewCond(&mu)
	acknowledged, failed := map[string]bool{}, map[string]string{}
	ids := make(chan string)
	var workers sync.WaitGroup
	for range connections {
		workers.Go(func() {
			for id := range ids {
				code, err := r.post(client, "/shop/events", `{"n":1}`, event(id))
				mu.Lock()
				if err == nil && code >= 200 && code < 300 {
					acknowledged[id] = true
				} else {
					failed[id] = fmt.Sprint(code, " ", err)
				}
				changed.Broadcast()
				mu.Unlock()
			}
		})
	}
	go func() {
		defer close(ids)
		for i := range total {
			select {
			case ids <- fmt.Sprintf("event-%d", i):
			case <-t.Context().Done():
				return
			}
		}
	}()
	// wait waits until so many have their answer, or all.
	wait := func(what string, enough func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		defer context.AfterFunc(ctx, func() { mu.Lock(); defer mu.Unlock(); changed.Broadcast() })()
		mu.Lock()
		defer mu.Unlock()
		for !enough() {
			if ctx.Err() != nil {
				t.Fatalf("not in time: %s; %d acknowledged, %d failed", what, len(acknowledged), len(failed))
			}
			changed.Wait()
		}
	}
	for i := range outages {
		wait("events before an outage", func() bool { return len(acknowledged)+len(failed) >= (i+1)*total/(outages+1) })
		must(t, store.Close())
		if i%2 == 0 {
			// Long enough that events fail for good.
			mu.Lock()
			before := len(failed)
			mu.Unlock()
			wait("failures while the publisher is away", func() bool { return len(failed) > before })
		}
		store, err = eventing.Start(context.Background(), eventing.Options{Address: address, StateDir: state})
		must(t, err)
	}
	wait("all have an answer", func() bool { return len(acknowledged)+len(failed) == total })
	workers.Wait()

	stored := map[string]int{}
	for after := uint64(0); ; {
		page, err := store.Events(t.Context(), eventing.Filter{After: after})
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			stored[e.Event.ID()]++
			after = e.Sequence
		}
	}
	lost, repeated := 0, 0
	for id := range acknowledged {
		if stored[id] == 0 {
			lost++
		}
	}
	for _, n := range stored {
		if n > 1 {
			repeated++
		}
	}
	again := retries(t, validator)
	if lost > 0 || repeated > 0 || len(stored) > total {
		t.Errorf("%d acknowledged events are not stored, %d are stored more than once, %d are stored", lost, repeated, len(stored))
	}
	for id, why := range failed {
		if strings.HasPrefix(why, "2") {
			t.Errorf("%s: %s", id, why)
		}
	}
	if len(failed) == 0 || again == 0 || len(acknowledged) == 0 {
		t.Errorf("%d acknowledged, %d failed, %d attempts repeated: the outages prove nothing", len(acknowledged), len(failed), again)
	}
	t.Logf("%d outages: %d events acknowledged and stored once, %d failed (of which %d are stored), %d attempts repeated", outages, len(acknowledged), len(failed), len(stored)-len(acknowledged), again)
}

// retries is how often the validator repeated an attempt.
func retries(t *testing.T, s *events.Server) int {
	t.Helper()
	resp, err := http.Get("http://" + s.AdminAddr().String() + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	m := regexp.MustCompile(`validator_publisher_retries_total\{route="events"\} (\d+)`).FindSubmatch(text)
	if m == nil {
		t.Fatal("no such metric")
	}
	n, err := strconv.Atoi(string(m[1]))
	must(t, err)
	return n
}
