package controller

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func offboard(s *Settings) { s.Offboard = true }

// A controller that is killed leaves behind what it has done outside of itself, and nothing else. So there are as many points
// at which it matters as there are effects: one run without a kill finds them, and then one is killed after each.
func TestAClusterIsOnboardedAndRemovedByControllersOfWhichOneIsKilledBetweenEveryTwoEffects(t *testing.T) {
	w := newWorld(t)
	// life is that of one cluster; a controller that is killed is followed by another one.
	life := func(name string) (kills int, effects []string) {
		r := w.controller(offboard)
		until := func(what string, is func() bool) {
			t.Helper()
			for range 20 {
				_, err := w.step(r, name)
				if w.isDead() {
					kills++
					effects = w.effects
					w.revive(0)
					r = w.controller(offboard)
					continue
				}
				w.must(err)
				if is() {
					return
				}
				w.passes(time.Minute)
			}
			t.Fatalf("%s: never %s", name, what)
		}
		w.enlist(name, w.kubeconfig(name, home.BearerToken))
		until("a token", func() bool { return w.record(name)["state"] == string(Waiting) })
		id := w.runtime(name)
		if auths := w.compass.Admin().SystemAuths(id); len(w.runtimes()) != 1 || len(auths) != 1 {
			t.Errorf("%s: runtimes %v, identities %v: one of each is right", name, w.runtimes(), auths)
		}
		got := map[string]string{}
		for key, value := range w.configuration(name).Data {
			got[key] = string(value)
		}
		want := map[string]string{"CONNECTOR_URL": w.compass.TokenURL(), "RUNTIME_ID": id, "TENANT": tenant, "TOKEN": got["TOKEN"]}
		if diff := cmp.Diff(want, got); diff != "" || got["TOKEN"] == "" {
			t.Errorf("%s: configuration Secret (-want +got):\n%s", name, diff)
		}
		token := w.token(name)
		w.says(name, "Connected=True:Connected")
		until("connected", func() bool { return w.record(name)["state"] == string(Connected) })
		if w.token(name) != token {
			t.Errorf("%s: a cluster that is connected got another token", name)
		}
		w.delete(name)
		until("gone", func() bool {
			err := w.kube.Get(t.Context(), w.key(name), &corev1.Secret{})
			return err != nil
		})
		if left := w.runtimes(); len(left) != 0 || w.configuration(name) != nil {
			t.Errorf("%s: left are runtimes %v and Secret %v", name, left, w.configuration(name))
		}
		if effects == nil {
			effects = w.effects
		}
		return kills, effects
	}
	w.revive(0)
	_, effects := life("whole")
	t.Logf("%d effects: %v", len(effects), effects)
	for _, needed := range []string{"PATCH secrets at home", "RegisterRuntime", "RequestOneTimeTokenForRuntime", "PATCH in the cluster", "PATCH configmaps at home", "UnregisterRuntime", "DELETE in the cluster"} {
		if !slices.Contains(effects, needed) {
			t.Fatalf("the run that finds the effects did not find %s", needed)
		}
	}
	for i, effect := range effects {
		w.revive(i + 1)
		kills, before := life(fmt.Sprintf("killed-%d", i+1))
		if kills != 1 || !slices.Equal(before, effects[:i+1]) {
			t.Errorf("killed %d times, after %v: once after %s is right", kills, before, effect)
		}
	}
}

