package plan

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// noDescription stands where Compass has none: the resource wants one.
const noDescription = "Description not provided"

// Verdict is the status, reason and message of one condition.
type Verdict struct {
	Status  metav1.ConditionStatus
	Reason  string
	Message string
}

// wanted is what the cluster should hold for one system.
type wanted struct {
	application *v1alpha1.Application
	secrets     map[string]wantedSecret
	// kept names Secrets that stay as they are, although nothing is wanted of them.
	kept                          map[string]bool
	synchronized, credentialReady Verdict
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (wanted) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

type wantedSecret struct {
	bundleID string
	data     map[string]secret.Value
	// meant is the value of the annotation.
	meant string
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (wantedSecret) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// mapApplication computes what the cluster should hold for a system. Was is what it holds; only for what Director does not
// tell does it matter.
func mapApplication(name string, app director.Application, was past, gateway string, skipVerify bool) wanted {
	w := wanted{
		application: &v1alpha1.Application{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.ManagedByAgent}},
			Spec: v1alpha1.ApplicationSpec{
				Description: describe(app.Description),
				SkipVerify:  skipVerify,
				Labels:      map[string]string{v1alpha1.ConnectedAppLabel: name},
				CompassMetadata: &v1alpha1.CompassMetadata{
					ApplicationID:  app.ID,
					Authentication: v1alpha1.Authentication{ClientIDs: clientIDs(app, was.application)},
				},
				Services: []v1alpha1.Service{},
			},
		},
		secrets: map[string]wantedSecret{},
		kept:    map[string]bool{},
	}
	room := &budget{left: metadataBudget}
	w.application.Spec.CompassMetadata.ProviderName = room.keep(app.ProviderName)
	w.application.Spec.CompassMetadata.Labels = room.labels(app.Labels)
	var unfit, notes []string
	unfitReason := ""
	stored := false
	for _, bundle := range app.Bundles {
		a := bundleAccess(name, bundle, was)
		if len(bundle.APIs) == 0 && a.reason != ReasonPendingRemoval {
			a = access{kept: a.kept} // nobody could use it
		}
		w.addSecrets(name, bundle.ID, a)
		stored = stored || a.data != nil || a.parameters != nil || a.entry.SecretName != ""
		switch {
		case a.reason != "":
			unfit = append(unfit, fmt.Sprintf("bundle %q: %s", bundle.Name, a.message))
			unfitReason = cmp.Or(unfitReason, a.reason)
		case a.message != "":
			notes = append(notes, fmt.Sprintf("bundle %q: %s", bundle.Name, a.message))
		}
		w.application.Spec.Services = append(w.application.Spec.Services, service(name, bundle, a, gateway, room))
	}
	for _, id := range was.withheld {
		w.kept[credentialsSecretName(name, id)], w.kept[parametersSecretName(name, id)] = true, true
		if !slices.ContainsFunc(app.Bundles, func(b director.Bundle) bool { return b.ID == id }) {
			unfit, unfitReason = append(unfit, fmt.Sprintf("bundle %s: %s", id, removalPending)), cmp.Or(unfitReason, ReasonPendingRemoval)
		}
	}
	room.describeEntries(w.application.Spec.Services, app.Bundles)

	switch {
	case len(unfit) > 0:
		w.credentialReady = Verdict{metav1.ConditionFalse, unfitReason, list(unfit)}
	case !stored:
		w.credentialReady = Verdict{metav1.ConditionTrue, ReasonNoCredentials, "Compass names no credentials"}
	case len(notes) > 0:
		w.credentialReady = Verdict{metav1.ConditionTrue, ReasonStored, list(notes)}
	default:
		w.credentialReady = Verdict{metav1.ConditionTrue, ReasonStored, "every credential is in its Secret"}
	}
	w.synchronized = Verdict{metav1.ConditionTrue, ReasonUpToDate, "the Application holds what Compass says"}
	if room.over {
		w.synchronized.Message += fmt.Sprintf(", but for metadata of its APIs, events and labels beyond %d KiB in all", metadataBudget>>10)
	}
	if app.AuthsUnknown {
		w.synchronized.Message += "; which client certificates the system has is hidden in Compass, so those of before stay"
	}
	if reason, message := uncallable(w.application.Spec.Services); reason != "" {
		w.synchronized = Verdict{metav1.ConditionFalse, reason, message}
	}
	return w
}

// uncallable says which APIs cannot be called because of their names; empty if all can be.
func uncallable(services []v1alpha1.Service) (reason, message string) {
	var wrong []string
	if unnamed := unnamed(services); len(unnamed) > 0 {
		reason = ReasonUnnamedAPIs
		wrong = append(wrong, "nothing is left in the URL at the gateway of names without any letter from a to z and any digit; give them other names in Compass: "+list(unnamed))
	}
	if same := ambiguous(services); len(same) > 0 {
		reason = cmp.Or(reason, ReasonAmbiguousAPIs)
		wrong = append(wrong, "several APIs have the same URL at the gateway, which refuses them all; give them other names in Compass: "+list(same))
	}
	return reason, strings.Join(wrong, "; ")
}

// InPlace says whether an Application that fails for that reason holds what Compass says all the same.
func InPlace(reason string) bool { return reason == ReasonAmbiguousAPIs || reason == ReasonUnnamedAPIs }

