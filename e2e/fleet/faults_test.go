package fleet_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

// fleetSize is how many Applications TestFaults has: five full pages.
const fleetSize = 500

// level is a place in a snapshot of the fleet at which Compass may fail.
type level struct {
	name string
	// operation and skip choose the request by its root field; query is the operation's name in messages.
	operation string
	skip      int
	query     string
	// field is the list that the request pages.
	field string
}

// levels are one request of each kind that a snapshot of the fleet takes. It reads five pages of applications, the pages
// of their ids, and of the one wide Application's lists the second pages, and then both again.
var levels = []level{
	{"applications", "applicationsForRuntime", 2, "ApplicationsForRuntime", "applicationsForRuntime"},
	{"applications read again", "applicationsForRuntime", 6, "ApplicationIDs", "applicationsForRuntime"},
	{"further bundles", "application", 0, "BundlesOfApplication", "bundles"},
	{"further APIs", "application", 3, "APIsOfBundle", "apiDefinitions"},
	{"further events", "application", 6, "EventsOfBundle", "eventDefinitions"},
}

// nested are the lists whose first pages come with a page of applications.
var nested = []level{
	{"bundles within a page", "applicationsForRuntime", 3, "ApplicationsForRuntime", "bundles"},
	{"APIs within a page", "applicationsForRuntime", 3, "ApplicationsForRuntime", "apiDefinitions"},
	{"events within a page", "applicationsForRuntime", 3, "ApplicationsForRuntime", "eventDefinitions"},
}

// faultRow is one fault at one level, and what the status has to say of it.
type faultRow struct {
	kind   compass.FaultKind
	level  string
	faults []compass.Fault
	// syncs is how many are asked for while the faults stand; 0 means one.
	syncs int
	// renew asks for a new certificate instead of a sync.
	renew bool
	state compassv1alpha1.ConnectionState
	// says has to be told by the CompassConnection or an Application, each of them; empty: nothing failed.
	says []string
	// impatient rows are for an agent that does not wait long for an answer.
	impatient bool
}

// wholeAnswers are the faults of a whole answer, by what the status says of them. Each of them gets a row for each level.
var wholeAnswers = map[compass.FaultKind]struct {
	fault compass.Fault
	says  string
}{
	compass.FaultStatus:         {compass.Fault{Status: 503, Body: "busy"}, "Server (HTTP 503"},
	compass.FaultGraphQLError:   {compass.Fault{Error: "InternalError", Code: 10, Message: "the words of Compass"}, "the words of Compass"},
	compass.FaultStatusWithData: {compass.Fault{Status: 500}, "Server (HTTP 500"},
	compass.FaultNullData:       {compass.Fault{}, "Malformed"},
	compass.FaultScopeLost:      {compass.Fault{Scope: "application:read"}, "ScopeMissing"},
	compass.FaultSlow:           {compass.Fault{Delay: compass.Duration(20 * time.Millisecond)}, ""},
	compass.FaultHang:           {compass.Fault{}, "Timeout"},
	compass.FaultReset:          {compass.Fault{}, "Unreachable"},
	compass.FaultTruncated:      {compass.Fault{}, "Malformed"},
	compass.FaultOversized:      {compass.Fault{Bytes: 33 << 20}, "TooLarge"},
	compass.FaultRateLimited:    {compass.Fault{RetryAfter: "60"}, "Throttled"},
	compass.FaultDirectorDown:   {compass.Fault{}, "Server (HTTP 502"},
	compass.FaultGatewayDown:    {compass.Fault{}, "Server (HTTP 502"},
	compass.FaultHydratorDown:   {compass.Fault{}, "Server (HTTP 500"},
	compass.FaultDatabaseDown:   {compass.Fault{}, "Ambiguous"},
}

// at lets a fault happen to one request.
func (l level) at(f compass.Fault) compass.Fault {
	f.Operation, f.Skip, f.Count = l.operation, l.skip, 1
	return f
}

