package sync

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

func TestAnotherSyncerGoesOnCountingWhatOneTold(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)
	all := systems(9)
	told := func(since time.Time, answers int32, names ...string) []compassv1alpha1.MissingApplications {
		return []compassv1alpha1.MissingApplications{{Since: metav1.NewTime(since), Answers: answers, Count: int32(len(names)), Names: names}}
	}
	lost := []string{"mp-app-01", "mp-app-02", "mp-app-03", "mp-app-04", "mp-app-05", "mp-app-06", "mp-app-07", "mp-app-08"}
	ceiling := start.Truncate(time.Second).Add(time.Second)
	for name, test := range map[string]struct {
		recall bool
		after  time.Duration // of the third answer
		kept   int
		want   []compassv1alpha1.MissingApplications
	}{
		"it is told":                     {true, 2 * time.Hour, 0, nil},
		"it is told, and it is too soon": {true, time.Hour, 8, told(ceiling, 3, lost...)},
		"it is not told":                 {false, 2 * time.Hour, 8, told(start.Add(2*time.Hour).Truncate(time.Second).Add(time.Second), 1, lost...)},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			now := testclock.NewFakePassiveClock(start)
			c.syncer.Clock = now
			c.sync(whole(all...))
			for i := range 2 {
				result, _ := c.sync(whole(all[0]))
				if diff := cmp.Diff(told(ceiling, int32(i+1), lost...), result.Missing); diff != "" {
					t.Error(diff)
				}
				if !test.recall {
					continue
				}
				c.syncer = &Syncer{Client: c.syncer.Client, Reader: c.syncer.Reader, Namespace: c.namespace, GatewayURL: gateway, Clock: now}
				c.syncer.Recall(result.Missing)
			}
			if !test.recall {
				c.syncer = &Syncer{Client: c.syncer.Client, Reader: c.syncer.Reader, Namespace: c.namespace, GatewayURL: gateway, Clock: now}
			}
			now.SetTime(start.Add(test.after))
			plan, err := c.syncer.Plan(t.Context(), whole(all[0]))
			if err != nil || plan.Kept != test.kept {
				t.Errorf("the plan keeps %d, error %v", plan.Kept, err)
			}
			result, _ := c.sync(whole(all[0]))
			if result.PendingDeletion != test.kept || result.Deleted != 8-test.kept {
				t.Errorf("result %+v", result)
			}
			if diff := cmp.Diff(test.want, result.Missing); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnAnswerThatIsNotWholeEndsWhatWasTold(t *testing.T) {
	c := newCluster(t)
	now := testclock.NewFakePassiveClock(time.Now())
	c.syncer.Clock = now
	all := systems(9)
	c.sync(whole(all...))
	c.sync(whole(all[0]))
	result, _ := c.sync(whole(all[0]))
	now.SetTime(now.Now().Add(2 * time.Hour))
	c.syncer.Recall(result.Missing)
	if result, _ := c.sync(director.Snapshot{Applications: all[:1], Incomplete: "page 2"}); result.Missing != nil || result.PendingDeletion != 8 {
		t.Errorf("result %+v", result)
	}
	if result, _ := c.sync(whole(all[0])); result.Deleted != 0 || len(result.Missing) != 1 || result.Missing[0].Answers != 1 {
		t.Errorf("result %+v", result)
	}
}

// absent are Applications that are known to be missing, each with an Absence.
func absent(n int, absence func(int) Absence) (kept []*v1alpha1.Application, applications []v1alpha1.Application, absences Absences) {
	absences = Absences{}
	for i := range n {
		app := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("mp-app-%03d", i), UID: types.UID(fmt.Sprint(i))}}
		app.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSynchronized, Status: metav1.ConditionFalse, Reason: ReasonPendingDeletion}}
		applications = append(applications, app)
		absences[app.UID] = absence(i)
	}
	for i := range applications {
		kept = append(kept, &applications[i])
	}
	return kept, applications, absences
}

func TestWhatIsToldOfMissingApplicationsIsBoundedAndNeverMakesADeletionSooner(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		n       int
		absence func(int) Absence
		entries int
		exact   bool
	}{
		"none":                          {0, nil, 0, true},
		"few":                           {50, func(int) Absence { return Absence{3, start, true} }, 1, true},
		"many at once":                  {500, func(int) Absence { return Absence{3, start, true} }, 1, true},
		"some before the others":        {90, func(i int) Absence { return Absence{5 - i%2, start.Add(time.Duration(i%2) * time.Minute), true} }, 2, true},
		"many at two times":             {500, func(i int) Absence { return Absence{5 - i%2, start.Add(time.Duration(i%2) * time.Minute), true} }, 2, false},
		"one after the other, for long": {30, func(i int) Absence { return Absence{30 - i, start.Add(time.Duration(i) * time.Minute), true} }, 10, false},
		"many, one after the other":     {300, func(i int) Absence { return Absence{300 - i, start.Add(time.Duration(i) * time.Minute), true} }, 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			kept, applications, absences := absent(test.n, test.absence)
			told := missing(kept, absences)
			total := 0
			for _, m := range told {
				total += int(m.Count)
				if len(m.Names) > maxMissingNames || m.Since.Nanosecond() != 0 {
					t.Errorf("entry %+v", m)
				}
			}
			if len(told) != test.entries || total != test.n {
				t.Errorf("%d entries of %d Applications", len(told), total)
			}
			got := recall(told, applications)
			if test.exact {
				if diff := cmp.Diff(absences, got); diff != "" {
					t.Error(diff)
				}
			}
			for uid, is := range got {
				if was := absences[uid]; is.Count > was.Count || is.Since.Before(was.Since) || !is.Held {
					t.Errorf("%s was %+v and is %+v", uid, was, is)
				}
			}
			if len(got) != test.n {
				t.Errorf("%d of %d are recalled", len(got), test.n)
			}
		})
	}
}

func TestAPlanSaysThatTheAnswerWasNotWhole(t *testing.T) {
	snap := director.Snapshot{Applications: systems(1), Incomplete: "page 2 of applications is missing"}
	plan := NewPlan(snap, observe(systems(1)), Settings{GatewayURL: gateway}, nil)
	if got, want := plan.String(), "incomplete: the answer of Compass was not whole, so nothing would be deleted; Compass: page 2 of applications is missing\n"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	text, err := plan.MarshalJSON()
	if err != nil || !strings.Contains(string(text), `"incomplete":"page 2 of applications is missing"`) {
		t.Errorf("plan %s, error %v", text, err)
	}
	plan = NewPlan(snap, observe(systems(2)), Settings{GatewayURL: gateway}, nil)
	if got := plan.String(); !strings.HasPrefix(got, "keep 1 applications: the answer of Compass was incomplete") || strings.Contains(got, "incomplete: ") {
		t.Errorf("plan %q", got)
	}
}
