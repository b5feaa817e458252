package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/transport"
)

// contestant is a process that calls go through.
type contestant struct {
	pid     int
	log     string                   // file
	address func(kind string) string // host:port for calls of a kind
}

// tail is the end of its log; c may be nil.
func (c *contestant) tail() string {
	if c == nil {
		return ""
	}
	text, err := os.ReadFile(c.log)
	if err != nil {
		return "; " + err.Error()
	}
	return "; " + string(text[max(0, len(text)-2000):])
}

// processes are the contestant's own one and those that it started.
func (c *contestant) processes() []int {
	pids := []int{c.pid}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.pid, c.pid))
	for _, field := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// cpu is the time that it has had on processors so far; zero where /proc does not tell.
func (c *contestant) cpu() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs Go
	var sum time.Duration
	for _, pid := range c.processes() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name before may hold spaces
		if f := strings.Fields(rest); len(f) > 12 {
			user, _ := strconv.Atoi(f[11])
			system, _ := strconv.Atoi(f[12])
			sum += time.Duration(user+system) * tick
		}
	}
	return sum
}

// memory is a field of /proc/PID/status, summed over its processes, in bytes.
func (c *contestant) memory(field string) int64 {
	var sum int64
	for _, pid := range c.processes() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, field+":"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum
}

// forgetPeak sets what /proc tells of the largest memory so far back to the present one.
func (c *contestant) forgetPeak() error {
	for _, pid := range c.processes() {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200); err != nil {
			return err
		}
	}
	return nil
}

// process starts a program that ends on SIGTERM, at the latest with the test. Its standard error goes into a file, as that
// of a container does.
func process(t testing.TB, c *exec.Cmd) (pid int, log string) {
	t.Helper()
	log = filepath.Join(t.TempDir(), "log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c.Stderr = file
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(generous, func() { _ = c.Process.Kill() })
		defer timer.Stop()
		if err := c.Wait(); err != nil {
			text, _ := os.ReadFile(log)
			t.Errorf("%s: %v; %s", c.Path, err, text[max(0, len(text)-2000):])
		}
	})
	return c.Process.Pid, log
}

var listening = regexp.MustCompile(`"services":"([^"]+)"`)

// startGateway starts the program as it is built; its access log goes into a file.
func startGateway(h *harness, ca string) *contestant {
	h.t.Helper()
	config, err := kubetest.Kubeconfig(&cluster, h.t.TempDir())
	if err != nil {
		h.t.Fatal(err)
	}
	pid, log := process(h.t, exec.Command(program(h.t), "--kubeConfig="+config, "--listenAddress=127.0.0.1", "--proxyPort=0", "--proxyPortCompass=0",
		"--externalAPIPort=0", "--applicationSecretsNamespace="+h.namespace, "--allowedTargets=127.0.0.1", "--targetCAFile="+ca))
	var address string
	h.eventually("the gateway listens", func() error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		m := listening.FindSubmatch(text)
		if m == nil {
			return fmt.Errorf("%s", text)
		}
		address = string(m[1])
		return nil
	})
	return &contestant{pid, log, func(string) string { return address }}
}

// bareProxy says what a bare ReverseProxy does for one kind of credential.
type bareProxy struct {
	Target        string
	Authorization string
	Certificate   []byte // PEM, with Key
	Key           []byte
	CA            []byte
}

// envBare makes the test program be nothing but bare ReverseProxies, one a kind, so that they have a process of their own.
const envBare = "APPCONN_BENCH_BARE"

// serveBare listens for each kind, says where on standard output, and serves until SIGTERM.
func serveBare(config string, out io.Writer) error {
	var kinds map[string]bareProxy
	if err := json.Unmarshal([]byte(config), &kinds); err != nil {
		return err
	}
	buffers := &bareBuffers{}
	addresses := map[string]string{}
	for kind, p := range kinds {
		target, err := url.Parse(p.Target)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(p.CA)
		to := transport.Target{Host: p.Target}
		if p.Certificate != nil {
			pair, err := tls.X509KeyPair(p.Certificate, p.Key)
			if err != nil {
				return err
			}
			to.Identity = &credentials.Identity{Certificate: pair}
		}
		handler := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				if p.Authorization != "" {
					r.Out.Header.Set("Authorization", p.Authorization)
				}
			},
			Transport: transport.New(transport.Options{Roots: roots}).For(to), BufferPool: buffers,
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses[kind] = l.Addr().String()
		// Without full duplex net/http takes the rest of a request's body away as soon as an answer begins. The transport looks
		// for the end of a large body at that very time, and would find it closed.
		full := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex() // is there for HTTP/1
			handler.ServeHTTP(w, r)
		})
		go func() { _ = (&http.Server{Handler: full, ReadHeaderTimeout: generous}).Serve(l) }()
	}
	if err := json.NewEncoder(out).Encode(addresses); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}

type bareBuffers struct{ pool sync.Pool }

func (b *bareBuffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *bareBuffers) Put(p []byte) { b.pool.Put(&p) }

func startBare(t testing.TB, kinds map[string]bareProxy) *contestant {
	t.Helper()
	config, err := json.Marshal(kinds)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), envBare+"="+string(config))
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid, log := process(t, c)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var addresses map[string]string
	if err := json.Unmarshal(line, &addresses); err != nil {
		t.Fatal(err)
	}
	return &contestant{pid, log, func(kind string) string { return addresses[kind] }}
}

// nginxConfig is told port, upstreams and locations. It keeps requests and answers of up to 1 MiB in memory.
const nginxConfig = `
daemon off; worker_processes auto; pid ./pid; error_log stderr;
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path ./t1; proxy_temp_path ./t2; fastcgi_temp_path ./t3; uwsgi_temp_path ./t4; scgi_temp_path ./t5;
  keepalive_requests 100000000; client_max_body_size 0; client_header_buffer_size 4k; client_body_buffer_size 1m;
  proxy_http_version 1.1; proxy_max_temp_file_size 0;
%[2]s
  server {
    listen %[1]s;
%[3]s
  }
}
`

// startNginx starts Debian's nginx, or the system's; locations are inside its server, upstreams before.
func startNginx(t testing.TB, files map[string][]byte, upstreams, locations string) *contestant {
	t.Helper()
	folder := os.Getenv("PROXIES")
	if folder == "" {
		t.Skip(`PROXIES is not set: run this by "make bench", or set it to a folder with nginx`)
	}
	// The socket is ours and handed over, so that the port is free for certain, and open before the program is.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	defer socket.Close()
	dir := t.TempDir()
	files["config"] = fmt.Appendf(nil, nginxConfig, address, upstreams, locations)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(filepath.Join(folder, "nginx"), "-e", "stderr", "-p", dir+"/", "-c", "config")
	c.Dir, c.ExtraFiles = dir, []*os.File{socket}
	c.Env = append(os.Environ(), "NGINX=3;") // how nginx is told of a socket that it inherits
	pid, log := process(t, c)
	// Handing a socket over makes it blocking, for whoever has it. Of a socket that it inherits nginx takes for granted that it is
	// not: a worker that comes late for a connection would stand still, with all that it serves, until the next one comes.
	if err := syscall.SetNonblock(int(socket.Fd()), true); err != nil {
		t.Fatal(err)
	}
	return &contestant{pid, log, func(string) string { return address }}
}