func faultRows() []faultRow {
	var rows []faultRow
	for _, kind := range slices.Sorted(maps.Keys(wholeAnswers)) {
		for _, l := range levels {
			fault := wholeAnswers[kind].fault
			fault.Kind = kind
			row := faultRow{
				kind: kind, level: l.name, faults: []compass.Fault{l.at(fault)}, impatient: kind == compass.FaultHang,
				state: compassv1alpha1.SynchronizationFailed, says: []string{"Failed to fetch configuration: ", l.query + ": ", wholeAnswers[kind].says},
			}
			if row.impatient { // on a slow machine another query may be the first that takes too long
				row.says[1] = "Timeout"
			}
			if row.says[2] == "" {
				row.state, row.says = compassv1alpha1.Synchronized, nil
			}
			rows = append(rows, row)
		}
	}
	failed := func(l level, says ...string) faultRow {
		return faultRow{level: l.name, state: compassv1alpha1.SynchronizationFailed, says: append([]string{"Failed to fetch configuration: ", l.query + ": "}, says...)}
	}
	// kept is for answers that are not whole: what they hold is applied, and nothing is deleted.
	kept := func(l level, says string) faultRow {
		return faultRow{level: l.name, state: compassv1alpha1.Synchronized, says: []string{"the answer of Compass was incomplete", says}}
	}
	add := func(row faultRow, faults ...compass.Fault) {
		row.kind, row.faults = faults[0].Kind, faults
		rows = append(rows, row)
	}
	for _, l := range slices.Concat(levels, nested) {
		add(failed(l, "Server", "broken"), l.at(compass.Fault{Kind: compass.FaultFieldError, Field: l.field, Message: "broken", Error: "InternalError", Code: 10}))
		// One page that lies about the next is read over; it has to go on.
		endless := compass.Fault{Kind: compass.FaultEndlessPages, Field: l.field, Operation: l.operation, Skip: l.skip}
		if slices.Contains(nested, l) {
			endless.Operation = ""
		}
		add(faultRow{level: l.name, state: compassv1alpha1.SynchronizationFailed, says: []string{"Failed to fetch configuration: ", "Malformed", "does not advance"}}, endless)
		short, count := "read, Director counts", "count"
		if l.operation == "applicationsForRuntime" && l.field == "applicationsForRuntime" {
			add(failed(l, "Server"), l.at(compass.Fault{Kind: compass.FaultFieldNull, Field: l.field}))
		} else {
			add(kept(l, "null instead of a list"), l.at(compass.Fault{Kind: compass.FaultFieldNull, Field: l.field}))
		}
		add(kept(l, short), l.at(compass.Fault{Kind: compass.FaultShortPage, Field: l.field, By: 1}))
		for _, by := range []int{1, -1} {
			add(kept(l, count), l.at(compass.Fault{Kind: compass.FaultWrongCount, Field: l.field, By: by}))
		}
	}

	// What only happens after another fault, or in another call.
	reset := levels[0].at(compass.Fault{Kind: compass.FaultReset})
	add(faultRow{level: "where Compass is", syncs: 2, state: compassv1alpha1.SynchronizationFailed, says: []string{"Unreachable", "127.0.0.1:1/"}},
		compass.Fault{Kind: compass.FaultOtherURLs, DirectorURL: "https://127.0.0.1:1/director/graphql"}, reset)
	add(faultRow{level: "where Compass is", syncs: 2, state: compassv1alpha1.ConnectionMaintenanceFailed, says: []string{"Failed to connect to Compass Connector: ", "Server (HTTP 502"}},
		compass.Fault{Kind: compass.FaultConnectorDown}, reset)
	add(faultRow{level: "the certificate", renew: true, state: compassv1alpha1.ConnectionMaintenanceFailed, says: []string{"issued certificate refused (WrongValidity)", "compare the clocks"}},
		compass.Fault{Kind: compass.FaultCertificateTimes, Operation: "signCertificateSigningRequest", Shift: compass.Duration(time.Hour)})
	// What is null, without an error, where something is: of each system, on every page.
	hidden := func(says ...string) faultRow {
		return faultRow{state: compassv1alpha1.Synchronized, says: says}
	}
	for _, within := range []struct {
		field string
		row   faultRow
	}{
		{"auths", hidden("the answer of Compass was incomplete", "auths: null instead of a list")},
		{"instanceAuths", hidden("the answer of Compass was incomplete", "instanceAuths: null instead of a list")},
		{"defaultInstanceAuth", hidden(fmt.Sprintf("none of the %d bundles with credentials has them in Compass any more", bundlesWithSecret), "PendingRemoval")},
		{"credential", hidden(fmt.Sprintf("the credentials of %d of %d bundles are no longer in Compass", bundlesWithSecret-1, bundlesWithSecret), "PendingRemoval")},
	} {
		within.row.level = within.field + " of each system"
		add(within.row, compass.Fault{Kind: compass.FaultFieldNull, Field: within.field})
	}
	add(faultRow{level: "credentials", state: compassv1alpha1.Synchronized, says: []string{"the answer of Compass was incomplete", "instanceAuths: null instead of a list"}},
		compass.Fault{Kind: compass.FaultScopeLost, Scope: "bundle.instance_auths:read"})

	// A lie that agrees with itself: the guard against large losses is what is left.
	lie := faultRow{level: "a whole answer without most Applications", state: compassv1alpha1.Synchronized, says: []string{"300 of 500 Applications are no longer in Compass"}}
	add(lie, compass.Fault{Kind: compass.FaultShortPage, Field: "applicationsForRuntime", By: 60}, compass.Fault{Kind: compass.FaultWrongCount, Field: "applicationsForRuntime", By: -300})
	lie = faultRow{level: "a whole answer without any Application", state: compassv1alpha1.Synchronized, says: []string{"none of the 500 Applications is in Compass any more"}}
	add(lie, compass.Fault{Kind: compass.FaultShortPage, Field: "applicationsForRuntime", By: 100}, compass.Fault{Kind: compass.FaultWrongCount, Field: "applicationsForRuntime", By: -500})

	// Those that need another agent come last.
	slices.SortStableFunc(rows, func(a, b faultRow) int {
		if a.impatient == b.impatient {
			return 0
		}
		if a.impatient {
			return 1
		}
		return -1
	})
	return rows
}

