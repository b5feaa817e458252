package agent_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

func TestDriftIsRepairedByWatchWithoutACallToCompass(t *testing.T) {
	s := newStage(t)
	s.configure()
	running := s.start()
	s.inState(compassv1alpha1.Synchronized)
	application := func() *applicationv1alpha1.Application {
		app := &applicationv1alpha1.Application{}
		if err := s.client.Get(t.Context(), types.NamespacedName{Name: "mp-shop"}, app); err != nil {
			t.Fatal(err)
		}
		return app
	}
	patch := func(edit func(*applicationv1alpha1.Application)) {
		app := application()
		changed := app.DeepCopy()
		edit(changed)
		if err := s.client.Patch(t.Context(), changed, client.MergeFrom(app)); err != nil {
			t.Fatal(err)
		}
	}
	s.compass.Admin().ResetCounters()

	name := types.NamespacedName{Namespace: s.env["APP_INTEGRATION_NAMESPACE"], Name: application().Spec.Services[0].Entries[0].Credentials.SecretName}
	before := s.secret(name)
	if before == nil || string(before.Data["password"]) != canaryText {
		t.Fatal("the Secret is not there to begin with")
	}
	if err := s.client.Delete(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	s.eventually("the deleted Secret", func() bool {
		now := s.secret(name)
		return now != nil && now.UID != before.UID && string(now.Data["password"]) == canaryText
	})

	edited := s.secret(name)
	edited.Data = map[string][]byte{"username": []byte("other"), "password": edited.Data["password"]}
	if err := s.client.Update(t.Context(), edited); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edited Secret", func() bool { return string(s.secret(name).Data["username"]) == "user" })

	patch(func(app *applicationv1alpha1.Application) {
		app.Labels["mine"] = "kept"
		app.Spec.Description = "by hand"
	})
	s.eventually("the edited field", func() bool { return application().Spec.Description == "a shop" })
	if application().Labels["mine"] != "kept" {
		t.Error("a user's label is gone")
	}

	if counters := s.compass.Admin().Counters(); len(counters.Operations) != 0 {
		t.Errorf("Compass was called: %+v", counters.Operations)
	}
	// A repair is counted after it is seen.
	s.eventually("metrics to count 3 repairs", func() bool {
		_, text := s.fetch(running.metrics + "/metrics")
		return strings.Contains(text, "\ncompass_runtime_agent_drift_repairs_total 3\n")
	})
}
