package status_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/status"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
)

var (
	update = flag.Bool("update", false, "write the golden files anew")
	cfg    rest.Config
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func TestMain(m *testing.M) {
	flag.Parse()
	kubetest.Run(m, &cfg)
}

// at is a time relative to now.
func at(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(d)) }

func condition(kind string, value metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: value, Reason: reason, Message: message, LastTransitionTime: at(-time.Hour)}
}

func newClient(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(compassv1alpha1.AddToScheme(scheme), appv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// put creates an object with its status, and deletes it when the test ends.
func put[T client.Object](t *testing.T, c client.Client, object T, status func(T)) T {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), object); err != nil {
			t.Error(err)
		}
	})
	status(object)
	if err := c.Status().Update(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// putConnection creates a connection with which all is well, but for what change changes.
func putConnection(t *testing.T, c client.Client, change func(*compassv1alpha1.CompassConnectionStatus)) *compassv1alpha1.CompassConnection {
	t.Helper()
	connection := &compassv1alpha1.CompassConnection{
		ObjectMeta: metav1.ObjectMeta{Name: compassv1alpha1.ConnectionName},
		Spec: compassv1alpha1.CompassConnectionSpec{ManagementInfo: compassv1alpha1.ManagementInfo{
			ConnectorURL: "https://compass.example.com/connector/graphql", DirectorURL: "https://compass.example.com/director/graphql",
		}},
	}
	renewAt, next := at(20*24*time.Hour), at(time.Minute)
	return put(t, c, connection, func(connection *compassv1alpha1.CompassConnection) {
		connection.Status = compassv1alpha1.CompassConnectionStatus{
			State: compassv1alpha1.Synchronized,
			ConnectionStatus: &compassv1alpha1.ConnectionStatus{
				Established: at(-10 * 24 * time.Hour),
				CertificateStatus: compassv1alpha1.CertificateStatus{
					NotAfter: at(80 * 24 * time.Hour), RenewAt: &renewAt, Subject: "CN=1ae04041,O=Org", Issuer: "CN=Connector CA", Fingerprint: "ab12",
				},
			},
			SynchronizationStatus: &compassv1alpha1.SynchronizationStatus{LastSuccessfulApplication: at(-30 * time.Second)},
			Applications:          &compassv1alpha1.ApplicationCounts{Total: 2, Synced: 2},
			NextAttempt:           &next,
			Conditions:            []metav1.Condition{condition(compassv1alpha1.ConditionReady, metav1.ConditionTrue, "Synchronized", "all is in place")},
		}
		change(&connection.Status)
	})
}

// putApplications creates a shop with two services and a system without any.
func putApplications(t *testing.T, c client.Client, routes metav1.Condition) {
	t.Helper()
	shop := &appv1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec: appv1alpha1.ApplicationSpec{
			CompassMetadata: &appv1alpha1.CompassMetadata{ApplicationID: "5b0d0a2e", Authentication: appv1alpha1.Authentication{ClientIDs: []string{"a"}}},
			Services: []appv1alpha1.Service{
				{ID: "1", Name: "orders-9f", DisplayName: "Orders", Entries: []appv1alpha1.Entry{
					{ID: "2", Name: "Orders API", Type: appv1alpha1.EntryTypeAPI, TargetURL: "https://internal.example.com/orders", CentralGatewayURL: "http://gateway:8080/shop/orders/orders-api"},
					{ID: "3", Name: "order.created", Type: appv1alpha1.EntryTypeEvents},
				}},
				{ID: "4", Name: "terminal-1c", DisplayName: "Bell\a\x1b[31m", Entries: []appv1alpha1.Entry{}},
			},
		},
	}
	put(t, c, shop, func(a *appv1alpha1.Application) {
		a.Status.Conditions = []metav1.Condition{
			condition(appv1alpha1.ConditionSynchronized, metav1.ConditionTrue, "Synchronized", ""),
			condition(appv1alpha1.ConditionCredentialsReady, metav1.ConditionTrue, "Stored", ""),
			routes,
		}
	})
	put(t, c, &appv1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "byhand"}}, func(*appv1alpha1.Application) {})
}