func TestEveryFaultOfTheSimulatorHasItsRows(t *testing.T) {
	rows := map[compass.FaultKind]map[string]bool{}
	for _, row := range faultRows() {
		if rows[row.kind] == nil {
			rows[row.kind] = map[string]bool{}
		}
		rows[row.kind][row.level] = true
	}
	// These do not happen to the queries of a snapshot.
	elsewhere := []compass.FaultKind{compass.FaultOtherURLs, compass.FaultCertificateTimes, compass.FaultConnectorDown}
	for _, kind := range compass.FaultKinds() {
		if slices.Contains(elsewhere, kind) {
			if len(rows[kind]) == 0 {
				t.Errorf("fault %s has no row", kind)
			}
			continue
		}
		for _, l := range levels {
			if !rows[kind][l.name] {
				t.Errorf("fault %s has no row for level %q", kind, l.name)
			}
		}
	}
}

const (
	// withCredentials: every so many Applications there is one with a bundle and a Secret.
	withCredentials = 5
	// bundlesWithSecret: those, and one of the wide Application.
	bundlesWithSecret = fleetSize/withCredentials + 1
	// withClient: every so many Applications there is one with a client certificate.
	withClient = 50
)

// pairApplications gives some of the systems a client, whose id is then in their Applications.
func pairApplications(t *testing.T, server *compass.Server) {
	t.Helper()
	for i, app := range server.Admin().Inventory().Tenants[0].Applications {
		if i%withClient == 0 {
			_, err := server.Admin().ApplicationToken(app.ID)
			must(t, err)
		}
	}
}

// fleetApplications are fleetSize Applications, many with credentials; one has more than a page of everything.
func fleetApplications() []compass.Application {
	var all []compass.Application
	for i, name := range numbered("app", fleetSize-1) {
		app := compass.Application{Name: name, Formations: []string{"default"}}
		if i%withCredentials == 0 {
			app.Bundles = []compass.Bundle{{
				Name: "bundle", APIs: []compass.API{{Name: "api", TargetURL: "https://" + name + ".example.com"}}, Events: []compass.Event{{Name: "changed"}},
				Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "u", Password: "a-password-of-" + name}}},
			}}
		}
		all = append(all, app)
	}
	big := compass.Application{Name: "wide", Formations: []string{"default"}}
	for _, name := range numbered("bundle", 101) {
		big.Bundles = append(big.Bundles, compass.Bundle{Name: name})
	}
	first := &big.Bundles[0]
	first.Auth = &compass.Auth{Headers: map[string][]string{"X-Key": {"k"}}}
	for _, name := range numbered("item", 101) {
		first.APIs = append(first.APIs, compass.API{Name: name, TargetURL: "https://wide.example.com"})
		first.Events = append(first.Events, compass.Event{Name: name})
	}
	return append(all, big)
}

