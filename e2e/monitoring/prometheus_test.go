package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scrapeInterval is short, so that rates can be seen soon.
const scrapeInterval = time.Second

// prometheus is one that scrapes a road and evaluates the rules.
type prometheus struct {
	url    string
	client *http.Client
}

// startPrometheus starts one whose targets have the labels that the Prometheus Operator gives to those of a PodMonitor.
func startPrometheus(t *testing.T, r *road) *prometheus {
	t.Helper()
	dir := t.TempDir()
	_, rules := writeRules(t, dir)
	var jobs []any
	for pod, target := range map[string]struct{ url, port string }{
		"compass-runtime-agent":                      {r.URLs["agentMetrics"], "http-metrics"},
		"central-application-gateway":                {r.URLs["gatewayAdmin"], "http-api-port"},
		"central-application-connectivity-validator": {r.URLs["validatorAdmin"], "http-api-port"},
	} {
		jobs = append(jobs, map[string]any{
			"job_name": "kyma-system/" + pod,
			"static_configs": []any{map[string]any{
				"targets": []string{strings.TrimPrefix(target.url, "http://")},
				"labels":  map[string]string{"namespace": "kyma-system", "pod": pod + "-0", "container": pod, "endpoint": target.port},
			}},
		})
	}
	config := filepath.Join(dir, "prometheus.yaml")
	write(t, config, map[string]any{
		"global":         map[string]string{"scrape_interval": scrapeInterval.String(), "evaluation_interval": scrapeInterval.String()},
		"rule_files":     rules,
		"scrape_configs": jobs,
	})
	listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	var address string
	start(t, exec.CommandContext(context.WithoutCancel(t.Context()), program(t, "prometheus"),
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0"), func(said string) bool {
		if m := listening.FindStringSubmatch(said); m != nil {
			address = m[1]
		}
		return address != "" && strings.Contains(said, "Server is ready to receive web requests.")
	})
	return &prometheus{url: "http://" + address, client: client(t, nil)}
}

// get asks for a path of the API and decodes what it gives.
func (p *prometheus) get(ctx context.Context, path string, query url.Values, into any) error {
	status, text, err := do(ctx, p.client, http.MethodGet, p.url+path+"?"+query.Encode(), "", "")
	if err != nil {
		return err
	}
	answer := struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   any    `json:"data"`
	}{Data: into}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		return fmt.Errorf("%s: %d %s %w", path, status, answer.Error, err)
	}
	return nil
}

// line is a series of a result.
type line struct {
	labels map[string]string
	points []point
}

type point struct {
	at    time.Time
	value float64
}

// ask evaluates an expression, at the end or, if it is a target over time, at every second since the beginning.
func (p *prometheus) ask(ctx context.Context, of target, from, to time.Time) ([]line, error) {
	path, query := "/api/v1/query_range", url.Values{"query": {variables.Replace(of.Expr)}}
	if of.Instant {
		path = "/api/v1/query"
		query.Set("time", unix(to))
	} else {
		query.Set("start", unix(from))
		query.Set("end", unix(to))
		query.Set("step", "1")
	}
	var data struct {
		ResultType string `json:"resultType"`
		Result     []struct {
			Metric map[string]string `json:"metric"`
			Value  *sample           `json:"value"`
			Values []sample          `json:"values"`
		} `json:"result"`
	}
	if err := p.get(ctx, path, query, &data); err != nil {
		return nil, err
	}
	if data.ResultType == "scalar" || data.ResultType == "string" {
		return nil, fmt.Errorf("%s gives a %s, of which Grafana knows no labels", of.Expr, data.ResultType)
	}
	var lines []line
	for _, series := range data.Result {
		samples := series.Values
		if series.Value != nil {
			samples = append(samples, *series.Value)
		}
		l := line{labels: series.Metric}
		for _, s := range samples {
			if !math.IsNaN(s.value) && !math.IsInf(s.value, 0) {
				l.points = append(l.points, point(s))
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// variables are those of Grafana, as it fills them in when all Applications are chosen.
var variables = strings.NewReplacer("$__rate_interval", "10s", "$application", ".+")

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// sample is a point as Prometheus writes it: seconds as a number, and the value as text.
type sample point

func (s *sample) UnmarshalJSON(text []byte) error {
	var seconds float64
	var value string
	pair := []any{&seconds, &value}
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	number, err := strconv.ParseFloat(value, 64)
	s.at, s.value = time.UnixMilli(int64(seconds*1000)), number
	return err
}

// legend is what a series is called.
func (of target) legend(labels map[string]string) string {
	return regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`).ReplaceAllStringFunc(of.LegendFormat, func(placeholder string) string {
		return labels[strings.Trim(placeholder, "{ }")]
	})
}
