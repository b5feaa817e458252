package sync

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// Guard says which loss of Applications is too large to be believed at once. A runtime that was taken out of its
// formation by mistake gets an empty answer without error, which looks as if every system were gone.
type Guard struct {
	// Count and Share: a loss is large if it is of more than Count Applications and of more than Share of them, or of
	// all. Zero means 5, and a half.
	Count int
	Share float64
	// Confirmations is how many complete snapshots in a row must miss an Application before a large loss is believed.
	// Zero means 3; one believes at once.
	Confirmations int
}

// Defaults of a Guard.
const (
	DefaultGuardCount         = 5
	DefaultGuardShare         = 0.5
	DefaultGuardConfirmations = 3
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
	return g
}

func (g Guard) large(lost, all int) bool {
	return lost == all || lost > g.Count && float64(lost) > g.Share*float64(all)
}

// Absences counts, for each Application that is missing, by how many complete snapshots in a row it was missed. It lives
// in memory: after a restart counting begins anew, which only delays a deletion.
type Absences map[types.UID]int

// prune plans for the Applications that came from Compass and that the snapshot does not name.
func (p *planner) prune(snap director.Snapshot, before Absences) {
	guard := p.settings.Guard.withDefaults()
	var missing []*v1alpha1.Application
	all := 0
	for _, name := range sortedKeys(p.byName) {
		app := p.byName[name]
		if !managed(app) {
			continue
		}
		all++
		if !p.claimed[name] {
			missing = append(missing, app)
		}
	}
	if len(missing) == 0 {
		return
	}
	if !snap.Complete {
		p.plan.Kept = len(missing)
		p.plan.PruneBlocked = fmt.Sprintf("the answer of Compass was incomplete, so what it does not name is kept: %s; Compass: %s", names(missing), snap.Incomplete)
		return
	}
	p.plan.Absences = Absences{}
	for _, app := range missing {
		p.plan.Absences[app.UID] = before[app.UID] + 1
	}
	var keep []*v1alpha1.Application
	fewest := guard.Confirmations
	for _, app := range missing {
		count := p.plan.Absences[app.UID]
		if guard.large(len(missing), all) && count < guard.Confirmations {
			keep, fewest = append(keep, app), min(fewest, count)
			continue
		}
		p.plan.Steps = append(p.plan.Steps, Step{
			Action: Delete, Name: app.Name, ID: app.Spec.CompassMetadata.ApplicationID, System: app.Name, Observed: app, Changes: []string{"Compass does not name it any more"},
		})
	}
	if len(keep) == 0 {
		return
	}
	p.plan.Kept = len(keep)
	p.plan.PruneBlocked = fmt.Sprintf("%d of %d Applications are no longer in Compass, which is too many to believe at once; they are deleted when %d complete answers in a row miss them (%d so far): %s",
		len(missing), all, guard.Confirmations, fewest, names(keep))
	for _, app := range keep {
		p.plan.Steps = append(p.plan.Steps, Step{
			Action: Keep, Name: app.Name, ID: app.Spec.CompassMetadata.ApplicationID, System: app.Name, Observed: app,
			Synchronized: Verdict{metav1.ConditionFalse, ReasonPendingDeletion, "Compass does not name this system any more; the Application is kept until further answers confirm that"},
		})
	}
}

func names(apps []*v1alpha1.Application) string {
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
