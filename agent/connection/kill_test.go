package connection_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/secret"
)

// death is that of a process: from some effect on, nothing that it does gets out of it.
type death struct {
	// after so many effects from now; 0 means never.
	after int
	dead  bool
	// effects are those that got out: writes to the cluster, and calls that Compass answered.
	effects []string
}

func (d *death) effect(what string) {
	d.effects = append(d.effects, what)
	if d.after--; d.after == 0 {
		d.dead = true
	}
}

// mortal makes the process of a world die as d says.
func (w *world) mortal(d *death) {
	w.refuse = func(verb, name string) error {
		if d.dead {
			return errors.New("the process is dead")
		}
		d.effect(verb + " " + name)
		return nil
	}
	w.compass.after = func(operation string) { d.effect(operation) }
	w.compass.dead = func() bool { return d.dead }
}

// Beside TestCrashPoints, which kills real processes: in virtual time, and for everything that gets the cluster another
// certificate. The process dies after each of its effects in turn.
func TestWhateverAProcessDiesOfTheNextOneGoesOn(t *testing.T) {
	renewAt := func(w *world) time.Time {
		return w.connection().Status.ConnectionStatus.CertificateStatus.RenewAt.Time
	}
	for name, test := range map[string]struct {
		begin func(w *world)
		// token that is spent; empty if none is.
		token secret.Value
		// works: the certificate of before goes on to.
		works bool
	}{
		"a first pairing":        {func(*world) {}, "t1", false},
		"a renewal that is due":  {func(w *world) { w.clock.SetTime(renewAt(w).Add(time.Minute)) }, "", true},
		"a renewal by a request": {func(w *world) { w.ask(compassv1alpha1.RenewAnnotation, "now") }, "", true},
		"a renewal by the spec": {func(w *world) {
			c := w.connection()
			c.Spec.RefreshCredentialsNow = true
			c.Generation++ // the API server does that
			if err := w.client.Update(w.t.Context(), c); err != nil {
				w.t.Fatal(err)
			}
		}, "", true},
		"a pairing over a certificate that is refused": {func(w *world) {
			for fingerprint := range w.compass.issued {
				w.compass.revoked[fingerprint] = true
			}
			for began := w.clock.Now(); w.clock.Now().Sub(began) < 10*time.Minute; {
				w.next()
			}
			w.configure("t2")
		}, "t2", false},
		"a pairing because the CompassConnection was deleted": {func(w *world) {
			w.configure("t2")
			if err := w.client.Delete(w.t.Context(), w.connection()); err != nil {
				w.t.Fatal(err)
			}
		}, "t2", true},
		"a pairing as another runtime": {func(w *world) { w.register("other", "tenant", "t2") }, "t2", false},
	} {
		for mode, newWorld := range map[string]func(*testing.T) *world{"": newMemoryWorld, ", by cert-manager": newManagedWorld} {
			t.Run(name+mode, func(t *testing.T) {
				diesAfterEach(t, newWorld, test.begin, test.token, test.works)
			})
		}
	}
}

// diesAfterEach begins something in ever new worlds, of which the process dies after ever more effects, until it is not done
// before it is dead.
func diesAfterEach(t *testing.T, newWorld func(*testing.T) *world, begin func(*world), token secret.Value, works bool) {
	t.Helper()
	for after := 1; ; after++ {
		w := newWorld(t)
		w.compass.good["t2"] = true
		if token != "t1" {
			w.step()
		}
		begin(w)
		before, issued := w.fingerprint(), len(w.compass.issued)
		w.compass.called()
		d := &death{after: after}
		w.mortal(d)
		for range 20 {
			result, err := w.r.Reconcile(t.Context(), request)
			if worked := w.manager != nil && w.manager.work(); d.dead || err == nil && result.RequeueAfter > time.Millisecond && !worked {
				break
			}
		}
		if !d.dead {
			if after < 8 {
				t.Errorf("only %v", d.effects)
			}
			return
		}
		w.outlives(t, d, token, works, before, issued)
		if t.Failed() {
			return
		}
	}
}

// fingerprint of the certificate in the client Secret; empty if there is none.
func (w *world) fingerprint() string {
	credential, err := certs.DecodeClient(w.clientData())
	if err != nil {
		return ""
	}
	return credential.Fingerprint()
}

func (w *world) clientData() map[string][]byte {
	m := w.client.(*memory)
	for name, s := range m.secrets {
		if name.Name == "client" {
			return s.Data
		}
	}
	return nil
}

