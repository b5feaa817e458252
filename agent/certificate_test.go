package agent_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestARenewalThatIsAskedForIsDoneOnceWithANewKey(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	old := s.Secret(s.Credential)
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	after := s.Until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return !c.Spec.RefreshCredentialsNow && agenttest.Fingerprint(c) != agenttest.Fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized
	})
	renewed := s.Secret(s.Credential)
	if bytes.Equal(old.Data["key"], renewed.Data["key"]) || bytes.Equal(old.Data["crt"], renewed.Data["crt"]) {
		t.Error("key and certificate are the old ones")
	}
	if got := after.Status.ConnectionStatus; got.Renewed.IsZero() || !got.Established.Equal(&before.Status.ConnectionStatus.Established) {
		t.Errorf("connection status %+v", got)
	}
	if got := s.Calls("signCertificateSigningRequest"); got != 2 {
		t.Errorf("%d certificates were asked for, want 2", got)
	}
	if s.Secret(s.Pending()) != nil {
		t.Error("the pending Secret is still there")
	}
	requests := s.Compass.Admin().Requests()
	last := requests[len(requests)-1]
	if last.CertificateHash != agenttest.Fingerprint(after) {
		t.Errorf("the last request came with certificate %s, current is %s", last.CertificateHash, agenttest.Fingerprint(after))
	}
}

func TestARenewalIsDoneWhenItIsDue(t *testing.T) {
	s := agenttest.New(t)
	s.Compass.Admin().SetCertificateValidity(20 * time.Second)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	if at := before.Status.NextAttempt; at.After(before.Status.ConnectionStatus.CertificateStatus.NotAfter.Time) {
		t.Errorf("the next attempt at %s is after the end of the certificate", at)
	}
	s.Compass.Admin().SetCertificateValidity(time.Hour)
	s.Until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return agenttest.Fingerprint(c) != agenttest.Fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized
	})
}

func TestANewCertificateThatDoesNotWorkNeverReplacesTheOldOne(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	old := s.Secret(s.Credential)
	clear := s.Fault(compass.Fault{Kind: compass.FaultGraphQLError, Operation: "viewer", Error: "InternalError", Code: 10})
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	c := s.InState(compassv1alpha1.ConnectionMaintenanceFailed)
	if !strings.HasPrefix(c.Status.ConnectionStatus.Error, "Error while trying to maintain connection: the new certificate does not work: ") {
		t.Errorf("error %q", c.Status.ConnectionStatus.Error)
	}
	if now := s.Secret(s.Credential); !bytes.Equal(now.Data["crt"], old.Data["crt"]) || agenttest.Fingerprint(c) != agenttest.Fingerprint(before) {
		t.Error("the old certificate is gone")
	}
	if pending := s.Secret(s.Pending()); pending == nil || len(pending.Data["crt"]) == 0 {
		t.Error("the new certificate does not wait in the pending Secret")
	}
	if got := c.Status.SynchronizationStatus; !got.LastSuccessfulApplication.After(before.Status.SynchronizationStatus.LastAttempt.Add(-time.Second)) {
		t.Errorf("there was no sync meanwhile: %+v", got)
	}
	signed := s.Calls("signCertificateSigningRequest")
	clear()
	s.Until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return agenttest.Fingerprint(c) != agenttest.Fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized && !c.Spec.RefreshCredentialsNow
	})
	if got := s.Calls("signCertificateSigningRequest"); got != signed {
		t.Errorf("another certificate was asked for: %d, before %d", got, signed)
	}
}

func TestAnIssuedCertificateWithWrongDatesIsRefused(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	s.Fault(compass.Fault{Kind: compass.FaultCertificateTimes, Shift: compass.Duration(-48 * time.Hour), Validity: compass.Duration(time.Hour)})
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	c := s.InState(compassv1alpha1.ConnectionMaintenanceFailed)
	if !strings.Contains(c.Status.ConnectionStatus.Error, "issued certificate refused (WrongValidity)") || agenttest.Fingerprint(c) != agenttest.Fingerprint(before) {
		t.Errorf("error %q, certificate %s", c.Status.ConnectionStatus.Error, agenttest.Fingerprint(c))
	}
	if !meta.IsStatusConditionTrue(c.Status.Conditions, "CertificateReady") {
		t.Error("the old certificate does not count as ready")
	}
}

