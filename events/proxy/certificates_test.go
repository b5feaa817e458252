package proxy_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/proxy"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/edge/envoy"
)

// withCertificate is the header of a client whose certificate the proxies forward.
func withCertificate(t *testing.T, cn string, notAfter time.Time) string {
	t.Helper()
	a, err := authority.New("clients", nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := a.Issue(authority.Request{Subject: pkix.Name{CommonName: cn}, NotBefore: time.Unix(0, 0), NotAfter: notAfter})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	element, err := envoy.Element(&x509.Certificate{}, certificate, true)
	if err != nil {
		t.Fatal(err)
	}
	return element + gateway
}

func TestMetricsTellWhenTheCertificatesOfThoseEndWhoMaySpeak(t *testing.T) {
	cluster := &now{}
	cluster.synced.Store(true)
	shop := func(ids ...string) {
		cluster.app.Store(&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.ApplicationSpec{
			CompassMetadata: &v1alpha1.CompassMetadata{Authentication: v1alpha1.Authentication{ClientIDs: ids}},
		}})
	}
	shop("id", "other")
	r := newRig(t, nil, func(c *proxy.Config) { c.Applications = cluster })
	ends := func() map[string]float64 {
		families, err := r.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			if f.GetName() == "validator_client_certificate_not_after_timestamp_seconds" {
				for _, m := range f.GetMetric() {
					got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
		return got
	}
	is := func(what string, want map[string]float64) {
		t.Helper()
		if d := cmp.Diff(want, ends()); d != "" {
			t.Errorf("%s (-want +got)\n%s", what, d)
		}
	}
	send := func(want int, client string) {
		t.Helper()
		if got := r.send("POST", "/shop/events", event("", "X-Forwarded-Client-Cert", client), "x"); got.Status != want {
			t.Errorf("got %+v, want %d", got, want)
		}
	}
	send(403, withCertificate(t, "stranger", time.Unix(2e9, 0)))
	send(204, xfcc("CN=id"))
	is("a stranger, and one whose certificate is not told", map[string]float64{})
	send(204, withCertificate(t, "id", time.Unix(2e9, 0)))
	send(204, withCertificate(t, "other", time.Unix(3e9, 0)))
	is("two clients", map[string]float64{"shop id": 2e9, "shop other": 3e9})
	send(204, withCertificate(t, "id", time.Unix(4e9, 0)))
	is("one is renewed", map[string]float64{"shop id": 4e9, "shop other": 3e9})
	shop("id")
	is("one may no longer speak", map[string]float64{"shop id": 4e9})
	cluster.synced.Store(false)
	is("nothing is known", map[string]float64{})
	cluster.synced.Store(true)
	is("it is known again", map[string]float64{"shop id": 4e9})
	cluster.app.Store(nil)
	is("the Application is gone", map[string]float64{})
}
