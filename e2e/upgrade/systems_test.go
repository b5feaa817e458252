package upgrade

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/application-connector/application-connector/simulator/compass"
)

// byHand plants what people have in such a cluster besides: an Application that is not of Compass, by kubectl as it was, with a field
// that nobody knows, a label, an annotation and a finalizer of their own, and its Secret, with a key too many and no owner.
func (w *world) byHand(x *target) {
	w.t.Helper()
	text := `apiVersion: v1
kind: Secret
metadata: {name: by-hand, namespace: kyma-system, labels: {team: sales}}
stringData: {clientId: client, clientSecret: passwd, note: "asked for in March"}
---
apiVersion: applicationconnector.kyma-project.io/v1alpha1
kind: Application
metadata: {name: by-hand, labels: {team: sales, app: by-hand}, annotations: {example.com/owner: sales}, finalizers: [example.com/keep]}
spec:
  description: by hand
  unknown: {of: somebody}
  labels: {connected-app: by-hand}
  services:
  - {id: by-hand-prices, name: prices, displayName: Prices, providerDisplayName: us, description: prices, entries: [
      {type: API, id: prices-api, name: Prices API, targetUrl: "` + x.server.URL + `/prices", credentials: {type: OAuth, secretName: by-hand, authenticationUrl: "` + x.server.URL + `/token"}}]}
`
	w.must(os.WriteFile(filepath.Join(w.checkout, "by-hand.yaml"), []byte(text), 0o600))
	w.run("kubectl apply --validate=ignore -f by-hand.yaml && rm by-hand.yaml")
}

// calls makes one call of each API, and wants it answered.
func (w *world) calls(when string, do func([3]string) (int, error), systems ...string) {
	w.t.Helper()
	w.eventually("a call of the Application by hand, after "+when, func() error { return w.answers(do, "by-hand", "prices", "prices-api") })
	for _, s := range systems {
		paths := [][3]string{{"mp-" + s, "orders", "orders-api"}}
		if s == "shop" {
			paths = append(paths, [3]string{"mp-shop", "prices", "prices-api"})
		}
		for _, path := range paths {
			w.eventually(fmt.Sprintf("a call of %v with the right credentials, after %s", path, when), func() error { return w.answers(do, path[0], path[1], path[2]) })
		}
	}
}

func (w *world) answers(do func([3]string) (int, error), app, service, entry string) error {
	if status, err := do([3]string{app, service, entry}); err != nil || status != http.StatusOK {
		return fmt.Errorf("%s/%s/%s answers %d, %v", app, service, entry, status, err) //nolint:errorlint // it is told, not judged
	}
	return nil
}

func (w *world) callGateway(path [3]string) (int, error) {
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.gatewayURL+"/"+strings.Join(path[:], "/"), nil)
	if err != nil {
		return 0, err
	}
	return answer(r)
}

// target is the external systems: one password, one client of OAuth, one header.
type target struct {
	server   *httptest.Server
	password atomic.Value
}

func newTarget(t *testing.T) *target {
	x := &target{}
	x.password.Store("first")
	allow := func(rw http.ResponseWriter, ok bool) {
		if !ok {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(rw http.ResponseWriter, r *http.Request) {
		id, password, ok := r.BasicAuth()
		if !ok {
			id, password = r.FormValue("client_id"), r.FormValue("client_secret")
		}
		if id != "client" || password != "passwd" {
			allow(rw, false)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write([]byte(`{"access_token":"issued","token_type":"bearer","expires_in":3600}`))
	})
	mux.HandleFunc("/orders", func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		ok := user == "user" && password == x.password.Load() || r.Header.Get("Authorization") == "Bearer issued"
		allow(rw, ok && r.Header.Get("X-Client") == "kyma")
	})
	mux.HandleFunc("/prices", func(rw http.ResponseWriter, r *http.Request) {
		allow(rw, r.Header.Get("Authorization") == "Bearer issued")
	})
	x.server = httptest.NewServer(mux)
	t.Cleanup(x.server.Close)
	return x
}

func basic(password string) compass.Credential {
	return compass.Credential{Basic: &compass.Basic{Username: "user", Password: password}}
}

func (x *target) shop(orders compass.Credential) compass.Application {
	return compass.Application{ID: shopID, Name: "Shop", ProviderName: "ACME", Formations: []string{"default"}, Bundles: []compass.Bundle{
		{ID: ordersID, Name: "Orders", Auth: &compass.Auth{Credential: orders, Headers: map[string][]string{"X-Client": {"kyma"}}},
			APIs: []compass.API{{Name: "Orders API", TargetURL: x.server.URL + "/orders"}}},
		{ID: pricesID, Name: "Prices",
			Auth: &compass.Auth{Credential: compass.Credential{OAuth: &compass.OAuth{ClientID: "client", ClientSecret: "passwd", URL: x.server.URL + "/token"}}},
			APIs: []compass.API{{Name: "Prices API", TargetURL: x.server.URL + "/prices"}}},
	}}
}

// later is a system that comes while the new agent is there.
func (x *target) later() compass.Application {
	return compass.Application{Name: "Later", Formations: []string{"default"}, Bundles: []compass.Bundle{
		{ID: laterID, Name: "Orders", Auth: &compass.Auth{Credential: basic(x.password.Load().(string)), Headers: map[string][]string{"X-Client": {"kyma"}}},
			APIs: []compass.API{{Name: "Orders API", TargetURL: x.server.URL + "/orders"}}},
	}}
}
