package connection

import (
	"fmt"
	"time"

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

// settling counts the complete snapshots of a runtime that is not the one by which Applications were last pruned. It lives
// in memory: after a restart counting begins anew, which only delays a deletion.
type settling struct {
	runtime string
	count   int
	since   time.Time
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
