package events_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/tracing/collector"
)

func TestSpansAreExportedWhenTheEnvironmentNamesACollectorTheLastOnesAtTheEnd(t *testing.T) {
	noLeaks(t)
	const trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	received := make(chan string, 1)
	publisher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received <- r.Header.Get("Traceparent") + " " + r.Header.Get("X-B3-Traceid") + " " + r.Header.Get("X-B3-Spanid")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(publisher.Close)
	create(t, kube(t), application("exported-shop", nil))
	spans := collector.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000") // nothing is sent before the end
	kubeconfig, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	log, ended := &leaktest.Log{}, make(chan error, 1)
	go func() {
		ended <- execute(ctx, t, []string{"--kubeconfig=" + kubeconfig, "--listenAddress=127.0.0.1", "--proxyPort=0", "--externalAPIPort=0", "--eventingPublisherHost=" + strings.TrimPrefix(publisher.URL, "http://")}, func(string) (string, bool) { return "", false }, log)
	}()
	pattern := regexp.MustCompile(`"proxy":"([^"]+)"`)
	eventually(t, "it listens", func() bool { return pattern.MatchString(log.String()) })
	address := "http://" + pattern.FindStringSubmatch(log.String())[1]
	answer, err := http.Post(address+"/nobody/events", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	eventually(t, "an event is taken", func() bool {
		r, err := http.NewRequest(http.MethodPost, address+"/exported-shop/v1/events", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-Client-Cert", `Subject="CN=exported-shop"`+gateway)
		r.Header.Set("Traceparent", "00-"+trace+"-"+caller+"-01")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusNoContent
	})
	told := <-received
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
	// The publisher is told of the attempt's span, which belongs to the request's, which belongs to the caller's.
	all := spans.Spans()
	i := slices.IndexFunc(all, func(s collector.Span) bool {
		return told == "00-"+trace+"-"+s.SpanID+"-01 "+trace+" "+s.SpanID
	})
	if i < 0 || !slices.ContainsFunc(all, func(s collector.Span) bool {
		return s.TraceID == trace && s.SpanID == all[i].ParentID && s.ParentID == caller
	}) {
		t.Errorf("the publisher was told %q, spans are %+v", told, all)
	}
}
