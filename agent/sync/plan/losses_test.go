package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// protected are systems mp-app-00 and so on, each with one bundle that has credentials and headers.
func protected(n int) []director.Application {
	all := systems.Some(n)
	for i := range all {
		bundle := systems.WithAuth(systems.Basic("p")).Bundles[0]
		bundle.ID = fmt.Sprintf("00000000-0000-0000-0000-0000000000%02d", i)
		bundle.Auth.Headers = map[string][]string{"h": {"v"}}
		all[i].Bundles = []director.Bundle{bundle}
	}
	return all
}

// losing are the same systems, of which the first ones have lost something.
func losing(n, lost int, lose func(*director.Application)) []director.Application {
	all := protected(n)
	for i := range lost {
		lose(&all[i])
	}
	return all
}

func noAuth(app *director.Application) { app.Bundles[0].Auth = nil }

// taken are the Secrets that a plan deletes, and the entries that it makes other ones.
func taken(p Plan) (secrets, entries int) {
	for _, step := range p.Steps {
		for _, s := range step.Secrets {
			if s.Action == Delete {
				secrets++
			}
		}
		if strings.Contains(step.Differences(), "spec.services") {
			entries++
		}
	}
	return secrets, entries
}

func TestALargeLossOfCredentialsIsConfirmedBeforeItIsBelieved(t *testing.T) {
	noCredential := func(app *director.Application) { app.Bundles[0].Auth = &director.Auth{} }
	noHeaders := func(app *director.Application) { app.Bundles[0].Auth.Headers = nil }
	emptyPassword := func(app *director.Application) { app.Bundles[0].Auth.Credential = systems.Basic("") }
	noAPIs := func(app *director.Application) { app.Bundles[0].APIs = nil }
	noBundles := func(app *director.Application) { app.Bundles = nil }
	for _, test := range []struct {
		name      string
		lose      func(*director.Application)
		had, lost int
		guard     Guard
		every     time.Duration // between two snapshots; zero means half an hour
		believed  int           // the number of the snapshot that is; 0: none of ten
		secrets   int           // that each one loses
		// metadata: what is no credential goes at once.
		metadata bool
	}{
		{name: "no auth, one of many", lose: noAuth, had: 12, lost: 1, believed: 1, secrets: 2},
		{name: "no auth, five of six", lose: noAuth, had: 6, lost: 5, believed: 1, secrets: 2},
		{name: "no auth, six of twelve", lose: noAuth, had: 12, lost: 6, believed: 1, secrets: 2},
		{name: "no auth, the only one", lose: noAuth, had: 1, lost: 1, believed: 1, secrets: 2},
		{name: "no auth, both of two", lose: noAuth, had: 2, lost: 2},
		{name: "no auth, seven of twelve", lose: noAuth, had: 12, lost: 7, believed: 3, secrets: 2},
		{name: "no auth, seven of twelve within seconds", lose: noAuth, had: 12, lost: 7, every: time.Second},
		{name: "no auth, seven of twelve by other knobs", lose: noAuth, had: 12, lost: 7, guard: Guard{Confirmations: 2, Span: -1}, believed: 2, secrets: 2},
		{name: "no auth, all of twelve", lose: noAuth, had: 12, lost: 12},
		{name: "no credential, seven of twelve", lose: noCredential, had: 12, lost: 7, believed: 3, secrets: 2},
		{name: "no headers, seven of twelve", lose: noHeaders, had: 12, lost: 7, believed: 3, secrets: 1},
		{name: "an empty password, seven of twelve", lose: emptyPassword, had: 12, lost: 7, believed: 3, secrets: 1},
		{name: "no APIs, seven of twelve", lose: noAPIs, had: 12, lost: 7, believed: 3, secrets: 2, metadata: true},
		{name: "no bundles, seven of twelve", lose: noBundles, had: 12, lost: 7, believed: 3, secrets: 2, metadata: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			observed := observe(protected(test.had))
			snap := systems.Whole(losing(test.had, test.lost, test.lose)...)
			set := settings
			set.Guard = test.guard
			if test.every == 0 {
				test.every = 30 * time.Minute
			}
			for n := 1; n <= 10; n++ {
				plan := New(snap, observed, set, nil)
				observed.Losses = plan.Losses
				set.Now = set.Now.Add(test.every)
				secrets, entries := taken(plan)
				if n == test.believed {
					if secrets != test.lost*test.secrets || len(plan.Withheld) != 0 || plan.PruneBlocked != "" {
						t.Errorf("snapshot %d takes %d Secrets, %d bundles are withheld, blocked %q", n, secrets, len(plan.Withheld), plan.PruneBlocked)
					}
					return
				}
				if secrets != 0 || (entries != 0) != test.metadata || len(plan.Withheld) != test.lost || plan.PruneBlocked == "" || plan.Kept != 0 {
					t.Fatalf("snapshot %d takes %d Secrets and changes %d Applications, %d bundles are withheld, blocked %q", n, secrets, entries, len(plan.Withheld), plan.PruneBlocked)
				}
				for i, step := range plan.Steps {
					want := Verdict{metav1.ConditionTrue, ReasonStored, "every credential is in its Secret"}
					if i < test.lost {
						want = Verdict{metav1.ConditionFalse, ReasonPendingRemoval, fmt.Sprintf("bundle %q: %s", "Bundle One", removalPending)}
					}
					if test.metadata {
						want.Message = step.CredentialsReady.Message
					}
					if diff := cmp.Diff(want, step.CredentialsReady); diff != "" {
						t.Fatalf("snapshot %d, %s: %s", n, step.Name, diff)
					}
				}
			}
			if test.believed != 0 {
				t.Error("never believed")
			}
		})
	}
}

