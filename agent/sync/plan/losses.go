package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// Loss is a bundle of an Application with a Secret in use for which Compass does not name anything any more. That may be meant:
// an API was made an open one. It may be a field that is null by mistake, and then each bundle of the cluster is such a one.
type Loss struct {
	Application types.UID
	// Bundle by its id.
	Bundle string
}

// Losses are known for as long as they are not believed. They live in memory; that a loss was large is told by the
// Application's status, too.
type Losses map[Loss]Absence

// lost is a Loss with what has to be known to decide about it.
type lost struct {
	Loss
	app *v1alpha1.Application
}

// withhold decides which losses of credentials are not believed: none of an incomplete answer, and for a large share of all
// bundles with Secrets those of a complete one only after further answers, or a person, confirmed them. It is the Guard of
// Applications in small, but that the only bundle may lose its credentials at once.
func (p *planner) withhold(snap director.Snapshot, applications []director.Application, before Losses) {
	losses, all := p.losses(snap, applications)
	p.plan.Withheld = map[Loss]bool{}
	if len(losses) == 0 {
		return
	}
	var keep []*v1alpha1.Application
	hold := func(l lost) {
		p.plan.Withheld[l.Loss] = true
		if !slices.Contains(keep, l.app) {
			keep = append(keep, l.app)
		}
	}
	if !snap.Complete {
		for _, l := range losses {
			hold(l)
		}
		p.block(fmt.Sprintf("the answer of Compass was incomplete, so credentials that it does not name are kept, of %s; Compass: %s", Names(keep), snap.Incomplete))
		return
	}

	guard := p.settings.Guard.withDefaults()
	everything := len(losses) == all && all > 1
	large := everything || len(losses) > guard.Count && float64(len(losses)) > guard.Share*float64(all)
	p.plan.Losses = Losses{}
	fewest, latest := guard.Confirmations, p.settings.Now
	for _, l := range losses {
		absence := before[l.Loss].again(p.settings.Now)
		absence.Held = large || absence.Held || pendingRemoval(l.app)
		p.plan.Losses[l.Loss] = absence
		if !absence.Held || deletionConfirmed(l.app) || !everything && absence.confirmed(guard, p.settings.Now) {
			continue
		}
		hold(l)
		fewest, latest = min(fewest, absence.Count), later(latest, absence.Since.Add(guard.Span))
	}
	switch {
	case len(keep) == 0:
	case everything:
		p.block(fmt.Sprintf("none of the %d bundles with credentials has them in Compass any more, which is not believed without your word: look at what this runtime may see there; if the credentials are really gone, %s; kept: those of %s",
			all, confirm, Names(keep)))
	default:
		p.block(fmt.Sprintf("the credentials of %d of %d bundles are no longer in Compass, which is too many to believe at once; they are removed when %d complete answers in a row miss them (%d so far), not before %s; if they are really gone and you do not want to wait, %s; kept: those of %s",
			len(p.plan.Withheld), all, guard.Confirmations, fewest, latest.UTC().Format(time.RFC3339), confirm, Names(keep)))
	}
}

// losses finds the bundles that lose a Secret, and counts all that have one: of the systems that Compass names by the name
// they have in the cluster.
func (p *planner) losses(snap director.Snapshot, applications []director.Application) (losses []lost, all int) {
	for _, app := range applications {
		name := ApplicationName(app.Name, snap.RuntimeLabels)
		existing := p.byName[name]
		if existing == nil || !managed(existing) || existing.Spec.CompassMetadata.ApplicationID != app.ID {
			continue
		}
		wanted := map[string]bool{}
		for _, bundle := range app.Bundles {
			a := bundleAccess(name, bundle, past{})
			hidden := bundle.AuthPending
			wanted[credentialsSecretName(name, bundle.ID)] = hidden || len(bundle.APIs) > 0 && a.data != nil
			wanted[parametersSecretName(name, bundle.ID)] = hidden || len(bundle.APIs) > 0 && a.parameters != nil
		}
		named := map[string]bool{}
		for _, service := range existing.Spec.Services {
			for _, entry := range service.Entries {
				named[entry.Credentials.SecretName], named[entry.RequestParametersSecretName] = true, true
			}
		}
		has := map[string]bool{} // each bundle with a Secret that is in use, and whether it loses one
		for _, s := range p.owned[existing.UID] {
			if bundle := s.Labels[labelBundle]; named[s.Name] {
				has[bundle] = has[bundle] || !wanted[s.Name]
			}
		}
		all += len(has)
		for _, bundle := range sortedKeys(has) {
			if has[bundle] {
				losses = append(losses, lost{Loss{existing.UID, bundle}, existing})
			}
		}
	}
	return losses, all
}

// pendingRemoval says that a former plan did not believe a loss of this Application.
func pendingRemoval(app *v1alpha1.Application) bool {
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionCredentialsReady)
	return c != nil && c.Reason == ReasonPendingRemoval
}

// block adds to what is kept and why.
func (p *planner) block(why string) {
	p.plan.PruneBlocked = strings.TrimPrefix(p.plan.PruneBlocked+"; "+why, "; ")
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
