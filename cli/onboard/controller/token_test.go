package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/cli/onboard/enrolment"
)

func TestATokenIsReplacedBeforeItsEndAsLongAsNobodyUsesItAndNoLonger(t *testing.T) {
	w := newWorld(t)
	w.settings.Poll = 5 * time.Minute
	r, began := w.controller(), 1
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	id, start := w.runtime("c"), w.clock.Now()
	want := map[string]string{
		"state": "WaitingForAgent", "reason": "TokenUnused", "message": "the agent has not tried the token; it may not be installed",
		"cluster": "uid-of-c", "runtime": id, "tenant": tenant, "tokenExpires": w.at(time.Hour),
	}
	if diff := cmp.Diff(want, w.record("c")); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	labels, err := r.Director(tenant).RuntimeLabels(t.Context(), id)
	w.must(err)
	for key, value := range map[string]any{enrolment.Label: "uid-of-c", LabelSource: w.namespace + "/c", "region": "eu", "global_subaccount_id": "sub"} {
		if labels[key] != value {
			t.Errorf("label %s of the runtime is %v, not %v", key, labels[key], value)
		}
	}
	tokens := []string{w.token("c")}
	var given []time.Duration
	for w.clock.Now().Sub(start) < 3*time.Hour {
		w.passes(w.mustStep(r, "c"))
		if w.clock.Now().Sub(start) > time.Duration(began)*75*time.Minute { // in the middle of the life of a token
			r = w.controller() // that one begins anew changes nothing
			began++
		}
		expires := enrolment.Expires(w.configuration("c"))
		if !expires.After(w.clock.Now()) {
			t.Fatalf("after %s the token has ended", w.clock.Now().Sub(start))
		}
		if token := w.token("c"); token != tokens[len(tokens)-1] {
			tokens = append(tokens, token)
			given = append(given, w.clock.Now().Sub(start).Round(time.Minute))
		}
		if auths := w.compass.Admin().SystemAuths(id); len(auths) != 1 {
			t.Fatalf("the runtime has %d identities", len(auths))
		}
	}
	// Ten minutes before the end of an hour each, seen at the look that follows.
	if len(given) != 3 || given[0] < 50*time.Minute || began != 3 {
		t.Errorf("new tokens after %v; %d controllers", given, began)
	}
	w.says("c", "Connected=True:Connected")
	w.passes(time.Minute)
	w.mustStep(r, "c")
	last := w.token("c")
	for range 10 {
		again := w.mustStep(r, "c")
		if again < 8*time.Minute || again > 12*time.Minute {
			t.Fatalf("a cluster that is connected is looked at again after %s", again)
		}
		w.passes(again)
	}
	if w.token("c") != last {
		t.Error("a cluster that is connected got another token")
	}
	want = map[string]string{"state": "Connected", "reason": "Connected", "cluster": "uid-of-c", "runtime": id, "tenant": tenant}
	if diff := cmp.Diff(want, w.record("c")); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestAnAgentThatSpentItsTokenGetsAnotherIfItSaysSoAndLaterAndLater(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	first := w.token("c")
	step := func(conditions ...string) map[string]string {
		w.says("c", conditions...)
		w.passes(time.Minute)
		w.mustStep(r, "c")
		return w.record("c")
	}
	for _, conditions := range [][]string{
		nil, // it has begun
		{"Connected=False:NotPaired"},
		{"Connected=False:CallFailed"}, // Compass is away
		{"Connected=False:NotPaired", "Stalled=True:ConfigurationInvalid"},
	} {
		if got := step(conditions...); got["reason"] != string(ReasonPairing) || w.token("c") != first {
			t.Errorf("with %v: %v", conditions, got)
		}
	}
	w.passes(2 * time.Minute)
	if got := step("Connected=False:NotPaired", "Stalled=True:TokenNeeded"); got["reason"] != string(ReasonTokenUnused) || w.token("c") == first {
		t.Errorf("an agent that needs a token: %v", got)
	}
	// This one is spent too, at once: what is wrong is not mended by tokens.
	second := w.token("c")
	spent := step("Connected=False:NotPaired", "Stalled=True:TokenNeeded")
	if spent["reason"] != string(ReasonTokenSpent) || w.token("c") != second || !strings.Contains(spent["message"], "has spent 2 tokens in vain") {
		t.Errorf("an agent that spends token after token: %v", spent)
	}
	w.passes(3 * time.Minute)
	w.mustStep(r, "c")
	if w.token("c") == second {
		t.Error("it gets no third one when that is due")
	}
}

func TestATokenThatNobodyAskedForIsNotReplacedInAClusterThatIsConnected(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	// The agent is paired by this identity, and somebody writes another token.
	id := w.runtime("c")
	auth := w.compass.Admin().SystemAuths(id)[0].ID
	w.must(w.kube.Create(t.Context(), certificateSecret(t, w.system, w.settings.Certificate.Name+"-c", auth)))
	w.says("c", "Connected=True:Connected")
	configuration := w.configuration("c")
	configuration.Data["TOKEN"] = []byte("written-by-somebody-else")
	delete(configuration.Annotations, enrolment.AnnotationExpires)
	w.must(w.kube.Update(t.Context(), configuration))
	w.passes(time.Minute)
	w.mustStep(r, "c")
	if got := w.record("c"); got["state"] != string(Connected) || w.token("c") != "written-by-somebody-else" {
		t.Errorf("record %v", got)
	}
	if auths := w.compass.Admin().SystemAuths(id); len(auths) != 1 || auths[0].ID != auth {
		t.Errorf("identities %v", auths)
	}
}
