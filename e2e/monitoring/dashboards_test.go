package monitoring

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEachPanelShowsWhatARoadThatRunsTells has a Prometheus scrape agent, gateway and validator under traffic, and asks it what
// each panel of each dashboard asks.
func TestEachPanelShowsWhatARoadThatRunsTells(t *testing.T) {
	r := startRoad(t)
	p := startPrometheus(t, r)
	began := time.Now()
	r.provoke(t)
	r.traffic(t)

	all := dashboards(t)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		for _, panel := range all[file].Panels {
			for _, of := range panel.Targets {
				eventually(t, file+": "+panel.Title, func(ctx context.Context) error {
					lines, err := p.ask(ctx, of, began, time.Now())
					if err != nil {
						return err
					}
					return shows(of, lines)
				})
			}
		}
	}

	if dir := os.Getenv("DASHBOARDS"); dir != "" {
		// For a person who looks at it: more than the first seconds, and the agent under way.
		for range 6 {
			time.Sleep(10 * time.Second)
			r.sync(t)
		}
		draw(t, dir, p, began, time.Now())
	}

	var rules struct {
		Groups []struct {
			Rules []struct {
				Name   string `json:"name"`
				Health string `json:"health"`
				Error  string `json:"lastError"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := p.get(t.Context(), "/api/v1/rules", nil, &rules); err != nil {
		t.Fatal(err)
	}
	evaluated := 0
	for _, g := range rules.Groups {
		for _, rule := range g.Rules {
			evaluated++
			if rule.Health != "ok" {
				t.Errorf("alert %s: %s %s", rule.Name, rule.Health, rule.Error)
			}
		}
	}
	if known, _ := writeRules(t, t.TempDir()); evaluated != len(known) {
		t.Errorf("%d of %d rules are evaluated", evaluated, len(known))
	}
	// A label that a target has and the metrics too is renamed.
	var labels []string
	if err := p.get(t.Context(), "/api/v1/labels", url.Values{}, &labels); err != nil {
		t.Fatal(err)
	}
	for _, label := range labels {
		if strings.HasPrefix(label, "exported_") {
			t.Errorf("a metric has the label %s, which targets of a PodMonitor have too", strings.TrimPrefix(label, "exported_"))
		}
	}
}

var placeholder = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// shows fails unless there is something to see, and each series has a name of its own.
func shows(of target, lines []line) error {
	if len(lines) == 0 {
		return fmt.Errorf("no data: %s", of.Expr)
	}
	names := map[string]bool{}
	for _, l := range lines {
		name := of.legend(l.labels)
		if strings.Trim(name, "/: ") == "" || names[name] {
			return fmt.Errorf("two series have the same name %q, or none: %s", name, of.Expr)
		}
		names[name] = true
	}
	for _, m := range placeholder.FindAllStringSubmatch(of.LegendFormat, -1) {
		// Some may have it empty, as the entry of a service with one API.
		if !slices.ContainsFunc(lines, func(l line) bool { return l.labels[m[1]] != "" }) {
			return fmt.Errorf("no series has the label %s of the legend %s: %s", m[1], of.LegendFormat, of.Expr)
		}
	}
	return nil
}

func eventually(t *testing.T, what string, is func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := is(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
