package up

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a program may take to end once it was asked to: more than the longest drain, the validator's 30 s.
const stopGrace = 45 * time.Second

// process is a program that was started here and ends with us.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	// stdin is held open; programs that are told so end when it closes.
	stdin io.Closer
	done  chan struct{}
	err   error
}

// supervisor starts programs, notices when one ends by itself, and ends them in reverse order.
type supervisor struct {
	logs string
	// failed gets the first program that ended by itself.
	failed chan error

	mu        sync.Mutex
	processes []*process
	stopping  bool
}

func newSupervisor(logs string) *supervisor {
	return &supervisor{logs: logs, failed: make(chan error, 1)}
}

// start runs a program with its output in logs/NAME.log. stdout, if not nil, gets its standard output instead.
func (s *supervisor) start(name, path string, args, env []string, stdout io.Writer) (*process, error) {
	file := filepath.Join(s.logs, name+".log")
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...) //nolint:noctx // our own binaries; ended in order by stop, not by a context
	cmd.Env = append(inherited(os.Environ()), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.SysProcAttr = ownGroup()
	p := &process{name: name, cmd: cmd, log: file, done: make(chan struct{})}
	if p.stdin, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), out.Close())
	}
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	go func() {
		defer close(p.done)
		p.err = errors.Join(cmd.Wait(), out.Close())
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.stopping {
			select {
			case s.failed <- fmt.Errorf("%s ended by itself: %s", name, p.lastWords()):
			default:
			}
		}
	}()
	return p, nil
}

// inherited is what programs get of our environment: neither our token, nor settings that somebody meant for another
// agent or validator.
func inherited(environment []string) []string {
	return slices.DeleteFunc(slices.Clone(environment), func(variable string) bool {
		return strings.HasPrefix(variable, "APPCONN_") || strings.HasPrefix(variable, "APP_")
	})
}

// lastWords is the last line of the program's log, which holds the reason when it could not start.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	last := fmt.Sprintf("it wrote nothing (%v)", p.err)
	for line := range strings.Lines(string(bytes.ToValidUTF8(text, []byte("?")))) {
		if line = strings.TrimSpace(line); line != "" {
			last = line
		}
	}
	if len(last) > 500 {
		last = last[:500] + "…"
	}
	return last
}

// stop ends every program, the last one started first, and waits until all are gone. A second interrupt, by ctx, makes
// it impatient.
func (s *supervisor) stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	processes := s.processes
	s.mu.Unlock()
	var errs []error
	for i := len(processes) - 1; i >= 0; i-- {
		p := processes[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(stopGrace):
			errs = append(errs, fmt.Errorf("%s did not end within %s and was killed; see %s", p.name, stopGrace, p.log))
			_ = p.cmd.Process.Kill()
			<-p.done
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		_ = p.stdin.Close()
	}
	return errors.Join(errs...)
}

// kubeconfigFrom reads localkube's output until it says where its kubeconfig is.
func kubeconfigFrom(ctx context.Context, out io.Reader, p *process) (string, error) {
	found := make(chan string, 1)
	go func() {
		defer close(found)
		for s := bufio.NewScanner(out); s.Scan(); {
			if path, ok := strings.CutPrefix(s.Text(), "export KUBECONFIG="); ok {
				found <- path
			}
		}
	}()
	select {
	case path, ok := <-found:
		if ok {
			return path, nil
		}
		<-p.done
		return "", fmt.Errorf("the local cluster did not start: %s", p.lastWords())
	case <-p.done:
		return "", fmt.Errorf("the local cluster did not start: %s", p.lastWords())
	case <-ctx.Done():
		return "", fmt.Errorf("the local cluster did not start in time; see %s", p.log)
	}
}
