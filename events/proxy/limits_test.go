package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/binding"
	"github.com/application-connector/application-connector/events/denial"
	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/proxy"
)

func TestAnApplicationThatSendsTooMuchWaits(t *testing.T) {
	now := clocktesting.NewFakeClock(time.Unix(0, 0))
	r := newRig(t, nil, func(c *proxy.Config) { c.Clock, c.Limits = now, proxy.Limits{Rate: 0.5, Burst: 2} })
	shop := func() answer { return r.send("POST", "/test-application/events", event("CN=test-application"), "x") }
	status := func(a answer) string { return fmt.Sprint(a.Status, " ", a.Header.Get("Retry-After")) }
	var got []string
	for range 3 {
		got = append(got, status(shop()))
	}
	got = append(got, status(r.send("POST", "/typed/events", event("CN=typed", "Ce-Source", "typed"), "x")))
	now.Step(1500 * time.Millisecond)
	got = append(got, status(shop()))
	now.Step(500 * time.Millisecond)
	got = append(got, status(shop()), status(shop()))
	if d := cmp.Diff([]string{"204 ", "204 ", "429 2", "204 ", "429 1", "204 ", "429 2"}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	shop().refused(t, 429)
	documented(t, "rate_limited", "strict", 429)
	now.Step(2 * time.Second)
	if got := status(r.send("POST", "/test-application/events", batched("CN=test-application"), batch("a", "b", "c"))); got != "429 2" {
		t.Errorf("a batch before the bucket is full: %s", got)
	}
	now.Step(2 * time.Second)
	if got := status(r.send("POST", "/test-application/events", batched("CN=test-application"), batch("a", "b", "c"))); got != "204 " {
		t.Errorf("a batch that is larger than the bucket: %s", got)
	}
	if got := status(shop()); got != "429 2" {
		t.Errorf("after the batch: %s", got)
	}
	if n := len(r.saw()); n != 7 {
		t.Errorf("the publisher saw %d events", n)
	}
}

func TestRequestsBeyondTheBoundAreTurnedAway(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		w.WriteHeader(http.StatusNoContent)
	}, func(c *proxy.Config) { c.Limits.InFlight = 1 })
	done := make(chan answer, 1)
	go func() {
		done <- r.send("POST", "/test-application/events", event("CN=test-application"), "x")
	}()
	<-arrived
	got := r.send("POST", "/test-application/events", event("CN=test-application"), "x")
	got.refused(t, 503)
	if got.Header.Get("Retry-After") != "1" {
		t.Errorf("got %+v", got)
	}
	documented(t, "overloaded", "strict", 503)
	close(release)
	if first := <-done; first.Status != 204 {
		t.Errorf("got %+v", first)
	}
	go func() { <-arrived }()
	// The first has its answer a moment before its place is free.
	for deadline := time.Now().Add(30 * time.Second); got.Status != 204; got = r.send("POST", "/test-application/events", event("CN=test-application"), "x") {
		if time.Now().After(deadline) {
			t.Fatalf("no room again: %+v", got)
		}
	}
}

