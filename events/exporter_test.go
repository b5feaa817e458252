package events_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/tracing/collector"
)

func TestSpansAreExportedWhenTheEnvironmentNamesACollectorTheLastOnesAtTheEnd(t *testing.T) {
	noLeaks(t)
	spans := collector.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000") // nothing is sent before the end
	kubeconfig, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	log, ended := &syncBuffer{}, make(chan error, 1)
	go func() {
		ended <- events.Execute(ctx, []string{"--kubeconfig=" + kubeconfig, "--listenAddress=127.0.0.1", "--proxyPort=0", "--externalAPIPort=0"}, func(string) (string, bool) { return "", false }, log)
	}()
	pattern := regexp.MustCompile(`"proxy":"([^"]+)"`)
	eventually(t, "it listens", func() bool { return pattern.MatchString(log.String()) })
	answer, err := http.Post(fmt.Sprintf("http://%s/nobody/events", pattern.FindStringSubmatch(log.String())[1]), "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if n := len(spans.Spans()); n != 0 {
		t.Errorf("%d spans came before the end", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(spans.Spans(), func(s collector.Span) bool {
		return s.Name == "POST" && s.Attributes["url.path"] == "/nobody/events" && s.Resource["service.name"] == "central-application-connectivity-validator"
	}) {
		t.Errorf("%+v", spans.Spans())
	}
}
