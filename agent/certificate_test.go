package agent_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/simulator/compass"
)

func pendingOf(s *stage) types.NamespacedName {
	return types.NamespacedName{Namespace: s.credential.Namespace, Name: s.credential.Name + "-pending"}
}

func fingerprint(c *compassv1alpha1.CompassConnection) string {
	return c.Status.ConnectionStatus.CertificateStatus.Fingerprint
}

func TestARenewalThatIsAskedForIsDoneOnceWithANewKey(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	old := s.secret(s.credential)
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	after := s.until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return !c.Spec.RefreshCredentialsNow && fingerprint(c) != fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized
	})
	renewed := s.secret(s.credential)
	if bytes.Equal(old.Data["key"], renewed.Data["key"]) || bytes.Equal(old.Data["crt"], renewed.Data["crt"]) {
		t.Error("key and certificate are the old ones")
	}
	if got := after.Status.ConnectionStatus; got.Renewed.IsZero() || !got.Established.Equal(&before.Status.ConnectionStatus.Established) {
		t.Errorf("connection status %+v", got)
	}
	if got := s.calls("signCertificateSigningRequest"); got != 2 {
		t.Errorf("%d certificates were asked for, want 2", got)
	}
	if s.secret(pendingOf(s)) != nil {
		t.Error("the pending Secret is still there")
	}
	requests := s.compass.Admin().Requests()
	last := requests[len(requests)-1]
	if last.CertificateHash != fingerprint(after) {
		t.Errorf("the last request came with certificate %s, current is %s", last.CertificateHash, fingerprint(after))
	}
}

func TestARenewalIsDoneWhenItIsDue(t *testing.T) {
	s := newStage(t)
	s.compass.Admin().SetCertificateValidity(20 * time.Second)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	if at := before.Status.NextAttempt; at.After(before.Status.ConnectionStatus.CertificateStatus.NotAfter.Time) {
		t.Errorf("the next attempt at %s is after the end of the certificate", at)
	}
	s.compass.Admin().SetCertificateValidity(time.Hour)
	s.until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return fingerprint(c) != fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized
	})
}

func TestANewCertificateThatDoesNotWorkNeverReplacesTheOldOne(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	old := s.secret(s.credential)
	clear := s.fault(compass.Fault{Kind: compass.FaultGraphQLError, Operation: "viewer", Error: "InternalError", Code: 10})
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	c := s.inState(compassv1alpha1.ConnectionMaintenanceFailed)
	if !strings.HasPrefix(c.Status.ConnectionStatus.Error, "Error while trying to maintain connection: the new certificate does not work: ") {
		t.Errorf("error %q", c.Status.ConnectionStatus.Error)
	}
	if now := s.secret(s.credential); !bytes.Equal(now.Data["crt"], old.Data["crt"]) || fingerprint(c) != fingerprint(before) {
		t.Error("the old certificate is gone")
	}
	if pending := s.secret(pendingOf(s)); pending == nil || len(pending.Data["crt"]) == 0 {
		t.Error("the new certificate does not wait in the pending Secret")
	}
	if got := c.Status.SynchronizationStatus; !got.LastSuccessfulApplication.After(before.Status.SynchronizationStatus.LastAttempt.Add(-time.Second)) {
		t.Errorf("there was no sync meanwhile: %+v", got)
	}
	signed := s.calls("signCertificateSigningRequest")
	clear()
	s.until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return fingerprint(c) != fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized && !c.Spec.RefreshCredentialsNow
	})
	if got := s.calls("signCertificateSigningRequest"); got != signed {
		t.Errorf("another certificate was asked for: %d, before %d", got, signed)
	}
}

func TestAnIssuedCertificateWithWrongDatesIsRefused(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	s.fault(compass.Fault{Kind: compass.FaultCertificateTimes, Shift: compass.Duration(-48 * time.Hour), Validity: compass.Duration(time.Hour)})
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	c := s.inState(compassv1alpha1.ConnectionMaintenanceFailed)
	if !strings.Contains(c.Status.ConnectionStatus.Error, "issued certificate refused (WrongValidity)") || fingerprint(c) != fingerprint(before) {
		t.Errorf("error %q, certificate %s", c.Status.ConnectionStatus.Error, fingerprint(c))
	}
	if !meta.IsStatusConditionTrue(c.Status.Conditions, "CertificateReady") {
		t.Error("the old certificate does not count as ready")
	}
}

