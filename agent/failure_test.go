package agent_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestAWrongTokenIsToldReadablyAndANewOneConnectsAtOnce(t *testing.T) {
	s := agenttest.New(t)
	s.Env["APP_MINIMAL_COMPASS_SYNC_TIME"] = "1h" // whatever comes sooner comes because of the new token
	s.Configure(agenttest.Set("TOKEN", "wrong-"+agenttest.CanaryText))
	s.Start()
	c := s.InState(compassv1alpha1.ConnectionFailed)
	for _, want := range []string{"Failed to retrieve certificate: x-request-id: ", " failed: ", "token", s.Configuration.String()} {
		if !strings.Contains(c.Status.ConnectionStatus.Error, want) {
			t.Errorf("error %q does not hold %q", c.Status.ConnectionStatus.Error, want)
		}
	}
	if stalled := meta.FindStatusCondition(c.Status.Conditions, "Stalled"); stalled == nil || stalled.Reason != "TokenNeeded" {
		t.Errorf("condition Stalled: %+v", stalled)
	}
	if s.Secret(s.Credential) != nil || s.Secret(s.Authorities) != nil {
		t.Error("something was written although pairing failed")
	}
	failed := c.Status
	s.Configure()
	c = s.InState(compassv1alpha1.Synchronized)
	if c.Status.ConnectionStatus.Error != "" || c.Status.ConsecutiveFailures != 0 || c.Status.TokenFingerprint == failed.TokenFingerprint || meta.FindStatusCondition(c.Status.Conditions, "Stalled") != nil {
		t.Errorf("status %+v", c.Status)
	}
	var events eventsv1.EventList
	s.Eventually("events about the failure and what followed", func() bool {
		seen := map[string]string{}
		if err := s.Client.List(t.Context(), &events); err != nil {
			return false
		}
		for _, e := range events.Items {
			if e.Regarding.UID == c.UID {
				seen[e.Reason] = e.Type
			}
		}
		return seen["ConnectionFailed"] == corev1.EventTypeWarning && seen["Stalled"] == corev1.EventTypeWarning &&
			seen["Paired"] == corev1.EventTypeNormal && seen["Synchronized"] == corev1.EventTypeNormal
	})
}

func TestACompassThatCannotBeReachedOrTrustedIsToldReadably(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unreachable := "https://" + closed.Addr().String() + "/connector/graphql"
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		edit func(map[string]string)
		env  map[string]string
		says []string
	}{
		"nobody listens":            {edit: agenttest.Set("CONNECTOR_URL", unreachable), says: []string{"Unreachable", "CONNECTOR_URL"}},
		"no https URL":              {edit: agenttest.Set("CONNECTOR_URL", "http://example.com"), says: []string{"https"}},
		"no URL at all":             {edit: agenttest.Set("CONNECTOR_URL", ""), says: []string{"Failed to retrieve certificate: Failed to establish connection. Connector URL is empty"}},
		"an authority nobody knows": {env: map[string]string{"APP_COMPASS_CA_FILE": ""}, says: []string{"ServerUntrusted", "APP_COMPASS_CA_FILE"}},
		"no token in the Secret":    {edit: agenttest.Set("TOKEN", ""), says: []string{"one-time token", "TOKEN"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := agenttest.New(t)
			for key, value := range test.env {
				s.Env[key] = value
			}
			edits := []func(map[string]string){}
			if test.edit != nil {
				edits = append(edits, test.edit)
			}
			s.Configure(edits...)
			s.Start()
			c := s.InState(compassv1alpha1.ConnectionFailed)
			for _, want := range test.says {
				if !strings.Contains(c.Status.ConnectionStatus.Error, want) {
					t.Errorf("error %q does not hold %q", c.Status.ConnectionStatus.Error, want)
				}
			}
			if ready := meta.FindStatusCondition(c.Status.Conditions, "Ready"); ready == nil || ready.Status != metav1.ConditionFalse || ready.Message == "" {
				t.Errorf("condition Ready: %+v", ready)
			}
			// Set right, it connects.
			s.Configure()
			if test.env == nil {
				s.InState(compassv1alpha1.Synchronized)
			}
		})
	}
}

