package controller

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/cli/onboard/enrolment"
	"github.com/application-connector/application-connector/simulator/compass"
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

func TestADirectorThatFailsIsTriedAgainAndOneThatIsBusyIsLeftAloneByAll(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	requests := 0
	answers := func(status int, retryAfter string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		requests = 0
		w.directorAnswers = func(to http.ResponseWriter, _ *http.Request) {
			w.mu.Lock()
			requests++
			w.mu.Unlock()
			if retryAfter != "" {
				to.Header().Set("Retry-After", retryAfter)
			}
			to.WriteHeader(status)
		}
	}
	for _, name := range []string{"a", "b"} {
		w.enlist(name, w.kubeconfig(name, home.BearerToken))
	}
	answers(http.StatusBadGateway, "")
	w.passes(w.mustStep(r, "a"))
	got := w.record("a")
	if got["reason"] != string(ReasonDirectorFailed) || !strings.Contains(got["message"], "HTTP 502") || got["cluster"] != "uid-of-a" {
		t.Errorf("a Director that is down: %v", got)
	}
	answers(http.StatusTooManyRequests, "60")
	again := w.mustStep(r, "a")
	w.mustStep(r, "b")
	if requests != 1 {
		t.Errorf("a busy Director got %d requests", requests)
	}
	if got := w.record("b"); got["message"] != "Director wants fewer requests, and is left alone until "+w.at(time.Minute) {
		t.Errorf("the other cluster: %v", got)
	}
	if at := w.record("b")["nextAttempt"]; at <= w.at(time.Minute) {
		t.Errorf("it is tried again at %s, which is before %s", at, w.at(time.Minute))
	}
	w.mu.Lock()
	w.directorAnswers = nil
	w.mu.Unlock()
	w.passes(max(again, 2*time.Minute))
	w.mustStep(r, "a")
	w.mustStep(r, "b")
	if len(w.runtimes()) != 2 || w.record("a")["state"] != string(Waiting) || w.record("b")["state"] != string(Waiting) {
		t.Errorf("runtimes %v, records %v and %v", w.runtimes(), w.record("a"), w.record("b"))
	}
}

func TestAnAccessTokenThatCanNotBeHadIsToldWithoutTheSecret(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	_, _ = w.files()
	path := w.dir + "/credentials.yaml"
	w.must(writeFile(path, fmt.Sprintf("client_id: other\nclient_secret: %s\ntokens_endpoint: %s/oauth/token\n", clientSecret, w.director.URL)))
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.passes(w.mustStep(r, "c"))
	if got := w.record("c"); got["reason"] != string(ReasonAccessFailed) || !strings.Contains(got["message"], "HTTP 401 invalid_client") {
		t.Errorf("record %v", got)
	}
	w.files() // mended: the file is read again
	w.mustStep(r, "c")
	if got := w.record("c"); got["state"] != string(Waiting) {
		t.Errorf("record %v", got)
	}
}

func TestASecretThatIsDeletedLeavesItsRuntimeUnlessTheOppositeWasAskedFor(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	w.delete("c")
	w.mustStep(r, "c")
	if err := w.kube.Get(t.Context(), w.key("c"), &corev1.Secret{}); err == nil || len(w.runtimes()) != 1 || w.configuration("c") == nil {
		t.Errorf("the Secret: %v, runtimes %v", err, w.runtimes())
	}
	// It comes back, to be removed this time. Then the cluster is gone before its Secret is.
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	r = w.controller(offboard)
	w.mustStep(r, "c")
	w.edit("c", func(s *corev1.Secret) {
		s.Data["config"] = bytes.ReplaceAll(s.Data["config"], []byte(strings.TrimPrefix(w.front.URL, "https://")), []byte("127.0.0.1:1"))
	})
	w.delete("c")
	w.mustStep(r, "c")
	if err := w.kube.Get(t.Context(), w.key("c"), &corev1.Secret{}); err == nil || len(w.runtimes()) != 0 {
		t.Errorf("the Secret: %v, runtimes %v", err, w.runtimes())
	}
}

