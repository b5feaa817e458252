package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// slowWriter takes one write at a time, when it is let.
type slowWriter struct {
	let  chan struct{}
	text bytes.Buffer
	n    int
}

func (s *slowWriter) Write(p []byte) (int, error) {
	<-s.let
	s.n++
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
	if len(all) != writers*each+1 || all[len(all)-1] != "after the end" || to.n > 4 {
		t.Errorf("%d lines in %d writes", len(all), to.n)
	}
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
