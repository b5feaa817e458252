package tracing_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.uber.org/goleak"

	"github.com/application-connector/application-connector/tracing"
	"github.com/application-connector/application-connector/tracing/collector"
)

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// environment is what the test sets, and nothing else of OpenTelemetry's.
func environment(t *testing.T, set map[string]string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, value) // so that it comes back after the test
			os.Unsetenv(name)
		}
	}
	for name, value := range set {
		t.Setenv(name, value)
	}
}

func span(name string) {
	_, s := otel.Tracer("test").Start(context.Background(), name)
	s.End()
}

func TestSpansAreSentAsTheEnvironmentSaysAndTheLastOnesAtTheEnd(t *testing.T) {
	c := collector.Start(t)
	for what, tc := range map[string]struct {
		set      map[string]string
		resource map[string]string
		sent     bool
	}{
		"nothing set":        {nil, nil, false},
		"a collector":        {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL}, map[string]string{"service.name": "test"}, true},
		"for traces alone":   {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": c.URL + "/v1/traces", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, map[string]string{"service.name": "test"}, true},
		"asked for":          {map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, map[string]string{"service.name": "test"}, true},
		"with names":         {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "team=a"}, map[string]string{"service.name": "mine", "team": "a"}, true},
		"switched off":       {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_SDK_DISABLED": "true"}, nil, false},
		"no exporter":        {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_TRACES_EXPORTER": "none"}, nil, false},
		"nothing is sampled": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_TRACES_SAMPLER": "always_off"}, nil, false},
		"a header":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b"}, map[string]string{"service.name": "test"}, true},
	} {
		t.Run(what, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			environment(t, tc.set)
			before := len(c.Spans())
			end, err := tracing.Start(t.Context(), "test", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			span("work " + what)
			if on := tracing.Provider() != nil; on != (tc.sent || what == "nothing is sampled") {
				t.Errorf("there is a provider: %v", on)
			}
			end()
			if tracing.Provider() != nil {
				t.Error("there is a provider after the end")
			}
			got := c.Spans()[before:]
			if !tc.sent {
				if len(got) != 0 {
					t.Errorf("sent: %+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Name != "work "+what {
				t.Fatalf("sent: %+v", got)
			}
			for name, value := range tc.resource {
				if got[0].Resource[name] != value {
					t.Errorf("%s is %q, want %q", name, got[0].Resource[name], value)
				}
			}
			if headers := c.Headers(); what == "a header" && headers[len(headers)-1].Get("X-Key") != "a b" {
				t.Errorf("%v", headers)
			}
			// The exporter and its client keep nothing running but idle connections, which the library does not close.
			goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
				goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
		})
	}
}

func TestACollectorThatIsAwayCostsSpansAndOneLogLineAndNothingElse(t *testing.T) {
	environment(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary",
		"OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8", "OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_BSP_EXPORT_TIMEOUT": "100",
	})
	log := &logBuffer{}
	end, err := tracing.Start(t.Context(), "test", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 { // many more than are kept
		span("lost")
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), "spans could not be exported"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is said: %s", log)
		}
	}
	end()
	if text := log.String(); strings.Count(text, "spans could not be exported") != 1 || strings.Contains(text, "canary") {
		t.Errorf("%s", text)
	}
}

func TestVariablesThatCannotWorkAreNamedWithWhatWould(t *testing.T) {
	const url = "http://127.0.0.1:1"
	for want, set := range map[string]map[string]string{
		`OTEL_TRACES_EXPORTER="zipkin": use otlp or none`:                                                                                                     {"OTEL_TRACES_EXPORTER": "zipkin"},
		`OTEL_EXPORTER_OTLP_ENDPOINT: use a URL as http://collector:4318`:                                                                                     {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
		`OTEL_EXPORTER_OTLP_PROTOCOL="grpc": only http/protobuf is spoken; a collector takes it on port 4318`:                                                 {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
		`OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="10s": use milliseconds, as 10000`:                                                                                 {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s"},
		`OTEL_EXPORTER_OTLP_HEADERS: use name=value pairs, separated by commas, with values in percent-encoding`:                                              {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_HEADERS": "canary"},
		`OTEL_EXPORTER_OTLP_COMPRESSION="br": use gzip or none`:                                                                                               {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_COMPRESSION": "br"},
		`OTEL_EXPORTER_OTLP_CERTIFICATE="/absent": open /absent: no such file or directory`:                                                                   {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_CERTIFICATE": "/absent"},
		`OTEL_EXPORTER_OTLP_CLIENT_KEY is set without the other: a client certificate needs both CLIENT_CERTIFICATE and CLIENT_KEY`:                           {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/absent"},
		`OTEL_TRACES_SAMPLER="some": use one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio`: {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER": "some"},
	} {
		environment(t, set)
		_, err := tracing.Start(t.Context(), "test", slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%v: no error", set)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%v (-want +got)\n%s", set, diff)
		}
	}
}
