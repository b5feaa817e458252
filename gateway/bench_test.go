package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/authority"
)

const (
	benchRounds  = 5
	benchRound   = 1500 * time.Millisecond
	benchWarmUp  = 500 * time.Millisecond
	benchToken   = "token-of-the-benchmark"
	uploadLength = 400 << 20
)

// cell is one line of the table.
type cell struct {
	kind                  string
	connections, services int
	body                  int // bytes, of request and answer each
}

func (c cell) name() string {
	size := fmt.Sprintf("%dKiB", c.body>>10)
	if c.body >= 1<<20 {
		size = fmt.Sprintf("%dMiB", c.body>>20)
	}
	name := fmt.Sprintf("%s/c%d/%s", c.kind, c.connections, size)
	if c.services > 1 {
		name += fmt.Sprintf("/%d-services", c.services)
	}
	return name
}

// upload is the API that the upload goes to.
var upload = cell{"basic", 1, 1, 1 << 10}

var benchKinds = []string{"none", "basic", "oauth", "certificate"}

// cells are all kinds at 32 connections, one service and 1 KiB, and each other size of each axis once; or, with full, all
// combinations.
func cells(full bool) []cell {
	var list []cell
	if !full {
		for _, kind := range benchKinds {
			list = append(list, cell{kind, 32, 1, 1 << 10})
		}
		return append(list, cell{"basic", 1, 1, 1 << 10}, cell{"basic", 128, 1, 1 << 10}, cell{"basic", 32, 1000, 1 << 10}, cell{"basic", 32, 1, 1 << 20})
	}
	for _, kind := range benchKinds {
		for _, connections := range []int{1, 32, 128} {
			for _, services := range []int{1, 1000} {
				for _, body := range []int{1 << 10, 1 << 20} {
					list = append(list, cell{kind, connections, services, body})
				}
			}
		}
	}
	return list
}

// comparison is one cell's result. A ratio is of the best rounds: of what else the machine does, it only ever gets worse.
type comparison struct {
	Name               string             `json:"name"`
	ThroughputVsNginx  float64            `json:"throughput_vs_nginx"`
	P50VsNginx         float64            `json:"p50_vs_nginx"`
	P99VsNginx         float64            `json:"p99_vs_nginx"`
	ThroughputVsBare   float64            `json:"throughput_vs_reverseproxy"`
	P50VsBare          float64            `json:"p50_vs_reverseproxy"`
	P99VsBare          float64            `json:"p99_vs_reverseproxy"`
	ThroughputVsDirect float64            `json:"throughput_vs_direct"`
	Best               map[string]round   `json:"best"`
	Rounds             map[string][]round `json:"rounds"`
}

// growth is how much memory an upload took, in MiB, beyond what a process held before.
type growth struct {
	Name        string  `json:"name"`
	Gateway     float64 `json:"gatewayMiB"`
	Nginx       float64 `json:"nginxMiB"`
	Bare        float64 `json:"reverseproxyMiB"`
	GatewayPeak float64 `json:"gatewayPeakMiB"`
}

// gatewayReport is what stands in bench/gateway.json.
type gatewayReport struct {
	What    string `json:"what"`
	Machine string `json:"machine"`
	Rounds  int    `json:"rounds"`
	Seconds string `json:"roundLasts"`
	Results []any  `json:"results"`
	// Times are those of acceptance tests that have a bound in time.
	Times []timing `json:"acceptanceTimes"`
}