// managed are all Applications and Secrets of the fleet: who they are, and what they hold. The generation of an Application
// grows with each change of its spec, and only then; a Secret has a version.
func (f *fleet) managed() map[string]string {
	f.tb.Helper()
	out := map[string]string{}
	for _, list := range []struct {
		group string
		kind  string
		opts  []client.ListOption
	}{
		{applicationv1alpha1.GroupVersion.String(), "Application", nil},
		{"v1", "Secret", []client.ListOption{client.InNamespace(f.namespace), client.HasLabels{"app", "bundleId"}}},
	} {
		var objects metav1.PartialObjectMetadataList
		objects.APIVersion, objects.Kind = list.group, list.kind+"List"
		must(f.tb, f.client.List(f.tb.Context(), &objects, list.opts...))
		for _, o := range objects.Items {
			version := o.ResourceVersion
			if list.kind == "Application" {
				version = fmt.Sprint(o.Generation)
			}
			out[list.kind+" "+o.Name] = string(o.UID) + " " + version
		}
	}
	return out
}

// told is everything that the status of the CompassConnection says of failures; Applications add their conditions if it
// does not say enough.
func (f *fleet) told(c *compassv1alpha1.CompassConnection) string {
	f.tb.Helper()
	var b strings.Builder
	st := c.Status
	fmt.Fprintln(&b, st.State, st.ConnectionStatus.Error)
	if st.SynchronizationStatus != nil {
		fmt.Fprintln(&b, st.SynchronizationStatus.Error)
	}
	conditions := st.Conditions
	for _, condition := range conditions {
		fmt.Fprintln(&b, condition.Type, condition.Status, condition.Reason, condition.Message)
	}
	for _, failed := range slices.Concat(st.FailedApplications, st.UnreadyApplications) {
		fmt.Fprintln(&b, failed.Name, failed.Reason, failed.Message)
	}
	return b.String()
}

// toldByApplications are the messages of the conditions of all Applications, each once.
func (f *fleet) toldByApplications() string {
	f.tb.Helper()
	var all applicationv1alpha1.ApplicationList
	must(f.tb, f.client.List(f.tb.Context(), &all))
	messages := map[string]bool{}
	for _, app := range all.Items {
		for _, condition := range app.Status.Conditions {
			messages[condition.Message] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(messages)), "\n")
}

