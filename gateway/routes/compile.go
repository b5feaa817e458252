package routes

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/limits"
	"github.com/application-connector/application-connector/gateway/settings"
)

// Reason classifies a problem, in one word for conditions.
type Reason string

// Reasons of problems besides those of package credentials.
const (
	ReasonSecretMissing    Reason = "SecretMissing"
	ReasonSecretUnreadable Reason = "SecretUnreadable"
	ReasonTargetInvalid    Reason = "TargetInvalid"
	ReasonTokenURLInvalid  Reason = "TokenURLInvalid"
	ReasonCSRFURLInvalid   Reason = "CSRFURLInvalid"
	ReasonAmbiguous        Reason = "Ambiguous"
	ReasonSettingsInvalid  Reason = "SettingsInvalid"
	// ReasonCallersUnused is of settings that were to keep callers from an API, and that no API has.
	ReasonCallersUnused Reason = "AllowedCallersUnused"
)

// Problem is why an API cannot be called, or why it can be by whom it should not.
type Problem struct {
	// Service and Entry are the names in the Application; both are empty if no API in it has the problem.
	Service, Entry string
	Reason         Reason
	// Message says what is wrong and what would be right. It names Secrets and keys, never values.
	Message string
	// Answer is what a caller is told.
	Answer string
}

// secretState is what is known of a Secret.
type secretState struct {
	found bool
	data  map[string][]byte
	err   error // why it could not be read; what was read before stays in force
}

// secretSource tells of the Secrets that Applications name.
type secretSource interface {
	secret(name string) secretState
}

// compile works out what an Application means. What it parsed the last time is taken from previous, which may be nil, and
// so are the gates whose limits are the same, with what they count.
func compile(app *v1alpha1.Application, secrets secretSource, previous *application) *application {
	if previous == nil {
		previous = &application{}
	}
	a := &application{
		name: app.Name, generation: app.Generation, memo: credentials.Memo{},
		services: map[string]*candidates{}, entries: map[entryKey]*candidates{},
		report: Report{Generation: app.Generation, SkipVerify: app.Spec.SkipVerify},
	}
	targets := map[string]*v1alpha1.TargetSettings{}
	for i := range app.Spec.TargetSettings {
		targets[app.Spec.TargetSettings[i].Target] = &app.Spec.TargetSettings[i]
	}
	sharing := map[string][]string{} // names of services by their segment
	for _, service := range app.Spec.Services {
		segment, apis := Segment(service.DisplayName), a.report.APIs
		for _, entry := range service.Entries {
			if entry.Type != v1alpha1.EntryTypeAPI {
				continue
			}
			a.report.APIs++
			c := compiler{app: app, service: service, entry: entry, secrets: secrets, previous: previous, into: a, targets: targets}
			route := c.route()
			a.report.Problems = append(a.report.Problems, c.problems...)
			match := Match{service.ID, service.DisplayName, entry.Name}
			key := entryKey{route.Service, route.Entry}
			a.services[route.Service] = a.services[route.Service].add(route, match)
			a.entries[key] = a.entries[key].add(route, match)
			// A service with several APIs is as it should be: each is called by its own name. Two that share both names
			// can be called by neither.
			if n := len(a.entries[key].routes); n == 2 {
				a.report.Problems = append(a.report.Problems, Problem{
					Service: service.Name, Entry: entry.Name, Reason: ReasonAmbiguous,
					Message: fmt.Sprintf("several APIs are called /%s/%s in URLs: give services other displayNames, or entries other names", key.service, key.entry),
				})
			}
		}
		if a.report.APIs > apis {
			sharing[segment] = append(sharing[segment], service.Name)
		}
	}
	for _, segment := range slices.Sorted(maps.Keys(sharing)) {
		if services := sharing[segment]; len(services) > 1 {
			a.report.Shared = append(a.report.Shared, Shared{segment, services})
		}
	}
	for _, t := range app.Spec.TargetSettings {
		service, entry, _ := strings.Cut(t.Target, "/")
		switch {
		case t.Target == v1alpha1.AllTargets || a.entries[entryKey{service, entry}] != nil:
		case t.AllowedCallers != nil:
			// Which API was meant would be a guess, and often none is: settings outlive APIs that a sync takes away.
			a.report.Problems = append(a.report.Problems, Problem{Reason: ReasonCallersUnused, Message: settings.Path(t.Target) +
				".allowedCallers keeps nobody from any API, for none is called so: use service/entry as in URLs of port 8082, or take it away"})
		default:
			a.report.Unused = append(a.report.Unused, t.Target)
		}
	}
	slices.Sort(a.secrets)
	a.secrets = slices.Compact(a.secrets)
	return a
}

