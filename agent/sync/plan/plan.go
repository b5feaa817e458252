package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// Settings is what a plan depends upon besides the snapshot and the cluster.
type Settings struct {
	// Namespace of the Secrets.
	Namespace string
	// GatewayURL is the prefix of the URLs under which workloads call APIs, without a slash at the end.
	GatewayURL string
	// SkipVerify is written into Applications when they are created, and never again.
	SkipVerify bool
	// Guard says when a loss of Applications has to be confirmed.
	Guard Guard
	// Now is the time at which the plan is made.
	Now time.Time
}

// Observed is what the cluster holds.
type Observed struct {
	// Applications, all of them.
	Applications []v1alpha1.Application
	// Secrets of the namespace that carry the labels of this package.
	Secrets []corev1.Secret
	// Former are Applications of which Director does not tell all, as a former sync meant them to be, by name. They count
	// more than what is observed: of what stays as it is, somebody may have changed what is observed. May be nil.
	Former map[string]*v1alpha1.Application
	// Losses are those of the plan before; may be nil.
	Losses Losses
	// Withheld, if it is not nil, is what a former plan decided about losses. The snapshot is a part of that plan's then, and
	// nothing is decided anew.
	Withheld map[Loss]bool
}

// Action is what a step does to an object.
type Action string

// Actions. Keep leaves everything but the status alone.
const (
	Create  Action = "create"
	Update  Action = "update"
	Replace Action = "replace"
	Delete  Action = "delete"
	Keep    Action = "keep"
)

// Step is what is to be done for one Application. Name is its name in the cluster; ID and System are the id and the
// name of the system in Compass.
type Step struct {
	Action           Action
	Name, ID, System string
	// Changes names the fields that differ.
	Changes []string
	// Wanted is nil for Delete, and for Keep of what Compass no longer names.
	Wanted *v1alpha1.Application
	// Observed is nil for Create.
	Observed *v1alpha1.Application
	Secrets  []SecretStep
	// Synchronized and CredentialsReady are the conditions that follow if the step succeeds. An empty one leaves the condition
	// as it is.
	Synchronized, CredentialsReady Verdict
}

// Idle says that everything but the status stays as it is.
func (s *Step) Idle() bool { return s.Action == Keep && len(s.Secrets) == 0 }

// Differences names what is changed by the step, without values.
func (s *Step) Differences() string {
	all := slices.Clone(s.Changes)
	for _, secret := range s.Secrets {
		all = append(all, fmt.Sprintf("%s secret %s%s", secret.Action, secret.Name, because(secret.Changes)))
	}
	return strings.Join(all, ", ")
}

// SecretStep is what is to be done for one Secret. Update adds and changes keys before the Application is written, and
// removes Stale ones after it, so that at no time the credentials lack that the Application names.
type SecretStep struct {
	Action   Action
	Name     string
	BundleID string
	Data     map[string]secret.Value
	// Meant is the value of v1alpha1.MeantAnnotation.
	Meant string
	// Stale are keys that are to be removed.
	Stale []string
	// Changes names what differs, without values.
	Changes []string
	// Observed is nil for Create.
	Observed *corev1.Secret
}

// Failure is a system that cannot be brought into place; ID and System are its id and its name in Compass.
type Failure struct {
	ID, System, Reason, Message string
}

// Told is the failure as a status names it.
func (f Failure) Told() compassv1alpha1.FailedApplication {
	return compassv1alpha1.FailedApplication{ID: f.ID, Name: f.System, Reason: f.Reason, Message: f.Message}
}

// Plan is what the next sync would do, and why. It holds no secret that its String would show.
type Plan struct {
	// Steps in the order of names.
	Steps []Step
	// Failures in the order of ids: systems that get no step, or one that only says so in their Application's status.
	Failures []Failure
	// Total is how many systems Compass named.
	Total int
	// Kept is how many Applications stay although Compass does not name them, and Withheld are the bundles whose Secrets do;
	// PruneBlocked says why, and is empty if there are neither.
	Kept         int
	Withheld     map[Loss]bool
	PruneBlocked string
	// Missing tells of those of Kept that wait for further answers.
	Missing []compassv1alpha1.MissingApplications
	// Incomplete says why the answer of Compass was not whole; empty if it was.
	Incomplete string
	// Absences is the Guard's memory, to be handed to the next plan.
	Absences Absences
	// Losses is the Guard's memory of credentials, to be handed to the next plan.
	Losses Losses
}