// asOldAgentsWrite makes the Secrets and the CompassConnection what agents before this one leave behind.
func asOldAgentsWrite(s *stage) (foreign *corev1.Secret) {
	s.t.Helper()
	stored := s.secret(s.credential)
	old := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: stored.Namespace, Name: stored.Name, Labels: map[string]string{"mine": "label"}, Annotations: map[string]string{"mine": "annotation"}},
		Data:       map[string][]byte{"key": stored.Data["key"], "crt": stored.Data["crt"], "crtChain": stored.Data["crtChain"], "mine": []byte("kept")},
	}
	if err := s.client.Delete(s.t.Context(), stored); err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.Create(s.t.Context(), old); err != nil {
		s.t.Fatal(err)
	}
	c := s.connection(s.t.Context())
	bare := &compassv1alpha1.CompassConnection{ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Spec: c.Spec}
	if err := s.client.Delete(s.t.Context(), c); err != nil {
		s.t.Fatal(err)
	}
	if err := s.client.Create(s.t.Context(), bare); err != nil {
		s.t.Fatal(err)
	}
	bare.Status = compassv1alpha1.CompassConnectionStatus{State: compassv1alpha1.Synchronized, ConnectionStatus: &compassv1alpha1.ConnectionStatus{Established: metav1.Now()}}
	if err := s.client.Status().Update(s.t.Context(), bare); err != nil {
		s.t.Fatal(err)
	}
	return old
}

func TestSecretsOfAgentsBeforeAreTakenOver(t *testing.T) {
	s := newStage(t)
	s.configure()
	first := s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	first.stop()
	old := asOldAgentsWrite(s)
	s.compass.Admin().ResetCounters()
	s.start()
	c := s.until("a sync", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Status.State == compassv1alpha1.Synchronized && c.Status.SynchronizationStatus != nil
	})
	if fingerprint(c) != fingerprint(before) || s.calls("signCertificateSigningRequest") != 0 {
		t.Error("the certificate was not taken over")
	}
	now := s.secret(s.credential)
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
	if now.Annotations["compass.kyma-project.io/director-url"] != s.compass.DirectorURL() {
		t.Errorf("annotations %v", now.Annotations)
	}
}

func TestDeletedSecretsAreRestoredWithoutAnIssuance(t *testing.T) {
	s := newStage(t)
	s.configure()
	r := s.start()
	s.inState(compassv1alpha1.Synchronized)
	client0, ca0 := s.secret(s.credential), s.secret(s.authorities)
	for range 2 { // with the agent running, and the CA Secret also after a restart
		if err := s.client.Delete(t.Context(), s.secret(s.authorities)); err != nil {
			t.Fatal(err)
		}
		s.eventually("the CA Secret to be back", func() bool {
			back := s.secret(s.authorities)
			return back != nil && bytes.Equal(back.Data["cacert"], ca0.Data["cacert"])
		})
		r.stop()
		r = s.start()
	}
	// The agent holds the credential once its worker has seen the Secret.
	s.eventually("the agent to have the certificate", func() bool { return strings.Count(s.log.String(), "client certificate in use") >= 2 })
	if err := s.client.Delete(t.Context(), s.secret(s.credential)); err != nil {
		t.Fatal(err)
	}
	s.eventually("the client Secret to be back", func() bool {
		back := s.secret(s.credential)
		return back != nil && bytes.Equal(back.Data["key"], client0.Data["key"]) && bytes.Equal(back.Data["crtChain"], client0.Data["crtChain"])
	})
	damaged := s.secret(s.credential)
	damaged.Data["key"] = []byte("damaged")
	if err := s.client.Update(t.Context(), damaged); err != nil {
		t.Fatal(err)
	}
	s.eventually("the client Secret to be whole again", func() bool { return bytes.Equal(s.secret(s.credential).Data["key"], client0.Data["key"]) })
	if got := s.calls("signCertificateSigningRequest"); got != 1 {
		t.Errorf("%d certificates were asked for", got)
	}
}

