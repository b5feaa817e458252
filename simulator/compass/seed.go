package compass

import (
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// MaxSeedBytes is the largest seed that ParseSeed reads.
const MaxSeedBytes = 64 << 20

// Seed is an inventory as an administrator writes it.
type Seed struct {
	Tenants []Tenant `json:"tenants"`
}

// Tenant is an account: Runtimes see Applications of their own tenant only.
type Tenant struct {
	// ID is the external tenant id, a UUID; the value of the header Tenant.
	ID           string        `json:"id"`
	Runtimes     []Runtime     `json:"runtimes,omitempty"`
	Applications []Application `json:"applications,omitempty"`
}

// Runtime is a cluster that may connect.
type Runtime struct {
	// ID is a UUID; left out, it is derived from tenant and name.
	ID          string `json:"id,omitempty"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Labels of any JSON value. runtimeType ("kyma") and isNormalized
	// ("true") are added when missing; scenarios comes from Formations.
	Labels     map[string]any `json:"labels,omitempty"`
	Formations []string       `json:"formations,omitempty"`
}

// Application is an external system.
type Application struct {
	// ID is a UUID; left out, it is derived from tenant and name.
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
	// SystemNumber is appended to the name that Runtimes see.
	SystemNumber   string `json:"systemNumber,omitempty"`
	LocalTenantID  string `json:"localTenantID,omitempty"`
	BaseURL        string `json:"baseUrl,omitempty"`
	HealthCheckURL string `json:"healthCheckURL,omitempty"`
	Description    string `json:"description,omitempty"`
	ProviderName   string `json:"providerName,omitempty"`
	// Condition is the status condition; default INITIAL.
	Condition string `json:"condition,omitempty"`
	// Labels of any JSON value. name, managed and scenarios are Director's.
	Labels     map[string]any `json:"labels,omitempty"`
	Formations []string       `json:"formations,omitempty"`
	// Hidden Applications are never shown to Runtimes.
	Hidden  bool     `json:"hidden,omitempty"`
	Bundles []Bundle `json:"bundles,omitempty"`
}

// Bundle is a group of APIs and events with credentials in common.
type Bundle struct {
	// ID is a UUID; left out, it is derived from the Application and name.
	ID          string `json:"id,omitempty"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// InstanceAuthRequestInputSchema is a JSON schema, as JSON text.
	InstanceAuthRequestInputSchema string     `json:"instanceAuthRequestInputSchema,omitempty"`
	Auth                           *Auth      `json:"auth,omitempty"`
	APIs                           []API      `json:"apis,omitempty"`
	Events                         []Event    `json:"events,omitempty"`
	Documents                      []Document `json:"documents,omitempty"`
}

// API is an API definition.
type API struct {
	// ID is a UUID; left out, it is derived from the bundle and name.
	ID          string   `json:"id,omitempty"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	TargetURL   string   `json:"targetURL"`
	Group       string   `json:"group,omitempty"`
	Version     *Version `json:"version,omitempty"`
	Spec        *Spec    `json:"spec,omitempty"`
}

// Event is an event definition.
type Event struct {
	// ID is a UUID; left out, it is derived from the bundle and name.
	ID          string   `json:"id,omitempty"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Group       string   `json:"group,omitempty"`
	Version     *Version `json:"version,omitempty"`
	Spec        *Spec    `json:"spec,omitempty"`
}

// Document is a piece of documentation in a bundle.
type Document struct {
	ID          string `json:"id,omitempty"`
	Title       string `json:"title"`
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
	Kind        string `json:"kind,omitempty"`
	Data        string `json:"data,omitempty"`
}

// Version of an API or event.
type Version struct {
	Value           string `json:"value"`
	Deprecated      *bool  `json:"deprecated,omitempty"`
	DeprecatedSince string `json:"deprecatedSince,omitempty"`
	ForRemoval      *bool  `json:"forRemoval,omitempty"`
}

// Spec is a specification file. Type is ODATA or OPEN_API for APIs and
// ASYNC_API for events; Format is JSON, YAML or XML.
type Spec struct {
	ID     string `json:"id,omitempty"`
	Type   string `json:"type"`
	Format string `json:"format"`
	Data   string `json:"data,omitempty"`
}

// Auth says how to call the APIs of a bundle.
type Auth struct {
	Credential     `json:",inline"`
	AccessStrategy string              `json:"accessStrategy,omitempty"`
	Headers        map[string][]string `json:"headers,omitempty"`
	Query          map[string][]string `json:"query,omitempty"`
	CSRF           *CSRF               `json:"csrf,omitempty"`
}

// Credential holds at most one of its fields.
type Credential struct {
	Basic            *Basic            `json:"basic,omitempty"`
	OAuth            *OAuth            `json:"oauth,omitempty"`
	CertificateOAuth *CertificateOAuth `json:"certificateOAuth,omitempty"`
}

// Basic credentials.
type Basic struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// OAuth client credentials.
type OAuth struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	URL          string `json:"url"`
}

// CertificateOAuth is OAuth where a client certificate stands for the secret.
type CertificateOAuth struct {
	ClientID    string `json:"clientId"`
	Certificate string `json:"certificate"`
	URL         string `json:"url"`
}

// CSRF is where a token against cross-site request forgery is fetched, and
// what the fetch itself needs.
type CSRF struct {
	TokenEndpointURL string `json:"tokenEndpointURL"`
	Credential       `json:",inline"`
	Headers          map[string][]string `json:"headers,omitempty"`
	Query            map[string][]string `json:"query,omitempty"`
}

// ParseSeed reads a seed in YAML or JSON. Unknown fields are errors, as is
// anything that Director would refuse; the error names every field that is
// wrong.
func ParseSeed(r io.Reader) (Seed, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxSeedBytes+1))
	if err != nil {
		return Seed{}, fmt.Errorf("read seed: %w", err)
	}
	if len(raw) > MaxSeedBytes {
		return Seed{}, fmt.Errorf("seed is larger than %d bytes", MaxSeedBytes)
	}
	var seed Seed
	if err := yaml.UnmarshalStrict(raw, &seed); err != nil {
		return Seed{}, fmt.Errorf("parse seed: %w", err)
	}
	seed = seed.withIDs()
	if err := seed.validate(); err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	return seed, nil
}
