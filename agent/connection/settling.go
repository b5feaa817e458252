package connection

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// A cluster that is paired as another runtime keeps what the one before left: that its first answers miss an Application
// may be because the runtime is in no formation yet, or is the wrong one.
const (
	// settledAfter is how many complete snapshots of the runtime must come before one of them deletes anything.
	settledAfter = 3
	// settlingTime must have passed since the first of them.
	settlingTime = time.Hour
)

// settling counts the complete snapshots of a runtime that is not the one by which Applications were last pruned. The status
// holds it between syncs; without that, counting begins anew, which only delays a deletion.
type settling struct {
	runtime string
	count   int
	since   time.Time
}

// settlingOf is what a status holds.
func settlingOf(st compassv1alpha1.CompassConnectionStatus) settling {
	if st.Settling == nil {
		return settling{}
	}
	return settling{st.Settling.Runtime, int(st.Settling.Answers), st.Settling.Since.Time}
}

// told is settling as a status holds it; nil before the first complete snapshot.
func (s *settling) told() *compassv1alpha1.Settling {
	if s.count == 0 {
		return nil
	}
	since := s.since.Add(time.Second - 1).Truncate(time.Second) // a status holds whole seconds, and it must not be sooner
	return &compassv1alpha1.Settling{Runtime: s.runtime, Answers: int32(s.count), Since: metav1.NewTime(since)}
}

// settled: a complete snapshot of the runtime that comes at a time is believed.
func (s *settling) settled(runtime string, at time.Time) bool {
	return s.runtime == runtime && s.count+1 >= settledAfter && !at.Before(s.since.Add(settlingTime))
}

// hold makes a snapshot one that deletes nothing, as long as the runtime is not settled, and says why.
func (s *settling) hold(runtime string, snapshot *director.Snapshot, now time.Time) string {
	if s.runtime != runtime {
		*s = settling{runtime: runtime, since: now}
	}
	if !snapshot.Complete {
		s.count = 0
		return ""
	}
	if s.count == 0 {
		s.since = now
	}
	s.count++
	until := s.since.Add(settlingTime)
	if s.count >= settledAfter && !now.Before(until) {
		return ""
	}
	why := fmt.Sprintf("the cluster is paired as runtime %s only now; Applications that this runtime does not have are kept until %d complete answers in a row came for it (%d so far), and until %s; delete those yourself that you do not want to wait for",
		runtime, settledAfter, s.count, formatTime(until))
	snapshot.Complete, snapshot.Incomplete = false, why
	return why
}
