package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway"
)

func TestAddressesOfThisHostAreNotCalledUnlessTheyAreAllowed(t *testing.T) {
	var called atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Add(1) }))
	defer target.Close()
	_, port, _ := strings.Cut(target.Listener.Addr().String(), ":")
	h := start(t, func(o *gateway.Options) { o.AllowedTargets = "" })
	h.secret("s", map[string]string{"username": "u", "password": "p", "clientId": "c", "clientSecret": "s"})
	h.application("inward", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{
		api("address", target.URL), api("name", "http://localhost:"+port), api("unspecified", "http://0.0.0.0:"+port), api("api server", cluster.Host),
		api("token", "http://192.0.2.1/", with("OAuth", "s", target.URL)), api("csrf", "http://192.0.2.1/", with("Basic", "s", ""), withCSRF(target.URL)),
	}})
	for service, body := range map[string]bool{"address": false, "name": false, "unspecified": false, "api-server": false, "token": true, "csrf": true} {
		a := h.get("/inward/" + service)
		if a.Status != http.StatusBadGateway || a.Header.Get("Gateway-Error-Reason") != "AddressForbidden" || (a.Body != "") != body {
			t.Errorf("%s: %+v", service, a)
		}
		if body && !strings.Contains(a.problem(t), "a loopback address, which -allowedTargets does not allow") {
			t.Errorf("%s: %s", service, a.Body)
		}
	}
	if called.Load() != 0 {
		t.Errorf("the target was called %d times", called.Load())
	}
	allowing := start(t, func(o *gateway.Options) { o.AllowedTargets = "localhost" })
	allowing.known(h.application("inward-too", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("name", "http://localhost:"+port), api("address", target.URL)}}))
	for service, want := range map[string]int{"name": 200, "address": 502} {
		if a := allowing.get("/inward-too/" + service); a.Status != want {
			t.Errorf("%s: %+v", service, a)
		}
	}
}
