package resources

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

const (
	// applications that Compass knows, each with three bundles of two APIs: what clusters with many have.
	applications = 1000
	// warmUp is not measured.
	warmUp = 3 * time.Second
	// lasting is how long each load is measured.
	lasting = 20 * time.Second
	// quiet is how long the agent is measured that has one sync in that time: three times as often as in a Pod.
	quiet = time.Minute
)

// BenchmarkResources runs the three programs as their Pods do, in a cluster with a thousand Applications, and measures processor time
// and memory of each under loads. Callers, APIs, the publisher, Compass and the API server are other processes.
func BenchmarkResources(b *testing.B) {
	out := report{
		What:    "what a program takes under a load: processor time by time, in cores, and the most memory that it had resident",
		Machine: fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
		Load:    loadAverage(b),
	}
	for range b.N {
		out.Results = nil
		w := newWorld(b)
		measure := func(p *program, name string, of func() float64) {
			b.Helper()
			out.Results = append(out.Results, p.measure(name, of))
			b.Logf("%+v", out.Results[len(out.Results)-1])
		}

		agent := w.agent()
		measure(agent, "the first sync", func() float64 { w.synced(); return 0 })
		w.resync()
		agent.idle() // what the watches bring of the first sync
		measure(agent, "one sync in a minute", func() float64 {
			end := time.Now().Add(quiet)
			w.resync()
			time.Sleep(time.Until(end)) // what passes here is what is measured
			return 0
		})
		agent.stop()

		gateway, entries := w.gateway()
		w.told()
		gateway.idle()
		calls := load{url: entries + "/mp-system-00000/bundle-0/api-0", header: http.Header{"Content-Type": {"application/json"}}, body: 1 << 10, connections: 32}
		w.traffic(gateway, measure, calls, "calls/s of 1 KiB", 100, 500)
		calls.body, calls.connections = 1<<20, 128
		w.traffic(gateway, measure, calls, "calls of 1 MiB by 128 connections", 0)
		gateway.stop()

		validator, events := w.validator()
		validator.idle()
		sent := load{url: events + "/shop/events", body: 1 << 10, connections: 32, header: http.Header{
			"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Type": {"order.created.v1"}, "Ce-Source": {"shop"}, "Ce-Id": {"1"},
			"X-Forwarded-Client-Cert": {ingress},
		}}
		w.traffic(validator, measure, sent, "events/s of 1 KiB", 100, 500)
		sent.body, sent.connections = 60<<10, 128
		w.traffic(validator, measure, sent, "events of 60 KiB by 128 connections", 0)
		validator.stop()
	}
	for i := range out.Results {
		r := &out.Results[i]
		r.For = map[string]string{
			"the first sync": limit, "one sync in a minute": request, "500 calls/s of 1 KiB": request, "calls of 1 MiB by 128 connections": limit,
			"100 events/s of 1 KiB": request, "events of 60 KiB by 128 connections": limit,
		}[r.Load]
		b.ReportMetric(r.PeakMiB, strings.NewReplacer(" ", "-", "/", "-").Replace(r.Program+"-"+r.Load)+"-MiB")
	}
	out.print()
	if dir := os.Getenv("BENCH_DIR"); dir != "" && !b.Failed() {
		text, err := json.MarshalIndent(out, "", "  ")
		must(b, err)
		must(b, os.MkdirAll(dir, 0o750))
		must(b, os.WriteFile(filepath.Join(dir, file), append(text, '\n'), 0o600))
	}
}

// traffic measures a program under requests, at each of some rates; 0 is as fast as it goes.
func (w *world) traffic(p *program, measure func(*program, string, func() float64), l load, what string, rates ...int) {
	w.b.Helper()
	for _, rate := range rates {
		l.perSecond = rate
		name := what
		if rate > 0 {
			name = fmt.Sprintf("%d %s", rate, what)
		}
		l.send(w.b, warmUp)
		measure(p, name, func() float64 {
			n := l.send(w.b, lasting)
			// One that is slower than what it is measured for is measured for something else.
			if pace := float64(n) / lasting.Seconds(); pace >= 0.95*float64(rate) {
				return pace
			}
			w.b.Fatalf("%s: only %d in %s", name, n, lasting)
			return 0
		})
	}
}