func TestThePlanSaysWhichCredentialsAreKeptAndWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		snap director.Snapshot
		want string
	}{
		"all": {
			systems.Whole(losing(2, 2, noAuth)...),
			"keep credentials of 2 bundles: none of the 2 bundles with credentials has them in Compass any more, which is not believed without your word: look at what this runtime may see there; " +
				"if the credentials are really gone, run kubectl annotate applications NAME... applicationconnector.kyma-project.io/confirm-deletion=true; kept: those of mp-app-00, mp-app-01\n",
		},
		"many": {
			systems.Whole(losing(7, 6, noAuth)...),
			"keep credentials of 6 bundles: the credentials of 6 of 7 bundles are no longer in Compass, which is too many to believe at once; they are removed when 3 complete answers in a row miss them (1 so far), " +
				"not before 2026-01-02T04:04:05Z; if they are really gone and you do not want to wait, run kubectl annotate applications NAME... applicationconnector.kyma-project.io/confirm-deletion=true; " +
				"kept: those of mp-app-00, mp-app-01, mp-app-02, mp-app-03, mp-app-04, mp-app-05\n",
		},
		"one of an incomplete answer": {
			director.Snapshot{Applications: losing(7, 1, noAuth), Incomplete: "page 2 is missing"},
			"keep credentials of 1 bundles: the answer of Compass was incomplete, so credentials that it does not name are kept, of mp-app-00; Compass: page 2 is missing\n",
		},
		"none of an incomplete answer": {
			director.Snapshot{Applications: protected(7), Incomplete: "page 2 is missing"},
			"incomplete: the answer of Compass was not whole, so nothing would be deleted; Compass: page 2 is missing\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := len(test.snap.Applications)
			if diff := cmp.Diff(test.want, New(test.snap, observe(protected(n)), settings, nil).String()); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestAPersonCanConfirmALossOfCredentials(t *testing.T) {
	observed := observe(protected(3))
	annotate(observed, "true", "mp-app-00", "mp-app-01")
	annotate(observed, "no", "mp-app-02")
	plan := New(systems.Whole(losing(3, 3, noAuth)...), observed, settings, nil)
	if secrets, _ := taken(plan); secrets != 4 || len(plan.Withheld) != 1 {
		t.Errorf("%d Secrets are taken, %d bundles are withheld", secrets, len(plan.Withheld))
	}
}

// A loss that was a large one is not made a small one by other systems, nor by a restart of the agent.
func TestALargeLossOfCredentialsDoesNotBecomeASmallOne(t *testing.T) {
	observed, snap := observe(protected(24)), systems.Whole(losing(24, 6, noAuth)...)
	if secrets, _ := taken(New(snap, observed, settings, nil)); secrets != 12 {
		t.Fatalf("a small loss takes %d Secrets", secrets)
	}
	for i := range 6 {
		observed.Applications[i].Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionCredentialsReady, Status: metav1.ConditionFalse, Reason: ReasonPendingRemoval}}
	}
	plan := New(snap, observed, settings, nil)
	if secrets, _ := taken(plan); secrets != 0 || len(plan.Withheld) != 6 {
		t.Errorf("%d Secrets are taken, %d bundles are withheld", secrets, len(plan.Withheld))
	}
	observed.Losses = plan.Losses
	// Credentials that come back are in place, and begin the count anew.
	plan = New(systems.Whole(protected(24)...), observed, settings, nil)
	if !plan.Idle() || len(plan.Losses) != 0 || plan.Steps[0].CredentialsReady.Reason != ReasonStored {
		t.Errorf("plan %s, losses %v, %+v", plan, plan.Losses, plan.Steps[0].CredentialsReady)
	}
}
