package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// inPlace is an Application as a sync leaves it, with the Secrets it owns.
func inPlace(system director.Application) (v1alpha1.Application, []corev1.Secret) {
	name := normalizeApplicationName(system.Name)
	w := mapApplication(name, system, past{}, systems.Gateway, false)
	app := w.application.DeepCopy()
	app.UID = types.UID("uid-" + name)
	var secrets []corev1.Secret
	for _, secretName := range sortedKeys(w.secrets) {
		step := SecretStep{BundleID: w.secrets[secretName].bundleID}
		s := corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Name: secretName, Namespace: "ns", Labels: step.Labels(name), Annotations: map[string]string{v1alpha1.MeantAnnotation: w.secrets[secretName].meant},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "applicationconnector.kyma-project.io/v1alpha1", Kind: "Application", Name: name, UID: app.UID}},
		}, Data: map[string][]byte{}}
		for key, value := range w.secrets[secretName].data {
			s.Data[key] = []byte(value.Reveal())
		}
		secrets = append(secrets, s)
	}
	return *app, secrets
}

func observe(all []director.Application) Observed {
	var o Observed
	for _, system := range all {
		app, secrets := inPlace(system)
		o.Applications, o.Secrets = append(o.Applications, app), append(o.Secrets, secrets...)
	}
	return o
}

var settings = Settings{Namespace: "ns", GatewayURL: systems.Gateway, Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}