// measure gives what a program takes while something is done, which says how many there were of it a second.
func (p *program) measure(load string, of func() float64) result {
	p.w.b.Helper()
	pid := p.cmd.Process.Pid
	// 5 resets the peak, see proc_pid_clear_refs(5).
	must(p.w.b, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200))
	began, before := time.Now(), p.processorTime()
	pace := of()
	took := time.Since(began).Seconds()
	r := result{Program: p.name, Load: load, PerSecond: round(pace, 1), Seconds: round(took, 1), Cores: round((p.processorTime()-before)/took, 4)}
	p.running()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(p.w.b, err)
	_, after, _ := strings.Cut(string(text), "\nVmHWM:")
	var kibibytes float64
	_, err = fmt.Sscan(after, &kibibytes)
	must(p.w.b, err)
	r.PeakMiB = round(kibibytes/1024, 1)
	return r
}

// processorTime is what the process had so far, in seconds. Linux counts it in hundredths, see proc_pid_stat(5).
func (p *program) processorTime() float64 {
	p.w.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	must(p.w.b, err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // a name in parentheses may hold anything
	var user, system float64
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	must(p.w.b, err)
	return (user + system) / 100
}

// idle waits until a program has nothing to do.
func (p *program) idle() {
	p.w.b.Helper()
	p.w.eventually("the "+p.name+" to be idle", func() error {
		before := p.processorTime()
		time.Sleep(time.Second) // in which it is looked at
		if took := p.processorTime() - before; took > 0.05 {
			return fmt.Errorf("it took %v s of a processor in a second", took)
		}
		return nil
	})
}

// synced waits until every Application of Compass is in the cluster.
func (w *world) synced() {
	w.b.Helper()
	w.eventually("the first sync", func() error {
		c := &compassv1alpha1.CompassConnection{}
		if err := w.kube.Get(w.b.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c); err != nil {
			return err
		}
		if n := c.Status.Applications; c.Status.State != compassv1alpha1.Synchronized || n == nil || n.Ready != applications {
			return fmt.Errorf("%s, %+v", c.Status.State, n)
		}
		return nil
	})
}

// told waits until the gateway has told of each Application, once, what can be called.
func (w *world) told() {
	w.b.Helper()
	w.eventually("conditions of all Applications", func() error {
		list := &applicationv1alpha1.ApplicationList{}
		must(w.b, w.kube.List(w.b.Context(), list))
		n := 0
		for _, a := range list.Items {
			if meta.FindStatusCondition(a.Status.Conditions, applicationv1alpha1.ConditionRoutesReady) != nil {
				n++
			}
		}
		if n < len(list.Items) {
			return fmt.Errorf("%d of %d", n, len(list.Items))
		}
		return nil
	})
}

// resync asks for a sync and waits until it is done.
func (w *world) resync() {
	w.b.Helper()
	c := &compassv1alpha1.CompassConnection{}
	must(w.b, w.kube.Get(w.b.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c))
	asked := c.DeepCopy()
	asked.Spec.ResyncNow = true
	must(w.b, w.kube.Patch(w.b.Context(), asked, client.MergeFrom(c)))
	w.eventually("a sync", func() error {
		must(w.b, w.kube.Get(w.b.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c))
		if c.Spec.ResyncNow || c.Status.State != compassv1alpha1.Synchronized {
			return errors.New("not done yet")
		}
		return nil
	})
}

func (r report) print() {
	fmt.Printf("\non %s with load average %s, %d Applications\n", r.Machine, r.Load, applications)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "program\tload\ta second\tcores\tpeak MiB")
	for _, m := range r.Results {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%.0f\t%.4f\t%.1f\n", m.Program, m.Load, m.PerSecond, m.Cores, m.PeakMiB)
	}
	_ = w.Flush()
	for _, row := range r.rows() {
		fmt.Println(row)
	}
}

func round(x float64, digits int) float64 {
	factor := math.Pow10(digits)
	return math.Round(x*factor) / factor
}

func loadAverage(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	must(tb, err)
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
