package fleet_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/application-connector/application-connector/simulator/compass"
)

// cost is what one sync took.
type cost struct {
	Name string `json:"name"`
	// Seconds from the first query to the last write.
	Seconds float64 `json:"seconds"`
	// Queries to Compass.
	Queries int `json:"queries"`
	// Reads and Writes are requests of the agent's Kubernetes clients: Writes of all objects but the CompassConnection,
	// whose own writes, of the wish for the sync and of the status, stand beside.
	Reads            int `json:"reads"`
	Writes           int `json:"writes"`
	ConnectionWrites int `json:"connectionWrites"`
	// PeakMiB is the most memory that the agent's process had resident during the sync.
	PeakMiB int `json:"peakMiB"`
}

// costs are what stands in bench/sync.json.
type costs struct {
	What    string `json:"what"`
	Machine string `json:"machine"`
	// Load is the load average of a minute before the first sync: more than the number of cores says that the machine had
	// other work, which costs seconds.
	Load         string `json:"loadAverage"`
	Applications int    `json:"applications"`
	Results      []cost `json:"results"`
}

// orders is an Application with three bundles, each with credentials of its own, two APIs and an event.
func orders(n int) compass.Application {
	name := fmt.Sprintf("system-%05d", n)
	app := compass.Application{Name: name, Description: "a system of ordinary size", ProviderName: "Example", Formations: []string{"default"}}
	for b, credential := range []compass.Credential{
		{Basic: &compass.Basic{Username: "user", Password: "password-" + name}},
		{OAuth: &compass.OAuth{ClientID: "client", ClientSecret: "secret-" + name, URL: "https://" + name + ".example.com/token"}},
		{Basic: &compass.Basic{Username: "other", Password: "password-" + name}},
	} {
		bundle := compass.Bundle{Name: fmt.Sprintf("bundle %d", b), Description: "what belongs together", Auth: &compass.Auth{Credential: credential}}
		for a := range 2 {
			bundle.APIs = append(bundle.APIs, compass.API{Name: fmt.Sprintf("api %d", a), TargetURL: fmt.Sprintf("https://%s.example.com/%d/%d", name, b, a)})
		}
		bundle.Events = []compass.Event{{Name: "order.changed"}}
		app.Bundles = append(app.Bundles, bundle)
	}
	return app
}

// BenchmarkSync measures the agent with 5,000 Applications, or as many as BENCH_SYNC_APPLICATIONS says: the first sync into
// an empty cluster, one that finds nothing new, and one that finds one Application changed. Compass and the API server have
// processes of their own; they share the machine's cores.
func BenchmarkSync(b *testing.B) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("BENCH_SYNC_APPLICATIONS"), "5000"))
	must(b, err)
	var applications []compass.Application
	for i := range n {
		applications = append(applications, orders(i))
	}
	server := startCompassProcess(b, seedOf(applications...))
	out := costs{
		What:         "one sync of the agent: first into an empty cluster, then without a change, then with one Application changed",
		Machine:      fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version()),
		Load:         loadAverage(b),
		Applications: n,
	}
	for range b.N {
		out.Results = nil
		f := newFleet(b, server.ca)
		var token compass.Token
		server.call(http.MethodPost, "/v1/runtimes/"+runtimeID+"/token", nil, &token)
		f.configure(token)
		var stop func()
		m := measurement{f: f, server: server}
		first, _ := m.of("first sync", func() {
			stop = f.start()
			f.synchronised(time.Hour)
		})
		if want := n * (1 + 3); first.Writes < want {
			b.Errorf("the first sync wrote %d times; %d objects are new", first.Writes, want)
		}
		// What the watches bring of the first sync's writes, and what it left to be collected, is not the next one's.
		m.settle()
		quiet, touched := m.of("quiet sync", func() { f.resync() })
		// The request for the sync is taken back, the attempt is noted before it, and the result after it.
		if quiet.ConnectionWrites > 3 {
			b.Errorf("a quiet sync wrote the CompassConnection %d times", quiet.ConnectionWrites)
		}
		if quiet.Writes != 0 {
			b.Errorf("a quiet sync wrote %v", touched)
		}
		changed := orders(n / 2)
		changed.Description = "a system that changed"
		changed.Bundles[1].Auth.OAuth.ClientSecret = "a secret that changed"
		server.call(http.MethodPut, "/v1/tenants/"+tenant+"/applications", changed, nil)
		one, touched := m.of("one change", func() { f.resync() })
		if one.Writes == 0 {
			b.Error("the change was not written")
		}
		for what, names := range touched {
			for _, name := range names {
				if name != "mp-"+changed.Name && !strings.HasPrefix(name, "mp-"+changed.Name+"-") {
					b.Errorf("%s of %q, which did not change", what, name)
				}
			}
		}
		out.Results = []cost{first, quiet, one}
		stop()
	}
	for _, c := range out.Results {
		b.ReportMetric(c.Seconds, strings.ReplaceAll(c.Name, " ", "-")+"-s")
	}
	out.print()
	if dir := os.Getenv("BENCH_DIR"); dir != "" && !b.Failed() {
		text, err := json.MarshalIndent(out, "", "  ")
		must(b, err)
		must(b, os.MkdirAll(dir, 0o750))
		must(b, os.WriteFile(filepath.Join(dir, "sync.json"), append(text, '\n'), 0o600))
	}
}