func TestASecretIsHeldBackWhileDirectorIsDownAndFreedWhenThePolicyChanges(t *testing.T) {
	w := newWorld(t)
	r := w.controller(offboard)
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	w.directorAnswers = func(to http.ResponseWriter, _ *http.Request) { to.WriteHeader(http.StatusServiceUnavailable) }
	w.delete("c")
	again := w.mustStep(r, "c")
	got := w.record("c")
	if got["state"] != string(Offboarding) || got["reason"] != string(ReasonDirectorFailed) || got["nextAttempt"] != w.at(again) {
		t.Errorf("record %v", got)
	}
	w.mustStep(w.controller(), "c")
	if err := w.kube.Get(t.Context(), w.key("c"), &corev1.Secret{}); err == nil || len(w.runtimes()) != 1 {
		t.Errorf("the Secret: %v, runtimes %v", err, w.runtimes())
	}
}

func TestASecretThatIsNotSelectedAnyMoreIsFreedAndItsRecordGoes(t *testing.T) {
	w := newWorld(t)
	r := w.controller(offboard)
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	w.edit("c", func(s *corev1.Secret) { delete(s.Labels, LabelName) })
	w.mustStep(r, "c")
	secret := &corev1.Secret{}
	w.must(w.kube.Get(t.Context(), w.key("c"), secret))
	if len(secret.Finalizers) > 0 || len(secret.Annotations) > 0 || w.record("c") != nil || len(w.runtimes()) != 1 {
		t.Errorf("Secret %v, record %v, runtimes %v", secret.ObjectMeta, w.record("c"), w.runtimes())
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

// The UID of a cluster is what its API server says, and anybody's may say another one's.
func TestAClusterThatClaimsToBeAnotherOneGetsNoTokenForItsRuntime(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("victim", w.kubeconfig("victim", home.BearerToken))
	w.mustStep(r, "victim")
	id, token := w.runtime("victim"), w.token("victim")
	w.uids["impostor"] = "uid-of-victim"
	w.enlist("impostor", w.kubeconfig("impostor", home.BearerToken))
	refused := func(reason Reason) {
		t.Helper()
		if got := w.record("impostor"); got["state"] != string(Failed) || got["reason"] != string(reason) || w.configuration("impostor") != nil {
			t.Errorf("the impostor: %v", got)
		}
		if auths := w.compass.Admin().SystemAuths(id); len(w.runtimes()) != 1 || len(auths) != 1 || w.token("victim") != token {
			t.Errorf("runtimes %v, identities %v", w.runtimes(), auths)
		}
	}
	w.mustStep(r, "impostor")
	refused(ReasonClusterTwice)
	// In a new process it comes first, and must not get into the way of the other, whatever it says of itself.
	r = w.controller()
	w.mustStep(r, "impostor")
	refused(ReasonRuntimeNotOurs)
	w.mustStep(r, "victim")
	if got := w.record("victim"); got["state"] != string(Waiting) || got["runtime"] != id {
		t.Errorf("the victim, after the impostor: %v", got)
	}
	r = w.controller()
	w.must(w.kube.Create(t.Context(), configurationSecret(w.system, w.settings.Configuration.Name+"-impostor", id)))
	w.says("impostor", "Connected=True:Connected")
	w.passes(time.Hour)
	w.mustStep(r, "impostor")
	w.mustStep(r, "victim")
	if got := w.record("victim"); got["state"] != string(Waiting) || w.token("victim") == token || string(w.configuration("impostor").Data["TOKEN"]) != "" {
		t.Errorf("the victim, after the impostor that says it is connected: %v", got)
	}
	token = w.token("victim")
	w.says("impostor")
	w.must(w.kube.Delete(t.Context(), w.configuration("impostor")))
	r = w.controller()
	w.mustStep(r, "impostor")
	refused(ReasonRuntimeNotOurs)
	if got := w.record("impostor")["message"]; !strings.Contains(got, AnnotationAdopt+"="+id) {
		t.Errorf("it does not say what to do: %s", got)
	}
	// A runtime is taken over by who is told to.
	r = w.controller()
	w.edit("impostor", func(s *corev1.Secret) { s.Annotations = map[string]string{AnnotationAdopt: id} })
	w.mustStep(r, "impostor")
	if got := w.record("impostor"); got["state"] != string(Waiting) || got["runtime"] != id || len(w.runtimes()) != 1 {
		t.Errorf("after it was told to: %v", got)
	}
}

func TestAClusterThatIsConnectedAsARuntimeOfOthersIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	r := w.controller(offboard)
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	const other = "11111111-2222-3333-4444-555555555555"
	w.must(w.kube.Create(t.Context(), configurationSecret(w.system, w.settings.Configuration.Name+"-c", other)))
	w.says("c", "Connected=True:Connected")
	w.mustStep(r, "c")
	want := map[string]string{"state": "Connected", "reason": "Connected", "cluster": "uid-of-c", "runtime": other, "tenant": tenant}
	if diff := cmp.Diff(want, w.record("c")); diff != "" || len(w.runtimes()) != 0 {
		t.Errorf("runtimes %v, record (-want +got):\n%s", w.runtimes(), diff)
	}
	w.delete("c")
	w.mustStep(r, "c")
	if err := w.kube.Get(t.Context(), w.key("c"), &corev1.Secret{}); err == nil || w.configuration("c") == nil {
		t.Errorf("the Secret: %v; the configuration: %v", err, w.configuration("c"))
	}
}

func TestASecretThatLeadsToAnotherClusterThanBeforeIsRefusedWhereTheFormerIsToBeRemoved(t *testing.T) {
	w := newWorld(t)
	r := w.controller(offboard)
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	w.edit("c", func(s *corev1.Secret) { s.Data["config"] = w.kubeconfig("d", home.BearerToken) })
	w.mustStep(r, "c")
	if got := w.record("c"); got["reason"] != string(ReasonClusterChanged) || len(w.runtimes()) != 1 || w.configuration("d") != nil {
		t.Errorf("runtimes %v, record %v", w.runtimes(), got)
	}
	w.edit("c", func(s *corev1.Secret) {
		s.Data["config"], s.Labels[LabelTenant] = w.kubeconfig("c", home.BearerToken), "4e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	})
	w.mustStep(r, "c")
	if got := w.record("c"); got["reason"] != string(ReasonClusterChanged) || !strings.Contains(got["message"], "was taken into tenant "+tenant) {
		t.Errorf("another tenant: %v", got)
	}
	w.edit("c", func(s *corev1.Secret) { s.Data["config"] = w.kubeconfig("d", home.BearerToken) })
	// The former is removed with the Secret, from where it is, and the other is not touched.
	w.delete("c")
	w.mustStep(r, "c")
	if err := w.kube.Get(t.Context(), w.key("c"), &corev1.Secret{}); err == nil || len(w.runtimes()) != 0 {
		t.Errorf("the Secret: %v, runtimes %v", err, w.runtimes())
	}
}

func TestARuntimeThatAnotherOnboardingRegisteredIsTakenOverIfTheSecretNamesItAndNobodyElseHasIt(t *testing.T) {
	w := newWorld(t)
	put := func(id, name string, labels map[string]any) {
		t.Helper()
		_, err := w.compass.Admin().PutRuntime(tenant, compass.Runtime{ID: id, Name: name, Labels: labels})
		w.must(err)
	}
	const free, taken, bound = "11111111-2222-4333-8444-555555555555", "21111111-2222-4333-8444-555555555555", "31111111-2222-4333-8444-555555555555"
	put(free, "free", nil)
	put(taken, "taken", map[string]any{enrolment.Label: "uid-of-another"})
	put(bound, "bound", map[string]any{LabelSource: w.namespace + "/another"})
	r := w.controller()
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	for id, says := range map[string]string{
		taken: "is another's by its label " + enrolment.Label, bound: "is another's by its label " + LabelSource,
		"41111111-2222-4333-8444-555555555555": "reading the labels of runtime 41111111-2222-4333-8444-555555555555, which annotation " + AnnotationAdopt + " names: ",
	} {
		w.edit("c", func(s *corev1.Secret) { s.Annotations = map[string]string{AnnotationAdopt: id} })
		w.mustStep(r, "c")
		if got := w.record("c"); got["state"] != string(Failed) || !strings.Contains(got["message"], says) || len(w.runtimes()) != 3 || w.configuration("c") != nil {
			t.Errorf("%s: %v; runtimes %v", id, got, w.runtimes())
		}
	}
	w.edit("c", func(s *corev1.Secret) { s.Annotations = map[string]string{AnnotationAdopt: free} })
	w.mustStep(r, "c")
	if got := w.record("c"); got["state"] != string(Waiting) || got["runtime"] != free || len(w.runtimes()) != 3 {
		t.Errorf("record %v, runtimes %v", got, w.runtimes())
	}
	labels, err := r.Director(tenant).RuntimeLabels(t.Context(), free)
	w.must(err)
	if labels[enrolment.Label] != "uid-of-c" || labels[LabelSource] != w.namespace+"/c" {
		t.Errorf("its labels are %v", labels)
	}
}
