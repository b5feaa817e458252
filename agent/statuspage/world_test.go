package statuspage_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/statuspage"
	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

var (
	update = flag.Bool("update", false, "write the golden files anew")
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// controller is whose events are shown.
const controller = "compass-connection-controller"

// world is what the agent's caches and the API server hold. It is a client.Reader.
type world struct {
	connection   *compassv1alpha1.CompassConnection
	applications []appv1alpha1.Application
	events       []eventsv1.Event
	// unread is what reading the caches, or the events, gives in place of an answer.
	unread, noEvents error
	standby          bool
}

func (w *world) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	if w.unread != nil {
		return w.unread
	}
	if w.connection == nil || w.connection.Name != key.Name {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "compassconnections"}, key.Name)
	}
	w.connection.DeepCopyInto(object.(*compassv1alpha1.CompassConnection))
	return nil
}

func (w *world) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	switch list := list.(type) {
	case *appv1alpha1.ApplicationList:
		if o.Limit != 0 {
			return fmt.Errorf("a limit of %d: caches have no pages", o.Limit)
		}
		list.Items = w.applications
		return w.unread
	case *eventsv1.EventList:
		if w.noEvents != nil {
			return w.noEvents
		}
		if o.Namespace != "default" || o.FieldSelector.String() != "reportingController="+controller || o.Limit < 1 || o.Limit > 500 {
			return fmt.Errorf("events of namespace %q with %q, %d of them", o.Namespace, o.FieldSelector, o.Limit)
		}
		from, _ := strconv.Atoi(o.Continue) // empty at first
		to := min(len(w.events), from+int(o.Limit))
		if list.Items = w.events[from:to]; to < len(w.events) {
			list.Continue = strconv.Itoa(to)
		}
		return nil
	}
	return fmt.Errorf("a list of %T", list)
}

// handler is the page of the world at the time now.
func (w *world) handler(t *testing.T) http.Handler {
	t.Helper()
	return statuspage.New(statuspage.Options{
		Objects: w, Events: w, Controller: controller, Acts: func() bool { return !w.standby }, Host: "agent.example.com", Version: "v1.2.3",
		Clock: clocktesting.NewFakePassiveClock(now), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
}

// get asks for a path of the page.
func (w *world) get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Host = "127.0.0.1:8091"
	recorder := httptest.NewRecorder()
	w.handler(t).ServeHTTP(recorder, r)
	return recorder
}

func at(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(d)) }

func condition(kind string, value metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: value, Reason: reason, Message: message, LastTransitionTime: at(-time.Hour)}
}

// hostile is a text that would do things if it were not taken for a text.
const hostile = `<script>alert("1")</script><img src=x onerror=alert(2)>'"&` + "\u202e"

const day = 24 * time.Hour