// New computes what has to be done so that the cluster holds what the snapshot says. It is a pure function of its
// arguments. Absences is that of the plan before, or nil.
func New(snap director.Snapshot, observed Observed, settings Settings, absences Absences) Plan {
	p := planner{
		settings: settings,
		byName:   map[string]*v1alpha1.Application{},
		byID:     map[string]*v1alpha1.Application{},
		owned:    map[types.UID][]*corev1.Secret{},
		secrets:  map[string]*corev1.Secret{},
		claimed:  map[string]bool{},
		former:   observed.Former,
		named:    map[string]bool{},
		withheld: map[types.UID][]string{},
		plan:     Plan{Total: len(snap.Applications) + len(snap.Invalid)},
	}
	if !snap.Complete {
		p.plan.Incomplete = snap.Incomplete
	}
	p.look(observed)

	for _, app := range snap.Applications {
		p.named[app.ID] = true
	}
	for _, app := range snap.Invalid {
		p.named[app.ID] = true
	}

	applications := slices.Clone(snap.Applications)
	slices.SortStableFunc(applications, func(a, b director.Application) int { return strings.Compare(a.ID, b.ID) })
	if p.plan.Withheld = observed.Withheld; p.plan.Withheld == nil {
		p.unproven = !snap.Complete
		p.withhold(snap, applications, observed.Losses)
	}
	for loss := range p.plan.Withheld {
		p.withheld[loss.Application] = append(p.withheld[loss.Application], loss.Bundle)
	}
	var failures []Failure
	for _, app := range applications {
		if failure := p.application(app, ApplicationName(app.Name, snap.RuntimeLabels)); failure != nil {
			failures = append(failures, *failure)
		}
	}
	for _, app := range snap.Invalid {
		failures = append(failures, Failure{app.ID, app.Name, ReasonInvalidData, app.Reason})
	}
	// What fails comes last, so that it takes no name from what does not.
	for _, failure := range failures {
		p.fail(failure, ApplicationName(failure.System, snap.RuntimeLabels))
	}
	p.prune(snap, absences)

	slices.SortFunc(p.plan.Steps, func(a, b Step) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(p.plan.Failures, func(a, b Failure) int { return strings.Compare(a.ID, b.ID) })
	return p.plan
}

type planner struct {
	settings Settings
	byName   map[string]*v1alpha1.Application
	// byID holds the Applications that are ours, by the id of their system.
	byID map[string]*v1alpha1.Application
	// owned holds the Secrets of each Application.
	owned   map[types.UID][]*corev1.Secret
	secrets map[string]*corev1.Secret
	// claimed are the names that the snapshot speaks of: they are not absent.
	claimed map[string]bool
	former  map[string]*v1alpha1.Application
	// unproven: what Compass does not name may be there all the same.
	unproven bool
	// named are the ids of all systems that Compass names.
	named map[string]bool
	// withheld are the ids of the bundles of each Application whose losses are not believed.
	withheld map[types.UID][]string
	plan     Plan
}

func (p *planner) look(observed Observed) {
	for i := range observed.Applications {
		app := &observed.Applications[i]
		p.byName[app.Name] = app
		if managed(app) && app.Spec.CompassMetadata.ApplicationID != "" {
			p.byID[app.Spec.CompassMetadata.ApplicationID] = app
		}
	}
	for i := range observed.Secrets {
		s := &observed.Secrets[i]
		p.secrets[s.Name] = s
		for _, owner := range s.OwnerReferences {
			if app := p.byName[owner.Name]; app != nil && owns(app, s) {
				p.owned[app.UID] = append(p.owned[app.UID], s)
				break
			}
		}
	}
}

// application plans for one system, or says why it cannot. Systems come in the order of their ids: of two with one name
// the first wins, on every cluster and in every sync.
func (p *planner) application(app director.Application, name string) *Failure {
	if reason, message := invalid(name, app); reason != "" {
		return &Failure{app.ID, app.Name, reason, message}
	}
	if p.claimed[name] {
		return &Failure{app.ID, app.Name, ReasonDuplicateName, fmt.Sprintf(
			"another system is in the cluster as %q; names must differ in more than case and special characters", name)}
	}
	existing := p.byName[name]
	if existing != nil && !adoptable(existing, app.ID) {
		return &Failure{app.ID, app.Name, ReasonNameTaken, nameTaken(name)}
	}
	if existing != nil && p.unproven && another(existing, app.ID) {
		return &Failure{app.ID, app.Name, ReasonDuplicateName, fmt.Sprintf(
			"another system is in the cluster as %q; that it is gone is not known before an answer of Compass is complete", name)}
	}
	p.claimed[name] = true

	was := past{application: existing}
	if existing != nil {
		was.withheld = slices.Sorted(slices.Values(p.withheld[existing.UID]))
		was.owned = func(secretName string) *corev1.Secret {
			if s := p.secrets[secretName]; s != nil && (isOwner(existing, s) || released(name, s)) {
				return s
			}
			return nil
		}
		if meant := p.former[name]; meant != nil && meant.Spec.CompassMetadata.ApplicationID == app.ID {
			was.application = meant
		}
	}
	w := mapApplication(name, app, was, p.settings.GatewayURL, p.settings.SkipVerify)
	step := Step{
		Action: Create, Name: name, ID: app.ID, System: app.Name, Wanted: w.application, Observed: existing,
		Synchronized: w.synchronized, CredentialsReady: w.credentialReady,
	}
	if existing != nil {
		step.Action = Keep
		if step.Changes = changes(existing, w.application); len(step.Changes) > 0 {
			step.Action = Update
		}
	}
	var taken string
	if step.Secrets, taken = p.secretSteps(name, existing, w); taken != "" {
		if existing == nil {
			return &Failure{app.ID, app.Name, ReasonSecretTaken, taken}
		}
		step.Action, step.Changes, step.Secrets = Keep, nil, nil
		step.Synchronized = Verdict{metav1.ConditionFalse, ReasonSecretTaken, taken}
		step.CredentialsReady = Verdict{metav1.ConditionFalse, ReasonSecretNotWritten, taken}
	}
	if step.Synchronized.Status != metav1.ConditionTrue {
		p.plan.Failures = append(p.plan.Failures, Failure{app.ID, app.Name, step.Synchronized.Reason, step.Synchronized.Message})
	}
	p.plan.Steps = append(p.plan.Steps, step)
	return nil
}

// Taken says why a Create step may not write an Application of its name that is there after all; empty if it may.
func (s *Step) Taken(app *v1alpha1.Application) string {
	if adoptable(app, s.ID) {
		return ""
	}
	return nameTaken(s.Name)
}

func nameTaken(name string) string {
	return fmt.Sprintf("there is an Application %q that does not come from Compass; rename or delete one of the two", name)
}

// fail records a failure. The Application that stands for the system, by name or by id, is not absent: it stays, and
// shows the failure. It may be neither that of another system nor somebody else's.
func (p *planner) fail(f Failure, name string) {
	p.plan.Failures = append(p.plan.Failures, f)
	for _, app := range []*v1alpha1.Application{p.byName[name], p.byID[f.ID]} {
		if app == nil || !managed(app) || p.claimed[app.Name] {
			continue
		}
		// That of another system which Compass names, too, or may name, by a name that it had before, is not this one's.
		if another(app, f.ID) && (p.unproven || p.named[app.Spec.CompassMetadata.ApplicationID]) {
			continue
		}
		p.claimed[app.Name] = true
		p.plan.Steps = append(p.plan.Steps, Step{
			Action: Keep, Name: app.Name, ID: f.ID, System: f.System, Observed: app,
			Synchronized: Verdict{metav1.ConditionFalse, f.Reason, f.Message},
		})
	}
}

// managed says whether an Application came from Compass: only such are deleted.
func managed(app *v1alpha1.Application) bool {
	return app.Labels[v1alpha1.ManagedByLabel] == v1alpha1.ManagedByAgent && app.Spec.CompassMetadata != nil
}

// another says whether an Application stands for another system than the one with that id.
func another(app *v1alpha1.Application, id string) bool {
	return managed(app) && app.Spec.CompassMetadata.ApplicationID != "" && app.Spec.CompassMetadata.ApplicationID != id
}

// adoptable says whether an Application may be written for the system with that id. It is less than managed: a label or
// metadata that somebody removed is put back.
func adoptable(app *v1alpha1.Application, id string) bool {
	return app.Labels[v1alpha1.ManagedByLabel] == v1alpha1.ManagedByAgent ||
		app.Spec.CompassMetadata != nil && app.Spec.CompassMetadata.ApplicationID == id
}

// String prints what the plan does, one object a line, without any secret.
func (p Plan) String() string {
	var b strings.Builder
	for _, step := range p.Steps {
		if step.Idle() {
			continue
		}
		fmt.Fprintf(&b, "%s application %s%s\n", step.Action, step.Name, because(step.Changes))
		for _, s := range step.Secrets {
			fmt.Fprintf(&b, "  %s secret %s%s\n", s.Action, s.Name, because(s.Changes))
		}
	}
	for _, f := range p.Failures {
		fmt.Fprintf(&b, "fail %s (%s): %s: %s\n", f.System, f.ID, f.Reason, f.Message)
	}
	if p.Kept > 0 {
		fmt.Fprintf(&b, "keep %d applications: %s\n", p.Kept, p.PruneBlocked)
	} else if p.PruneBlocked != "" {
		fmt.Fprintf(&b, "keep credentials of %d bundles: %s\n", len(p.Withheld), p.PruneBlocked)
	} else if p.Incomplete != "" {
		fmt.Fprintf(&b, "incomplete: the answer of Compass was not whole, so nothing would be deleted; Compass: %s\n", p.Incomplete)
	}
	return b.String()
}

func because(changes []string) string {
	if len(changes) == 0 {
		return ""
	}
	return " (" + strings.Join(changes, ", ") + ")"
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
