package agent_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
)

func TestDriftIsRepairedByWatchWithoutACallToCompass(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	running := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	application := func() *applicationv1alpha1.Application {
		app := &applicationv1alpha1.Application{}
		if err := s.Client.Get(t.Context(), types.NamespacedName{Name: "mp-shop"}, app); err != nil {
			t.Fatal(err)
		}
		return app
	}
	patch := func(edit func(*applicationv1alpha1.Application)) {
		app := application()
		changed := app.DeepCopy()
		edit(changed)
		if err := s.Client.Patch(t.Context(), changed, client.MergeFrom(app)); err != nil {
			t.Fatal(err)
		}
	}
	s.Compass.Admin().ResetCounters()

	name := types.NamespacedName{Namespace: s.Env["APP_INTEGRATION_NAMESPACE"], Name: application().Spec.Services[0].Entries[0].Credentials.SecretName}
	before := s.Secret(name)
	if before == nil || string(before.Data["password"]) != agenttest.CanaryText {
		t.Fatal("the Secret is not there to begin with")
	}
	if err := s.Client.Delete(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the deleted Secret", func() bool {
		now := s.Secret(name)
		return now != nil && now.UID != before.UID && string(now.Data["password"]) == agenttest.CanaryText
	})

	edited := s.Secret(name)
	edited.Data = map[string][]byte{"username": []byte("other"), "password": edited.Data["password"]}
	if err := s.Client.Update(t.Context(), edited); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the edited Secret", func() bool { return string(s.Secret(name).Data["username"]) == "user" })

	patch(func(app *applicationv1alpha1.Application) {
		app.Labels["mine"] = "kept"
		app.Spec.Description = "by hand"
	})
	s.Eventually("the edited field", func() bool { return application().Spec.Description == "a shop" })
	if application().Labels["mine"] != "kept" {
		t.Error("a user's label is gone")
	}

	if counters := s.Compass.Admin().Counters(); len(counters.Operations) != 0 {
		t.Errorf("Compass was called: %+v", counters.Operations)
	}
	// A repair is counted after it is seen.
	s.Eventually("metrics to count 3 repairs", func() bool {
		_, text := s.Fetch(running.Metrics + "/metrics")
		return strings.Contains(text, "\ncompass_runtime_agent_drift_repairs_total 3\n")
	})
}
