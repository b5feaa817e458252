package plan

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// Bounds of Plan.Missing.
const (
	// maxMissingNames is how many names each entry has.
	maxMissingNames = 50
	// maxMissing is how many entries there are.
	maxMissing = 10
)

// missing tells of the Applications that are kept, for Recall. What it leaves out for the sake of its bounds makes a
// deletion later, never sooner.
func missing(kept []*v1alpha1.Application, absences Absences) []compassv1alpha1.MissingApplications {
	var all []compassv1alpha1.MissingApplications
	for _, app := range kept {
		absence := absences[app.UID]
		since := metav1.NewTime(absence.Since.Truncate(time.Second))
		if since.Time.Before(absence.Since) { // a status holds whole seconds
			since = metav1.NewTime(since.Add(time.Second))
		}
		i := slices.IndexFunc(all, func(m compassv1alpha1.MissingApplications) bool {
			return m.Since.Equal(&since) && m.Answers == int32(absence.Count)
		})
		if i < 0 {
			i = len(all)
			all = append(all, compassv1alpha1.MissingApplications{Since: since, Answers: int32(absence.Count)})
		}
		all[i].Count++
		if len(all[i].Names) < maxMissingNames {
			all[i].Names = append(all[i].Names, app.Name)
		}
	}
	slices.SortStableFunc(all, func(a, b compassv1alpha1.MissingApplications) int { return a.Since.Compare(b.Since.Time) })
	for len(all) > maxMissing { // the two youngest become one, as young as the younger
		last, before := all[len(all)-1], &all[len(all)-2]
		before.Since, before.Answers, before.Count = last.Since, min(last.Answers, before.Answers), last.Count+before.Count
		before.Names = append(before.Names, last.Names...)
		before.Names = before.Names[:min(len(before.Names), maxMissingNames)]
		all = all[:len(all)-1]
	}
	return all
}

// Recall makes Absences of what a Plan told as its Missing, when its Absences are gone. An Application that is known to be
// missing and is not named is among those that an entry had no room for: of these entries the youngest counts. One that was
// created after it is said to have been missing is another one of that name.
func Recall(told []compassv1alpha1.MissingApplications, applications []v1alpha1.Application) Absences {
	named := map[string]Absence{}
	var unnamed *Absence
	for _, m := range told {
		absence := Absence{Count: int(m.Answers), Since: m.Since.Time, Held: true}
		for _, name := range m.Names {
			named[name] = absence
		}
		if int(m.Count) > len(m.Names) {
			unnamed = &absence
		}
	}
	absences := Absences{}
	for i := range applications {
		app := &applications[i]
		absence, known := named[app.Name]
		if !known && unnamed != nil && pendingDeletion(app) {
			absence, known = *unnamed, true
		}
		if known && !app.CreationTimestamp.After(absence.Since) {
			absences[app.UID] = absence
		}
	}
	return absences
}