func TestTheCertificateIsAdoptedWhenTheCompassConnectionIsDeleted(t *testing.T) {
	for name, restart := range map[string]bool{"while the agent runs": false, "while it does not": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.configure()
			r := s.start()
			before := s.inState(compassv1alpha1.Synchronized)
			if restart {
				r.stop()
			}
			if err := s.client.Delete(t.Context(), before); err != nil {
				t.Fatal(err)
			}
			if restart {
				s.start()
			}
			after := s.until("the adoption", func(c *compassv1alpha1.CompassConnection) bool {
				return c.UID != before.UID && c.Status.State == compassv1alpha1.Synchronized
			})
			if fingerprint(after) != fingerprint(before) || s.calls("signCertificateSigningRequest") != 1 || after.Spec != before.Spec {
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
		refuse func(*testing.T, *stage, *compassv1alpha1.CompassConnection)
	}{
		"revoked": {func(t *testing.T, s *stage, _ *compassv1alpha1.CompassConnection) {
			for _, auth := range s.compass.Admin().SystemAuths(runtimeID) {
				if err := s.compass.Admin().Revoke(auth.ID); err != nil {
					t.Fatal(err)
				}
			}
		}},
		"of an authority that is gone": {func(t *testing.T, s *stage, _ *compassv1alpha1.CompassConnection) {
			if err := s.compass.Admin().RotateClientCA(false); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.configure()
			s.start()
			before := s.inState(compassv1alpha1.Synchronized)
			test.refuse(t, s, before)
			s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
			s.until("a failure", func(c *compassv1alpha1.CompassConnection) bool { return c.Status.ConsecutiveFailures > 0 })
			s.configure()
			s.until("a new certificate", func(c *compassv1alpha1.CompassConnection) bool {
				return c.Status.State == compassv1alpha1.Synchronized && fingerprint(c) != fingerprint(before)
			})
		})
	}
}

func TestACertificateThatHasEndedIsReplacedByANewToken(t *testing.T) {
	s := newStage(t)
	s.compass.Admin().SetCertificateValidity(3 * time.Second)
	s.configure()
	r := s.start()
	s.inState(compassv1alpha1.Synchronized)
	r.stop()
	credential, err := certs.DecodeClient(s.secret(s.credential).Data)
	if err != nil {
		t.Fatal(err)
	}
	s.compass.Admin().SetCertificateValidity(time.Hour)
	s.eventually("the end of the certificate", func() bool { return time.Now().After(credential.Leaf().NotAfter) })
	s.compass.Admin().ResetCounters()
	s.start()
	c := s.inState(compassv1alpha1.ConnectionMaintenanceFailed)
	stalled, ready := meta.FindStatusCondition(c.Status.Conditions, "Stalled"), meta.FindStatusCondition(c.Status.Conditions, "CertificateReady")
	if stalled == nil || stalled.Reason != "TokenNeeded" || ready == nil || ready.Reason != "Expired" {
		t.Errorf("Stalled %+v, CertificateReady %+v", stalled, ready)
	}
	if got := s.compass.Admin().Counters().Requests.Received; got != 0 {
		t.Errorf("Compass got %d requests although nothing can come of them", got)
	}
	s.configure()
	c = s.inState(compassv1alpha1.Synchronized)
	if fingerprint(c) == credential.Fingerprint() || meta.FindStatusCondition(c.Status.Conditions, "Stalled") != nil {
		t.Errorf("status %+v", c.Status)
	}
}

func TestOldAndNewAuthoritiesAreTrustedAfterARotation(t *testing.T) {
	s := newStage(t)
	s.configure()
	s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	old, err := s.compass.Admin().ClientCA()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.compass.Admin().RotateClientCA(true); err != nil {
		t.Fatal(err)
	}
	next, err := s.compass.Admin().ClientCA()
	if err != nil {
		t.Fatal(err)
	}
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	s.until("the renewal", func(c *compassv1alpha1.CompassConnection) bool {
		return fingerprint(c) != fingerprint(before) && c.Status.State == compassv1alpha1.Synchronized
	})
	for where, text := range map[string][]byte{"CA Secret": s.secret(s.authorities).Data["cacert"], "client Secret": s.secret(s.credential).Data["ca.crt"]} {
		if want := string(next) + string(old); string(text) != want {
			t.Errorf("the %s holds %d bytes, want the new authority and then the old one (%d)", where, len(text), len(want))
		}
	}
}

func TestOtherURLsOfCompassAreKept(t *testing.T) {
	s := newStage(t)
	s.configure()
	first := s.start()
	before := s.inState(compassv1alpha1.Synchronized)
	first.stop()
	moved := func(url string) string { return strings.Replace(url, "localhost", "127.0.0.1", 1) }
	s.fault(compass.Fault{Kind: compass.FaultOtherURLs, DirectorURL: moved(s.compass.DirectorURL()), ConnectorURL: moved(s.compass.MTLSConnectorURL())})
	s.start()
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	after := s.until("the other URLs", func(c *compassv1alpha1.CompassConnection) bool {
		return c.Spec.ManagementInfo.DirectorURL == moved(before.Spec.ManagementInfo.DirectorURL) && !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation
	})
	if after.Status.State != compassv1alpha1.Synchronized || after.Spec.ManagementInfo.ConnectorURL != moved(before.Spec.ManagementInfo.ConnectorURL) {
		t.Errorf("connection %+v", after)
	}
	if got := s.secret(s.credential).Annotations["compass.kyma-project.io/director-url"]; got != moved(s.compass.DirectorURL()) {
		t.Errorf("the client Secret remembers %s", got)
	}
}

func TestOfTwoAgentsOneActs(t *testing.T) {
	s := newStage(t)
	s.env["APP_LEADER_ELECTION"] = "true"
	s.configure()
	one := s.start()
	s.inState(compassv1alpha1.Synchronized)
	two := s.start()
	s.eventually("the standby to be ready", func() bool {
		code, _ := s.fetch(two.health + "/readyz")
		return code == 200
	})
	s.compass.Admin().ResetCounters()
	one.stop() // gives the lease back
	s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	s.until("a sync by the other agent", func(c *compassv1alpha1.CompassConnection) bool {
		return !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation && c.Status.State == compassv1alpha1.Synchronized
	})
	if got := s.calls("signCertificateSigningRequest"); got != 0 {
		t.Errorf("the other agent asked for %d certificates", got)
	}
	// Each agent logs this when it begins to act with a certificate that it did not get itself.
	if got := strings.Count(s.log.String(), "client certificate in use"); got != 1 {
		t.Errorf("%d agents took the certificate over, want one", got)
	}
}
