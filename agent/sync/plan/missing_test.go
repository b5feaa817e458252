package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

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
			got := Recall(told, applications)
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

func TestAnApplicationOfThatNameThatCameLaterIsNotMissingYet(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	kept, applications, absences := absent(2, func(int) Absence { return Absence{2, since, true} })
	told := missing(kept, absences)
	applications[0].CreationTimestamp = metav1.NewTime(since)
	applications[1].CreationTimestamp = metav1.NewTime(since.Add(time.Second))
	if diff := cmp.Diff(Absences{"0": {2, since, true}}, Recall(told, applications)); diff != "" {
		t.Error(diff)
	}
}

func TestAPlanSaysThatTheAnswerWasNotWhole(t *testing.T) {
	snap := director.Snapshot{Applications: systems.Some(1), Incomplete: "page 2 of applications is missing"}
	plan := New(snap, observe(systems.Some(1)), Settings{GatewayURL: systems.Gateway}, nil)
	if got, want := plan.String(), "incomplete: the answer of Compass was not whole, so nothing would be deleted; Compass: page 2 of applications is missing\n"; got != want {
		t.Errorf("plan %q, want %q", got, want)
	}
	text, err := plan.MarshalJSON()
	if err != nil || !strings.Contains(string(text), `"incomplete":"page 2 of applications is missing"`) {
		t.Errorf("plan %s, error %v", text, err)
	}
	plan = New(snap, observe(systems.Some(2)), Settings{GatewayURL: systems.Gateway}, nil)
	if got := plan.String(); !strings.HasPrefix(got, "keep 1 applications: the answer of Compass was incomplete") || strings.Contains(got, "incomplete: ") {
		t.Errorf("plan %q", got)
	}
}
