package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/cli/onboard/enrolment"
	"github.com/application-connector/application-connector/simulator/compass"
)

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
