package sync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

func TestAnotherSyncerGoesOnCountingWhatOneTold(t *testing.T) {
	// Not before the Applications are created: what is created after an answer was not missed by it.
	start := time.Now().UTC().Truncate(time.Second).Add(time.Minute + 1)
	all := systems.Some(9)
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
			c.sync(systems.Whole(all...))
			for i := range 2 {
				result, _ := c.sync(systems.Whole(all[0]))
				if diff := cmp.Diff(told(ceiling, int32(i+1), lost...), result.Missing); diff != "" {
					t.Error(diff)
				}
				if !test.recall {
					continue
				}
				c.syncer = &Syncer{Client: c.syncer.Client, Reader: c.syncer.Reader, Namespace: c.namespace, GatewayURL: systems.Gateway, Clock: now}
				c.syncer.Recall(result.Missing)
			}
			if !test.recall {
				c.syncer = &Syncer{Client: c.syncer.Client, Reader: c.syncer.Reader, Namespace: c.namespace, GatewayURL: systems.Gateway, Clock: now}
			}
			now.SetTime(start.Add(test.after))
			p, err := c.syncer.Plan(t.Context(), systems.Whole(all[0]))
			if err != nil || p.Kept != test.kept {
				t.Errorf("the plan keeps %d, error %v", p.Kept, err)
			}
			result, _ := c.sync(systems.Whole(all[0]))
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
	all := systems.Some(9)
	c.sync(systems.Whole(all...))
	c.sync(systems.Whole(all[0]))
	result, _ := c.sync(systems.Whole(all[0]))
	now.SetTime(now.Now().Add(2 * time.Hour))
	c.syncer.Recall(result.Missing)
	if result, _ := c.sync(director.Snapshot{Applications: all[:1], Incomplete: "page 2"}); result.Missing != nil || result.PendingDeletion != 8 {
		t.Errorf("result %+v", result)
	}
	if result, _ := c.sync(systems.Whole(all[0])); result.Deleted != 0 || len(result.Missing) != 1 || result.Missing[0].Answers != 1 {
		t.Errorf("result %+v", result)
	}
}
