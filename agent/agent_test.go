package agent_test

import (
	"maps"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
)

func TestTheAgentPairsAndSyncs(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	r := s.Start()
	c := s.InState(compassv1alpha1.Synchronized)

	if want := (compassv1alpha1.ManagementInfo{ConnectorURL: s.Compass.MTLSConnectorURL(), DirectorURL: s.Compass.DirectorURL()}); c.Spec.ManagementInfo != want {
		t.Errorf("managementInfo %+v, want %+v", c.Spec.ManagementInfo, want)
	}
	for _, kind := range []string{"Ready", "Connected", "CertificateReady", "ApplicationsSynced"} {
		if !meta.IsStatusConditionTrue(c.Status.Conditions, kind) {
			t.Errorf("condition %s: %+v", kind, meta.FindStatusCondition(c.Status.Conditions, kind))
		}
	}
	for _, kind := range []string{"Reconciling", "Stalled", "PruneBlocked"} {
		if found := meta.FindStatusCondition(c.Status.Conditions, kind); found != nil {
			t.Errorf("condition %+v stands although it does not hold", found)
		}
	}
	if got := c.Status.Applications; got == nil || *got != (compassv1alpha1.ApplicationCounts{Total: 1, Synced: 1, Ready: 1}) {
		t.Errorf("applications %+v", got)
	}
	if c.Status.ObservedGeneration != c.Generation || c.Status.NextAttempt == nil || c.Status.TokenFingerprint == "" || c.Status.ConnectionStatus.Error != "" {
		t.Errorf("status %+v", c.Status)
	}
	certificate := c.Status.ConnectionStatus.CertificateStatus
	if certificate.NotAfter.IsZero() || certificate.RenewAt == nil || !certificate.RenewAt.Before(&certificate.NotAfter) || certificate.Acquired.IsZero() || certificate.Fingerprint == "" {
		t.Errorf("certificate %+v", certificate)
	}
	secret := s.Secret(s.Credential)
	if got := slices.Sorted(maps.Keys(secret.Data)); !slices.Equal(got, []string{"ca.crt", "crt", "crtChain", "key", "tls.crt", "tls.key"}) {
		t.Errorf("keys of the client Secret: %v", got)
	}
	ca, err := s.Compass.Admin().ClientCA()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Secret(s.Authorities); string(got.Data["cacert"]) != string(ca) || len(got.Data) != 1 {
		t.Errorf("the CA Secret holds %v", got.Data)
	}
	if s.Secret(types.NamespacedName{Namespace: s.Credential.Namespace, Name: s.Credential.Name + "-pending"}) != nil {
		t.Error("the pending Secret is still there")
	}
	var app applicationv1alpha1.Application
	if err := s.Client.Get(t.Context(), types.NamespacedName{Name: "mp-shop"}, &app); err != nil {
		t.Error(err)
	}
	if m := app.Spec.CompassMetadata; m == nil || m.ProviderName != "SAP" || !maps.Equal(m.Labels, map[string]string{"applicationType": "shop"}) {
		t.Errorf("metadata %+v", m)
	}
	if v := app.Spec.Services[0].Entries[0].Version; v == nil || v.Value != "1.0.0" {
		t.Errorf("version of the API: %+v", v)
	}
	runtime, err := s.Compass.Admin().RuntimeStatus(agenttest.RuntimeID)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.Labels["runtime_eventServiceUrl"] != "https://gateway.kyma.local" || runtime.Labels["runtime_consoleUrl"] != "https://console.kyma.local" {
		t.Errorf("labels of the runtime: %v", runtime.Labels)
	}
	if configuration, sign, labels := s.Calls("configuration"), s.Calls("signCertificateSigningRequest"), s.Calls("setRuntimeLabel"); configuration != 1 || sign != 1 || labels != 2 {
		t.Errorf("%d calls of configuration, %d of sign, %d of setRuntimeLabel", configuration, sign, labels)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := s.Fetch(r.Health + path); code != 200 || body != "ok" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	// A second sync finds everything in place: one query, nothing written but the status.
	s.Compass.Admin().ResetCounters()
	version := app.ResourceVersion
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	s.Until("the end of the sync that was asked for", func(now *compassv1alpha1.CompassConnection) bool {
		return !now.Spec.ResyncNow && now.Status.ObservedGeneration == now.Generation
	})
	if all := s.Compass.Admin().Counters().Requests.Received; all != 1 {
		t.Errorf("a quiet sync takes %d requests", all)
	}
	if err := s.Client.Get(t.Context(), types.NamespacedName{Name: "mp-shop"}, &app); err != nil || app.ResourceVersion != version {
		t.Errorf("a quiet sync writes the Application: %v", err)
	}
}