// run runs the command at the time now and returns what it wrote and its exit code.
func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	path, err := kubetest.Kubeconfig(&cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	o := status.NewOptions(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
	o.Clock = clocktesting.NewFakePassiveClock(now)
	watch := leaktest.Of(t)
	watch.Cluster(t, &cfg)
	err = command(o, append([]string{"--kubeconfig", path}, args...)...).ExecuteContext(t.Context())
	watch.Told("output of appconn status", out.String()+errOut.String())
	watch.Told("error of appconn status", fmt.Sprint(err))
	return out.String(), errOut.String(), err
}

func command(o *status.Options, args ...string) *cobra.Command {
	cmd := o.Command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true // as the root command does
	cmd.SetArgs(args)
	return cmd
}

// exitCode of an error, as the program takes it.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var told *status.Error
	if !errors.As(err, &told) {
		t.Fatalf("error %v of type %T, want a *status.Error", err, err)
	}
	return told.ExitCode()
}

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
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

func TestAHealthyConnectionInEachFormat(t *testing.T) {
	c := newClient(t)
	putConnection(t, c, func(*compassv1alpha1.CompassConnectionStatus) {})
	putApplications(t, c, condition(appv1alpha1.ConditionRoutesReady, metav1.ConditionTrue, "Ready", ""))
	for _, format := range []string{"table", "wide", "json", "yaml"} {
		t.Run(format, func(t *testing.T) {
			out, errOut, err := run(t, "-o", format)
			if code := exitCode(t, err); code != 0 || errOut != "" {
				t.Errorf("exit code %d (%v), stderr %q", code, err, errOut)
			}
			golden(t, "healthy."+format, out)
		})
	}
}

func TestWhatIsNotHealthySaysWhy(t *testing.T) {
	routes := condition(appv1alpha1.ConditionRoutesReady, metav1.ConditionTrue, "Ready", "")
	badRoutes := condition(appv1alpha1.ConditionRoutesReady, metav1.ConditionFalse, "InvalidTarget", "service orders: no target URL")
	for _, tc := range []struct {
		name   string
		change func(*compassv1alpha1.CompassConnectionStatus)
		routes metav1.Condition
		code   int
		why    string
	}{
		{"not ready", func(s *compassv1alpha1.CompassConnectionStatus) {
			s.State = compassv1alpha1.SynchronizationFailed
			s.SynchronizationStatus.Error = "Director: 503"
			s.Conditions = []metav1.Condition{condition(compassv1alpha1.ConditionReady, metav1.ConditionFalse, "DirectorUnreachable", "Director answers 503")}
		}, routes, 1, "not ready: Director answers 503"},
		{"not known yet", func(s *compassv1alpha1.CompassConnectionStatus) {
			s.Conditions = []metav1.Condition{condition(compassv1alpha1.ConditionReady, metav1.ConditionUnknown, "Pairing", "")}
		}, routes, 2, "the agent does not know yet: Pairing"},
		{"state of an agent without conditions", func(s *compassv1alpha1.CompassConnectionStatus) {
			s.State, s.Conditions = compassv1alpha1.ConnectionFailed, nil
		}, routes, 1, "the connection is in state ConnectionFailed"},
		{"good state of an agent without conditions", func(s *compassv1alpha1.CompassConnectionStatus) { s.Conditions = nil }, routes, 0, ""},
		{"no status yet", func(s *compassv1alpha1.CompassConnectionStatus) {
			*s = compassv1alpha1.CompassConnectionStatus{ConnectionStatus: s.ConnectionStatus}
		}, routes, 2, "the agent has not written a status yet"},
		{"certificate expired", func(s *compassv1alpha1.CompassConnectionStatus) {
			s.ConnectionStatus.CertificateStatus.NotAfter = at(0)
		}, routes, 1, "the client certificate expired at 2026-03-01T12:00:00Z"},
		{"agent dead", func(s *compassv1alpha1.CompassConnectionStatus) {
			next := at(-6 * time.Minute)
			s.NextAttempt = &next
		}, routes, 1, "the agent meant to call Compass at 2026-03-01T11:54:00Z and has not: it does not run"},
		{"agent a little late", func(s *compassv1alpha1.CompassConnectionStatus) {
			next := at(-4 * time.Minute)
			s.NextAttempt = &next
		}, routes, 0, ""},
		{"system failed", func(s *compassv1alpha1.CompassConnectionStatus) {
			s.Applications = &compassv1alpha1.ApplicationCounts{Total: 3, Synced: 2, Failed: 1}
			s.FailedApplications = []compassv1alpha1.FailedApplication{{ID: "x", Name: "crm", Reason: "InvalidName", Message: "the name is too long"}}
		}, routes, 1, "1 of 3 systems could not be brought into the cluster"},
		{"routes of an Application", func(*compassv1alpha1.CompassConnectionStatus) {}, badRoutes, 1, "Application shop: RoutesReady is False: service orders: no target URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t)
			putConnection(t, c, tc.change)
			putApplications(t, c, tc.routes)
			out, _, err := run(t)
			why := ""
			if err != nil {
				why = err.Error()
			}
			if code := exitCode(t, err); code != tc.code || why != tc.why {
				t.Errorf("exit code %d because %q, want %d because %q", code, why, tc.code, tc.why)
			}
			golden(t, strings.ReplaceAll(tc.name, " ", "-")+".table", out)
		})
	}
}