// asOldAgentsWrite makes the Secrets and the CompassConnection what agents before this one leave behind.
func asOldAgentsWrite(s *agenttest.Stage) (foreign *corev1.Secret) {
	s.T.Helper()
	stored := s.Secret(s.Credential)
	old := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: stored.Namespace, Name: stored.Name, Labels: map[string]string{"mine": "label"}, Annotations: map[string]string{"mine": "annotation"}},
		Data:       map[string][]byte{"key": stored.Data["key"], "crt": stored.Data["crt"], "crtChain": stored.Data["crtChain"], "mine": []byte("kept")},
	}
	if err := s.Client.Delete(s.T.Context(), stored); err != nil {
		s.T.Fatal(err)
	}
	if err := s.Client.Create(s.T.Context(), old); err != nil {
		s.T.Fatal(err)
	}
	c := s.Connection(s.T.Context())
	bare := &compassv1alpha1.CompassConnection{ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Spec: c.Spec}
	if err := s.Client.Delete(s.T.Context(), c); err != nil {
		s.T.Fatal(err)
	}
	if err := s.Client.Create(s.T.Context(), bare); err != nil {
		s.T.Fatal(err)
	}
	bare.Status = compassv1alpha1.CompassConnectionStatus{State: compassv1alpha1.Synchronized, ConnectionStatus: &compassv1alpha1.ConnectionStatus{Established: metav1.Now()}}
	if err := s.Client.Status().Update(s.T.Context(), bare); err != nil {
		s.T.Fatal(err)
	}
	return old
}

func TestSecretsOfAgentsBeforeAreTakenOver(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	first := s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	first.Stop()
	old := asOldAgentsWrite(s)
	s.Compass.Admin().ResetCounters()
	s.Start()
	c := s.Until("a sync", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.State == compassv1alpha1.Synchronized && c.Status.SynchronizationStatus != nil
	})
	if agenttest.Fingerprint(c) != agenttest.Fingerprint(before) || s.Calls("signCertificateSigningRequest") != 0 {
		t.Error("the certificate was not taken over")
	}
	now := s.Secret(s.Credential)
	if string(now.Data["mine"]) != "kept" || now.Labels["mine"] != "label" || now.Annotations["mine"] != "annotation" {
		t.Errorf("what others wrote is gone: %v %v", now.Labels, now.Annotations)
	}
	for _, key := range []string{"key", "crt", "crtChain"} {
		if !bytes.Equal(now.Data[key], old.Data[key]) {
			t.Errorf("key %s has changed", key)
		}
	}
	if _, err := certs.DecodeClient(now.Data); err != nil || len(now.Data["ca.crt"]) == 0 || len(now.Data["tls.crt"]) == 0 {
		t.Errorf("the Secret lacks what is new: %v", err)
	}
	// And it outlives the CompassConnection now.
	if now.Annotations["compass.kyma-project.io/director-url"] != s.Compass.DirectorURL() {
		t.Errorf("annotations %v", now.Annotations)
	}
}