func TestADeniedCertificateLooksLikeAWrongOne(t *testing.T) {
	for what, tc := range map[string]struct {
		list, client, reason string
	}{
		"denied":                {"sha256 " + certHash, xfcc("CN=test-application"), "denied_certificate"},
		"nothing to tell it by": {"sha256 " + certHash, `Subject="CN=test-application"` + gateway, "denial_unknown"},
		"a stranger's":          {"sha256 " + certHash, xfcc("CN=stranger"), "wrong_certificate"},
	} {
		for _, mode := range []string{"strict", "compatible"} {
			t.Run(what+", "+mode, func(t *testing.T) {
				list, errs := denial.Parse(map[string]string{"": tc.list})
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				r := newRig(t, nil, func(c *proxy.Config) { c.Denied, c.Compatible = list, mode == "compatible" })
				got := r.send("POST", "/test-application/events", event("", "X-Forwarded-Client-Cert", tc.client), "x")
				if text := got.refused(t, 403); text != "the client certificate does not belong to this Application" {
					t.Errorf("got %s", text)
				}
				documented(t, tc.reason, mode, 403)
				if d := cmp.Diff(map[string]float64{"test-application " + tc.reason: 1}, r.requests()); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// now is what the cluster holds at the moment.
type now struct {
	app    atomic.Pointer[v1alpha1.Application]
	denied atomic.Pointer[denial.List]
	synced atomic.Bool
}

func (n *now) Application(string) *v1alpha1.Application { return n.app.Load() }
func (n *now) Synced() bool                             { return n.synced.Load() }
func (n *now) Check(client identity.Identity) error     { return n.denied.Load().Check(client) }

// TestEachRequestOfAClientIsDecidedAnew sends the same header again and again while the cluster changes.
func TestEachRequestOfAClientIsDecidedAnew(t *testing.T) {
	cluster := &now{}
	r := newRig(t, nil, func(c *proxy.Config) { c.Applications, c.Denied = cluster, cluster })
	managed := func(ids ...string) *v1alpha1.Application {
		return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.ApplicationSpec{
			CompassMetadata: &v1alpha1.CompassMetadata{Authentication: v1alpha1.Authentication{ClientIDs: ids}},
		}}
	}
	list, errs := denial.Parse(map[string]string{"": "sha256 " + certHash})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	leaving := managed("id")
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for i, step := range []struct {
		what   string
		change func()
		want   int
	}{
		{"nothing is known yet", func() {}, 503},
		{"no such Application", func() { cluster.synced.Store(true) }, 403},
		{"the Application comes", func() { cluster.app.Store(managed("id")) }, 204},
		{"its certificate is denied", func() { cluster.denied.Store(list) }, 403},
		{"and no longer denied", func() { cluster.denied.Store(nil) }, 204},
		{"it has another client", func() { cluster.app.Store(managed("other")) }, 403},
		{"it has both", func() { cluster.app.Store(managed("other", "id")) }, 204},
		{"it has none", func() { cluster.app.Store(managed()) }, 403},
		{"it is not managed, and has another name", func() { cluster.app.Store(&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}) }, 403},
		{"its client is back", func() { cluster.app.Store(managed("id")) }, 204},
		{"it is being deleted", func() { cluster.app.Store(leaving) }, 403},
		{"it is gone", func() { cluster.app.Store(nil) }, 403},
	} {
		step.change()
		if got := r.send("POST", "/shop/events", event("CN=id"), "x"); got.Status != step.want {
			t.Errorf("step %d, %s: %+v, want %d", i, step.what, got, step.want)
		}
	}
}

func TestOrganizationIsAskedForByPolicy(t *testing.T) {
	apps := applications()
	apps.apps["test-application"].Spec.Tenant = "t"
	for subject, want := range map[string]int{"CN=test-application,O=t": 204, "CN=test-application,O=u": 403} {
		r := newRig(t, nil, func(c *proxy.Config) { c.Applications, c.Policy = apps, binding.Policy{MatchOrganization: true} })
		got := r.send("POST", "/test-application/events", event(subject), "x")
		if got.Status != want {
			t.Errorf("%s: %+v", subject, got)
		}
		if want == 403 {
			documented(t, "wrong_organization", "strict", 403)
		}
	}
}

func TestAGatewayThatForwardsIsWarnedOfOnce(t *testing.T) {
	r := newRig(t, nil, nil)
	for range 5 {
		r.send("POST", "/test-application/events", event("", "X-Forwarded-Client-Cert", `Subject="CN=test-application",`+xfcc("CN=typed")), "x").refused(t, 401)
	}
	r.server.Close()
	if n := strings.Count(r.log.String(), "SANITIZE_SET"); n != 1 {
		t.Errorf("warned %d times", n)
	}
	if got := r.sum("validator_surplus_elements_total"); got != 5 {
		t.Errorf("counted %v", got)
	}
}

func TestTheIdentityMayComeByClientCert(t *testing.T) {
	r := newRig(t, nil, func(c *proxy.Config) { c.Verifier.Header = "Client-Cert" })
	r.send("POST", "/test-application/events", event("CN=test-application"), "x").refused(t, 401)
	if len(r.saw()) != 0 {
		t.Error("X-Forwarded-Client-Cert counts though Client-Cert was asked for")
	}
}