// outlives looks that a new process ends what the dead one has begun, with the token that it spent if it has one, and with one
// certificate more than had been issued, unless one got lost with the answer to its request.
func (w *world) outlives(t *testing.T, d *death, token secret.Value, works bool, before string, issued int) {
	t.Helper()
	at := fmt.Sprintf("dead after %v", d.effects)
	// A token is burnt by the call that carries it. What came of that is lost if it was not stored.
	last := d.effects[len(d.effects)-1]
	burnt := token != "" && (last == "configuration" || last == "sign")
	sent := len(w.compass.sent)
	d.dead, d.after = false, 0
	w.restart()
	settled := func() bool {
		c := w.connection()
		return c.Status.State == compassv1alpha1.Synchronized && c.Status.ConsecutiveFailures == 0
	}
	tokenNeeded := func() bool {
		stalled := meta.FindStatusCondition(w.connection().Status.Conditions, compassv1alpha1.ConditionStalled)
		return stalled != nil && stalled.Reason == "TokenNeeded"
	}
	died := w.clock.Now()
	for range 60 {
		w.next()
		if settled() && (w.fingerprint() != before || burnt) || burnt && !works && tokenNeeded() {
			break
		}
	}
	if burnt && !works { // nothing but a new token helps, and the status says so
		if before == "" && !tokenNeeded() {
			t.Errorf("%s: conditions %+v", at, w.connection().Status.Conditions)
		}
		if settled() {
			t.Errorf("%s: synchronised", at)
		}
		w.compass.good["t3"] = true
		w.register(string(w.secret("configuration").Data["RUNTIME_ID"]), "tenant", "t3")
		w.step()
		w.next()
	}
	want := issued + 1
	if last == "sign" {
		want++
	}
	w.next() // time for what nobody needs
	if got := len(w.compass.issued); got != want && !burnt {
		t.Errorf("%s: %d certificates were issued, want %d", at, got-issued, want-issued)
	}
	c := w.connection()
	if !settled() || (!burnt || !works) && w.fingerprint() == before || w.client.(*memory).connection.Status.NextAttempt == nil {
		t.Errorf("%s: %s %s, %s", at, c.Status.State, c.Status.ConnectionStatus.Error, errorOf(c))
	}
	if lasted := w.clock.Now().Sub(died); !burnt && lasted > 10*time.Minute {
		t.Errorf("%s: it took %s", at, lasted)
	}
	if got := w.compass.sent[sent:]; !burnt && slices.ContainsFunc(got, func(s secret.Value) bool { return !second(s) && s != token }) {
		t.Errorf("%s: other tokens were sent", at)
	}
	for i, s := range w.compass.sent {
		if slices.Contains(w.compass.sent[:i], s) && !burnt {
			t.Errorf("%s: token number %d was sent twice", at, i+1)
		}
	}
	for name := range w.client.(*memory).secrets {
		if name.Name == "client-pending" && !burnt {
			t.Errorf("%s: there is still a pending Secret", at)
		}
	}
}

func TestAnIssuedCertificateThatDoesNotWorkNeedsNoOtherToBeToldOf(t *testing.T) {
	w := newMemoryWorld(t)
	w.step()
	w.compass.fail("trial", &graphql.Error{Kind: graphql.Server})
	w.clock.SetTime(w.connection().Status.ConnectionStatus.CertificateStatus.RenewAt.Add(time.Minute))
	w.state(w.step(), compassv1alpha1.ConnectionMaintenanceFailed, "the new certificate does not work")
	if err := w.client.Delete(t.Context(), w.secret("client")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.compass.called()
	w.state(w.next(), compassv1alpha1.ConnectionMaintenanceFailed, "the new certificate does not work")
	w.calls("trial")
	w.compass.fail("trial", nil)
	w.state(w.next(), compassv1alpha1.Synchronized, "")
}

func TestTokensThatTakeTurnsAreNotNewAgain(t *testing.T) {
	w := newMemoryWorld(t)
	w.configure("wrong-1")
	w.state(w.step(), compassv1alpha1.ConnectionFailed, "")
	w.configure("wrong-2")
	w.state(w.step(), compassv1alpha1.ConnectionFailed, "")
	w.calls("configuration", "configuration")
	for i := range 5 {
		w.configure(fmt.Sprintf("wrong-%d", i%2+1))
		w.state(w.step(), compassv1alpha1.ConnectionFailed, "")
	}
	w.configure("")
	w.step()
	w.configure("wrong-1")
	w.step()
	w.calls()
	w.configure("wrong-3")
	w.step()
	w.calls("configuration")
}