func TestDeletedSecretsAreRestoredWithoutAnIssuance(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	r := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	client0, ca0 := s.Secret(s.Credential), s.Secret(s.Authorities)
	for range 2 { // with the agent running, and the CA Secret also after a restart
		if err := s.Client.Delete(t.Context(), s.Secret(s.Authorities)); err != nil {
			t.Fatal(err)
		}
		s.Eventually("the CA Secret to be back", func() bool {
			back := s.Secret(s.Authorities)
			return back != nil && bytes.Equal(back.Data["cacert"], ca0.Data["cacert"])
		})
		r.Stop()
		r = s.Start()
	}
	// The agent holds the credential once its worker has seen the Secret.
	s.Eventually("the agent to have the certificate", func() bool { return strings.Count(s.Log.String(), "client certificate in use") >= 2 })
	if err := s.Client.Delete(t.Context(), s.Secret(s.Credential)); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the client Secret to be back", func() bool {
		back := s.Secret(s.Credential)
		return back != nil && bytes.Equal(back.Data["key"], client0.Data["key"]) && bytes.Equal(back.Data["crtChain"], client0.Data["crtChain"])
	})
	damaged := s.Secret(s.Credential)
	damaged.Data["key"] = []byte("damaged")
	if err := s.Client.Update(t.Context(), damaged); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the client Secret to be whole again", func() bool { return bytes.Equal(s.Secret(s.Credential).Data["key"], client0.Data["key"]) })
	if got := s.Calls("signCertificateSigningRequest"); got != 1 {
		t.Errorf("%d certificates were asked for", got)
	}
}

func TestTheCertificateIsAdoptedWhenTheCompassConnectionIsDeleted(t *testing.T) {
	for name, restart := range map[string]bool{"while the agent runs": false, "while it does not": true} {
		t.Run(name, func(t *testing.T) {
			s := agenttest.New(t)
			s.Configure()
			r := s.Start()
			before := s.InState(compassv1alpha1.Synchronized)
			if restart {
				r.Stop()
			}
			if err := s.Client.Delete(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			if restart {
				s.Start()
			}
			after := s.Until("the adoption", func(c *compassv1alpha1.CompassConnection) bool {
				return c.UID != before.UID && c.Status.State == compassv1alpha1.Synchronized
			})
			if agenttest.Fingerprint(after) != agenttest.Fingerprint(before) || s.Calls("signCertificateSigningRequest") != 1 || after.Spec != before.Spec {
				t.Errorf("connection %+v", after)
			}
			if got := after.Status.ConnectionStatus; !got.Established.Equal(&before.Status.ConnectionStatus.Established) || !got.CertificateStatus.Acquired.Equal(&before.Status.ConnectionStatus.CertificateStatus.Acquired) {
				t.Errorf("connection status %+v, before %+v", got, before.Status.ConnectionStatus)
			}
		})
	}
}

func TestARefusedCertificateIsReplacedByANewToken(t *testing.T) {
	for name, test := range map[string]struct {
		refuse      func(*testing.T, *agenttest.Stage, *compassv1alpha1.CompassConnection)
		beyondDoubt func(*agenttest.Stage)
	}{
		"revoked": {func(t *testing.T, s *agenttest.Stage, _ *compassv1alpha1.CompassConnection) {
			for _, auth := range s.Compass.Admin().SystemAuths(agenttest.RuntimeID) {
				if err := s.Compass.Admin().Revoke(auth.ID); err != nil {
					t.Fatal(err)
				}
			}
		}, func(s *agenttest.Stage) { s.Refused() }},
		"of an authority that is gone": {func(t *testing.T, s *agenttest.Stage, _ *compassv1alpha1.CompassConnection) {
			if err := s.Compass.Admin().RotateClientCA(false); err != nil {
				t.Fatal(err)
			}
		}, func(s *agenttest.Stage) { s.Provoke(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := agenttest.New(t)
			s.Configure()
			s.Start()
			before := s.InState(compassv1alpha1.Synchronized)
			test.refuse(t, s, before)
			test.beyondDoubt(s)
			s.Configure()
			s.Until("a new certificate", func(c *compassv1alpha1.CompassConnection) bool {
				return c.Status.State == compassv1alpha1.Synchronized && agenttest.Fingerprint(c) != agenttest.Fingerprint(before)
			})
		})
	}
}

func TestACertificateThatHasEndedIsReplacedByANewToken(t *testing.T) {
	s := agenttest.New(t)
	s.Compass.Admin().SetCertificateValidity(3 * time.Second)
	s.Configure()
	r := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	r.Stop()
	credential, err := certs.DecodeClient(s.Secret(s.Credential).Data)
	if err != nil {
		t.Fatal(err)
	}
	s.Compass.Admin().SetCertificateValidity(time.Hour)
	s.Eventually("the end of the certificate", func() bool { return time.Now().After(credential.Leaf().NotAfter) })
	s.Compass.Admin().ResetCounters()
	s.Start()
	c := s.InState(compassv1alpha1.ConnectionMaintenanceFailed)
	stalled, ready := meta.FindStatusCondition(c.Status.Conditions, "Stalled"), meta.FindStatusCondition(c.Status.Conditions, "CertificateReady")
	if stalled == nil || stalled.Reason != "TokenNeeded" || ready == nil || ready.Reason != "Expired" {
		t.Errorf("Stalled %+v, CertificateReady %+v", stalled, ready)
	}
	if got := s.Compass.Admin().Counters().Requests.Received; got != 0 {
		t.Errorf("Compass got %d requests although nothing can come of them", got)
	}
	s.Configure()
	c = s.InState(compassv1alpha1.Synchronized)
	if agenttest.Fingerprint(c) == credential.Fingerprint() || meta.FindStatusCondition(c.Status.Conditions, "Stalled") != nil {
		t.Errorf("status %+v", c.Status)
	}
}

func TestOldAndNewAuthoritiesAreTrustedAfterARotation(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	old, err := s.Compass.Admin().ClientCA()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Compass.Admin().RotateClientCA(true); err != nil {
		t.Fatal(err)
	}
	next, err := s.Compass.Admin().ClientCA()
	if err != nil {
		t.Fatal(err)
	}
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	s.Until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return agenttest.Fingerprint(c) != agenttest.Fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized
	})
	for where, text := range map[string][]byte{"CA Secret": s.Secret(s.Authorities).Data["cacert"], "client Secret": s.Secret(s.Credential).Data["ca.crt"]} {
		if want := string(next) + string(old); string(text) != want {
			t.Errorf("the %s holds %d bytes, want the new authority and then the old one (%d)", where, len(text), len(want))
		}
	}
}

