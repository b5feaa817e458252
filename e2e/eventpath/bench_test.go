package eventpath_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
)

const plainNginxConfig = `
daemon off; worker_processes auto; pid ./pid; error_log stderr;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path ./t1; proxy_temp_path ./t2; fastcgi_temp_path ./t3; uwsgi_temp_path ./t4; scgi_temp_path ./t5;
  keepalive_requests 1000000;
  upstream publisher { server %[2]s; keepalive 64; keepalive_requests 1000000; }
  server {
    listen %[1]s;
    location / { proxy_pass http://publisher; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`

// speed is what one side did in one round.
type speed struct {
	PerSecond float64 `json:"requestsPerSecond"`
	P99       float64 `json:"p99Milliseconds"`
}

// report is what stands in bench/validator.json. The ratios are medians over rounds, in which both sides take turns, so
// that what else the machine does hits both.
type report struct {
	What        string  `json:"what"`
	Machine     string  `json:"machine"`
	Connections int     `json:"connections"`
	Requests    int     `json:"requestsPerRound"`
	Rounds      int     `json:"rounds"`
	Throughput  float64 `json:"throughputRatio"`
	P99         float64 `json:"p99Ratio"`
	// CPU is what this process takes for a request through the validator beyond what it takes for one through nginx: the
	// validator's own, whatever else the machine does.
	CPU       float64 `json:"validatorCPUMicroseconds"`
	Validator []speed `json:"validator"`
	Nginx     []speed `json:"nginx"`
}

// BenchmarkValidatorAgainstNginx sends the same event over plain HTTP through the validator and through nginx, which does
// no more than forward it, to the same publisher. Client, publisher and validator share this process, nginx has one of its
// own; on few cores all of them share those.
func BenchmarkValidatorAgainstNginx(b *testing.B) {
	const connections, requests, warmUp, rounds = 32, 10_000, 1_000, 5
	createApplications(b, newKube(b), "shop")
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(publisher.Close)
	// Its audit lines go into a file, as a Pod's do.
	log, err := os.Create(filepath.Join(b.TempDir(), "log"))
	must(b, err)
	b.Cleanup(func() { must(b, log.Close()) })
	validator := newValidatorThatLogs(b, publisher.URL, slog.New(slog.NewJSONHandler(log, nil)), nil)
	r := newTerminator(b, "nginx", strings.TrimPrefix(publisher.URL, "http://"), func(own, upstream string) string { return fmt.Sprintf(plainNginxConfig, own, upstream) })

	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	b.Cleanup(transport.CloseIdleConnections)
	body := `{"order":"` + strings.Repeat("x", 1000) + `"}`
	header := event("1")
	header["X-Forwarded-Client-Cert"] = []string{mesh(b, pkix.Name{CommonName: "shop", OrganizationalUnit: []string{"eu"}, Organization: []string{"Foo, Inc."}})}
	round := func(host string, n int) speed {
		durations := make([]time.Duration, n)
		var next atomic.Int64
		var workers sync.WaitGroup
		begin := time.Now()
		for range connections {
			workers.Go(func() {
				for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
					request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+host+"/shop/events", strings.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					request.Header = header.Clone()
					sent := time.Now()
					resp, err := transport.RoundTrip(request)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					durations[i] = time.Since(sent)
					if resp.StatusCode != http.StatusNoContent {
						b.Errorf("%s: %s", host, resp.Status)
						return
					}
				}
			})
		}
		workers.Wait()
		took := time.Since(begin)
		slices.Sort(durations)
		return speed{round3(float64(n) / took.Seconds()), round3(float64(durations[n*99/100]) / float64(time.Millisecond))}
	}
	own, nginx := validator.ProxyAddr().String(), strings.TrimPrefix(r.url, "https://")
	out := report{
		What:        "validator compared with nginx forwarding the same event of 1 kB: throughput should be high, p99 low",
		Machine:     fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version()),
		Connections: connections, Requests: requests, Rounds: rounds,
	}
	for b.Loop() {
		out.Validator, out.Nginx = nil, nil
		round(own, warmUp)
		round(nginx, warmUp)
		var throughput, p99, cpu []float64
		for range rounds {
			begin := cpuTime()
			v := round(own, requests)
			half := cpuTime()
			n := round(nginx, requests)
			cpu = append(cpu, float64((half-begin)-(cpuTime()-half))/float64(time.Microsecond)/requests)
			if b.Failed() {
				return
			}
			out.Validator, out.Nginx = append(out.Validator, v), append(out.Nginx, n)
			throughput, p99 = append(throughput, v.PerSecond/n.PerSecond), append(p99, v.P99/n.P99)
		}
		out.Throughput, out.P99, out.CPU = round3(median(throughput)), round3(median(p99)), round3(median(cpu))
	}
	b.ReportMetric(out.Throughput, "throughput/nginx")
	b.ReportMetric(out.P99, "p99/nginx")
	b.ReportMetric(out.CPU, "cpu-µs")
	if dir := os.Getenv("BENCH_DIR"); dir != "" {
		text, err := json.MarshalIndent(out, "", "  ")
		must(b, err)
		must(b, os.MkdirAll(dir, 0o750))
		must(b, os.WriteFile(filepath.Join(dir, "validator.json"), append(text, '\n'), 0o600))
	}
}

// mesh is X-Forwarded-Client-Cert of a client as Istio's ingress gateway and sidecar write it, with the certificate.
func mesh(b *testing.B, client pkix.Name) string {
	b.Helper()
	a := ca(b, "clients")
	read := func(r authority.Request) *x509.Certificate {
		text, key, err := a.Issue(r)
		must(b, err)
		pair, err := tls.X509KeyPair(text, key)
		must(b, err)
		return pair.Leaf
	}
	ingress, own := read(authority.Request{URIs: []string{edge.IngressID}}), read(authority.Request{URIs: []string{edge.DefaultWorkloadID}})
	first, err := envoy.Element(&x509.Certificate{}, read(authority.Request{Subject: client}), true)
	must(b, err)
	second, err := envoy.Element(own, ingress, false)
	must(b, err)
	return first + "," + second
}

// cpuTime is what this process took so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for a wrong argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// round3 keeps three digits behind the point.
func round3(v float64) float64 { return math.Round(v*1000) / 1000 }