func TestAnUntrustedServerDoesNotCostTheToken(t *testing.T) {
	s := agenttest.New(t)
	file := s.Env["APP_COMPASS_CA_FILE"]
	s.Env["APP_COMPASS_CA_FILE"] = ""
	s.Configure()
	r := s.Start()
	s.InState(compassv1alpha1.ConnectionFailed)
	r.Stop()
	s.Env["APP_COMPASS_CA_FILE"] = file
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
}

func TestSkippedVerificationIsLoud(t *testing.T) {
	s := agenttest.New(t)
	s.Env["APP_COMPASS_CA_FILE"], s.Env["APP_SKIP_COMPASS_TLS_VERIFY"] = "", "true"
	s.Configure()
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
	if !strings.Contains(s.Log.String(), "NOT verified") {
		t.Error("the log does not warn")
	}
}

func TestAMissingConfigurationSecretIsWaitedFor(t *testing.T) {
	s := agenttest.New(t)
	s.Start()
	c := s.InState(compassv1alpha1.ConnectionFailed)
	stalled := meta.FindStatusCondition(c.Status.Conditions, "Stalled")
	if stalled == nil || stalled.Reason != "ConfigurationInvalid" || !strings.Contains(stalled.Message, s.Configuration.String()) || !strings.Contains(stalled.Message, "CONNECTOR_URL") {
		t.Errorf("condition Stalled: %+v", stalled)
	}
	if calls := s.Compass.Admin().Counters().Requests.Received; calls != 0 {
		t.Errorf("Compass got %d requests", calls)
	}
	s.Configure()
	s.InState(compassv1alpha1.Synchronized)
	s.Configure(agenttest.Set("RUNTIME_ID", ""))
	s.InState(compassv1alpha1.Synchronized)
	s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	c = s.InState(compassv1alpha1.SynchronizationFailed)
	if got := c.Status.SynchronizationStatus.Error; !strings.HasPrefix(got, "Failed to read Runtime config: ") || !strings.Contains(got, "RUNTIME_ID") {
		t.Errorf("error %q", got)
	}
	s.Configure()
	s.InState(compassv1alpha1.Synchronized)
}

func TestAPairingThatBrokeOffGoesOnWithTheSecondToken(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	clear := s.Fault(compass.Fault{Kind: compass.FaultDatabaseDown, Operation: "signCertificateSigningRequest"})
	r := s.Start()
	s.InState(compassv1alpha1.ConnectionFailed)
	pending := s.Secret(s.Pending())
	if pending == nil || len(pending.Data["key"]) == 0 || len(pending.Data["token"]) == 0 {
		t.Fatal("key and second token were not stored before the second token was spent")
	}
	r.Stop()
	clear()
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
	if got := s.Calls("configuration"); got != 1 {
		t.Errorf("%d calls of configuration: the first token was sent again", got)
	}
	if s.Secret(s.Pending()) != nil {
		t.Error("the pending Secret is still there")
	}
}

func TestDirectorFailuresAreToldAndGoneThroughWithTheOldState(t *testing.T) {
	for name, test := range map[string]struct {
		fault compass.Fault
		state compassv1alpha1.ConnectionState
		says  string
	}{
		"Director is down":     {compass.Fault{Kind: compass.FaultDirectorDown, Operation: "applicationsForRuntime"}, compassv1alpha1.SynchronizationFailed, "Failed to fetch configuration: "},
		"no data":              {compass.Fault{Kind: compass.FaultNullData, Operation: "applicationsForRuntime"}, compassv1alpha1.SynchronizationFailed, "Failed to fetch configuration: "},
		"an error":             {compass.Fault{Kind: compass.FaultGraphQLError, Operation: "applicationsForRuntime", Error: "InternalError", Code: 10, Message: "the words of Compass"}, compassv1alpha1.SynchronizationFailed, "the words of Compass"},
		"labels cannot be set": {compass.Fault{Kind: compass.FaultGraphQLError, Operation: "setRuntimeLabel", Error: "InternalError", Code: 10}, compassv1alpha1.MetadataUpdateFailed, "Failed to reconcile Runtime labels with proper URLs: label runtime_consoleUrl: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := agenttest.New(t)
			s.Configure()
			clear := s.Fault(test.fault)
			s.Start()
			c := s.InState(test.state)
			if got := c.Status.SynchronizationStatus.Error; !strings.Contains(got, test.says) {
				t.Errorf("error %q, want %q in it", got, test.says)
			}
			if c.Status.ConsecutiveFailures == 0 || c.Status.NextAttempt == nil || !meta.IsStatusConditionTrue(c.Status.Conditions, "Reconciling") {
				t.Errorf("status %+v", c.Status)
			}
			if s.Secret(s.Credential) == nil {
				t.Error("the certificate is gone")
			}
			clear()
			s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
			c = s.InState(compassv1alpha1.Synchronized)
			if c.Status.ConsecutiveFailures != 0 || c.Status.SynchronizationStatus.Error != "" {
				t.Errorf("status %+v", c.Status)
			}
		})
	}
}