// BenchmarkGatewayAgainstNginx calls the same APIs through the gateway as it is built, through Debian's nginx, through a
// bare httputil.ReverseProxy, and directly. Each is a process of its own; callers and APIs share another one.
func BenchmarkGatewayAgainstNginx(b *testing.B) {
	s := newStage(b)
	which := os.Getenv("BENCH")
	list := cells(which != "")
	if which != "" && which != "full" {
		pattern := regexp.MustCompile(which)
		list = slices.DeleteFunc(list, func(c cell) bool { return !pattern.MatchString(c.name()) })
		if len(list) == 0 {
			b.Fatalf("BENCH=%s: use full, or a regular expression that matches a name as basic/c32/1KiB", which)
		}
	}
	s.open(list)
	for b.Loop() {
		report := gatewayReport{
			What:    "gateway compared with nginx, with a bare httputil.ReverseProxy and with the direct call: throughput should be high, p50 and p99 low",
			Machine: machine(), Rounds: benchRounds, Seconds: benchRound.String(),
		}
		var table strings.Builder
		w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "call\trequests/s\tp50 ms\tp99 ms\tCPU µs\t| nginx: throughput\tp50\tp99\t| ReverseProxy: throughput\tp50\tp99\tCPU\t| direct: throughput\t")
		for _, c := range list {
			r := s.compare(c)
			report.Results = append(report.Results, r)
			g := r.Best["gateway"]
			fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.0f\t| %.2f\t%.2f\t%.2f\t| %.2f\t%.2f\t%.2f\t%.2f\t| %.2f\t\n", r.Name, g.PerSecond, g.P50, g.P99, g.CPU,
				r.ThroughputVsNginx, r.P50VsNginx, r.P99VsNginx, r.ThroughputVsBare, r.P50VsBare, r.P99VsBare, g.CPU/r.Best["reverseproxy"].CPU, r.ThroughputVsDirect)
			if r.Name == "basic/c32/1KiB" {
				b.ReportMetric(r.ThroughputVsNginx, "throughput/nginx")
				b.ReportMetric(r.P99VsNginx, "p99/nginx")
				b.ReportMetric(r.ThroughputVsBare, "throughput/ReverseProxy")
			}
		}
		w.Flush()
		memory := s.memory
		report.Results = append(report.Results, memory)
		report.Times = s.timed()
		var times strings.Builder
		w = tabwriter.NewWriter(&times, 0, 0, 2, ' ', tabwriter.AlignRight)
		writeTimings(w, report.Times)
		w.Flush()
		// Of a benchmark's log no more than ten lines are shown.
		fmt.Printf("\n%s\n%s\n", report.Machine, table.String())
		fmt.Printf("an upload of 400 MiB takes %.1f MiB in the gateway (%.1f in all), %.1f in nginx, %.1f in the ReverseProxy\n", memory.Gateway, memory.GatewayPeak, memory.Nginx, memory.Bare)
		fmt.Printf("\n%s\n", times.String())
		if dir := os.Getenv("BENCH_DIR"); dir != "" && (which == "" || which == "full") {
			text, err := json.MarshalIndent(report, "", "  ")
			if err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "gateway.json"), append(text, '\n'), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// stage is the APIs, and everybody who can be asked to call them.
type stage struct {
	b           *testing.B
	h           *harness
	tokens      *httptest.Server
	targets     map[string]*benchTarget
	headers     map[string]string // the line that a call of a kind carries to its API
	clientTLS   *tls.Config       // of direct calls to the API that asks for a certificate
	contestants map[string]*contestant
	memory      growth // of an upload, before all else
	ca          *authority.Authority
	crt, key    []byte
}