func TestThePlanSaysWhatWillBeDoneAndWhy(t *testing.T) {
	basic := func(user, password string) *director.Auth {
		return &director.Auth{Credential: director.Basic{Username: user, Password: secret.Value("canary-" + password)}}
	}
	base := systems.Shop()
	base.Bundles[0].Auth = basic("u", "one")
	for _, test := range []struct {
		name   string
		change func(*director.Application)
		also   func(*Observed)
		want   string
	}{
		{name: "nothing", want: ""},
		{
			name:   "another password",
			change: func(app *director.Application) { app.Bundles[0].Auth = basic("u", "two") },
			want:   "keep application mp-shop\n  update secret mp-shop-" + systems.Bundle1 + " (data.password)\n",
		},
		{
			name: "OAuth instead of Basic",
			change: func(app *director.Application) {
				app.Bundles[0].Auth = &director.Auth{Credential: director.OAuth{ClientID: "c", ClientSecret: "canary", URL: "https://i/t"}}
			},
			want: "update application mp-shop (spec.services)\n  update secret mp-shop-" + systems.Bundle1 + " (data.clientId, data.clientSecret, data.password, data.username, metadata.annotations)\n",
		},
		{
			name:   "no credentials any more",
			change: func(app *director.Application) { app.Bundles[0].Auth = nil },
			want:   "update application mp-shop (spec.services)\n  delete secret mp-shop-" + systems.Bundle1 + " (no API needs it)\n",
		},
		{
			name:   "a new header",
			change: func(app *director.Application) { app.Bundles[0].Auth.Headers = map[string][]string{"h": {"canary"}} },
			want:   "update application mp-shop (spec.services)\n  update secret mp-shop-" + systems.Bundle1 + " (metadata.annotations)\n  create secret params-mp-shop-" + systems.Bundle1 + "\n",
		},
		{
			name:   "another description",
			change: func(app *director.Application) { app.Description = "new" },
			want:   "update application mp-shop (spec.description)\n",
		},
		{
			name:   "another client certificate",
			change: func(app *director.Application) { app.AuthIDs = []string{"other"} },
			want:   "update application mp-shop (spec.compassMetadata)\n",
		},
		{
			name: "labels and metadata that somebody removed",
			also: func(o *Observed) {
				o.Applications[0].Labels = map[string]string{"mine": "stays"}
				o.Applications[0].Spec.Labels = nil
			},
			want: "update application mp-shop (metadata.labels, spec.labels)\n",
		},
		{
			name:   "a Secret that somebody deleted",
			also:   func(o *Observed) { o.Secrets = nil },
			change: func(*director.Application) {},
			want:   "keep application mp-shop\n  create secret mp-shop-" + systems.Bundle1 + "\n",
		},
		{
			name: "a Secret left over by a former Application of that name",
			also: func(o *Observed) { o.Secrets[0].OwnerReferences[0].UID = "before" },
			want: "keep application mp-shop\n  replace secret mp-shop-" + systems.Bundle1 + " (its Application is gone)\n",
		},
		{
			name: "a Secret whose owner somebody removed",
			also: func(o *Observed) { o.Secrets[0].OwnerReferences = nil },
			want: "keep application mp-shop\n  update secret mp-shop-" + systems.Bundle1 + " (metadata.ownerReferences)\n",
		},
		{
			name: "a Secret whose owner somebody replaced",
			also: func(o *Observed) { o.Secrets[0].OwnerReferences[0].Kind = "ConfigMap" },
			want: "fail mp-shop (" + base.ID + "): SecretTaken: " + secretTaken("ns", "mp-shop-"+systems.Bundle1, "mp-shop") + "\n",
		},
		{
			name: "a Secret that is somebody else's",
			also: func(o *Observed) { o.Secrets[0].OwnerReferences, o.Secrets[0].Annotations = nil, nil },
			want: "fail mp-shop (" + base.ID + "): SecretTaken: " + secretTaken("ns", "mp-shop-"+systems.Bundle1, "mp-shop") + "\n",
		},
		{
			name:   "pending credentials",
			change: func(app *director.Application) { app.Bundles[0].Auth, app.Bundles[0].AuthPending = nil, true },
			want:   "",
		},
		{
			name: "a confirmed deletion of what Compass names",
			also: func(o *Observed) {
				o.Applications[0].Annotations = map[string]string{v1alpha1.ConfirmDeletionAnnotation: "true"}
			},
			want: "update application mp-shop (metadata.annotations)\n",
		},
		{
			name: "what users may set",
			also: func(o *Observed) {
				app := &o.Applications[0]
				app.Labels["mine"], app.Annotations = "stays", map[string]string{"mine": "stays"}
				app.Spec.SkipVerify, app.Spec.EncodeURL, app.Spec.Tenant, app.Spec.Group = true, true, "t", "g"
				app.Spec.DisplayName, app.Spec.Tags = "d", []string{"t"}
			},
			want: "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			observed := observe([]director.Application{base})
			if test.also != nil {
				test.also(&observed)
			}
			app := systems.Shop()
			app.Bundles[0].Auth = basic("u", "one")
			if test.change != nil {
				test.change(&app)
			}
			plan := New(systems.Whole(app), observed, settings, nil)
			if diff := cmp.Diff(test.want, plan.String()); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
			if printed := fmt.Sprintf("%+v", plan.Steps); strings.Contains(printed, "canary") {
				t.Errorf("a secret is printed: %s", printed)
			}
		})
	}
}