func TestOtherURLsOfCompassAreKept(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	first := s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	first.Stop()
	moved := func(url string) string { return strings.Replace(url, "localhost", "127.0.0.1", 1) }
	s.Fault(compass.Fault{Kind: compass.FaultOtherURLs, DirectorURL: moved(s.Compass.DirectorURL()), ConnectorURL: moved(s.Compass.MTLSConnectorURL())})
	s.Start()
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	after := s.Until("the other URLs", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Spec.ManagementInfo.DirectorURL == moved(before.Spec.ManagementInfo.DirectorURL) && !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation
	})
	if after.Status.State != compassv1alpha1.Synchronized || after.Spec.ManagementInfo.ConnectorURL != moved(before.Spec.ManagementInfo.ConnectorURL) {
		t.Errorf("connection %+v", after)
	}
	if got := s.Secret(s.Credential).Annotations["compass.kyma-project.io/director-url"]; got != moved(s.Compass.DirectorURL()) {
		t.Errorf("the client Secret remembers %s", got)
	}
}

func TestOfTwoAgentsOneActs(t *testing.T) {
	s := agenttest.New(t)
	s.Env["APP_LEADER_ELECTION"] = "true"
	s.Configure()
	one := s.Start()
	s.InState(compassv1alpha1.Synchronized)
	two := s.Start()
	s.Eventually("the standby to be ready", func() bool {
		code, _ := s.Fetch(two.Health + "/readyz")
		return code == 200
	})
	s.Compass.Admin().ResetCounters()
	one.Stop() // gives the lease back
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	s.Until("a sync by the other agent", func(c *compassv1alpha1.CompassConnection) bool {
		return !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation && c.Status.State == compassv1alpha1.Synchronized
	})
	if got := s.Calls("signCertificateSigningRequest"); got != 0 {
		t.Errorf("the other agent asked for %d certificates", got)
	}
	// Each agent logs this when it begins to act with a certificate that it did not get itself.
	if got := strings.Count(s.Log.String(), "client certificate in use"); got != 1 {
		t.Errorf("%d agents took the certificate over, want one", got)
	}
}