func TestClustersThatFailAreToldWithWhatIsWrongAndTriedLaterAndLaterAndHoldUpNobody(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("garbage", []byte("\ttoken: "+home.BearerToken))
	w.enlist("refused", w.kubeconfig("refused", "canary-wrong-token"))
	w.canaries.Add("a wrong token", "canary-wrong-token")
	w.enlist("unreachable", bytes.ReplaceAll(w.kubeconfig("unreachable", home.BearerToken), []byte(strings.TrimPrefix(w.front.URL, "https://")), []byte("127.0.0.1:1")))
	w.enlist("untrusted", bytes.ReplaceAll(w.kubeconfig("untrusted", home.BearerToken), []byte(w.front.URL), []byte(home.Host)))
	w.enlist("well", w.kubeconfig("well", home.BearerToken))
	for name, want := range map[string]struct {
		reason Reason
		says   string
		again  bool
	}{
		"garbage":     {ReasonKubeconfigInvalid, "the kubeconfig in key config cannot be used: it is no kubeconfig: YAML or JSON of kind Config is needed", false},
		"refused":     {ReasonClusterRefuses, "reading namespace kube-system of the cluster: the cluster answers HTTP 401, so the credentials of the kubeconfig are wrong or lack a right", true},
		"unreachable": {ReasonClusterUnreachable, "reading namespace kube-system of the cluster: dial tcp 127.0.0.1:1: connect: connection refused", true},
		"untrusted":   {ReasonClusterUnreachable, "reading namespace kube-system of the cluster: tls: failed to verify certificate: x509: certificate signed by unknown authority", true},
	} {
		var pauses []time.Duration
		for range 4 {
			again := w.mustStep(r, name)
			got := w.record(name)
			wanted := map[string]string{"state": "Failed", "reason": string(want.reason), "message": want.says, "tenant": tenant}
			if want.again {
				wanted["nextAttempt"] = w.at(again)
			}
			if name == "garbage" {
				delete(wanted, "tenant")
			}
			if diff := cmp.Diff(wanted, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			pauses = append(pauses, again)
			w.passes(again)
		}
		if want.again != (pauses[0] > 0 && pauses[3] > 3*pauses[0]) || !want.again && pauses[3] != 0 {
			t.Errorf("%s is tried again after %v", name, pauses)
		}
		// Not before its time, whoever asks.
		if before := w.log.String(); want.again {
			w.mustStep(r, name)
			again := w.mustStep(r, name)
			if more := strings.TrimPrefix(w.log.String(), before); again == 0 || strings.Count(more, "could not be brought on") != 1 {
				t.Errorf("%s is tried before its time:\n%s", name, more)
			}
		}
	}
	w.mustStep(r, "well")
	if got := w.record("well"); got["state"] != string(Waiting) || len(w.runtimes()) != 1 {
		t.Errorf("record %v, runtimes %v", got, w.runtimes())
	}
	// What was mended is tried at once.
	w.edit("garbage", func(s *corev1.Secret) { s.Data["config"] = w.kubeconfig("garbage", home.BearerToken) })
	w.mustStep(r, "garbage")
	if got := w.record("garbage"); got["state"] != string(Waiting) {
		t.Errorf("a kubeconfig that was mended: %v", got)
	}
	if got, want := r.memory.tally().states, map[State]int{Waiting: 2, Failed: 3}; !maps.Equal(got, want) {
		t.Errorf("states %v, not %v", got, want)
	}
}

func TestASecretWithoutATenantWaitsForOne(t *testing.T) {
	w := newWorld(t)
	r := w.controller(func(s *Settings) { s.Tenant = "" })
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	if again := w.mustStep(r, "c"); again != 0 || w.record("c")["reason"] != string(ReasonTenantMissing) {
		t.Errorf("record %v, again after %s", w.record("c"), again)
	}
	w.edit("c", func(s *corev1.Secret) { s.Labels[LabelTenant] = tenant })
	w.mustStep(r, "c")
	if got := w.record("c"); got["state"] != string(Waiting) || got["tenant"] != tenant {
		t.Errorf("record %v", got)
	}
}

func TestARecordThatSomebodyDeletedIsWrittenAnew(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	want := w.record("c")
	found := &corev1.ConfigMap{}
	w.must(w.kube.Get(t.Context(), w.key(recordName("c")), found))
	w.must(w.kube.Delete(t.Context(), found))
	w.mustStep(r, "c")
	if diff := cmp.Diff(want, w.record("c")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