func TestABadSystemIsReportedAndKeepsItsApplication(t *testing.T) {
	good := systems.Some(2)
	long := director.Application{ID: "id-long", Name: strings.Repeat("a", 300)}
	before := observe([]director.Application{good[0], good[1], {ID: "id-long", Name: "mp-long"}, {ID: "id-bad", Name: "mp-bad"}, {ID: "id-dup", Name: "mp-dup"}})
	byHand := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "mp-by-hand", UID: "by-hand"}}
	before.Applications = append(before.Applications, byHand)
	noTarget := director.Application{ID: "id-target", Name: "mp-target", Bundles: []director.Bundle{{ID: "b", Name: "B", APIs: []director.API{{ID: "a", Name: "A"}}}}}
	badBundle := director.Application{ID: "id-bundle", Name: "mp-bundle", Bundles: []director.Bundle{
		{ID: "b/1", Name: "B", Auth: &director.Auth{Credential: director.Basic{Username: "u", Password: "p"}}, APIs: []director.API{{ID: "a", TargetURL: "https://a"}}}}}

	snap := systems.Whole(good[0], good[1], long, noTarget, badBundle,
		director.Application{ID: "id-dup", Name: "mp-app-01"},
		director.Application{ID: "id-hand", Name: "mp-by-hand"},
		director.Application{ID: "", Name: "mp-no-id"},
	)
	snap.Invalid = []director.InvalidApplication{{ID: "id-bad", Name: "mp-bad", Reason: "bundles[0].name: must not be empty"}}
	plan := New(snap, before, settings, nil)

	var failures []string
	for _, f := range plan.Failures {
		failures = append(failures, f.ID+" "+f.Reason)
	}
	if diff := cmp.Diff([]string{
		" InvalidData", "id-bad InvalidData", "id-bundle InvalidData", "id-dup DuplicateName", "id-hand NameTaken", "id-long InvalidName", "id-target InvalidData",
	}, failures); diff != "" {
		t.Error(diff)
	}
	var steps []string
	for _, s := range plan.Steps {
		steps = append(steps, fmt.Sprintf("%s %s %s", s.Action, s.Name, s.Synchronized.Reason))
	}
	if diff := cmp.Diff([]string{
		"keep mp-app-00 UpToDate", "keep mp-app-01 UpToDate", "keep mp-bad InvalidData", "keep mp-dup DuplicateName", "keep mp-long InvalidName",
	}, steps); diff != "" {
		t.Error(diff)
	}
	if plan.Total != 9 {
		t.Errorf("total is %d", plan.Total)
	}
}

func TestOfTwoSystemsWithOneNameTheSameOneAlwaysWins(t *testing.T) {
	a, b := director.Application{ID: "a", Name: "Shop"}, director.Application{ID: "b", Name: "SHOP"}
	for _, snap := range []director.Snapshot{systems.Whole(a, b), systems.Whole(b, a)} {
		for _, observed := range []Observed{{}, observe([]director.Application{b}), observe([]director.Application{a})} {
			plan := New(snap, observed, settings, nil)
			if len(plan.Steps) != 1 || plan.Steps[0].ID != "a" || plan.Steps[0].Action == Delete {
				t.Errorf("steps: %+v", plan.Steps)
			}
			if len(plan.Failures) != 1 || plan.Failures[0].ID != "b" || plan.Failures[0].Reason != ReasonDuplicateName {
				t.Errorf("failures: %+v", plan.Failures)
			}
		}
	}
}

