package connection_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
)

const day = 24 * time.Hour

// years is a connection over years of virtual time. The worker is woken when it asked to be, as the queue does it, and when
// the test changes something that is watched.
type years struct {
	*world
	began time.Time
	// timeline holds the events that are told to people, but for those about states, each with its day.
	timeline []string
	// calls of each operation, and attempts: the times at which Compass was called.
	counted  map[string]int
	attempts []time.Time
	signed   []time.Time
}

func newYears(t *testing.T, period time.Duration) *years {
	t.Helper()
	w := newMemoryWorld(t)
	w.r.Schedule.Period = period
	return &years{world: w, began: w.clock.Now(), counted: map[string]int{}}
}

// look runs the worker once, and gives when it wants to be woken.
func (y *years) look() time.Time {
	y.t.Helper()
	result, err := y.r.Reconcile(y.t.Context(), request)
	if err != nil {
		y.t.Fatal(err)
	}
	if result.RequeueAfter <= 0 {
		y.t.Fatalf("on day %.1f the worker does not want to be woken again", y.day())
	}
	now := y.clock.Now()
	if calls := y.compass.called(); len(calls) > 0 {
		y.attempts = append(y.attempts, now)
		for _, call := range calls {
			y.counted[call]++
			if call == "sign" {
				y.signed = append(y.signed, now)
			}
		}
	}
	for len(y.events.Events) > 0 {
		kind, rest, _ := strings.Cut(<-y.events.Events, " ")
		reason, _, _ := strings.Cut(rest, " ")
		switch compassv1alpha1.ConnectionState(reason) {
		case compassv1alpha1.Connected, compassv1alpha1.Synchronized, compassv1alpha1.SynchronizationFailed, compassv1alpha1.ConnectionMaintenanceFailed, compassv1alpha1.ConnectionFailed:
			continue
		}
		if kind == "Warning" && reason == "RenewalFailed" {
			continue // as often as it is tried
		}
		y.timeline = append(y.timeline, fmt.Sprintf("day %d: %s", int(y.day()), reason))
	}
	y.log.Reset()
	return now.Add(result.RequeueAfter)
}

func (y *years) day() float64 { return float64(y.clock.Now().Sub(y.began)) / float64(day) }

// until lets the time pass until some days after the beginning, and gives the connection as it then is.
func (y *years) until(days float64) *compassv1alpha1.CompassConnection {
	y.t.Helper()
	end := y.began.Add(time.Duration(days * float64(day)))
	for {
		wake := y.look()
		if wake.After(end) {
			y.clock.SetTime(end)
			return y.connection()
		}
		y.clock.SetTime(wake)
	}
}

// well looks that all is well.
func (y *years) well(what string) {
	y.t.Helper()
	c := y.connection()
	if c.Status.State != compassv1alpha1.Synchronized || !meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady) {
		y.t.Errorf("day %.2f, %s: %s, %+v", y.day(), what, c.Status.State, c.Status.Conditions)
	}
}

// trusted looks which authorities the ingress trusts.
func (y *years) trusted(what string, want ...*x509.Certificate) {
	y.t.Helper()
	got, err := certs.DecodeCA(y.secret("ca").Data)
	if err != nil {
		y.t.Fatal(err)
	}
	if !slices.EqualFunc(want, got, (*x509.Certificate).Equal) {
		var names []string
		for _, c := range got {
			names = append(names, c.SerialNumber.String())
		}
		y.t.Errorf("day %.1f, %s: authorities %v", y.day(), what, names)
	}
	if !bytes.Equal(y.secret("ca").Data[certs.CACert], y.secret("client").Data[certs.ClientCA]) {
		y.t.Errorf("day %.1f, %s: the client Secret holds other authorities", y.day(), what)
	}
}

func TestThreeYears(t *testing.T) { threeYears(t, time.Hour) }

