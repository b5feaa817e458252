package events

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/proxy"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
)

type oneApplication struct{ app *v1alpha1.Application }

func (o oneApplication) Application(string) *v1alpha1.Application { return o.app }
func (oneApplication) Synced() bool                               { return true }

// taker is a publisher that costs nothing.
type taker struct{}

func (taker) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return &http.Response{StatusCode: http.StatusNoContent, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Date": {"x"}}, Body: http.NoBody, Request: r}, nil
}

// mesh is X-Forwarded-Client-Cert as Istio's ingress gateway and sidecar write it.
func mesh(b *testing.B, cn string) string {
	b.Helper()
	a, err := authority.New("clients", nil)
	if err != nil {
		b.Fatal(err)
	}
	read := func(r authority.Request) *x509.Certificate {
		text, _, err := a.Issue(r)
		if err != nil {
			b.Fatal(err)
		}
		block, _ := pem.Decode(text)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	ingress, own := read(authority.Request{URIs: []string{edge.IngressID}}), read(authority.Request{URIs: []string{edge.DefaultWorkloadID}})
	client := read(authority.Request{Subject: pkix.Name{CommonName: cn, OrganizationalUnit: []string{"eu"}, Organization: []string{"Foo, Inc."}}})
	first, err := envoy.Element(&x509.Certificate{}, client, true)
	if err != nil {
		b.Fatal(err)
	}
	second, err := envoy.Element(own, ingress, false)
	if err != nil {
		b.Fatal(err)
	}
	return first + "," + second
}

// BenchmarkEvent is what the validator itself does for an event of 1 kB: everything between net/http's server and its
// client, neither of which counts. cpu-ns/op is of the process and, other than ns/op, holds on a busy machine too.
func BenchmarkEvent(b *testing.B) {
	header := mesh(b, "shop")
	body := []byte(`{"order":"` + strings.Repeat("x", 1000) + `"}`)
	legacy := []byte(`{"event-type":"order.created","event-type-version":"v1","event-id":"31109198-4d69-4ae0-972d-76117f3748c8","event-time":"2026-11-02T22:33:22Z","data":"` + strings.Repeat("x", 900) + `"}`)
	structured := []byte(`{"specversion":"1.0","type":"order.created.v1","source":"shop","id":"1","data":"` + strings.Repeat("x", 900) + `"}`)
	trace := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	binary := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Type": {"order.created.v1"}, "Ce-Source": {"shop"}, "Ce-Id": {"1"}, "Content-Type": {"application/json"}}
	for _, bc := range []struct {
		name, path string
		header     []http.Header
		body       []byte
	}{
		{"binary", "/shop/events", []http.Header{binary}, body},
		{"binary-with-trace", "/shop/events", []http.Header{binary, trace}, body},
		{"structured", "/shop/events", []http.Header{{"Content-Type": {"application/cloudevents+json"}}}, structured},
		{"legacy", "/shop/v1/events", []http.Header{{"Content-Type": {"application/json"}}}, legacy},
	} {
		b.Run(bc.name, func(b *testing.B) {
			handler := traced(proxy.New(proxy.Config{
				Applications: oneApplication{&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
				Verifier:     identity.Verifier{TrustedHops: 1, IngressIdentity: edge.IngressID},
				Paths:        proxy.DefaultPaths, PublisherHost: "publisher:80", DestinationPath: "/publish", SourcePolicy: proxy.SourceWarn,
				MaxBodyBytes: 64 << 10, Timeout: 30 * time.Second, Attempts: 10, RetryWindow: 10 * time.Second, Metrics: proxy.NewMetrics(prometheus.NewRegistry()),
				Log:       slog.New(slog.NewJSONHandler(io.Discard, nil)), //nolint:sloglint // what a line takes is to be counted
				Transport: tracedTransport(taker{}),
			}))
			var before, after syscall.Rusage
			b.ReportAllocs()
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, bc.path, bytes.NewReader(bc.body))
				r.Header.Set("X-Forwarded-Client-Cert", header)
				r.Header.Set("User-Agent", "shop/1")
				for _, h := range bc.header {
					for name, values := range h {
						r.Header[name] = values
					}
				}
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != http.StatusNoContent {
					b.Fatal(w.Code, w.Body)
				}
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := func(r syscall.Rusage) int64 { return r.Utime.Nano() + r.Stime.Nano() }
			b.ReportMetric(float64(cpu(after)-cpu(before))/float64(b.N), "cpu-ns/op")
		})
	}
}
