package agent_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

const reportLabel = "runtime_applications"

// reported gives the report that Compass has, as JSON; null if there is none.
func (s *stage) reported() string {
	s.t.Helper()
	runtime, err := s.compass.Admin().RuntimeStatus(runtimeID)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := json.Marshal(runtime.Labels[reportLabel])
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func TestResultsAreReportedToCompassIfThatIsAskedFor(t *testing.T) {
	s := newStage(t)
	s.configure()
	running := s.start()
	s.inState(compassv1alpha1.Synchronized)
	s.resync()
	if got := s.reported(); got != "null" {
		t.Errorf("nobody asked for it, and yet reported: %s", got)
	}
	running.stop()

	s.env["APP_REPORT_APPLICATIONS"] = "true"
	s.start()
	s.resync()
	all := `{"failed":0,"pendingDeletion":0,"ready":1,"synced":1,"total":1}`
	if diff := cmp.Diff(all, s.reported()); diff != "" {
		t.Error(diff)
	}
	s.compass.Admin().ResetCounters()
	s.resync()
	if got := s.calls("setRuntimeLabel"); got != 0 {
		t.Errorf("a quiet sync sets %d labels", got)
	}

	// A system whose name Kubernetes does not take, and one whose credentials are of no use. Compass refuses the report.
	unnamed, err := s.compass.Admin().PutApplication(tenant, compass.Application{Name: "Billing", SystemNumber: "A B", Formations: []string{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	keyless, err := s.compass.Admin().PutApplication(tenant, compass.Application{Name: "Keyless", Formations: []string{"default"}, Bundles: []compass.Bundle{{
		Name: "b", APIs: []compass.API{{Name: "a", TargetURL: "https://keyless.example.com"}},
		Auth: &compass.Auth{Credential: compass.Credential{CertificateOAuth: &compass.CertificateOAuth{ClientID: "c", Certificate: "no key", URL: "https://keyless.example.com/token"}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	clear := s.fault(compass.Fault{Kind: compass.FaultGraphQLError, Operation: "setRuntimeLabel", Error: "InvalidData", Code: 22})
	c := s.resync()
	if diff := cmp.Diff(all, s.reported()); diff != "" || c.Status.SynchronizationStatus.Error != "" || c.Status.ConsecutiveFailures != 0 {
		t.Errorf("a refused report: %s, status %+v", diff, c.Status)
	}
	if got := s.calls("setRuntimeLabel"); got != 1 {
		t.Errorf("%d labels were set", got)
	}
	clear()
	s.resync() // what was refused is not sent again
	if got := s.calls("setRuntimeLabel"); got != 1 {
		t.Errorf("%d labels were set", got)
	}
	if _, err := s.compass.Admin().PutApplication(tenant, compass.Application{Name: "Another", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	s.resync()
	want := fmt.Sprintf(`{"failed":1,"failures":{%q:"InvalidName"},"notReady":{%q:"PrivateKeyMissing"},"pendingDeletion":0,"ready":2,"synced":3,"total":4}`, unnamed, keyless)
	if diff := cmp.Diff(want, s.reported()); diff != "" {
		t.Error(diff)
	}
}
