package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestAClusterThatWasPairedOtherwiseIsNotPairedAnewBecauseACallFailed(t *testing.T) {
	w := newWorld(t)
	const other = "11111111-2222-4333-8444-555555555555"
	_, err := w.compass.Admin().PutRuntime(tenant, compass.Runtime{ID: other, Name: "other"})
	w.must(err)
	w.must(w.kube.Create(t.Context(), configurationSecret(w.system, w.settings.Configuration.Name+"-c", other)))
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.says("c", "Connected=False:CallFailed")
	w.mustStep(w.controller(), "c")
	got := w.record("c")
	if got["state"] != string(Waiting) || got["reason"] != string(ReasonPairing) || got["runtime"] != other || len(w.runtimes()) != 1 || w.token("c") != "" {
		t.Errorf("record %v, runtimes %v", got, w.runtimes())
	}
	w.says("c", "Connected=False:CallFailed", "Stalled=True:TokenNeeded")
	w.passes(time.Minute)
	w.mustStep(w.controller(), "c")
	if got := w.record("c"); got["reason"] != string(ReasonTokenUnused) || len(w.runtimes()) != 2 || w.token("c") == "" {
		t.Errorf("an agent that asks for a token: record %v, runtimes %v", got, w.runtimes())
	}
}

// Agents that are not of this project say a state, and no conditions.
func TestAnAgentWithoutConditionsIsConnectedOnceItHasAnotherCertificateThanWhenItsTokenWasGiven(t *testing.T) {
	w := newWorld(t)
	r := w.controller()
	w.enlist("c", w.kubeconfig("c", home.BearerToken))
	w.must(w.kube.Create(t.Context(), certificateSecret(t, w.system, w.settings.Certificate.Name+"-c", "an-earlier-identity")))
	w.mustStep(r, "c")
	token := w.token("c")
	look := func(state compassv1alpha1.ConnectionState) [2]string {
		t.Helper()
		w.says("c")
		w.mu.Lock()
		w.connections["c"].Status.TokenFingerprint, w.connections["c"].Status.State = "", state
		w.mu.Unlock()
		w.passes(time.Minute)
		w.mustStep(r, "c")
		return [2]string{w.record("c")["state"], w.record("c")["reason"]}
	}
	unused, pairing, connected := [2]string{string(Waiting), string(ReasonTokenUnused)}, [2]string{string(Waiting), string(ReasonPairing)}, [2]string{string(Connected), string(ReasonConnected)}
	got := [][2]string{look(compassv1alpha1.Synchronized), look(compassv1alpha1.ConnectionFailed)}
	earlier := certificateSecret(t, w.system, w.settings.Certificate.Name+"-c", w.compass.Admin().SystemAuths(w.runtime("c"))[0].ID)
	w.must(w.kube.Update(t.Context(), earlier))
	got = append(got, look(compassv1alpha1.ConnectionFailed), look(compassv1alpha1.ConnectionMaintenanceFailed))
	w.passes(2 * time.Hour) // a token that has ended long ago is of no use to an agent that is paired
	got = append(got, look(compassv1alpha1.ConnectionMaintenanceFailed), look(compassv1alpha1.Connected))
	w.passes(time.Hour)
	got = append(got, look(compassv1alpha1.SynchronizationFailed))
	if diff := cmp.Diff([][2]string{unused, unused, unused, pairing, pairing, connected, connected}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w.token("c") != token {
		t.Error("it got another token")
	}
}
