// Package leaktest looks whether programs tell secrets. A harness gives it what is secret in a test and what the programs of
// the test tell: logs at debug level, what they print, answers, metrics; of a cluster it takes both itself. At the end of the
// test it fails with where a secret stood, and of what kind it was, never with the secret. It needs nothing but client-go, and
// knows of this project only which kinds of objects programs write.
package leaktest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/application-connector/application-connector/secret/canary"
)

// Watch is what is known of one test. It is safe for concurrent use.
type Watch struct {
	// Secrets are what is looked for. What is added by Add counts; so does what stands in Secrets of a cluster.
	Secrets *canary.Set

	tb    testing.TB
	given atomic.Bool // a secret, though perhaps too short a one

	mu       sync.Mutex
	told     map[string]map[string]bool // texts by where they were told, each once
	logs     map[string]*Log
	clusters map[string]bool
}

var (
	watchesMu sync.Mutex
	watches   = map[string]*Watch{} // by the name of the test
)

// Of gives the Watch of a test: that of the test which it is a part of, if that has one, or else its own, which looks when the
// test ends, after all that is cleaned up later in it. Benchmarks are measured, not watched: of what theirs is told nothing.
func Of(tb testing.TB) *Watch {
	tb.Helper()
	watchesMu.Lock()
	defer watchesMu.Unlock()
	for name := tb.Name(); name != ""; name = name[:max(strings.LastIndex(name, "/"), 0)] {
		if w := watches[name]; w != nil {
			return w
		}
	}
	w := newWatch(tb)
	if !w.measured() {
		name := tb.Name()
		watches[name] = w
		tb.Cleanup(func() {
			watchesMu.Lock()
			delete(watches, name)
			watchesMu.Unlock()
			w.Look()
		})
	}
	return w
}

func newWatch(tb testing.TB) *Watch {
	return &Watch{Secrets: &canary.Set{}, tb: tb, told: map[string]map[string]bool{}, logs: map[string]*Log{}, clusters: map[string]bool{}}
}

func (w *Watch) measured() bool {
	_, is := w.tb.(*testing.B)
	return is
}

// Add records a secret under a name that may be told: a text, or a private key in PEM. Texts of less than eight bytes are too
// short to be looked for.
func (w *Watch) Add(name, value string) {
	if !w.measured() {
		w.given.Store(true)
		w.Secrets.Add(name, value)
	}
}

// AddHeader records the credentials in a request's header: what Authorization and the like hold, with their scheme and
// without, and cookies.
func (w *Watch) AddHeader(h http.Header) {
	for field, values := range h {
		if !secretFields[http.CanonicalHeaderKey(field)] {
			continue
		}
		for _, value := range values {
			if _, credential, found := strings.Cut(value, " "); found {
				w.Add("header "+field, credential)
			}
			for part := range strings.SplitSeq(value, ";") {
				if _, cookie, found := strings.Cut(part, "="); found {
					w.Add("header "+field, cookie)
				}
			}
			w.Add("header "+field, value)
		}
	}
}

var secretFields = map[string]bool{
	"Authorization": true, "Proxy-Authorization": true, "Access-Token": true, "Cookie": true, "Set-Cookie": true, "X-Csrf-Token": true, "X-Api-Key": true,
}

// Told records a text that a program told.
func (w *Watch) Told(where, text string) {
	if w.measured() || text == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told[where] == nil {
		w.told[where] = map[string]bool{}
	}
	w.told[where][text] = true
}

// Answer records an answer that a program made by itself: those of 400 and more. What it hands on from others may hold what
// is theirs.
func (w *Watch) Answer(where string, status int, header http.Header, body string) {
	if status < http.StatusBadRequest {
		return
	}
	var b strings.Builder
	_ = header.Write(&b) // a Builder takes it
	w.Told(where, b.String()+body)
}

// Scrape reads a page of a program, such as its metrics, when the test ends and before what was started earlier ends. A
// program that has ended by then tells nothing.
func (w *Watch) Scrape(tb testing.TB, where, url string) {
	tb.Cleanup(func() { w.Read(where, url) })
}

// Read is Scrape, now.
func (w *Watch) Read(where, url string) {
	if !w.measured() {
		w.Told(where, fetch(url))
	}
}

// fetch is what a URL answers; empty if it does not.
func fetch(url string) string {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	response, err := c.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 16<<20)) // what came is looked at
	return string(body)
}

// Files reads files that programs write, when the test ends and what is started later has ended. A pattern is one of
// filepath.Glob.
func (w *Watch) Files(tb testing.TB, pattern string) {
	tb.Cleanup(func() {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			tb.Errorf("leaktest: %s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				tb.Errorf("leaktest: %v", err)
			}
			w.Told(filepath.Base(file), string(text))
		}
	})
}

// Log is a text that grows. It is safe for concurrent use.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Log gives what a program may log or print to; for a name that was given before, the same one.
func (w *Watch) Log(name string) *Log {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logs[name] == nil {
		w.logs[name] = &Log{}
	}
	return w.logs[name]
}

// Tee writes into the log of that name what is written, and into another one.
func (w *Watch) Tee(name string, to io.Writer) io.Writer {
	if w.measured() {
		return to
	}
	return io.MultiWriter(to, w.Log(name))
}

// Logger logs everything into the log of that name; of a benchmark, nothing.
func (w *Watch) Logger(name string) *slog.Logger {
	if w.measured() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewJSONHandler(w.Log(name), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Look fails the test if a secret was told, or if the harness gave nothing to look at or to look for. The end of the test does so too;
// what was written into a cluster counts only then.
func (w *Watch) Look() {
	w.tb.Helper()
	for _, leak := range w.leaks() {
		w.tb.Error(leak)
	}
}

func (w *Watch) leaks() (leaks []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, log := range w.logs {
		if text := log.String(); text != "" {
			w.told["log "+name] = map[string]bool{text: true}
		}
	}
	if !w.given.Load() || len(w.told)+len(w.logs) == 0 {
		return []string{"leaktest: the harness gave nothing to look for, or nothing to look at"}
	}
	for _, where := range slices.Sorted(maps.Keys(w.told)) {
		lines := map[string]int{} // of a text that it was found in, by the secret's name
		for text := range w.told[where] {
			for _, found := range w.Secrets.Find(text) {
				lines[found.Name] = found.Line
			}
		}
		for _, name := range slices.Sorted(maps.Keys(lines)) {
			leaks = append(leaks, fmt.Sprintf("%s is told: %s, line %d", name, where, lines[name]))
		}
	}
	return leaks
}