func TestARequestForASyncThatFailsIsNoLoop(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Env["APP_MINIMAL_COMPASS_SYNC_TIME"] = "1h"
	s.Start()
	before := s.InState(compassv1alpha1.Synchronized)
	s.Compass.Admin().ResetCounters()
	s.Fault(compass.Fault{Kind: compass.FaultStatus, Status: 503, Operation: "applicationsForRuntime"})
	for range 2 {
		s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
		before = s.Until("the end of the sync that was asked for", func(c *compassv1alpha1.CompassConnection) bool {
			return !c.Spec.ResyncNow && c.Status.ObservedGeneration == c.Generation && c.Generation > before.Generation
		})
		if before.Status.State != compassv1alpha1.SynchronizationFailed {
			t.Errorf("state %s", before.Status.State)
		}
	}
	// Other events do not make an attempt sooner: after this one was handled there were still two.
	s.Configure(agenttest.Set("TENANT", agenttest.Tenant))
	if err := s.Client.Delete(t.Context(), s.Secret(s.Authorities)); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the CA Secret to be back", func() bool { return s.Secret(s.Authorities) != nil })
	if got := s.Calls("applicationsForRuntime"); got != 2 {
		t.Errorf("%d queries for two requests", got)
	}
	if wait := time.Until(before.Status.NextAttempt.Time); wait < 30*time.Minute {
		t.Errorf("the next attempt is due in %s, sooner than the floor", wait)
	}
}

func TestRetryAfterIsKept(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Fault(compass.Fault{Kind: compass.FaultRateLimited, RetryAfter: "1800", Operation: "applicationsForRuntime"})
	s.Start()
	c := s.InState(compassv1alpha1.SynchronizationFailed)
	if wait := time.Until(c.Status.NextAttempt.Time); wait < 25*time.Minute || wait > 35*time.Minute {
		t.Errorf("the next attempt is due in %s, asked for was half an hour", wait)
	}
}

func TestAnotherCompassConnectionIsIgnored(t *testing.T) {
	s := agenttest.New(t)
	s.Configure()
	s.Start()
	s.InState(compassv1alpha1.Synchronized)
	s.Compass.Admin().ResetCounters()
	other := &compassv1alpha1.CompassConnection{ObjectMeta: metav1.ObjectMeta{Name: "another"}}
	if err := s.Client.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	s.Eventually("a line in the log", func() bool { return strings.Contains(s.Log.String(), "this CompassConnection is ignored") })
	if calls := s.Compass.Admin().Counters().Requests.Received; calls != 0 {
		t.Errorf("Compass got %d requests", calls)
	}
}

func TestTheAgentRefusesToStartWithOneClearLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir() + "/empty.pem"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		key, value, says string
	}{
		"a port that is taken":             {"APP_HEALTH_PORT", port, "APP_HEALTH_PORT"},
		"metrics port that is taken":       {"APP_METRICS_PORT", port, "APP_METRICS_PORT"},
		"status page's port that is taken": {"APP_STATUS_PAGE_ADDRESS", "127.0.0.1:" + port, "APP_STATUS_PAGE_ADDRESS"},
		"a CA file that is not":            {"APP_COMPASS_CA_FILE", "/nonexistent/ca.pem", "APP_COMPASS_CA_FILE"},
		"a CA file without any":            {"APP_COMPASS_CA_FILE", empty, "APP_COMPASS_CA_FILE"},
		"a kubeconfig that is not":         {"KUBECONFIG", "", "environment variable KUBECONFIG: stat /nonexistent/kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", "/nonexistent/kubeconfig")
			env := map[string]string{"APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "127.0.0.1:0", test.key: test.value}
			err := agenttest.EndOf(t, env)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(strings.TrimSpace(err.Error()), "\n") {
				t.Errorf("%v; want %s in one line", err, test.says)
			}
		})
	}
}
