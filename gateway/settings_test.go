package gateway_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway"
)

// change changes an Application, and waits until the gateway knows.
func (h *harness) change(app *v1alpha1.Application, change func(*v1alpha1.ApplicationSpec)) {
	h.t.Helper()
	h.eventually("the Application is changed", func() error {
		if err := h.kube.Get(context.Background(), client.ObjectKeyFromObject(app), app); err != nil {
			return err
		}
		change(&app.Spec)
		return h.kube.Update(context.Background(), app)
	})
	h.known(app)
}

func TestTheConditionNamesSettingsThatCannotBeUsedOrThatNoAPIHas(t *testing.T) {
	h := start(t)
	app := h.application("settings", v1alpha1.ApplicationSpec{
		Services:       []v1alpha1.Service{api("svc", "http://127.0.0.1:1/")},
		TargetSettings: []v1alpha1.TargetSettings{{Target: "svc/other", MaxConcurrent: 1}},
	})
	c := h.condition(app, "SettingsUnused")
	if c.Status != "True" || c.Message != `1 APIs can be called; no API is called as spec.targetSettings["svc/other"] says: use service/entry as in URLs of port 8082, or *` {
		t.Errorf("%+v", c)
	}
	h.change(app, func(s *v1alpha1.ApplicationSpec) {
		s.TargetSettings[0].AllowedCallers = &v1alpha1.AllowedCallers{Namespaces: []string{"shop"}}
	})
	c = h.condition(app, "AllowedCallersUnused")
	if c.Status != "False" || c.Message != `spec.targetSettings["svc/other"].allowedCallers keeps nobody from any API, for none is called so: use service/entry as in URLs of port 8082, or take it away` {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(h.log.String(), "an API may be open to more callers than was meant") {
		t.Error("the log does not say so")
	}
	h.eventually("the metric", func() error {
		text := h.do(http.MethodGet, h.addresses.Admin, "/metrics", nil).Body
		return expect(strings.Contains(text, `central_application_gateway_route_problems{reason="AllowedCallersUnused"} 1`+"\n"), "%s", text)
	})
	h.change(app, func(s *v1alpha1.ApplicationSpec) {
		s.TargetSettings[0].AllowedCallers = nil
		s.TargetSettings[0].Target = "svc/svc-api"
		s.TargetSettings[0].TLS = &v1alpha1.TLSSettings{CABundle: "-----BEGIN CERTIFICATE-----"}
	})
	c = h.condition(app, "SettingsInvalid")
	if c.Status != "False" || !strings.Contains(c.Message, `spec.targetSettings["svc/svc-api"].tls.caBundle: holds blocks that cannot be read`) {
		t.Errorf("%+v", c)
	}
	if a := h.get("/settings/svc"); a.Status != http.StatusInternalServerError || a.Header.Get("Gateway-Error-Reason") != "SettingsInvalid" {
		t.Errorf("%+v", a)
	}
}

func TestLimitsGoOnCountingWhenAnApplicationChangesAndAreMetrics(t *testing.T) {
	h := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	defer target.Close()
	app := h.application("limits", v1alpha1.ApplicationSpec{
		Services:       []v1alpha1.Service{api("svc", target.URL)},
		TargetSettings: []v1alpha1.TargetSettings{{Target: "*", CircuitBreaker: &v1alpha1.CircuitBreaker{Failures: 2, Pause: "1h"}}},
	})
	h.get("/limits/svc")
	h.change(app, func(s *v1alpha1.ApplicationSpec) { s.Description = "another" })
	h.get("/limits/svc")
	if a := h.get("/limits/svc"); a.Status != http.StatusServiceUnavailable || a.Header.Get("Gateway-Error-Reason") != "CircuitOpen" {
		t.Errorf("%+v", a)
	}
	h.eventually("metrics", func() error {
		text := h.do(http.MethodGet, h.addresses.Admin, "/metrics", nil).Body
		for _, line := range []string{
			`central_application_gateway_breaker_open{application="limits",entry="svc-api",service="svc"} 1`,
			`central_application_gateway_limited_requests_in_flight{application="limits",entry="svc-api",service="svc"} 0`,
			`central_application_gateway_errors_total{application="limits",entry="",reason="CircuitOpen",service="svc"} 1`,
		} {
			if !strings.Contains(text, line+"\n") {
				return expect(false, "no line %s", line)
			}
		}
		return nil
	})
	// Other limits begin anew.
	h.change(app, func(s *v1alpha1.ApplicationSpec) { s.TargetSettings[0].CircuitBreaker.Failures = 5 })
	if a := h.get("/limits/svc"); a.Status != http.StatusBadGateway {
		t.Errorf("%+v", a)
	}
}

func TestCallersAreNotBelievedFromOutsideOfTheMeshsProxy(t *testing.T) {
	h := start(t, func(o *gateway.Options) { o.MeshProxies = "192.0.2.1" })
	h.application("callers", v1alpha1.ApplicationSpec{
		Services:       []v1alpha1.Service{api("svc", "http://127.0.0.1:1/")},
		TargetSettings: []v1alpha1.TargetSettings{{Target: "*", AllowedCallers: &v1alpha1.AllowedCallers{Namespaces: []string{"shop"}}}},
	})
	a := h.get("/callers/svc", "X-Forwarded-Client-Cert", "By=spiffe://d/ns/a/sa/b;URI=spiffe://d/ns/shop/sa/c")
	if a.Status != http.StatusForbidden || !strings.Contains(a.problem(t), "-meshProxies") {
		t.Errorf("%+v", a)
	}
	if o := (&gateway.Options{MeshProxies: "here"}).Validate(); o == nil || !strings.Contains(o.Error(), `-meshProxies: "here" is neither an IP address`) {
		t.Errorf("%v", o)
	}
}

func TestHandshakesAndTheEndsOfCertificatesAreMetrics(t *testing.T) {
	target := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	target.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	target.StartTLS()
	defer target.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: target.Certificate().Raw}))
	h := start(t)
	h.application("tls", v1alpha1.ApplicationSpec{
		Services:       []v1alpha1.Service{api("trusting", target.URL), api("wary", target.URL), api("unused", target.URL)},
		TargetSettings: []v1alpha1.TargetSettings{{Target: "trusting/trusting-api", TLS: &v1alpha1.TLSSettings{CABundle: ca}}},
	})
	for service, want := range map[string]int{"trusting": http.StatusOK, "wary": http.StatusBadGateway} {
		if a := h.get("/tls/" + service); a.Status != want {
			t.Errorf("%s: %+v", service, a)
		}
	}
	ends := float64(target.Certificate().NotAfter.Unix())
	h.eventually("metrics", func() error {
		var got []string
		for line := range strings.Lines(h.do(http.MethodGet, h.addresses.Admin, "/metrics", nil).Body) {
			if strings.HasPrefix(line, "central_application_gateway_tls_") || strings.HasPrefix(line, "central_application_gateway_target_certificate_") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		diff := cmp.Diff([]string{
			fmt.Sprintf(`central_application_gateway_target_certificate_not_after_timestamp_seconds{application="tls",entry="trusting-api",service="trusting"} %v`, ends),
			`central_application_gateway_tls_handshakes_total{outcome="accepted"} 1`,
			`central_application_gateway_tls_handshakes_total{outcome="untrusted"} 1`,
		}, got)
		return expect(diff == "", "%s", diff)
	})
}
