package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// Guard says which loss of Applications is too large to be believed at once. A runtime that was taken out of its
// formation by mistake gets an empty answer without error, which looks as if every system were gone. That, the loss of
// all, is never believed without a person's word: v1alpha1.ConfirmDeletionAnnotation.
type Guard struct {
	// Count and Share: a loss is large if it is of more than Count Applications and of more than Share of them, or of
	// all. Zero means 5, and a half.
	Count int
	Share float64
	// Confirmations is how many complete snapshots in a row must miss an Application before a large loss is believed.
	// Zero means 3.
	Confirmations int
	// Span is how much time must lie between the first and the last of these snapshots at least: several can be asked
	// for within a second. Zero means an hour; less than zero means none.
	Span time.Duration
}

// Defaults of a Guard.
const (
	DefaultGuardCount         = 5
	DefaultGuardShare         = 0.5
	DefaultGuardConfirmations = 3
	DefaultGuardSpan          = time.Hour
)

func (g Guard) withDefaults() Guard {
	if g.Count == 0 {
		g.Count = DefaultGuardCount
	}
	if g.Share == 0 {
		g.Share = DefaultGuardShare
	}
	if g.Confirmations == 0 {
		g.Confirmations = DefaultGuardConfirmations
	}
	if g.Span == 0 {
		g.Span = DefaultGuardSpan
	}
	return g
}

func (g Guard) large(lost, all int) bool {
	return lost == all || lost > g.Count && float64(lost) > g.Share*float64(all)
}

// Absence is what is known of an Application that is missing.
type Absence struct {
	// Count is by how many complete snapshots in a row it was missed, and Since when the first of them was looked at.
	Count int
	Since time.Time
	// Held says that it was part of a large loss. It stays so until Compass names the system again: the loss must not
	// become a small one because other systems came, or because others of it were deleted.
	Held bool
}

// again is the Absence after one more complete snapshot, at the time now; of the zero value it is the first.
func (a Absence) again(now time.Time) Absence {
	if a.Count == 0 {
		a.Since = now
	}
	a.Count++
	return a
}

// confirmed says that enough snapshots over enough time missed it.
func (a Absence) confirmed(guard Guard, now time.Time) bool {
	return a.Count >= guard.Confirmations && now.Sub(a.Since) >= guard.Span
}

// Absences are the Applications that are missing. They live in memory; what Plan.Missing tells of them outlives it. That a
// loss was large is told by the Application's status, too.
type Absences map[types.UID]Absence

// confirm is what a person can do who does not want to wait.
const confirm = "run kubectl annotate applications NAME... " + v1alpha1.ConfirmDeletionAnnotation + "=" + v1alpha1.DeletionConfirmed

// prune plans for the Applications that came from Compass and that the snapshot does not name.
func (p *planner) prune(snap director.Snapshot, before Absences) {
	ids := map[string]bool{}
	for _, app := range snap.Applications {
		ids[app.ID] = app.ID != ""
	}
	var absent []*v1alpha1.Application
	all, lost := 0, 0
	for _, name := range sortedKeys(p.byName) {
		app := p.byName[name]
		if !managed(app) || app.DeletionTimestamp != nil { // one that is being deleted waits for its finalizers
			continue
		}
		all++
		if p.claimed[name] {
			continue
		}
		absent = append(absent, app)
		// A system that has another name now is not lost.
		if !ids[app.Spec.CompassMetadata.ApplicationID] {
			lost++
		}
	}
	if len(absent) == 0 {
		return
	}
	if !snap.Complete {
		p.plan.Kept = len(absent)
		p.block(fmt.Sprintf("the answer of Compass was incomplete, so what it does not name is kept: %s; Compass: %s", Names(absent), snap.Incomplete))
		return
	}

	guard := p.settings.Guard.withDefaults()
	large := lost > 0 && guard.large(lost, all)
	p.plan.Absences = Absences{}
	var keep []*v1alpha1.Application
	fewest, latest := guard.Confirmations, p.settings.Now
	for _, app := range absent {
		absence := before[app.UID].again(p.settings.Now)
		renamed := ids[app.Spec.CompassMetadata.ApplicationID]
		absence.Held = !renamed && (large || absence.Held || pendingDeletion(app))
		p.plan.Absences[app.UID] = absence
		if absence.Held && !deletionConfirmed(app) && (lost == all || !absence.confirmed(guard, p.settings.Now)) {
			keep, fewest, latest = append(keep, app), min(fewest, absence.Count), later(latest, absence.Since.Add(guard.Span))
			continue
		}
		why := "Compass does not name it any more"
		if renamed {
			why = "its system has another name now"
		}
		p.plan.Steps = append(p.plan.Steps, Step{
			Action: Delete, Name: app.Name, ID: app.Spec.CompassMetadata.ApplicationID, System: app.Name, Observed: app, Changes: []string{why},
		})
	}
	if len(keep) == 0 {
		return
	}
	p.plan.Kept, p.plan.Missing = len(keep), missing(keep, p.plan.Absences)
	var why string
	if lost == all {
		why = fmt.Sprintf("none of the %d Applications is in Compass any more, which is not believed without your word: look at the formations of this runtime; if the systems are really gone, ", all)
	} else {
		why = fmt.Sprintf("%d of %d Applications are no longer in Compass, which is too many to believe at once; they are deleted when %d complete answers in a row miss them (%d so far), not before %s; if the systems are really gone and you do not want to wait, ",
			len(keep), all, guard.Confirmations, fewest, latest.UTC().Format(time.RFC3339))
	}
	p.block(why + confirm + "; kept: " + Names(keep))
	for _, app := range keep {
		p.plan.Steps = append(p.plan.Steps, Step{
			Action: Keep, Name: app.Name, ID: app.Spec.CompassMetadata.ApplicationID, System: app.Name, Observed: app,
			Synchronized: Verdict{metav1.ConditionFalse, ReasonPendingDeletion, fmt.Sprintf(
				"Compass does not name this system any more; the Application is kept until that is confirmed: by further answers, or by the annotation %s=%s",
				v1alpha1.ConfirmDeletionAnnotation, v1alpha1.DeletionConfirmed)},
		})
	}
}

func deletionConfirmed(app *v1alpha1.Application) bool {
	return app.Annotations[v1alpha1.ConfirmDeletionAnnotation] == v1alpha1.DeletionConfirmed
}

func pendingDeletion(app *v1alpha1.Application) bool {
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionSynchronized)
	return c != nil && c.Reason == ReasonPendingDeletion
}

// Names of Applications, of the first ten by name.
func Names(apps []*v1alpha1.Application) string {
	var all []string
	for _, app := range apps {
		all = append(all, app.Name)
	}
	slices.Sort(all)
	const most = 10
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}