func TestSoakThreeYearsOfSyncsEveryThreeMinutes(t *testing.T) {
	if os.Getenv("APPCONN_SOAK") == "" {
		t.Skip("half a million syncs; APPCONN_SOAK=1 runs it")
	}
	threeYears(t, 3*time.Minute)
}

// threeYears: certificates are valid for 90 days. This cluster, whose subject has the common name "me", renews after 63 days
// and a part of 4.5 more.
func threeYears(t *testing.T, period time.Duration) {
	started := time.Now()
	y := newYears(t, period)
	away := func(gone bool) {
		var err error
		if gone {
			err = &graphql.Error{Kind: graphql.Unreachable}
		}
		for _, operation := range []string{"configuration", "sign", "viewer", "trial", "snapshot", "label"} {
			y.compass.fail(operation, err)
		}
	}
	renewAt := func() time.Duration {
		return y.connection().Status.ConnectionStatus.CertificateStatus.RenewAt.Sub(y.began)
	}
	days := func(d time.Duration) float64 { return float64(d) / float64(day) }
	var want []string
	expect := func(day float64, reasons ...string) {
		for _, reason := range reasons {
			want = append(want, fmt.Sprintf("day %d: %s", int(day), reason))
		}
	}
	// renewals lets the time pass until so many certificates were renewed when it was their time.
	renewals := func(n int) {
		t.Helper()
		for range n {
			due := renewAt()
			before := len(y.signed)
			y.until(days(due) - 0.001)
			if len(y.signed) != before {
				t.Errorf("day %.2f: renewed too soon", y.day())
			}
			y.until(days(due + 10*time.Minute))
			if len(y.signed) != before+1 {
				t.Errorf("day %.2f: not renewed although due on day %.2f", y.day(), days(due))
			}
			expect(days(due), "CertificateRenewed")
			y.well("after a renewal")
			t.Logf("day %.0f: renewed; %d syncs so far, in %s", y.day(), y.counted["snapshot"], time.Since(started).Round(time.Second)) // for who waits for the long form
		}
	}

	first := y.compass.rotate(1, 600*day)
	y.until(0.01)
	expect(0, "Paired")
	y.well("after pairing")
	if lead := days(renewAt()); lead < 63 || lead > 67.5 {
		t.Errorf("the first renewal is on day %.1f", lead)
	}
	renewals(2)

	// Compass is away for the week in which the third renewal is due.
	due := renewAt()
	y.until(days(due) - 2)
	away(true)
	from, calls := y.clock.Now(), len(y.attempts)
	c := y.until(days(due) + 5)
	if c.Status.State == compassv1alpha1.Synchronized || c.Status.ConsecutiveFailures < 100 {
		t.Errorf("day %.1f: %s, %d failures", y.day(), c.Status.State, c.Status.ConsecutiveFailures)
	}
	if tried := len(y.attempts) - calls; tried < 7*24*60/10-100 || tried > 7*24*60/5+200 {
		t.Errorf("%d attempts in the week", tried)
	}
	y.until(days(from.Sub(y.began)) + 7)
	away(false)
	y.until(days(due) + 5.01)
	y.well("after a week without Compass")
	expect(days(due)+5, "CertificateRenewed")

	// The first rotation: the old authority is trusted until it ends, on day 600.
	y.until(390)
	second := y.compass.rotate(2, 1200*day)
	due = renewAt()
	for days(due) < 390 {
		t.Fatal("unreachable: renewals come before their time")
	}
	y.trusted("before anything is signed by the second authority", first)
	signedBefore := len(y.timeline)
	y.until(days(due + 10*time.Minute))
	y.trusted("during the overlap", second, first)
	for _, entry := range y.timeline[len(want):signedBefore] { // the renewals since the week without Compass
		want = append(want, entry)
		if !strings.HasSuffix(entry, "CertificateRenewed") {
			t.Errorf("unexpected: %s", entry)
		}
	}
	expect(days(due), "AuthoritiesChanged", "CertificateRenewed")
	for days(renewAt()) < 600 {
		renewals(1)
		y.trusted("before the first authority ends", second, first)
	}
	renewals(1)
	y.trusted("after the first authority ended", second)

	// The second one.
	third := y.compass.rotate(3, 1200*day)
	due = renewAt()
	y.until(days(due + 10*time.Minute))
	expect(days(due), "AuthoritiesChanged", "CertificateRenewed")
	y.trusted("during the second overlap", third, second)
	y.well("after the second rotation")

	// The certificate is revoked; the configuration Secret holds the token of three years ago. Nothing is spent or stalled on
	// that: Compass says the same in an outage. A new token connects the cluster in the same moment.
	y.until(days(due) + 10)
	revoked := y.connection().Status.ConnectionStatus.CertificateStatus.Fingerprint
	y.compass.revoked[revoked] = true
	configurations := y.counted["configuration"]
	c = y.until(days(due) + 13)
	if c.Status.State != compassv1alpha1.SynchronizationFailed && c.Status.State != compassv1alpha1.ConnectionMaintenanceFailed {
		t.Errorf("day %.1f: %s", y.day(), c.Status.State)
	}
	if meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady) || y.counted["configuration"]-configurations > 4 {
		t.Errorf("day %.1f: conditions %+v, the Connector was asked %d times", y.day(), c.Status.Conditions, y.counted["configuration"]-configurations)
	}
	signs := len(y.signed)
	y.compass.good["t2"] = true
	y.configure("t2")
	now := y.clock.Now()
	for range 3 {
		y.look()
	}
	y.well("after a new token")
	if len(y.signed) != signs+1 || !y.signed[signs].Equal(now) {
		t.Error("the new token was not used at once")
	}
	expect(y.day(), "Paired")
	renewals(1)

	// The cluster's clock is wrong for a while. The certificate seems ended, or not to have begun; no token helps, none is
	// spent, and nothing is signed. When the clock is right again, all is well within an hour.
	signs = len(y.signed)
	for i, skew := range []time.Duration{200 * day, -40 * day} {
		start := y.day()
		y.skew = skew
		c = y.until(start + 0.5)
		if meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionCertificateReady) || !meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionStalled) {
			t.Errorf("clock %s wrong: %+v", skew, c.Status.Conditions)
		}
		expect(start, "Stalled")
		y.skew = 0
		y.until(start + 0.5 + 1.1/24 + period.Hours()*1.6/24)
		y.well(fmt.Sprintf("after wrong clock number %d", i+1))
	}
	if len(y.signed) != signs {
		t.Error("something was signed while the clock was wrong")
	}
	for days(renewAt()) < 3*365 {
		renewals(1)
	}
	y.until(3 * 365)
	y.well("after three years")

	if diff := cmp.Diff(want, y.timeline); diff != "" {
		t.Errorf("timeline (- expected, + told): %s", diff)
	}
	// Whoever asked for nothing waited for the floor at least. A sync that follows a pairing or a renewal belongs to it.
	sooner := 0
	for i, at := range y.attempts[1:] {
		if wait := at.Sub(y.attempts[i]); wait < 15*time.Second && !slices.Contains(y.signed, y.attempts[i]) {
			sooner++
		}
	}
	if sooner > 1 { // the new token
		t.Errorf("%d attempts came sooner than the floor", sooner)
	}
	// The Connector is asked daily, and for each certificate, and after Director could not be reached: within the week without
	// Compass every attempt.
	if least := int(3 * 365 * day / period * 95 / 100); y.counted["snapshot"] < least {
		t.Errorf("%d syncs, want %d at least", y.counted["snapshot"], least)
	}
	if got := y.counted["configuration"] - int(7*day/(5*time.Minute)); got > 3*365+100 {
		t.Errorf("the Connector was asked %d times", y.counted["configuration"])
	}
	t.Logf("%d syncs, %d certificates, %d times the Connector's configuration", y.counted["snapshot"], len(y.signed), y.counted["configuration"])
}