// newWorld is a cluster in which one system of three failed, one has no credentials, and one is named by an attacker.
func newWorld() *world {
	paired := compassv1alpha1.ConnectionStatus{
		Established: at(-70 * day), Renewed: at(-10 * day), LastSync: at(-30 * time.Second), LastSuccess: at(-30 * time.Second),
		CertificateStatus: compassv1alpha1.CertificateStatus{
			Acquired: at(-10 * day), NotBefore: at(-10*day - time.Hour), NotAfter: at(80 * day), RenewAt: ptr.To(at(53 * day)),
			Subject: "CN=1ae04041-17e5-478f-91f8-3a2ddc7700de,O=Org,C=DE", Issuer: "CN=Connector CA",
			Fingerprint: "5d1c0a1b7e35a2b8a7c3f6b1c9e0d4f2a6b8c1d3e5f708192a3b4c5d6e7f8091",
		},
	}
	connection := &compassv1alpha1.CompassConnection{
		ObjectMeta: metav1.ObjectMeta{Name: compassv1alpha1.ConnectionName},
		Spec: compassv1alpha1.CompassConnectionSpec{ManagementInfo: compassv1alpha1.ManagementInfo{
			ConnectorURL: "https://compass.example.com/connector/graphql", DirectorURL: "https://compass.example.com/director/graphql",
		}},
		Status: compassv1alpha1.CompassConnectionStatus{
			State: compassv1alpha1.Synchronized, ConnectionStatus: &paired,
			SynchronizationStatus: &compassv1alpha1.SynchronizationStatus{LastSuccessfulApplication: at(-30 * time.Second)},
			Applications:          &compassv1alpha1.ApplicationCounts{Total: 4, Synced: 3, Ready: 2, Failed: 1},
			FailedApplications:    []compassv1alpha1.FailedApplication{{ID: "0c6e9d1a-6f43-4a53-9d0e-2c8f6a3b7e05", Name: "Archive " + hostile, Reason: "NameTaken", Message: "another system has this name already: " + hostile}},
			NextAttempt:           ptr.To(at(150 * time.Second)),
			Conditions: []metav1.Condition{
				condition(compassv1alpha1.ConditionReady, metav1.ConditionFalse, "ApplicationsFailed", "1 of 4 systems could not be brought into place"),
				condition(compassv1alpha1.ConditionConnected, metav1.ConditionTrue, "Connected", ""),
				condition(compassv1alpha1.ConditionCertificateReady, metav1.ConditionTrue, "Valid", ""),
				condition(compassv1alpha1.ConditionApplicationsSynced, metav1.ConditionFalse, "ApplicationsFailed", "see status.failedApplications"),
				condition(compassv1alpha1.ConditionReconciling, metav1.ConditionTrue, "Retrying", "the next attempt is at 12:02:30"),
			},
		},
	}
	good := func(kind string) metav1.Condition { return condition(kind, metav1.ConditionTrue, "Ready", "") }
	api := appv1alpha1.Entry{Type: appv1alpha1.EntryTypeAPI, Name: "Orders API", CentralGatewayURL: "http://gateway:8082/mp-shop/orders/orders-api", TargetURL: "https://internal.example.com"}
	event := appv1alpha1.Entry{Type: appv1alpha1.EntryTypeEvents, Name: "order.created"}
	application := func(name string, conditions ...metav1.Condition) appv1alpha1.Application {
		return appv1alpha1.Application{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       appv1alpha1.ApplicationSpec{Services: []appv1alpha1.Service{{Name: "orders", DisplayName: "Orders", Entries: []appv1alpha1.Entry{api, event}}}},
			Status:     appv1alpha1.ApplicationStatus{Conditions: conditions},
		}
	}
	told := func(name, kind, reason, note string, ago time.Duration) eventsv1.Event {
		return eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, EventTime: metav1.NewMicroTime(now.Add(-ago)), Type: kind, Reason: reason, Note: note,
			Regarding: corev1.ObjectReference{Kind: "CompassConnection", Name: compassv1alpha1.ConnectionName},
		}
	}
	repeated := told("c", corev1.EventTypeWarning, "RenewalFailed", "the Connector answers 503", time.Hour)
	repeated.Series = &eventsv1.EventSeries{Count: 3, LastObservedTime: metav1.NewMicroTime(now.Add(-5 * time.Minute))}
	return &world{
		connection: connection,
		applications: []appv1alpha1.Application{
			application("mp-shop", good(appv1alpha1.ConditionSynchronized), good(appv1alpha1.ConditionCredentialsReady), good(appv1alpha1.ConditionRoutesReady)),
			application("mp-crm", good(appv1alpha1.ConditionSynchronized),
				condition(appv1alpha1.ConditionCredentialsReady, metav1.ConditionFalse, "Failed", "bundle Contacts: no credentials came: "+hostile), good(appv1alpha1.ConditionRoutesReady)),
			application("mp-" + hostile),
			application("warehouse", good(appv1alpha1.ConditionRoutesReady)),
		},
		events: []eventsv1.Event{
			told("a", corev1.EventTypeNormal, "Paired", "paired by a one-time token", 50*time.Minute),
			told("b", corev1.EventTypeWarning, "ApplicationFailed", "Archive: "+hostile, 30*time.Second),
			repeated,
		},
	}
}

// many is a world with so many Applications, of which every tenth failed.
func many(n int) *world {
	w := newWorld()
	w.applications = nil
	for i := range n {
		status := metav1.ConditionTrue
		if i%10 == 0 {
			status = metav1.ConditionFalse
		}
		w.applications = append(w.applications, appv1alpha1.Application{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("mp-system-%05d", i)},
			Status:     appv1alpha1.ApplicationStatus{Conditions: []metav1.Condition{condition(appv1alpha1.ConditionCredentialsReady, status, "Reason", "")}},
		})
	}
	return w
}

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// header gives those that the page sets, by one line each.
func header(h http.Header) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		all = append(all, name+": "+h.Get(name))
	}
	return all
}