func (c costs) print() {
	fmt.Printf("\n%d Applications with 3 bundles each, on %s with load average %s\n", c.Applications, c.Machine, c.Load)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "\tseconds\tqueries\treads\twrites\tpeak MiB\t")
	for _, r := range c.Results {
		_, _ = fmt.Fprintf(w, "%s\t%.2f\t%d\t%d\t%d\t%d\t\n", r.Name, r.Seconds, r.Queries, r.Reads, r.Writes, r.PeakMiB)
	}
	_ = w.Flush()
}

// measurement takes the cost of syncs.
type measurement struct {
	f      *fleet
	server *compassProcess
}

// of runs a sync, and gives its cost and what it wrote, without the CompassConnection.
func (m measurement) of(name string, sync func()) (cost, map[string][]string) {
	tb := m.f.tb
	debug.FreeOSMemory()
	// 5 resets the peak, see proc_pid_clear_refs(5).
	must(tb, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200))
	m.server.call(http.MethodDelete, "/v1/counters", nil, nil)
	m.f.traffic.take()
	sync()
	requests, touched := m.f.traffic.take()
	c := cost{Name: name, PeakMiB: peakMiB(tb)}
	var counters compass.Counters
	m.server.call(http.MethodGet, "/v1/counters", nil, &counters)
	c.Queries = counters.Operations["applicationsForRuntime"].Received + counters.Operations["application"].Received
	line, err := m.f.log.line("synchronised")
	must(tb, err)
	took, _ := line["took"].(float64) // nanoseconds
	c.Seconds = math.Round(took/float64(10*time.Millisecond)) / 100
	for what, n := range requests {
		method, resource, _ := strings.Cut(what, " ")
		resource, _, _ = strings.Cut(resource, "/")
		switch {
		case method == http.MethodGet:
			c.Reads += n
		case resource == "compassconnections":
			c.ConnectionWrites += n
		case name == "first sync" && !slices.Contains([]string{"applications", "secrets", "events"}, resource):
			tb.Errorf("%d × %s in a sync", n, what)
		default:
			c.Writes += n
		}
	}
	maps.DeleteFunc(touched, func(what string, _ []string) bool { return strings.Contains(what, " compassconnections") })
	return c, touched
}

// settle waits until the agent has nothing left to do of the sync before: one more sync writes nothing.
func (m measurement) settle() {
	m.f.tb.Helper()
	for range 5 {
		if c, _ := m.of("settling", func() { m.f.resync() }); c.Writes == 0 {
			return
		}
	}
	m.f.tb.Error("syncs go on writing although nothing changes")
}

func loadAverage(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	must(tb, err)
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// peakMiB is the most memory that this process had resident since that was reset. The agent is the most of it: Compass
// and the API server are processes of their own.
func peakMiB(tb testing.TB) int {
	tb.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(tb, err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.Atoi(fields[1])
			must(tb, err)
			return kib >> 10
		}
	}
	tb.Fatal("/proc/self/status has no VmHWM: the peak of memory can be measured on Linux only")
	return 0
}
