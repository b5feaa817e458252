package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowWriter takes one write at a time, when it is let.
type slowWriter struct {
	let  chan struct{}
	text bytes.Buffer
	n    atomic.Int32
}

func (s *slowWriter) Write(p []byte) (int, error) {
	<-s.let
	s.n.Add(1)
	return s.text.Write(p)
}

func TestLogLinesThatComeWhileOneIsWrittenShareTheNextWriteAndNoneIsLost(t *testing.T) {
	const writers, each = 8, 500
	to := &slowWriter{let: make(chan struct{})}
	l := newLines(to)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if _, err := fmt.Fprintf(l, "line %d of %d\n", j, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait() // nobody waits for the writer
	close(to.let)
	l.Close()
	if _, err := fmt.Fprintln(l, "after the end"); err != nil {
		t.Error(err)
	}
	next := [writers]int{}
	all := strings.Split(strings.TrimSuffix(to.text.String(), "\n"), "\n")
	for _, line := range all[:len(all)-1] {
		var j, i int
		if n, err := fmt.Sscanf(line, "line %d of %d", &j, &i); n != 2 || next[i] != j {
			t.Fatalf("%q %v, want line %d", line, err, next[i])
		}
		next[i]++
	}
	if len(all) != writers*each+1 || all[len(all)-1] != "after the end" || to.n.Load() > 4 {
		t.Errorf("%d lines in %d writes", len(all), to.n.Load())
	}
}

func TestALineIsWrittenAtOnceAndThoseSoonAfterItTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &slowWriter{let: make(chan struct{})}
		close(to.let)
		l := newLines(to)
		for _, step := range []struct {
			log    string
			pass   time.Duration
			writes int32
		}{{"1\n", 0, 1}, {"2\n", writePause / 2, 1}, {"3\n", 0, 1}, {"", writePause / 2, 2}, {"", 10 * writePause, 2}, {"4\n", 0, 3}} {
			if step.log != "" {
				if _, err := l.Write([]byte(step.log)); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(step.pass)
			synctest.Wait()
			if got := to.n.Load(); got != step.writes {
				t.Errorf("after %q and %s: %d writes, want %d", step.log, step.pass, got, step.writes)
			}
		}
		l.Close()
		if got := to.text.String(); got != "1\n2\n3\n4\n" {
			t.Errorf("%q", got)
		}
	})
}

func TestWhoLogsMoreThanCanBeWrittenWaits(t *testing.T) {
	to := &slowWriter{let: make(chan struct{})}
	l := newLines(to)
	big := []byte(strings.Repeat("x", pendingLimit) + "\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 4 {
			if _, err := l.Write(big); err != nil {
				t.Error(err)
			}
		}
	}()
	l.mu.Lock()
	for l.pending.Len() <= pendingLimit {
		l.changed.Wait()
	}
	l.mu.Unlock()
	close(to.let)
	<-done
	l.Close()
	if to.text.Len() != 4*len(big) {
		t.Errorf("%d bytes", to.text.Len())
	}
}
