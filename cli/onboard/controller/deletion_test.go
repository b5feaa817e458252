package controller

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/simulator/compass"
)

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

func TestAClusterThatIsRemovedKeepsAConfigurationThatIsOfAnotherRuntimeByNow(t *testing.T) {
	w := newWorld(t)
	r := w.controller(offboard)
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.mustStep(r, "c")
	const other = "11111111-2222-4333-8444-555555555555"
	_, err := w.compass.Admin().PutRuntime(tenant, compass.Runtime{ID: other, Name: "other"})
	w.must(err)
	configuration := w.configuration("c")
	configuration.Data["RUNTIME_ID"] = []byte(other)
	w.must(w.kube.Update(t.Context(), configuration))
	w.delete("c")
	w.mustStep(r, "c")
	if err := w.kube.Get(t.Context(), w.key("c"), &corev1.Secret{}); err == nil || w.configuration("c") == nil || len(w.runtimes()) != 1 {
		t.Errorf("the Secret: %v, configuration %v, runtimes %v", err, w.configuration("c"), w.runtimes())
	}
}