// Of two systems with one name that of the smaller id is in the cluster. An answer that may have lost it proves nothing.
func TestAnIncompleteAnswerGivesNoApplicationToAnotherSystem(t *testing.T) {
	a, b := systems.Shop(), director.Application{ID: "z", Name: "Shop"}
	a.ID = "a"
	taken := "fail Shop (z): DuplicateName: another system is in the cluster as \"mp-shop\"; that it is gone is not known before an answer of Compass is complete\n"
	invalid := []director.InvalidApplication{{ID: "a", Name: "mp-shop", Reason: "bundles: null instead of a list"}}
	for _, test := range []struct {
		name string
		snap director.Snapshot
		want string
		// synchronized is the verdict about the Application; nil if it is left alone.
		synchronized []Verdict
	}{
		{
			"the first one is missing", director.Snapshot{Applications: []director.Application{b}, Incomplete: "page lost"},
			taken + "keep 1 applications: the answer of Compass was incomplete, so what it does not name is kept: mp-shop; Compass: page lost\n", nil,
		},
		{
			"the first one cannot be used", director.Snapshot{Applications: []director.Application{b}, Invalid: invalid, Incomplete: "bundles null"},
			"fail mp-shop (a): InvalidData: bundles: null instead of a list\n" + taken + "incomplete: the answer of Compass was not whole, so nothing would be deleted; Compass: bundles null\n",
			[]Verdict{{metav1.ConditionFalse, ReasonInvalidData, "bundles: null instead of a list"}},
		},
		{
			"the first one is gone", systems.Whole(b),
			"update application mp-shop (spec.compassMetadata, spec.services)\n  delete secret mp-shop-" + systems.Bundle1 + " (no API needs it)\n  delete secret params-mp-shop-" + systems.Bundle1 + " (no API needs it)\n",
			[]Verdict{{metav1.ConditionTrue, ReasonUpToDate, "the Application holds what Compass says"}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := New(test.snap, observe([]director.Application{a}), settings, nil)
			if diff := cmp.Diff(test.want, plan.String()); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
			var verdicts []Verdict
			for _, step := range plan.Steps {
				verdicts = append(verdicts, step.Synchronized)
			}
			if diff := cmp.Diff(test.synchronized, verdicts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPIsWithOneURLAreReported(t *testing.T) {
	app := systems.Shop()
	second := app.Bundles[0]
	second.ID, second.Name = systems.Bundle2, "bundle one!"
	app.Bundles = append(app.Bundles, second)
	plan := New(systems.Whole(app), Observed{}, settings, nil)
	want := []Failure{{app.ID, app.Name, ReasonAmbiguousAPIs, "several APIs have the same URL at the gateway, which refuses them all; give them other names in Compass: " +
		systems.Gateway + "/mp-shop/bundle-one/orders-api (Bundle One/Orders API, bundle one!/Orders API)"}}
	if diff := cmp.Diff(want, plan.Failures); diff != "" {
		t.Error(diff)
	}
	if len(plan.Steps) != 1 || plan.Steps[0].Action != Create {
		t.Errorf("steps: %+v", plan.Steps)
	}
}

func TestAPIsWithoutANameInTheirURLAreReported(t *testing.T) {
	const unnamed = "nothing is left in the URL at the gateway of names without any letter from a to z and any digit; give them other names in Compass: "
	for name, test := range map[string]struct {
		change func(*director.Bundle)
		url    string
		want   []string // reason and message
	}{
		"a bundle": {func(b *director.Bundle) { b.Name = "日本" }, "/mp-shop//orders-api", []string{ReasonUnnamedAPIs, unnamed + `bundle "日本"`}},
		"an API":   {func(b *director.Bundle) { b.APIs[0].Name = "!!!" }, "/mp-shop/bundle-one/", []string{ReasonUnnamedAPIs, unnamed + `bundle "Bundle One", API "!!!"`}},
		"two APIs": {func(b *director.Bundle) {
			b.APIs = append(b.APIs, director.API{ID: "a2", Name: "注文", TargetURL: "https://shop/2"})
			b.APIs[0].Name = "商品"
		}, "/mp-shop/bundle-one/", []string{ReasonUnnamedAPIs, unnamed + `bundle "Bundle One", API "商品"; bundle "Bundle One", API "注文"; ` +
			"several APIs have the same URL at the gateway, which refuses them all; give them other names in Compass: " + systems.Gateway + "/mp-shop/bundle-one/ (Bundle One/商品, Bundle One/注文)"}},
		"a bundle without APIs": {func(b *director.Bundle) { b.Name, b.APIs = "日本", nil }, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			app := systems.Shop()
			test.change(&app.Bundles[0])
			plan := New(systems.Whole(app), Observed{}, settings, nil)
			var want []Failure
			if test.want != nil {
				want = []Failure{{app.ID, app.Name, test.want[0], test.want[1]}}
			}
			if diff := cmp.Diff(want, plan.Failures); diff != "" {
				t.Error(diff)
			}
			// The names themselves, and the URLs, stay what they are.
			entry := plan.Steps[0].Wanted.Spec.Services[0].Entries[0]
			if test.url != "" && entry.CentralGatewayURL != systems.Gateway+test.url {
				t.Errorf("URL %s", entry.CentralGatewayURL)
			}
		})
	}
}

func deleted(p Plan) (names []string) {
	for _, step := range p.Steps {
		if step.Action == Delete {
			names = append(names, step.Name)
		}
	}
	return names
}

func TestALargeLossIsConfirmedBeforeItIsBelieved(t *testing.T) {
	for _, test := range []struct {
		name             string
		had, lost        int
		guard            Guard
		every            time.Duration // between two snapshots; zero means half an hour
		deletedIn        int           // the number of the snapshot that deletes; 0: none of ten
		incompleteSecond bool
	}{
		{name: "one of many", had: 10, lost: 1, deletedIn: 1},
		{name: "five of six", had: 6, lost: 5, deletedIn: 1},
		{name: "half of twelve", had: 12, lost: 6, deletedIn: 1},
		{name: "seven of twelve", had: 12, lost: 7, deletedIn: 3},
		{name: "seven of twelve, a day apart", had: 12, lost: 7, every: 24 * time.Hour, deletedIn: 3},
		{name: "seven of twelve, ten minutes apart", had: 12, lost: 7, every: 10 * time.Minute, deletedIn: 7},
		{name: "seven of twelve, all within seconds", had: 12, lost: 7, every: time.Second},
		{name: "within seconds, which is long enough by the option", had: 12, lost: 7, every: time.Second, guard: Guard{Span: 3 * time.Second}, deletedIn: 4},
		{name: "at once, if the option says so", had: 12, lost: 7, every: time.Nanosecond, guard: Guard{Span: -1}, deletedIn: 3},
		{name: "all of many", had: 12, lost: 12},
		{name: "the only one", had: 1, lost: 1},
		{name: "all, by the most careless options", had: 4, lost: 4, guard: Guard{Confirmations: 1, Span: -1}},
		{name: "another number of confirmations", had: 12, lost: 7, guard: Guard{Confirmations: 5}, deletedIn: 5},
		{name: "without confirmation", had: 12, lost: 7, guard: Guard{Confirmations: 1, Span: -1}, deletedIn: 1},
		{name: "a smaller share", had: 12, lost: 3, guard: Guard{Share: 0.1, Count: 1}, deletedIn: 3},
		{name: "an incomplete answer between", had: 12, lost: 7, incompleteSecond: true, deletedIn: 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := systems.Some(test.had)
			observed := observe(all)
			set := settings
			set.Guard = test.guard
			if test.every == 0 {
				test.every = 30 * time.Minute
			}
			var absences Absences
			for n := 1; n <= 10; n++ {
				snap := systems.Whole(all[test.lost:]...)
				if test.incompleteSecond && n == 2 {
					snap.Complete, snap.Incomplete = false, "page 2 is missing"
				}
				plan := New(snap, observed, set, absences)
				absences = plan.Absences
				set.Now = set.Now.Add(test.every)
				want := 0
				if n == test.deletedIn {
					want = test.lost
				}
				if got := len(deleted(plan)); got != want || plan.Kept != test.lost-want || (plan.PruneBlocked == "") != (want > 0) {
					t.Fatalf("snapshot %d: %d deleted, %d kept, blocked %q; want %d deleted", n, got, plan.Kept, plan.PruneBlocked, want)
				}
				if n == test.deletedIn {
					return
				}
			}
		})
	}
}

// annotate confirms the deletion of Applications.
func annotate(o Observed, value string, names ...string) {
	for i := range o.Applications {
		if slices.Contains(names, o.Applications[i].Name) {
			o.Applications[i].Annotations = map[string]string{v1alpha1.ConfirmDeletionAnnotation: value}
		}
	}
}

func TestAPersonCanConfirmADeletion(t *testing.T) {
	all := systems.Some(3)
	observed := observe(all)
	annotate(observed, "true", "mp-app-00", "mp-app-01")
	annotate(observed, "no", "mp-app-02")
	plan := New(systems.Whole(), observed, settings, nil)
	if diff := cmp.Diff([]string{"mp-app-00", "mp-app-01"}, deleted(plan)); diff != "" || plan.Kept != 1 {
		t.Errorf("%d kept; deleted: %s", plan.Kept, diff)
	}
	// It is no proof: what is in Compass, or may be, stays.
	if got := deleted(New(systems.Whole(all...), observed, settings, nil)); got != nil {
		t.Errorf("deleted: %v", got)
	}
	if got := deleted(New(director.Snapshot{Incomplete: "x"}, observed, settings, nil)); got != nil {
		t.Errorf("deleted on an incomplete answer: %v", got)
	}
}

// Systems of another formation may make up for those that are lost, by number.
func TestALargeLossDoesNotBecomeASmallOne(t *testing.T) {
	all := systems.Some(24)
	old := observe(all[:12])
	plan := New(systems.Whole(all[12:]...), old, settings, nil)
	if got := deleted(plan); got != nil {
		t.Fatalf("deleted: %v", got)
	}
	both := observe(all)
	set := settings
	for n := 2; n <= 3; n++ {
		set.Now = set.Now.Add(time.Minute)
		plan = New(systems.Whole(all[12:]...), both, set, plan.Absences)
		if got := deleted(plan); got != nil || plan.Kept != 12 {
			t.Fatalf("snapshot %d: %d kept, deleted: %v", n, plan.Kept, got)
		}
	}
	// After a restart the Applications themselves tell.
	for i := range both.Applications[:12] {
		both.Applications[i].Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSynchronized, Status: metav1.ConditionFalse, Reason: ReasonPendingDeletion}}
	}
	if got := deleted(New(systems.Whole(all[12:]...), both, set, nil)); got != nil {
		t.Errorf("deleted after a restart: %v", got)
	}
	set.Now = settings.Now.Add(DefaultGuardSpan)
	if got := deleted(New(systems.Whole(all[12:]...), both, set, plan.Absences)); len(got) != 12 {
		t.Errorf("deleted after an hour: %v", got)
	}
}

func TestARenamedSystemIsNoLoss(t *testing.T) {
	all := systems.Some(1)
	plan := New(systems.Whole(director.Application{ID: all[0].ID, Name: "mp-new"}), observe(all), settings, nil)
	if diff := cmp.Diff("delete application mp-app-00 (its system has another name now)\ncreate application mp-new\n", plan.String()); diff != "" {
		t.Error(diff)
	}
}

func TestABlockedDeletionSaysWhyAndWhatToDo(t *testing.T) {
	const command = "run kubectl annotate applications NAME... applicationconnector.kyma-project.io/confirm-deletion=true; kept: "
	all := systems.Some(12)
	observed := observe(all)
	for _, test := range []struct {
		snap director.Snapshot
		kept int
		want string
	}{
		{systems.Whole(), 12, "none of the 12 Applications is in Compass any more, which is not believed without your word: look at the formations of this runtime; " +
			"if the systems are really gone, " + command +
			"mp-app-00, mp-app-01, mp-app-02, mp-app-03, mp-app-04, mp-app-05, mp-app-06, mp-app-07, mp-app-08, mp-app-09 and 2 more"},
		{systems.Whole(all[7:]...), 7, "7 of 12 Applications are no longer in Compass, which is too many to believe at once; " +
			"they are deleted when 3 complete answers in a row miss them (1 so far), not before 2026-01-02T04:04:05Z; " +
			"if the systems are really gone and you do not want to wait, " + command +
			"mp-app-00, mp-app-01, mp-app-02, mp-app-03, mp-app-04, mp-app-05, mp-app-06"},
		{director.Snapshot{Applications: all[1:], Incomplete: "counts differ"}, 1,
			"the answer of Compass was incomplete, so what it does not name is kept: mp-app-00; Compass: counts differ"},
	} {
		plan := New(test.snap, observed, settings, nil)
		if diff := cmp.Diff(test.want, plan.PruneBlocked); diff != "" || plan.Kept != test.kept {
			t.Errorf("%d kept; %s", plan.Kept, diff)
		}
	}
}

func TestOnlyWhatCameFromCompassIsDeleted(t *testing.T) {
	all := systems.Some(3)
	observed := observe(all)
	observed.Applications[0].Labels = nil
	observed.Applications[1].Spec.CompassMetadata = nil
	annotate(observed, "true", "mp-app-00", "mp-app-01", "mp-app-02")
	var steps []string
	for _, step := range New(systems.Whole(), observed, settings, nil).Steps {
		steps = append(steps, string(step.Action)+" "+step.Name)
	}
	if diff := cmp.Diff([]string{"delete mp-app-02"}, steps); diff != "" {
		t.Error(diff)
	}
}