// compiler works on one entry.
type compiler struct {
	app      *v1alpha1.Application
	service  v1alpha1.Service
	entry    v1alpha1.Entry
	secrets  secretSource
	previous *application
	into     *application
	targets  map[string]*v1alpha1.TargetSettings
	problems []Problem
}

func (c *compiler) route() *Route {
	r := &Route{
		Application: c.app.Name, Service: Segment(c.service.DisplayName), Entry: Segment(c.entry.Name), ServiceName: c.service.Name,
		EncodeURL: c.app.Spec.EncodeURL,
	}
	spec := c.entry.Credentials
	c.settings(r, spec.Type)
	r.Credentials = c.credentials(r, spec)
	r.Parameters = c.parameters(r)
	if spec.CSRFInfo != nil && spec.CSRFInfo.TokenEndpointURL != "" {
		r.CSRF = spec.CSRFInfo.TokenEndpointURL
		if err := credentials.CheckURL(r.CSRF); err != nil {
			c.warn(ReasonCSRFURLInvalid, fmt.Sprintf("credentials.csrfInfo.tokenEndpointURL %s", err))
		}
	}
	if token := spec.Type == v1alpha1.CredentialsTypeOAuth || spec.Type == v1alpha1.CredentialsTypeOAuthWithCert; token {
		if err := credentials.CheckURL(spec.AuthenticationURL); err != nil {
			c.warn(ReasonTokenURLInvalid, fmt.Sprintf("credentials.authenticationUrl %s", err))
		}
	}
	c.target(r)
	return r
}

// settings reads what spec.targetSettings says of the API. It comes first: who may not call an API learns nothing of it.
func (c *compiler) settings(r *Route, kind string) {
	parsed, problems := settings.Parse(c.targets[r.Service+"/"+r.Entry], c.targets[v1alpha1.AllTargets], kind,
		func(name, field string) (map[string][]byte, bool) { return c.data(r, name, field) })
	for _, p := range problems {
		text := p.Field + ": " + p.Message
		c.refuse(r, ReasonSettingsInvalid, text, fmt.Sprintf("failed to read API for %s service, %s", c.service.Name, text))
	}
	r.Settings, r.Trust = parsed, parsed.Trust
	r.Trust.SkipVerify = c.app.Spec.SkipVerify
	if len(problems) > 0 {
		return // some of it is nonsense, and no call gets so far
	}
	if before := c.previous.entries[entryKey{r.Service, r.Entry}]; before != nil && before.routes[0].Gate.Spec() == parsed.Limits {
		r.Gate = before.routes[0].Gate
	} else {
		r.Gate = limits.New(parsed.Limits)
	}
}

func (c *compiler) credentials(r *Route, spec v1alpha1.Credentials) *credentials.Credentials {
	var data map[string][]byte
	if !credentials.Open(spec) && credentials.Known(spec.Type) {
		var ok bool
		if data, ok = c.data(r, spec.SecretName, "credentials.secretName"); !ok {
			return nil
		}
	}
	parsed, err := credentials.Parse(spec, data, r.Settings.OAuth, c.previous.memo, c.into.memo)
	var invalid *credentials.Error
	if errors.As(err, &invalid) {
		message, answer := invalid.Message, invalid.Message
		switch {
		case invalid.Reason == credentials.ReasonTypeUnknown:
		case invalid.Reason == credentials.ReasonCertificateInvalid && spec.Type == v1alpha1.CredentialsTypeOAuthWithCert:
			message, answer = secretMessage(spec.SecretName, message), "Failed to get token: Failed to prepare certificate, "+message
		case invalid.Reason == credentials.ReasonCertificateInvalid:
			message, answer = secretMessage(spec.SecretName, message), "Failed to prepare certificate, "+message
		default:
			message = secretMessage(spec.SecretName, message)
			answer = fmt.Sprintf("failed to read API for %s service, %s", c.service.Name, message)
		}
		c.refuse(r, Reason(invalid.Reason), message, answer)
		return nil
	}
	return parsed
}

