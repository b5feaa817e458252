// Package routes knows where calls go: it watches Applications, and the Secrets that they name in one namespace, and
// keeps an immutable snapshot of what they mean, in which a call is looked up without asking anybody. It knows nothing of
// HTTP requests, and goes on serving the last snapshot while the API server is away.
package routes

import (
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/limits"
	"github.com/application-connector/application-connector/gateway/settings"
)

// Route is one API that can be called. It is immutable.
type Route struct {
	// Application is the name of the Application; Service and Entry are the segments by which it is called.
	Application, Service, Entry string
	// ServiceName is the service's name, for texts.
	ServiceName string
	// Target is the URL of the API, without user information and fragment.
	Target *url.URL
	// EncodeURL is as in the Application.
	EncodeURL bool
	// Trust says which certificates are believed, by the Application's skipVerify and the settings.
	Trust credentials.Trust
	// Settings are never nil.
	Settings *settings.Settings
	// Gate holds calls back; nil if nothing does.
	Gate        *limits.Gate
	Credentials *credentials.Credentials
	// Parameters are added to calls; nil for none.
	Parameters *credentials.Parameters
	// CSRF is the URL of the CSRF token endpoint, empty for none.
	CSRF string
	// Refused, if not nil, says why no call can be made.
	Refused *Problem
}

// Use is how calls of this route prove themselves.
func (r *Route) Use() credentials.Use {
	return credentials.Use{
		Owner:       credentials.Owner{Application: r.Application, Service: r.Service, Entry: r.Entry},
		Credentials: r.Credentials, CSRF: r.CSRF, CSRFSettings: r.Settings.CSRF, Trust: r.Trust, TokenTimeout: r.Settings.Timeouts.Token,
	}
}

// Match names one of several candidates.
type Match struct{ ServiceID, DisplayName, EntryName string }

// candidates are the routes under one key; one is as it should be.
type candidates struct {
	routes  []*Route
	matches []Match
}

func (c *candidates) add(r *Route, m Match) *candidates {
	if c == nil {
		c = &candidates{}
	}
	c.routes, c.matches = append(c.routes, r), append(c.matches, m)
	return c
}

type entryKey struct{ service, entry string }

// application is what one Application means. It is immutable once it is in a Snapshot.
type application struct {
	name       string
	generation int64
	services   map[string]*candidates
	entries    map[entryKey]*candidates
	report     Report
	secrets    []string // names of the Secrets it names, sorted
	memo       credentials.Memo
}

// Snapshot is what all Applications mean at one moment. It is immutable and safe for concurrent use.
type Snapshot struct {
	applications map[string]*application
}

// NotFoundError says that an Application, service or entry is not there. Which one is not said: callers know one text.
type NotFoundError struct{ Service, Entry, Mode string }

// Error implements error.
func (e *NotFoundError) Error() string {
	return named(e.Mode, e.Service, e.Entry) + " not found"
}

// AmbiguousError says that several APIs go by what was asked for.
type AmbiguousError struct {
	Service, Entry, Mode string
	Matches              []Match
}

// Error implements error.
func (e *AmbiguousError) Error() string {
	var list []string
	for _, m := range e.Matches {
		list = append(list, fmt.Sprintf("service.ID: '%s', service.DisplayName: '%s', entry.Name: '%s'", m.ServiceID, m.DisplayName, m.EntryName))
	}
	text := fmt.Sprintf("failed to get service with name '%s'", e.Service)
	if e.Mode == modeEntry {
		text += fmt.Sprintf(" and entry name '%s'", e.Entry)
	}
	return text + ": multiple services found: " + strings.Join(list, " | ")
}

const (
	modeService = "service"
	modeEntry   = "entry"
)

func named(mode, service, entry string) string {
	if mode == modeEntry {
		return fmt.Sprintf("service with name %s and entry name %s", service, entry)
	}
	return "service with name " + service
}

// Service finds the only API of a service, by the segments of a URL. A failure is a *NotFoundError or an *AmbiguousError.
func (s *Snapshot) Service(app, service string) (*Route, error) {
	var found *candidates
	if a := s.applications[app]; a != nil {
		found = a.services[service]
	}
	return found.only(modeService, service, "")
}

// Entry finds an API by the segments of a URL. A failure is a *NotFoundError or an *AmbiguousError.
func (s *Snapshot) Entry(app, service, entry string) (*Route, error) {
	var found *candidates
	if a := s.applications[app]; a != nil {
		found = a.entries[entryKey{service, entry}]
	}
	return found.only(modeEntry, service, entry)
}

func (c *candidates) only(mode, service, entry string) (*Route, error) {
	switch {
	case c == nil:
		return nil, &NotFoundError{Mode: mode, Service: service, Entry: entry}
	case len(c.routes) > 1:
		return nil, &AmbiguousError{Mode: mode, Service: service, Entry: entry, Matches: c.matches}
	}
	return c.routes[0], nil
}

// Report is what is to be said of an Application, and of which generation of it.
type Report struct {
	Generation int64
	// APIs is the number of its entries of type API.
	APIs int
	// SkipVerify is as in the Application.
	SkipVerify bool
	// Problems are in the order of the entries, then of the settings.
	Problems []Problem
	// Shared are the names, in URLs, of several services each.
	Shared []Shared
	// Unused are the targets of settings that no API has, and that keep nobody from anything.
	Unused []string
}

// Shared is a name of several services with APIs: by a URL without an entry none of them can be called.
type Shared struct {
	// Segment is the name in URLs.
	Segment string
	// Services are the names in the Application, in its order.
	Services []string
}

// Report tells of one Application; false if it is not there.
func (s *Snapshot) Report(app string) (Report, bool) {
	a := s.applications[app]
	if a == nil {
		return Report{}, false
	}
	return a.report, true
}

// Routes gives every API that can be asked for, in no order.
func (s *Snapshot) Routes() iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		for _, a := range s.applications {
			for _, c := range a.entries {
				if len(c.routes) == 1 && !yield(c.routes[0]) {
					return
				}
			}
		}
	}
}

// Applications are the names of all Applications, sorted.
func (s *Snapshot) Applications() []string { return slices.Sorted(maps.Keys(s.applications)) }

// NewSnapshot is what Applications mean together with the Secrets given, by name; every other Secret is missing.
func NewSnapshot(applications []v1alpha1.Application, secrets map[string]map[string][]byte) *Snapshot {
	s := &Snapshot{applications: map[string]*application{}}
	for i := range applications {
		s.applications[applications[i].Name] = compile(&applications[i], givenSecrets(secrets), nil)
	}
	return s
}

type givenSecrets map[string]map[string][]byte

func (g givenSecrets) secret(name string) secretState {
	data, found := g[name]
	return secretState{found: found, data: data}
}
