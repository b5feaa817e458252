package compass

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

// Limits of Director, in characters.
const (
	maxNameLength        = 100
	maxDescriptionLength = 2000
	maxProviderLength    = 256
	maxURLLength         = 256
)

// problems collects what is wrong under the name of its field.
type problems struct{ errs []error }

func (p *problems) add(field, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
}

func (p *problems) err() error { return errors.Join(p.errs...) }

func (p *problems) uuid(field, id string) {
	if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
		p.add(field, "%q is not a UUID in lower case", id)
	}
}

func (p *problems) text(field, value string, required bool, limit int) {
	switch n := utf8.RuneCountInString(value); {
	case required && n == 0:
		p.add(field, "is required")
	case n > limit:
		p.add(field, "has %d characters, at most %d are allowed", n, limit)
	}
}

func (p *problems) url(field, value string, required bool) {
	if value == "" {
		if required {
			p.add(field, "is required")
		}
		return
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		p.add(field, "%q is not an http or https URL", value)
	}
	p.text(field, value, required, maxURLLength)
}

func (p *problems) labels(field string, labels map[string]any, reserved ...string) {
	for key, value := range labels {
		at := field + "." + key
		if err := checkLabelKey(key); err != "" {
			p.add(at, "key %s", err)
		}
		if isBlankLabel(value) {
			p.add(at, "value cannot be blank")
		}
		if slices.Contains(reserved, key) {
			p.add(at, "is set by Director itself")
		}
	}
}

func (p *problems) formations(field string, names []string) {
	for i, name := range names {
		p.text(fmt.Sprintf("%s[%d]", field, i), name, true, 256)
	}
}

func (s Seed) validate() error {
	var p problems
	ids := map[string]string{}
	unique := func(field, id string) {
		p.uuid(field, id)
		if first, taken := ids[id]; taken {
			p.add(field, "%s is used by %s already", id, first)
		}
		ids[id] = field
	}
	for i, t := range s.Tenants {
		at := fmt.Sprintf("tenants[%d]", i)
		unique(at+".id", t.ID)
		runtimeNames, appNames := map[string]string{}, map[applicationKey]string{}
		for j, r := range t.Runtimes {
			at := fmt.Sprintf("%s.runtimes[%d]", at, j)
			r.check(&p, at, unique)
			if first, taken := runtimeNames[r.Name]; taken {
				p.add(at+".name", "%q is the name of %s already", r.Name, first)
			}
			runtimeNames[r.Name] = at
		}
		for j, a := range t.Applications {
			at := fmt.Sprintf("%s.applications[%d]", at, j)
			a.check(&p, at, unique)
			if first, taken := appNames[a.key()]; taken {
				p.add(at+".name", "%q is, normalized, the name of %s already", a.Name, first)
			}
			appNames[a.key()] = at
		}
	}
	return p.err()
}

func (r Runtime) check(p *problems, at string, id func(field, id string)) {
	id(at+".id", r.ID)
	p.text(at+".name", r.Name, true, maxNameLength)
	p.text(at+".description", r.Description, false, maxDescriptionLength)
	p.labels(at+".labels", r.Labels, labelScenarios)
	p.formations(at+".formations", r.Formations)
}

func (a Application) check(p *problems, at string, id func(field, id string)) {
	id(at+".id", a.ID)
	p.text(at+".name", a.Name, true, maxNameLength)
	p.text(at+".description", a.Description, false, maxDescriptionLength)
	p.text(at+".providerName", a.ProviderName, false, maxProviderLength)
	p.url(at+".baseUrl", a.BaseURL, false)
	p.url(at+".healthCheckURL", a.HealthCheckURL, false)
	p.labels(at+".labels", a.Labels, labelName, labelManaged, labelScenarios)
	p.formations(at+".formations", a.Formations)
	if c := directorapi.ApplicationStatusCondition(a.Condition); a.Condition != "" && !c.IsValid() {
		p.add(at+".condition", "%q is none of %v", a.Condition, directorapi.AllApplicationStatusCondition)
	}
	for i, b := range a.Bundles {
		b.check(p, fmt.Sprintf("%s.bundles[%d]", at, i), id)
	}
}

func (b Bundle) check(p *problems, at string, id func(field, id string)) {
	id(at+".id", b.ID)
	p.text(at+".name", b.Name, true, maxNameLength)
	p.text(at+".description", b.Description, false, maxDescriptionLength)
	if s := b.InstanceAuthRequestInputSchema; s != "" && !json.Valid([]byte(s)) {
		p.add(at+".instanceAuthRequestInputSchema", "is not JSON")
	}
	if b.Auth != nil {
		b.Auth.check(p, at+".auth")
	}
	for i, api := range b.APIs {
		at := fmt.Sprintf("%s.apis[%d]", at, i)
		id(at+".id", api.ID)
		p.text(at+".name", api.Name, true, maxNameLength)
		p.text(at+".description", api.Description, false, maxDescriptionLength)
		p.url(at+".targetURL", api.TargetURL, true)
		api.Spec.check(p, at+".spec", string(directorapi.APISpecTypeOdata), string(directorapi.APISpecTypeOpenAPI))
	}
	for i, event := range b.Events {
		at := fmt.Sprintf("%s.events[%d]", at, i)
		id(at+".id", event.ID)
		p.text(at+".name", event.Name, true, maxNameLength)
		p.text(at+".description", event.Description, false, maxDescriptionLength)
		event.Spec.check(p, at+".spec", string(directorapi.EventSpecTypeAsyncAPI))
	}
	for i, d := range b.Documents {
		at := fmt.Sprintf("%s.documents[%d]", at, i)
		id(at+".id", d.ID)
		p.text(at+".title", d.Title, true, 128)
	}
}

func (s *Spec) check(p *problems, at string, types ...string) {
	if s == nil {
		return
	}
	if !slices.Contains(types, s.Type) {
		p.add(at+".type", "%q is none of %v", s.Type, types)
	}
	if !directorapi.SpecFormat(s.Format).IsValid() {
		p.add(at+".format", "%q is none of %v", s.Format, directorapi.AllSpecFormat)
	}
}

func (a *Auth) check(p *problems, at string) {
	a.Credential.check(p, at)
	if a.CSRF != nil {
		p.url(at+".csrf.tokenEndpointURL", a.CSRF.TokenEndpointURL, true)
		a.CSRF.Credential.check(p, at+".csrf")
	}
}

func (c Credential) check(p *problems, at string) {
	n := 0
	if c.Basic != nil {
		n++
		p.text(at+".basic.username", c.Basic.Username, true, 256)
	}
	if c.OAuth != nil {
		n++
		p.text(at+".oauth.clientId", c.OAuth.ClientID, true, 256)
		p.url(at+".oauth.url", c.OAuth.URL, true)
	}
	if c.CertificateOAuth != nil {
		n++
		p.text(at+".certificateOAuth.clientId", c.CertificateOAuth.ClientID, true, 256)
		p.url(at+".certificateOAuth.url", c.CertificateOAuth.URL, true)
	}
	if n > 1 {
		p.add(at, "has %d of basic, oauth and certificateOAuth; at most one is allowed", n)
	}
}
