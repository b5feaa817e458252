// Package director reads the inventory of a runtime from Compass, whole or not at all, and writes the runtime's labels.
// It knows nothing of Kubernetes, and keeps nothing between calls.
package director

import "github.com/application-connector/application-connector/secret"

// Snapshot is what Director says about one runtime at one time. Only a snapshot with Complete set proves that
// something is absent.
type Snapshot struct {
	// RuntimeLabels of the runtime, any JSON value each; a number is a json.Number.
	RuntimeLabels map[string]any
	// Applications in the order of their ids, each id once.
	Applications []Application
	// Invalid are the applications that Director has, but that cannot be used as they came, in the order of their ids.
	// They are present: what stands for them must neither be deleted nor changed. They do not make Complete false by
	// themselves: a list that was not read to its end does.
	Invalid []InvalidApplication
	// Complete says that every page of every list was read, that counts agree, that lists of more than one page had the
	// same ids when they were read again, and that nothing was null which never is if Director tells all.
	Complete bool
	// Incomplete says why Complete is false, for people; empty if it is true.
	Incomplete string
	// Queries is how many GraphQL requests the snapshot took.
	Queries int
}

// InvalidApplication is one that was kept out of a snapshot.
type InvalidApplication struct {
	ID   string
	Name string
	// Reason names the field and what would be right, for people. It repeats no value.
	Reason string
}

// Application is one external system.
type Application struct {
	ID string `validate:"required,max=256,printascii"`
	// Name as Director normalizes it for runtimes; it may be longer than names in Kubernetes.
	Name         string `validate:"required"`
	ProviderName string
	Description  string
	// Labels are any JSON value each; a number is a json.Number.
	Labels map[string]any
	// AuthIDs are the ids of the system's auths: the common names of its client certificates.
	AuthIDs []string
	// AuthsUnknown says that Director gave null for the auths, and not a list, if an empty one: which client certificates the
	// system has is not known.
	AuthsUnknown bool
	Bundles      []Bundle `validate:"dive"`
	// Status is Director's condition, for example CONNECTED or DELETING.
	Status string
}

// Bundle is a group of APIs and events with credentials in common.
type Bundle struct {
	ID          string `validate:"required,max=256,printascii"`
	Name        string `validate:"required"`
	Description string
	// AuthRequestSchema is a JSON schema as a string; nil if there is none.
	AuthRequestSchema *string
	// Auth is nil when the bundle has none, or when this runtime's own is not there.
	Auth *Auth
	// AuthPending says that Auth is nil only because this runtime's own instance auth was requested and is not there
	// (yet, or any more, or although it should be), or because Director hides auths from us (scope bundle.instance_auths:read
	// lost): the bundle need not be open, its credentials are unknown.
	AuthPending bool
	APIs        []API   `validate:"dive"`
	Events      []Event `validate:"dive"`
}

// API is one API of a bundle.
type API struct {
	ID          string `validate:"required,max=256,printascii"`
	Name        string
	Description string
	TargetURL   string `validate:"required"`
	Group       string
	Version     Version
}

// Event is one kind of events of a bundle.
type Event struct {
	ID          string `validate:"required,max=256,printascii"`
	Name        string
	Description string
	Group       string
	Version     Version
}

// Version of an API or of events; empty if Director names none.
type Version struct {
	Value           string
	Deprecated      bool
	DeprecatedSince string
	ForRemoval      bool
}

// Auth is how the APIs of a bundle want to be called.
type Auth struct {
	// Credential is one of Basic, OAuth, CertificateOAuth, Unknown, or nil for an open API.
	Credential Credential
	// Headers and Query are added to each call.
	Headers map[string][]string
	Query   map[string][]string
	// CSRF is nil if the APIs want no CSRF token.
	CSRF *CSRF
}

// CSRF is where a CSRF token is to be had.
type CSRF struct {
	TokenEndpointURL string `validate:"required"`
}

// Credential is one of Basic, OAuth, CertificateOAuth or Unknown.
type Credential interface{ credential() }

// Basic is a user name and a password.
type Basic struct {
	Username string
	Password secret.Value
}

// OAuth is a client of an OAuth 2.0 token endpoint.
type OAuth struct {
	ClientID     string
	ClientSecret secret.Value
	URL          string
}

// CertificateOAuth is a client of an OAuth 2.0 token endpoint that proves itself by a certificate.
type CertificateOAuth struct {
	ClientID string
	// Certificate is PEM; some sources put the private key in the same text.
	Certificate secret.Value
	URL         string
}

// Unknown is a kind of credential that this version does not know; Typename is its GraphQL type.
type Unknown struct{ Typename string }

func (Basic) credential()            {}
func (OAuth) credential()            {}
func (CertificateOAuth) credential() {}
func (Unknown) credential()          {}
