package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func TestACallReachesTheTargetOnBothPorts(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.RequestURI())
	}))
	defer target.Close()
	h := start(t)
	h.application("both-ports", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("Orders API", target.URL+"/base?x=1")}})
	for address, path := range map[string]string{
		h.addresses.Services: "/both-ports/orders-api/items?y=2",
		h.addresses.Entries:  "/both-ports/orders-api/orders-api-api/items?y=2",
	} {
		if a := h.do(http.MethodPost, address, path, nil); a.Status != 200 || a.Body != "POST /base/items?x=1&y=2" {
			t.Errorf("%s: %+v", path, a)
		}
	}
}