func (c *compiler) parameters(r *Route) *credentials.Parameters {
	name := c.entry.RequestParametersSecretName
	if name == "" {
		return nil
	}
	data, ok := c.data(r, name, "requestParametersSecretName")
	if !ok {
		return nil
	}
	parsed, err := credentials.ParseParameters(data)
	if err != nil {
		c.refuse(r, Reason(credentials.ReasonParametersInvalid), secretMessage(name, err.Error()),
			fmt.Sprintf("failed to read API for %s service, %s", c.service.Name, secretMessage(name, err.Error())))
		return nil
	}
	if parsed.Empty() {
		return nil
	}
	return parsed
}

// data returns the content of a Secret, or refuses calls.
func (c *compiler) data(r *Route, name, field string) (map[string][]byte, bool) {
	if name == "" {
		c.refuse(r, ReasonSecretMissing, field+" is empty: name the Secret that holds the credentials",
			fmt.Sprintf("failed to read API for %s service, failed to get '' secret, resource name may not be empty", c.service.Name))
		return nil, false
	}
	c.into.secrets = append(c.into.secrets, name)
	state := c.secrets.secret(name)
	switch {
	case state.found:
		return state.data, true
	case state.err != nil:
		c.refuse(r, ReasonSecretUnreadable, fmt.Sprintf("Secret %s, named by %s, cannot be read: %s", name, field, state.err),
			fmt.Sprintf("failed to read API for %s service, failed to get '%s' secret", c.service.Name, name))
	default:
		c.refuse(r, ReasonSecretMissing, fmt.Sprintf("Secret %s, named by %s, does not exist", name, field),
			fmt.Sprintf("failed to read API for %s service, secret '%s' not found", c.service.Name, name))
	}
	return nil, false
}

// target parses the URL of the API. What cannot be parsed is refused at once; what no call can reach fails when it is
// called, as it always did, and is reported now.
func (c *compiler) target(r *Route) {
	text := c.entry.TargetURL
	u, err := url.Parse(text)
	if err != nil {
		c.refuse(r, ReasonTargetInvalid, "targetUrl cannot be parsed as a URL", fmt.Sprintf("failed to parse target url '%s'", credentials.PrintableURL(text)))
		return
	}
	if err := credentials.CheckURL(text); err != nil {
		c.warn(ReasonTargetInvalid, fmt.Sprintf("targetUrl %s", err))
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	r.Target = u
}

func (c *compiler) warn(reason Reason, message string) {
	c.problems = append(c.problems, Problem{Service: c.service.Name, Entry: c.entry.Name, Reason: reason, Message: message})
}

func (c *compiler) refuse(r *Route, reason Reason, message, answer string) {
	c.warn(reason, message)
	p := &c.problems[len(c.problems)-1]
	p.Answer = answer
	if r.Refused == nil {
		refused := *p
		r.Refused = &refused
	}
}

func secretMessage(name, message string) string { return fmt.Sprintf("Secret %s: %s", name, message) }

// SecretNames are the Secrets that an Application names, as often as it does: what NewSnapshot wants to be given.
func SecretNames(app *v1alpha1.Application) []string {
	recorder := &recordingSource{}
	compile(app, recorder, nil)
	return recorder.names
}

type recordingSource struct{ names []string }

func (r *recordingSource) secret(name string) secretState {
	r.names = append(r.names, name)
	return secretState{}
}
