package rotation

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
)

const (
	// rate is requests a second, all kinds together.
	rate = 200
	// least is how many requests must have been made, at the end.
	least = 20_000
	// between the rotations so many requests are made.
	between = 3_000
)

// kinds are the requests that are sent in turn; the slot of a kind may be given to another one.
type kinds struct {
	mu    sync.Mutex
	calls []call
}

func (k *kinds) next(n int) call {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[n%len(k.calls)]
}

func (k *kinds) set(i int, c call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[i] = c
}

// Point 14 of what a replacement of the agent must hold; the others are tested beside the agent.
func TestReplacement(t *testing.T) {
	t.Run("14-rotations under load fail no request", func(t *testing.T) { rotateUnderLoad(t) })
}

func rotateUnderLoad(t *testing.T) {
	w := start(t)
	oldPassword, newPassword := rand.Text(), rand.Text()
	x := newTarget(t, oldPassword)
	w.connectTarget(x, oldPassword)
	pair, err := tls.LoadX509KeyPair(w.files["shopCertificate"], w.files["shopKey"])
	if err != nil {
		t.Fatal(err)
	}
	events := func(name string, c *http.Client) call {
		url := w.urls["edge"] + "/mp-shop/v2/events"
		return call{name, func(ctx context.Context) error {
			body := fmt.Sprintf(`{"specversion":"1.0","type":"order.created.v1","source":"mp-shop","id":%q,"data":{}}`, rand.Text())
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
			if err != nil {
				return err
			}
			r.Header.Set("Content-Type", "application/cloudevents+json")
			return succeed(c, r)
		}}
	}
	ofOldCA := events("an event by a certificate of the old authority", w.system(pair))
	all := &kinds{calls: []call{
		w.get("gatewayCompass", "/mp-shop/orders/orders"), w.get("gatewayCompass", "/mp-shop/prices/prices"),
		w.get("gatewayCompass", "/mp-shop/stock/stock"), w.get("gatewayCompass", "/mp-shop/maps/maps"),
		w.get("gateway", "/warehouse/stock"), w.get("gateway", "/rotating/api"), ofOldCA, ofOldCA,
	}}
	for _, c := range all.calls { // every kind works before it counts
		eventually(t, c.name, func() error { return c.do(t.Context()) })
	}
	began := time.Now()
	load := begin(t.Context(), rate, all.next)
	defer load.end()
	stage := func(what string) {
		sent, failed, first := load.seen()
		t.Logf("%4.0f s: %5d requests, %d failed: %s", time.Since(began).Seconds(), sent, failed, what)
		if failed > 0 {
			t.Fatalf("%d of %d requests failed by then, the first: %v", failed, sent, first)
		}
	}

	load.more(t, between)
	stage("the client certificate is renewed")
	w.renew()
	load.more(t, between)

	stage("Compass signs with another authority")
	w.administer(http.MethodPost, "/v1/client-ca/rotate?keepOld=true", nil)
	w.renew() // which is when the cluster learns of it
	bundle, err := certs.DecodeCA(w.read("istio-system", "kyma-gateway-certs-cacert").Data)
	if err != nil || len(bundle) != 2 {
		t.Fatalf("the ingress trusts %d authorities, %v; want the old and the new one", len(bundle), err)
	}
	next := w.pairShop()
	if pair.Leaf.CheckSignatureFrom(bundle[1]) != nil || next.Leaf.CheckSignatureFrom(bundle[0]) != nil || next.Leaf.CheckSignatureFrom(bundle[1]) == nil {
		t.Fatal("the two client certificates are not of the two authorities")
	}
	w.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	eventually(t, "the Application to know the new certificate", func() error {
		app := &applicationv1alpha1.Application{}
		if err := w.cluster.Get(t.Context(), client.ObjectKey{Name: "mp-shop"}, app); err != nil {
			return err
		}
		if ids := app.Spec.CompassMetadata.Authentication.ClientIDs; !slices.Contains(ids, next.Leaf.Subject.CommonName) {
			return fmt.Errorf("it knows %v", ids)
		}
		return nil
	})
	ofNewCA := events("an event by a certificate of the new authority", w.system(next))
	eventually(t, "the edge and the validator to take the new certificate", func() error { return ofNewCA.do(t.Context()) })
	all.set(7, ofNewCA) // from here on both count
	load.more(t, between)

	stage("the target exchanges its password")
	x.accept(oldPassword, newPassword)
	changed := w.read("kyma-system", "rotating")
	changed.Data["password"] = []byte(newPassword)
	if err := w.cluster.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway to use the new password", func() error {
		if *x.last.Load() != newPassword {
			return fmt.Errorf("it uses the old one")
		}
		return nil
	})
	x.accept(newPassword)
	load.more(t, between)
	stage("all is rotated")
	if sent, _, _ := load.seen(); sent < least {
		load.more(t, least-sent)
	}
	load.end()
	stage("the end")
	sent, failed, first := load.seen()
	if sent < least || failed > 0 {
		t.Errorf("%d of %d requests failed, want none of at least %d; the first: %v", failed, sent, least, first)
	}
	if x.requests.Load() < least/10 {
		t.Errorf("the target that exchanged its password got only %d requests", x.requests.Load())
	}
}
