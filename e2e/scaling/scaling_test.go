package scaling

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/simulator/eventing"
)

// away is how long no agent runs in the ordinary test: some of its syncs. For an hour only make soak waits.
const away = 8 * time.Second

func TestEndingAnyOneOfSeveralLosesNoCallEventOrSync(t *testing.T) { scale(t, away) }

func TestSoakTrafficGoesOnWhileNoAgentRunsForAnHour(t *testing.T) {
	if os.Getenv("APPCONN_SOAK") == "" {
		t.Skip(`it takes an hour: run it by "make soak", or with APPCONN_SOAK=1`)
	}
	scale(t, time.Hour)
}

// scale runs two agents, three gateways and two validators under load. One after the other is asked to end, and is then killed,
// with another one put in its place as a Deployment does.
func scale(t *testing.T, away time.Duration) {
	w := newWorld(t)
	leading := w.agent()
	w.synced("mp-shop")
	standing := w.agent()
	gateways := []*program{w.gateway(), w.gateway(), w.gateway()}
	validators := []*program{w.validator(), w.validator()}
	w.compass.Admin().ResetCounters()
	l := newLoad(t, w.gateways, w.validators)
	began := time.Now()
	flow := func(what string) { // until some traffic has passed
		t.Helper()
		calls, events := l.seen()
		w.eventually("traffic "+what, func() error {
			if c, e := l.seen(); c < calls+100 || e < events+100 {
				return fmt.Errorf("%d calls, %d events", c-calls, e-events)
			}
			return nil
		})
		w.read()
		calls, events = l.seen()
		t.Logf("%3.0f s: %5d calls, %5d events, %s", time.Since(began).Seconds(), calls, events, what)
	}
	none := func(when string) { // not one attempt failed
		t.Helper()
		if failures, _ := l.take(); len(failures) > 0 {
			t.Errorf("%s %d attempts failed, the first: %s", when, len(failures), failures[0])
		}
	}
	flow("with all")
	none("with all")

	for i := range gateways {
		gateways[i].busy().terminate()
		gateways[i].out()
		flow(fmt.Sprintf("after gateway %d has ended", i))
		none(fmt.Sprintf("while gateway %d ended", i))
		gateways[i] = w.gateway()
	}
	for i := range validators {
		validators[i].busy().terminate()
		validators[i].out()
		flow(fmt.Sprintf("after validator %d has ended", i))
		none(fmt.Sprintf("while validator %d ended", i))
		validators[i] = w.validator()
	}

	for i, p := range slices.Concat(gateways, validators) {
		p.busy().kill()
		out := p.out()
		flow("after a kill of the " + p.name)
		failures, lost := l.take()
		if len(lost) > 0 {
			t.Errorf("after a kill of the %s %d requests were lost for good, the first: %s", p.name, len(lost), lost[0])
		}
		for _, f := range failures {
			if f.dialled.After(out) || (f.kind == "call") != (p.name == "gateway") {
				t.Errorf("a kill of the %s, which was out at %s, made one fail that had nothing to do with it: %s", p.name, out, f)
			}
		}
		t.Logf("a kill of %s made %d attempts fail, which were repeated", p.name, len(failures))
		if i < len(gateways) {
			gateways[i] = w.gateway()
		} else {
			validators[i-len(gateways)] = w.validator()
		}
	}

	// The agents: what changes at Compass while nobody leads arrives by the other one.
	for _, end := range []struct {
		how string
		do  func(*program)
	}{{"kill", (*program).kill}, {"end", (*program).terminate}} {
		before := w.leader()
		end.do(leading)
		ended := time.Now()
		w.add("After " + end.how)
		w.synced("mp-after-" + end.how)
		t.Logf("%s of the agent that leads: what changed was there after %.1f s", end.how, time.Since(ended).Seconds())
		if now := w.leader(); now == before || now == "" {
			t.Errorf("after the %s the leader is %q, as before", end.how, now)
		}
		leading, standing = standing, w.agent()
		flow("with another leader")
		none("while the leader changed")
	}

	leading.kill()
	standing.kill()
	w.add("Meanwhile")
	end := time.After(away)
	for over := false; !over; {
		flow("without an agent")
		none("without an agent")
		select {
		case <-end:
			over = true
		default:
		}
	}
	w.agent()
	w.agent()
	w.synced("mp-meanwhile")
	flow("at the end")
	none("when the agents came back")
	l.end()
	if _, lost := l.take(); len(lost) > 0 {
		t.Errorf("%d requests are lost, the first: %s", len(lost), lost[0])
	}
	w.account(l)
	for _, r := range w.compass.Admin().Requests() {
		if r.WithToken || slices.Contains(r.Operations, "signCertificateSigningRequest") {
			t.Errorf("an agent paired or renewed once more: %+v", r)
		}
	}
}

// add has Compass know one system more.
func (w *world) add(name string) {
	w.t.Helper()
	_, err := w.compass.Admin().PutApplication(tenant, w.system(name))
	w.must(err)
}

// leader is the holder of the agents' Lease.
func (w *world) leader() string {
	w.t.Helper()
	lease := &coordinationv1.Lease{}
	w.must(w.kube.Get(w.t.Context(), client.ObjectKey{Namespace: system, Name: "compass-runtime-agent"}, lease))
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// read counts what was stored since it was called last. The store keeps the newest 100,000 events.
func (w *world) read() {
	w.t.Helper()
	for {
		page, err := w.eventing.Events(w.t.Context(), eventing.Filter{After: w.last})
		w.must(err)
		if len(page) == 0 {
			return
		}
		for _, e := range page {
			w.stored[e.Event.ID()]++
			w.last = e.Sequence
		}
	}
}

// account compares what was acknowledged with what is stored.
func (w *world) account(l *load) {
	w.t.Helper()
	w.read()
	missing, twice := 0, 0
	for id := range l.acknowledged {
		if w.stored[id] == 0 {
			missing++
		}
	}
	for _, n := range w.stored {
		if n > 1 {
			twice++
		}
	}
	calls, events := l.seen()
	if missing > 0 || twice > 0 || len(w.stored) != len(l.acknowledged) || events != len(w.stored) {
		w.t.Errorf("of %d events %d are acknowledged and %d stored; %d that are acknowledged are not stored, %d are stored twice",
			events, len(l.acknowledged), len(w.stored), missing, twice)
	}
	w.t.Logf("%d calls answered, %d events acknowledged and each stored once", calls, len(w.stored))
}