func TestFaults(t *testing.T) {
	applications := fleetApplications()
	server := startCompass(t, seedOf(applications...))
	pairApplications(t, server)
	f := newFleet(t, server.ServerCA())
	f.configure(runtimeToken(t, server))
	stop := f.start()
	f.synchronised(patience)
	before := f.managed()
	if want := fleetSize + bundlesWithSecret; len(before) != want {
		t.Fatalf("there are %d objects, want %d", len(before), want)
	}
	if n := f.clients(); n != fleetSize/withClient {
		t.Fatalf("%d Applications have a client, want %d", n, fleetSize/withClient)
	}
	for i, row := range faultRows() {
		t.Run(fmt.Sprintf("%s, %s", row.kind, row.level), func(t *testing.T) {
			f := f
			if row.impatient && f.compassTimeout == 0 {
				stop()
				f.compassTimeout = 3 * time.Second
				stop = f.start()
			}
			shared := f.tb
			f.tb = t
			defer func() { f.tb = shared }()
			f.traffic.take()
			for _, fault := range row.faults {
				_, err := server.Admin().SetFault(fault)
				must(t, err)
			}
			var c *compassv1alpha1.CompassConnection
			for range max(1, row.syncs) {
				if row.renew {
					c = f.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
				} else {
					c = f.resync()
				}
			}
			if c.Status.State != row.state {
				t.Errorf("state %s, want %s", c.Status.State, row.state)
			}
			told := f.told(c)
			for _, says := range row.says {
				if !strings.Contains(told, says) {
					if told += "\n" + f.toldByApplications(); !strings.Contains(told, says) {
						t.Errorf("nothing tells %q:\n%s", says, told)
					}
				}
			}
			if failed := row.says != nil; failed == (meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady) && !meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionPruneBlocked)) {
				t.Errorf("conditions %+v", c.Status.Conditions)
			}

			if diff := cmp.Diff(before, f.managed()); diff != "" {
				t.Errorf("objects before the fault (-), during it (+):\n%s", diff)
			}

			// Recovery: what Compass says now arrives, and nothing is left of the fault.
			server.Admin().ClearFaults()
			changed := applications[i%(fleetSize-1)]
			changed.Description = fmt.Sprintf("after fault %d", i)
			_, err := server.Admin().PutApplication(tenant, changed)
			must(t, err)
			f.recovered(row)
			app := &applicationv1alpha1.Application{}
			must(t, f.client.Get(t.Context(), client.ObjectKey{Name: "mp-" + changed.Name}, app))
			if app.Spec.Description != changed.Description {
				t.Errorf("description %q, want %q", app.Spec.Description, changed.Description)
			}
			before["Application "+app.Name] = fmt.Sprint(app.UID, " ", app.Generation)
			// What was deleted and made anew has another UID.
			if diff := cmp.Diff(before, f.managed()); diff != "" {
				t.Errorf("objects before the fault (-), after recovery (+):\n%s", diff)
			}
			if n := f.traffic.deleted(); n != 0 {
				t.Errorf("%d objects were deleted", n)
			}
		})
	}
	var all applicationv1alpha1.ApplicationList
	must(t, f.client.List(context.Background(), &all))
	for _, app := range all.Items {
		for _, kind := range []string{applicationv1alpha1.ConditionSynchronized, applicationv1alpha1.ConditionCredentialsReady} {
			if c := meta.FindStatusCondition(app.Status.Conditions, kind); c == nil || c.Status != metav1.ConditionTrue {
				t.Errorf("Application %s: %+v", app.Name, c)
			}
		}
	}
}

// clients is how many Applications name a client certificate.
func (f *fleet) clients() int {
	f.tb.Helper()
	var all applicationv1alpha1.ApplicationList
	must(f.tb, f.client.List(f.tb.Context(), &all))
	n := 0
	for _, app := range all.Items {
		n += len(app.Spec.CompassMetadata.Authentication.ClientIDs)
	}
	return n
}

// recovered asks for a sync, after which all is well. A certificate that does not work is given up after some trials only,
// and an impatient agent may not get its answers in time on a slow machine.
func (f *fleet) recovered(row faultRow) {
	f.tb.Helper()
	most := 1
	if row.renew || row.impatient {
		most = 10
	}
	var c *compassv1alpha1.CompassConnection
	for range most {
		if c = f.resync(); c.Status.State == compassv1alpha1.Synchronized && c.Status.ConsecutiveFailures == 0 {
			break
		}
	}
	st := c.Status
	if st.State != compassv1alpha1.Synchronized || st.ConsecutiveFailures != 0 || st.ConnectionStatus.Error != "" || st.SynchronizationStatus.Error != "" ||
		len(st.FailedApplications) != 0 || st.Applications.Total != fleetSize || st.Applications.Synced != fleetSize || st.Applications.PendingDeletion != 0 {
		f.tb.Errorf("after the fault: %s", f.told(c))
	}
	if !meta.IsStatusConditionTrue(st.Conditions, compassv1alpha1.ConditionReady) || meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionPruneBlocked) != nil {
		f.tb.Errorf("after the fault: %+v", st.Conditions)
	}
}

// deleted is how many objects of the fleet the agent asked to delete. Its own Secrets have other names.
func (t *traffic) deleted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.requests["DELETE applications"]
	for _, name := range t.touched["DELETE secrets"] {
		if strings.HasPrefix(name, "mp-") || strings.HasPrefix(name, "params-") {
			n++
		}
	}
	return n
}
