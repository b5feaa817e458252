package agent_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/simulator/compass"
)

const reportLabel = "runtime_applications"

// reported gives the report that Compass has, as JSON; null if there is none.
func reported(s *agenttest.Stage) string {
	s.T.Helper()
	runtime, err := s.Compass.Admin().RuntimeStatus(agenttest.RuntimeID)
	if err != nil {
		s.T.Fatal(err)
	}
	text, err := json.Marshal(runtime.Labels[reportLabel])
	if err != nil {
		s.T.Fatal(err)
	}
	return string(text)
}

func TestResultsAreReportedToCompassIfThatIsAskedFor(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	running := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	s.Resync()
	if got := reported(s); got != "null" {
		t.Errorf("nobody asked for it, and yet reported: %s", got)
	}
	running.Stop()

	s.Env["APP_REPORT_APPLICATIONS"] = "true"
	s.Start()
	s.Resync()
	all := `{"failed":0,"pendingDeletion":0,"ready":1,"synced":1,"total":1}`
	if diff := cmp.Diff(all, reported(s)); diff != "" {
		t.Error(diff)
	}
	s.Compass.Admin().ResetCounters()
	s.Resync()
	if got := s.Calls("setRuntimeLabel"); got != 0 {
		t.Errorf("a quiet sync sets %d labels", got)
	}

	// A system whose name Kubernetes does not take, and one whose credentials are of no use. Compass refuses the report.
	unnamed, err := s.Compass.Admin().PutApplication(agenttest.Tenant, compass.Application{Name: "Billing", SystemNumber: "A B", Formations: []string{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	keyless, err := s.Compass.Admin().PutApplication(agenttest.Tenant, compass.Application{Name: "Keyless", Formations: []string{"default"}, Bundles: []compass.Bundle{{
		Name: "b", APIs: []compass.API{{Name: "a", TargetURL: "https://keyless.example.com"}},
		Auth: &compass.Auth{Credential: compass.Credential{CertificateOAuth: &compass.CertificateOAuth{ClientID: "c", Certificate: "no key", URL: "https://keyless.example.com/token"}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	clear := s.Fault(compass.Fault{Kind: compass.FaultGraphQLError, Operation: "setRuntimeLabel", Error: "InvalidData", Code: 22})
	c := s.Resync()
	if diff := cmp.Diff(all, reported(s)); diff != "" || c.Status.SynchronizationStatus.Error != "" || c.Status.ConsecutiveFailures != 0 {
		t.Errorf("a refused report: %s, status %+v", diff, c.Status)
	}
	if got := s.Calls("setRuntimeLabel"); got != 1 {
		t.Errorf("%d labels were set", got)
	}
	clear()
	s.Resync() // what was refused is not sent again
	if got := s.Calls("setRuntimeLabel"); got != 1 {
		t.Errorf("%d labels were set", got)
	}
	if _, err := s.Compass.Admin().PutApplication(agenttest.Tenant, compass.Application{Name: "Another", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	s.Resync()
	want := fmt.Sprintf(`{"failed":1,"failures":{%q:"InvalidName"},"notReady":{%q:"PrivateKeyMissing"},"pendingDeletion":0,"ready":2,"synced":3,"total":4}`, unnamed, keyless)
	if diff := cmp.Diff(want, reported(s)); diff != "" {
		t.Error(diff)
	}
}
