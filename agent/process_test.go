package agent_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/e2e/kubetest"
)

// runAsAgent makes this test program the agent.
const runAsAgent = "AGENT_UNDER_TEST"

// effect is something that an agent did outside of itself: a write to the API server, or a request to Compass.
type effect struct {
	// At is when it was done.
	At time.Time
	// Compass: it was a request to Compass. What names it: verb and object, or the operation.
	Compass bool
	What    string
	// Nth of its name, from 1.
	Nth int
}

func (e effect) String() string { return fmt.Sprintf("%s-%d", e.What, e.Nth) }

// witness stands between agents and the API server. It sees every write, and can hold one after it was done.
type witness struct {
	url  string
	next http.RoundTripper

	mu      sync.Mutex
	seen    []effect
	hold    effect
	holding bool
	reached chan struct{}
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	transport, err := rest.TransportFor(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(cluster.Host)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{next: transport, reached: make(chan struct{})}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: w, FlushInterval: -1,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	w.url = server.URL
	return w
}

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return w.next.RoundTrip(r)
	}
	w.mu.Lock()
	over := w.holding
	w.mu.Unlock()
	if over { // nothing comes after the point
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	response, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	e := effect{At: time.Now(), What: named(r), Nth: 1}
	for _, before := range w.seen {
		if before.What == e.What {
			e.Nth++
		}
	}
	w.seen = append(w.seen, e)
	held := e.What == w.hold.What && e.Nth == w.hold.Nth
	if held {
		w.holding = true
		close(w.reached)
	}
	w.mu.Unlock()
	if held {
		<-r.Context().Done()
		_ = response.Body.Close()
		return nil, r.Context().Err()
	}
	return response, nil
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

// watchFor begins anew, and holds the write that is named; none, if it is not one of Kubernetes.
func (w *witness) watchFor(e effect) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.hold, w.holding, w.reached = nil, e, false, make(chan struct{})
}

func (w *witness) effects() []effect {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

func (w *witness) isHolding() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.holding
}

// freeze lets no further write pass.
func (w *witness) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding = true
}

// process is an agent in a process of its own.
type process struct {
	s   *stage
	cmd *exec.Cmd
	end chan struct{}
}

// spawn starts an agent that reaches the API server by w.
func (s *stage) spawn(w *witness) *process {
	s.t.Helper()
	config := rest.CopyConfig(&cluster)
	config.Host, config.CAData = w.url, nil
	kubeconfig, err := kubetest.Kubeconfig(config, s.t.TempDir())
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), os.Args[0])
	cmd.Env = []string{runAsAgent + "=1", "KUBECONFIG=" + kubeconfig, "HOME=" + s.t.TempDir(), "TMPDIR=" + os.TempDir()}
	for key, value := range s.env {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	p := &process{s: s, cmd: cmd, end: make(chan struct{})}
	go func() {
		defer close(p.end)
		_ = cmd.Wait()
	}()
	s.t.Cleanup(p.kill)
	return p
}

// kill ends the process with SIGKILL, and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.end
}

// runs fails the test if the process has ended.
func (p *process) runs() bool {
	p.s.t.Helper()
	select {
	case <-p.end:
		p.s.t.Fatalf("the agent ended by itself: %v", p.cmd.ProcessState)
		return false
	default:
		return true
	}
}
