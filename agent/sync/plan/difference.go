package plan

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/secret"
)

const applicationKind = "Application"

// Labels of the Secrets.
const (
	labelApplication = "app"
	labelBundle      = "bundleId"
)

// SecretLabels are the keys of the labels that each Secret of an Application has.
var SecretLabels = []string{labelApplication, labelBundle}

// Labels are those of the Secret of an Application.
func (s *SecretStep) Labels(application string) map[string]string {
	return map[string]string{labelApplication: labelValue(application), labelBundle: s.BundleID}
}

// Meet plans anew for a Secret that was to be created and is there already. If it is somebody else's it says so instead.
func (s *SecretStep) Meet(application *v1alpha1.Application, have *corev1.Secret) (taken string) {
	s.Observed = have
	switch {
	case isOwner(application, have), released(application.Name, have):
		s.Action = Update
		s.Changes, s.Stale = secretChanges(application.Name, have, wantedSecret{bundleID: s.BundleID, data: s.Data, meant: s.Meant})
	case orphaned(application.Name, have):
		s.Action = Replace
	default:
		return secretTaken(have.Namespace, have.Name, application.Name)
	}
	return ""
}

// changes names the managed fields in which an Application differs from what is wanted. Everything else belongs to
// users: further labels, further annotations, and the fields that are only written at creation.
func changes(observed, wanted *v1alpha1.Application) []string {
	var names []string
	add := func(name string, same bool) {
		if !same {
			names = append(names, name)
		}
	}
	add("metadata.labels", observed.Labels[v1alpha1.ManagedByLabel] == v1alpha1.ManagedByAgent)
	// What was confirmed is over: it must not count when the system is missing the next time.
	_, confirmed := observed.Annotations[v1alpha1.ConfirmDeletionAnnotation]
	add("metadata.annotations", !confirmed)
	add("spec.description", observed.Spec.Description == wanted.Spec.Description)
	add("spec.labels", observed.Spec.Labels[v1alpha1.ConnectedAppLabel] == wanted.Name)
	add("spec.compassMetadata", sameMetadata(observed.Spec.CompassMetadata, wanted.Spec.CompassMetadata))
	add("spec.services", equality.Semantic.DeepEqual(observed.Spec.Services, wanted.Spec.Services))
	return names
}

// sameMetadata ignores the order of client ids: Compass does not promise one.
func sameMetadata(a, b *v1alpha1.CompassMetadata) bool {
	return a != nil && b != nil && a.ApplicationID == b.ApplicationID && a.ProviderName == b.ProviderName && maps.Equal(a.Labels, b.Labels) &&
		slices.Equal(slices.Sorted(slices.Values(a.Authentication.ClientIDs)), slices.Sorted(slices.Values(b.Authentication.ClientIDs)))
}

// owns says whether a Secret is the Application's: by UID, so that a Secret somebody else made is never touched,
// whatever an Application says about it.
func owns(app *v1alpha1.Application, s *corev1.Secret) bool {
	return s.Labels[labelApplication] == labelValue(app.Name) && s.Labels[labelBundle] != "" && isOwner(app, s)
}

// isOwner is for a Secret that has the very name that the Application needs: its labels may have been removed.
func isOwner(app *v1alpha1.Application, s *corev1.Secret) bool {
	for _, owner := range s.OwnerReferences {
		if owner.Kind == applicationKind && owner.APIVersion == v1alpha1.GroupVersion.String() && owner.Name == app.Name && owner.UID == app.UID {
			return true
		}
	}
	return false
}

// released says whether a Secret is one that the agent wrote for an Application of that name, and whose owner somebody removed.
func released(name string, s *corev1.Secret) bool {
	return len(s.OwnerReferences) == 0 && s.Labels[labelApplication] == labelValue(name) && s.Labels[labelBundle] != "" && s.Annotations[v1alpha1.MeantAnnotation] != ""
}

// orphaned says whether a Secret belonged to a former Application of that name, and to nobody else: the garbage
// collector is about to delete it.
func orphaned(name string, s *corev1.Secret) bool {
	if s.Labels[labelApplication] != labelValue(name) || s.Labels[labelBundle] == "" || len(s.OwnerReferences) == 0 {
		return false
	}
	for _, owner := range s.OwnerReferences {
		if owner.Kind != applicationKind || owner.APIVersion != v1alpha1.GroupVersion.String() || owner.Name != name {
			return false
		}
	}
	return true
}

// secretSteps plans for the Secrets of one Application: those that are wanted in the order of their names, then those
// that are not wanted any more. If a Secret is somebody else's it says so instead.
func (p *planner) secretSteps(name string, app *v1alpha1.Application, w wanted) (steps []SecretStep, taken string) {
	for _, secretName := range sortedKeys(w.secrets) {
		want, have := w.secrets[secretName], p.secrets[secretName]
		step := SecretStep{Action: Create, Name: secretName, BundleID: want.bundleID, Data: want.data, Meant: want.meant, Observed: have}
		switch {
		case have == nil:
		case app != nil && (isOwner(app, have) || released(name, have)):
			step.Action = Update
			step.Changes, step.Stale = secretChanges(name, have, want)
			if !isOwner(app, have) {
				step.Changes = append(step.Changes, "metadata.ownerReferences")
			}
			if len(step.Changes) == 0 {
				continue
			}
		case orphaned(name, have):
			step.Action = Replace
			step.Changes = []string{"its Application is gone"}
		default:
			return nil, secretTaken(p.settings.Namespace, secretName, name)
		}
		steps = append(steps, step)
	}
	if app == nil {
		return steps, ""
	}
	for _, have := range p.owned[app.UID] {
		if _, ok := w.secrets[have.Name]; !ok && !w.kept[have.Name] {
			steps = append(steps, SecretStep{Action: Delete, Name: have.Name, BundleID: have.Labels[labelBundle], Observed: have, Changes: []string{"no API needs it"}})
		}
	}
	return steps, ""
}

func secretTaken(namespace, name, application string) string {
	return "there is a Secret " + namespace + "/" + name + " that does not belong to Application " + application + "; it is left alone: delete or rename it"
}

// secretChanges names the keys that differ, never their values, and the keys that are too many.
func secretChanges(application string, have *corev1.Secret, want wantedSecret) (changes, stale []string) {
	for _, key := range sortedKeys(want.data) {
		if value, ok := have.Data[key]; !ok || secret.Value(value) != want.data[key] {
			changes = append(changes, "data."+key)
		}
	}
	for _, key := range sortedKeys(have.Data) {
		if _, ok := want.data[key]; !ok {
			changes = append(changes, "data."+key)
			stale = append(stale, key)
		}
	}
	if have.Labels[labelBundle] != want.bundleID || have.Labels[labelApplication] != labelValue(application) {
		changes = append(changes, "metadata.labels")
	}
	if have.Annotations[v1alpha1.MeantAnnotation] != want.meant {
		changes = append(changes, "metadata.annotations")
	}
	return changes, stale
}