func newStage(b *testing.B) *stage {
	b.Helper()
	check := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	s := &stage{b: b, contestants: map[string]*contestant{}, targets: map[string]*benchTarget{}}
	s.h = &harness{t: b, namespace: kubetest.Namespace(b, &cluster), log: &leaktest.Log{}, watch: leaktest.Of(b), kube: newClient(b), http: &http.Client{Transport: &http.Transport{}}}
	b.Cleanup(s.h.http.CloseIdleConnections)
	var err error
	s.ca, err = authority.New("benchmark", nil)
	check(err)
	crt, key, err := s.ca.Issue(authority.Request{Subject: pkix.Name{CommonName: "api"}, Hosts: []string{"127.0.0.1", "api.test"}, Server: true})
	check(err)
	server, err := tls.X509KeyPair(crt, key)
	check(err)
	s.crt, s.key, err = s.ca.Issue(authority.Request{Subject: pkix.Name{CommonName: "caller"}})
	check(err)
	client, err := tls.X509KeyPair(s.crt, s.key)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.CA())
	s.clientTLS = &tls.Config{Certificates: []tls.Certificate{client}, RootCAs: roots, ServerName: "127.0.0.1"}
	s.headers = map[string]string{"basic": "Authorization: Basic " + base64Of("user:password") + "\r\n", "oauth": "Authorization: Bearer " + benchToken + "\r\n"}
	for _, kind := range benchKinds {
		var config *tls.Config
		if kind == "certificate" {
			config = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, NextProtos: []string{"http/1.1"}}
		}
		s.targets[kind] = newBenchTarget(b, s.headers[kind], config)
	}
	s.tokens = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"access_token":"`+benchToken+`","expires_in":86400}`)
	}))
	b.Cleanup(s.tokens.Close)
	return s
}

// url is where a kind's API is.
func (s *stage) url(kind string) string {
	scheme := "http"
	if kind == "certificate" {
		scheme = "https"
	}
	return scheme + "://" + s.targets[kind].address()
}

// path is what a service is called by, at all contestants.
func path(kind string, services, service int) string {
	return fmt.Sprintf("/%s-%d/service-%d/", kind, services, service)
}

// open starts the contestants and tells them of all services in cells.
func (s *stage) open(list []cell) {
	s.b.Helper()
	ca := filepath.Join(s.b.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, s.ca.CA(), 0o600); err != nil {
		s.b.Fatal(err)
	}
	s.h.secret("basic", map[string]string{"username": "user", "password": "password"})
	s.h.secret("oauth", map[string]string{"clientId": "id", "clientSecret": "secret"})
	s.h.secret("certificate", map[string]string{"crt": string(s.crt), "key": string(s.key)})
	change := map[string]func(*v1alpha1.Entry){
		"none": func(*v1alpha1.Entry) {}, "basic": with("Basic", "basic", ""), "oauth": with("OAuth", "oauth", s.tokens.URL),
		"certificate": with("CertificateGen", "certificate", ""),
	}
	bare := map[string]bareProxy{}
	var upstreams, locations strings.Builder
	for _, kind := range benchKinds {
		p := bareProxy{Target: s.url(kind), Authorization: strings.TrimSuffix(strings.TrimPrefix(s.headers[kind], "Authorization: "), "\r\n")}
		if kind == "certificate" {
			p.Certificate, p.Key, p.CA = s.crt, s.key, s.ca.CA()
		}
		bare[kind] = p
		fmt.Fprintf(&upstreams, "  upstream %s { server %s; keepalive 128; keepalive_requests 100000000; }\n", kind, s.targets[kind].address())
	}
	made := map[string]bool{}
	for _, c := range append(slices.Clone(list), upload) {
		name := fmt.Sprintf("%s-%d", c.kind, c.services)
		if made[name] {
			continue
		}
		made[name] = true
		app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for i := range c.services {
			app.Spec.Services = append(app.Spec.Services, api(fmt.Sprintf("service-%d", i), s.url(c.kind), change[c.kind]))
			scheme, extra := "http", ""
			if line := s.headers[c.kind]; line != "" {
				extra = fmt.Sprintf(" proxy_set_header Authorization %q;", bare[c.kind].Authorization)
			}
			if c.kind == "certificate" {
				scheme, extra = "https", " proxy_ssl_certificate client.pem; proxy_ssl_certificate_key client.key; proxy_ssl_trusted_certificate ca.pem; proxy_ssl_verify on; proxy_ssl_name api.test; proxy_ssl_protocols TLSv1.3;"
			}
			fmt.Fprintf(&locations, "    location %s { proxy_pass %s://%s/; proxy_set_header Connection \"\";%s }\n", path(c.kind, c.services, i), scheme, c.kind, extra)
		}
		if err := s.h.kube.Create(s.b.Context(), app); err != nil {
			s.b.Fatal(err)
		}
		s.b.Cleanup(func() {
			if err := s.h.kube.Delete(context.Background(), app); err != nil {
				s.b.Error(err)
			}
		})
	}
	fmt.Fprintf(&locations, "    location /upload/ { proxy_pass http://basic/; proxy_set_header Authorization %q; proxy_request_buffering off; }\n", bare["basic"].Authorization)
	s.contestants["gateway"] = startGateway(s.h, ca)
	s.contestants["reverseproxy"] = startBare(s.b, bare)
	s.contestants["nginx"] = startNginx(s.b, map[string][]byte{"client.pem": s.crt, "client.key": s.key, "ca.pem": s.ca.CA()}, upstreams.String(), locations.String())
	for who := range s.contestants {
		s.h.eventually(who+" serves the upload", func() error {
			_, err := s.load(who, upload).run(s.b.Context(), 1, 0)
			return err
		})
	}
	s.memory = s.uploadMemory()
	for _, c := range list {
		c.connections = 1
		for _, who := range benchOrder {
			s.h.eventually(who+" serves "+c.name(), func() error {
				_, err := s.load(who, c).run(s.b.Context(), 1, 0)
				return err
			})
		}
	}
}

var benchOrder = []string{"gateway", "nginx", "reverseproxy", "direct"}

// load is how a contestant is called for a cell.
func (s *stage) load(who string, c cell) *load {
	l := &load{}
	credential := ""
	if who == "direct" {
		l.address, credential = s.targets[c.kind].address(), s.headers[c.kind]
		if c.kind == "certificate" {
			l.tls = s.clientTLS
		}
	} else {
		l.address = s.contestants[who].address(c.kind)
	}
	for i := range c.services {
		request := fmt.Appendf(nil, "POST %sitems HTTP/1.1\r\nHost: api\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/octet-stream\r\n%sContent-Length: %d\r\n\r\n", path(c.kind, c.services, i), credential, c.body)
		l.requests = append(l.requests, append(request, make([]byte, c.body)...))
		if c.body > 1<<10 && i == 7 { // no need to keep a thousand large bodies
			break
		}
	}
	return l
}

// compare lets all contestants take turns, so that what else the machine does hits all alike.
func (s *stage) compare(c cell) comparison {
	s.b.Helper()
	r := comparison{Name: c.name(), Best: map[string]round{}, Rounds: map[string][]round{}}
	for i := -1; i < benchRounds; i++ {
		for j := range benchOrder {
			who := benchOrder[(i+1+j)%len(benchOrder)]
			duration := benchRound
			if i < 0 {
				duration = benchWarmUp
			}
			var before time.Duration
			if who != "direct" {
				before = s.contestants[who].cpu()
			}
			result, err := s.load(who, c).run(s.b.Context(), c.connections, duration)
			if err != nil {
				s.b.Fatalf("%s through %s: %v%s", r.Name, who, err, s.contestants[who].tail())
			}
			if who != "direct" {
				used := s.contestants[who].cpu() - before
				result.CPU = float64(used.Microseconds()) / (result.PerSecond * duration.Seconds())
			}
			if i >= 0 {
				r.Rounds[who] = append(r.Rounds[who], result.rounded())
			}
		}
	}
	for who, rounds := range r.Rounds {
		best := rounds[0]
		for _, x := range rounds[1:] {
			best.PerSecond = max(best.PerSecond, x.PerSecond)
			best.P50, best.P99, best.CPU = min(best.P50, x.P50), min(best.P99, x.P99), min(best.CPU, x.CPU)
		}
		r.Best[who] = best
	}
	g, n, p := r.Best["gateway"], r.Best["nginx"], r.Best["reverseproxy"]
	r.ThroughputVsNginx, r.P50VsNginx, r.P99VsNginx = thousandth(g.PerSecond/n.PerSecond), thousandth(g.P50/n.P50), thousandth(g.P99/n.P99)
	r.ThroughputVsBare, r.P50VsBare, r.P99VsBare = thousandth(g.PerSecond/p.PerSecond), thousandth(g.P50/p.P50), thousandth(g.P99/p.P99)
	r.ThroughputVsDirect = thousandth(g.PerSecond / r.Best["direct"].PerSecond)
	return r
}

// uploadMemory sends 400 MiB through each contestant and looks how much its memory grew meanwhile. They must have served next to
// nothing before: in a process that once needed more, an upload finds the memory there.
func (s *stage) uploadMemory() growth {
	s.b.Helper()
	grown := map[string]float64{}
	var peak float64
	for who, c := range s.contestants {
		before := c.memory("VmRSS")
		if err := c.forgetPeak(); err != nil {
			s.b.Logf("memory is not measured: %v", err)
			return growth{Name: "upload/400MiB"}
		}
		l := s.load(who, upload)
		where := path(upload.kind, upload.services, 0) + "items"
		if who == "nginx" {
			where = "/upload/" // streamed, as by the others
		}
		if err := l.upload(s.b.Context(), where, uploadLength); err != nil {
			s.b.Fatalf("the upload through %s: %v", who, err)
		}
		most := c.memory("VmHWM")
		grown[who] = thousandth(float64(most-before) / (1 << 20))
		if who == "gateway" {
			peak = thousandth(float64(most) / (1 << 20))
		}
	}
	return growth{"upload/400MiB", grown["gateway"], grown["nginx"], grown["reverseproxy"], peak}
}

func (r round) rounded() round {
	return round{thousandth(r.PerSecond), thousandth(r.P50), thousandth(r.P99), thousandth(r.CPU)}
}

func thousandth(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return math.Round(v*1000) / 1000
}

// machine describes what this runs on.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s/%s, %d cores of %s, %s", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), model, runtime.Version())
}
