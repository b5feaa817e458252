package agenttest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

// Effect is something that an agent did outside of itself: a write to the API server, or a request to Compass.
type Effect struct {
	// At is when it was done.
	At time.Time
	// Compass: it was a request to Compass. What names it: verb and object, or the operation.
	Compass bool
	What    string
	// Nth of its name, from 1.
	Nth int
}

// String names it.
func (e Effect) String() string { return fmt.Sprintf("%s-%d", e.What, e.Nth) }

// Witness stands between agents and the API server. It sees every write, and can hold one after it was done.
type Witness struct {
	url  string
	next http.RoundTripper

	mu      sync.Mutex
	seen    []Effect
	hold    Effect
	holding bool
	ended   chan struct{}
}

// NewWitness makes one for the package's API server, until the test ends.
func NewWitness(t *testing.T) *Witness {
	t.Helper()
	transport, err := rest.TransportFor(&Cluster)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(Cluster.Host)
	if err != nil {
		t.Fatal(err)
	}
	w := &Witness{next: transport, ended: make(chan struct{})}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: w, FlushInterval: -1,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
	t.Cleanup(func() {
		close(w.ended)
		server.CloseClientConnections()
		server.Close()
	})
	w.url = server.URL
	return w
}

// RoundTrip implements http.RoundTripper.
func (w *Witness) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return w.next.RoundTrip(r)
	}
	w.mu.Lock()
	over := w.holding
	w.mu.Unlock()
	if over { // nothing comes after the point
		return nil, w.gone(r)
	}
	response, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	e := Effect{At: time.Now(), What: named(r), Nth: 1}
	for _, before := range w.seen {
		if before.What == e.What {
			e.Nth++
		}
	}
	w.seen = append(w.seen, e)
	held := e.What == w.hold.What && e.Nth == w.hold.Nth
	if held {
		w.holding = true
	}
	w.mu.Unlock()
	if held {
		_ = response.Body.Close()
		return nil, w.gone(r)
	}
	return response, nil
}

// gone waits until whoever sent a request is gone, or the test ends: a server does not notice the first while it has not read
// the whole of a body.
func (w *Witness) gone(r *http.Request) error {
	select {
	case <-r.Context().Done():
		return r.Context().Err()
	case <-w.ended:
		return http.ErrAbortHandler
	}
}

// named is what a write is called: verb, resource, and name without what the test made up.
func named(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if i := slices.Index(parts, "namespaces"); i >= 0 && i+2 < len(parts) {
		parts = parts[i+2:]
	} else {
		parts = parts[min(3, len(parts)):] // apis, group, version
	}
	if parts[0] == "events" {
		parts = parts[:1] // names of events are random
	}
	return r.Method + " " + strings.Join(parts, " ")
}

// WatchFor begins anew, and holds the write that is named; none, if it is not one of Kubernetes.
func (w *Witness) WatchFor(e Effect) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.hold, w.holding = nil, e, false
}

// Effects are all writes since WatchFor.
func (w *Witness) Effects() []Effect {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// IsHolding says that the write that was named was done; nothing passes since.
func (w *Witness) IsHolding() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holding
}

// Freeze lets no further write pass.
func (w *Witness) Freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding = true
}

// Process is an agent in a process of its own.
type Process struct {
	s   *Stage
	cmd *exec.Cmd
	end chan struct{}
}

// Spawn starts an agent that reaches the API server by w.
func (s *Stage) Spawn(w *Witness) *Process {
	s.T.Helper()
	config := rest.CopyConfig(&Cluster)
	config.Host, config.CAData = w.url, nil
	kubeconfig, err := kubetest.Kubeconfig(config, s.T.TempDir())
	if err != nil {
		s.T.Fatal(err)
	}
	cmd := exec.CommandContext(s.T.Context(), program(s.T))
	cmd.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=" + s.T.TempDir(), "TMPDIR=" + os.TempDir()}
	for key, value := range s.Env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	cmd.Stdout, cmd.Stderr = s.Log, s.Log
	if err := cmd.Start(); err != nil {
		s.T.Fatal(err)
	}
	p := &Process{s: s, cmd: cmd, end: make(chan struct{})}
	go func() {
		defer close(p.end)
		_ = cmd.Wait()
	}()
	s.T.Cleanup(p.Kill)
	return p
}

// program is the agent that "make build" made. Without the race detector it starts in a fraction of the time; the tests that run
// agents within their own process look for races.
func program(t *testing.T) string {
	t.Helper()
	appconn := os.Getenv("APPCONN")
	if appconn == "" {
		t.Fatal("APPCONN is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/appconn")
	}
	path := filepath.Join(filepath.Dir(appconn), "agent")
	if _, err := os.Stat(path); err != nil { // tests run again when it changes
		t.Fatal(err)
	}
	return path
}

// Kill ends the process with SIGKILL, and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.end
}

// Peak is the most memory, in bytes, that the process had resident. It must have ended.
func (p *Process) Peak() int64 {
	p.s.T.Helper()
	usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		p.s.T.Fatalf("the system tells nothing of a process's memory")
	}
	if runtime.GOOS == "darwin" { // where it counts bytes
		return usage.Maxrss
	}
	return usage.Maxrss << 10
}

// Runs fails the test if the process has ended.
func (p *Process) Runs() bool {
	p.s.T.Helper()
	select {
	case <-p.end:
		p.s.T.Fatalf("the agent ended by itself: %v", p.cmd.ProcessState)
		return false
	default:
		return true
	}
}