func TestWithoutAConnectionTheHealthIsUnknown(t *testing.T) {
	out, _, err := run(t, "-o", "json")
	if code := exitCode(t, err); code != 2 {
		t.Errorf("exit code %d (%v), want 2", code, err)
	}
	golden(t, "none.json", out)
	out, _, _ = run(t)
	golden(t, "none.table", out)
}

func TestAWatchPrintsAChange(t *testing.T) {
	c := newClient(t)
	connection := putConnection(t, c, func(*compassv1alpha1.CompassConnectionStatus) {})
	path, err := kubetest.Kubeconfig(&cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{seen: make(chan string, 100), ended: make(chan error, 1)}
	o := status.NewOptions(genericiooptions.IOStreams{In: strings.NewReader(""), Out: out, ErrOut: out})
	o.Clock = clocktesting.NewFakePassiveClock(now)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { out.ended <- command(o, "--kubeconfig", path, "--watch").ExecuteContext(ctx) }()

	out.wait(t, "HEALTH        Healthy")
	out.wait(t, "No Applications.")
	before := connection.DeepCopy()
	meta.SetStatusCondition(&connection.Status.Conditions, condition(compassv1alpha1.ConditionReady, metav1.ConditionFalse, "Revoked", "the certificate was revoked"))
	if err := c.Status().Patch(t.Context(), connection, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "HEALTH        Unhealthy: not ready: the certificate was revoked")
	put(t, c, &appv1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, func(*appv1alpha1.Application) {})
	out.wait(t, "new           <none>    0      0        <none>   <none>        <none>")
	stop()
	select {
	case err := <-out.ended:
		if code := exitCode(t, err); code != 1 {
			t.Errorf("exit code %d (%v), want that of the last report, 1", code, err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the watch did not end with its context")
	}
}

// lines is a writer whose lines can be waited for.
type lines struct {
	rest  string
	seen  chan string
	ended chan error
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest += string(p)
	for {
		line, rest, whole := strings.Cut(l.rest, "\n")
		if !whole {
			return len(p), nil
		}
		l.rest = rest
		l.seen <- line
	}
}

func (l *lines) wait(t *testing.T, want string) {
	t.Helper()
	var seen []string
	timeout := time.After(time.Minute)
	for {
		select {
		case line := <-l.seen:
			if strings.TrimRight(line, " ") == want {
				return
			}
			seen = append(seen, line)
		case err := <-l.ended:
			t.Fatalf("ended with %v before a line %q; seen:\n%s", err, want, strings.Join(seen, "\n"))
		case <-timeout:
			t.Fatalf("no line %q within a minute; seen:\n%s", want, strings.Join(seen, "\n"))
		}
	}
}