// unnamed are the bundles with APIs, and the APIs, whose part of a URL is empty.
func unnamed(services []v1alpha1.Service) (names []string) {
	for _, service := range services {
		called := false
		for _, entry := range service.Entries {
			if entry.Type != v1alpha1.EntryTypeAPI {
				continue
			}
			called = true
			if segment(entry.Name) == "" {
				names = append(names, fmt.Sprintf("bundle %q, API %q", service.DisplayName, entry.Name))
			}
		}
		if called && segment(service.DisplayName) == "" {
			names = append(names, fmt.Sprintf("bundle %q", service.DisplayName))
		}
	}
	return names
}

// clientIDs are the common names of the system's client certificates; those of before, as long as Director hides them.
func clientIDs(app director.Application, former *v1alpha1.Application) []string {
	if app.AuthsUnknown && former != nil && former.Spec.CompassMetadata != nil && former.Spec.CompassMetadata.ApplicationID == app.ID {
		return append([]string{}, former.Spec.CompassMetadata.Authentication.ClientIDs...)
	}
	return append([]string{}, app.AuthIDs...)
}

func (w *wanted) addSecrets(application, bundleID string, a access) {
	credentials, parameters := credentialsSecretName(application, bundleID), parametersSecretName(application, bundleID)
	if a.kept {
		w.kept[credentials], w.kept[parameters] = true, true
		return
	}
	if a.data != nil {
		w.secrets[credentials] = wantedSecret{bundleID: bundleID, data: a.data, meant: a.meant}
	}
	if a.parameters != nil {
		w.secrets[parameters] = wantedSecret{bundleID: bundleID, data: a.parameters, meant: a.meant}
	}
}

func service(application string, bundle director.Bundle, a access, gateway string, room *budget) v1alpha1.Service {
	s := v1alpha1.Service{
		ID:                        bundle.ID,
		Name:                      serviceName(bundle.Name, bundle.ID),
		DisplayName:               bundle.Name,
		Description:               describe(bundle.Description),
		AuthCreateParameterSchema: bundle.AuthRequestSchema,
		Entries:                   []v1alpha1.Entry{},
	}
	for _, api := range bundle.APIs {
		entry := v1alpha1.Entry{
			ID: api.ID, Name: api.Name, Type: v1alpha1.EntryTypeAPI,
			TargetURL:         api.TargetURL,
			CentralGatewayURL: gatewayURL(gateway, application, bundle.Name, api.Name),
			Credentials:       *a.entry.DeepCopy(),
			Version:           room.version(api.Version), Group: room.keep(api.Group),
		}
		if a.parameters != nil {
			entry.RequestParametersSecretName = parametersSecretName(application, bundle.ID)
		}
		s.Entries = append(s.Entries, entry)
	}
	for _, event := range bundle.Events {
		s.Entries = append(s.Entries, v1alpha1.Entry{
			ID: event.ID, Name: event.Name, Type: v1alpha1.EntryTypeEvents, Version: room.version(event.Version), Group: room.keep(event.Group),
		})
	}
	return s
}

// invalid says by which reason a system cannot stand in the cluster at all; empty if it can.
func invalid(name string, app director.Application) (reason, message string) {
	if app.ID == "" {
		return ReasonInvalidData, "the id is empty"
	}
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return ReasonInvalidName, fmt.Sprintf("%q cannot be the name of an Application: %s", name, strings.Join(wrong, ", "))
	}
	for _, bundle := range app.Bundles {
		for _, api := range bundle.APIs {
			if api.TargetURL == "" {
				return ReasonInvalidData, fmt.Sprintf("bundle %q, API %q: the target URL is empty", bundle.Name, api.Name)
			}
		}
		if a := bundleAccess(name, bundle, past{}); a.data == nil && a.parameters == nil {
			continue
		}
		if wrong := validation.IsDNS1123Subdomain(credentialsSecretName(name, bundle.ID)); len(wrong) > 0 {
			return ReasonInvalidData, fmt.Sprintf("bundle %q: its id %q cannot be part of a Secret's name: %s", bundle.Name, bundle.ID, strings.Join(wrong, ", "))
		}
		if wrong := validation.IsValidLabelValue(bundle.ID); len(wrong) > 0 {
			return ReasonInvalidData, fmt.Sprintf("bundle %q: its id %q cannot be a label: %s", bundle.Name, bundle.ID, strings.Join(wrong, ", "))
		}
	}
	return "", ""
}

// ambiguous names the URLs that more than one API has.
func ambiguous(services []v1alpha1.Service) []string {
	names := map[string][]string{}
	for _, service := range services {
		for _, entry := range service.Entries {
			if entry.Type == v1alpha1.EntryTypeAPI {
				names[entry.CentralGatewayURL] = append(names[entry.CentralGatewayURL], fmt.Sprintf("%s/%s", service.DisplayName, entry.Name))
			}
		}
	}
	var same []string
	for url, apis := range names {
		if len(apis) > 1 {
			same = append(same, url+" ("+strings.Join(apis, ", ")+")")
		}
	}
	sort.Strings(same)
	return same
}

func formerService(former *v1alpha1.Application, id string) *v1alpha1.Service {
	if former == nil {
		return nil
	}
	for i := range former.Spec.Services {
		if former.Spec.Services[i].ID == id {
			return &former.Spec.Services[i]
		}
	}
	return nil
}

func describe(description string) string {
	if description == "" {
		return noDescription
	}
	return description
}

// list joins messages, but not more than a reader of a condition wants to see.
func list(items []string) string {
	const most, length = 5, 1024
	text := strings.Join(items[:min(len(items), most)], "; ")
	if runes := []rune(text); len(runes) > length {
		text = string(runes[:length]) + "…"
	}
	if len(items) > most {
		text += fmt.Sprintf("; and %d more", len(items)-most)
	}
	return text
}
