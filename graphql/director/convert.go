package director

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-playground/validator/v10"

	"github.com/application-connector/application-connector/graphql/director/internal/query"
	"github.com/application-connector/application-connector/graphql/director/internal/wire"
)

// decode reads JSON that stands in a field of its own; null and nothing are the zero value. Numbers of any kind of JSON stay
// as they were written.
func decode[T any](raw *json.RawMessage) (T, error) {
	var out T
	if raw == nil || len(*raw) == 0 {
		return out, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(*raw))
	decoder.UseNumber()
	err := decoder.Decode(&out)
	return out, err
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func convertApplication(raw rawApplication, out *Application) error {
	labels, err := decode[map[string]any](raw.Labels)
	if err != nil {
		return errors.New("labels: want an object")
	}
	out.ProviderName = deref(raw.ProviderName)
	out.Description = deref(raw.Description)
	out.Labels = labels
	out.Status = string(raw.Status.Condition)
	out.AuthsUnknown = raw.Auths == nil
	for _, a := range raw.Auths {
		out.AuthIDs = append(out.AuthIDs, a.Id)
	}
	return nil
}

// convertBundle converts all but APIs and events. Doubt is why what is null here need not be nothing; empty if that is plain.
func convertBundle(raw rawBundle, runtimeID string) (out Bundle, doubt string, err error) {
	auth, err := convertAuth(raw.DefaultInstanceAuth)
	if err != nil {
		return Bundle{}, "", err
	}
	out = Bundle{
		ID:                raw.Id,
		Name:              raw.Name,
		Description:       deref(raw.Description),
		AuthRequestSchema: raw.InstanceAuthRequestInputSchema,
		Auth:              auth,
	}
	if auth != nil {
		return out, "", nil
	}
	// Who may see auths gets a list here, if an empty one; who may not gets null for them and for the credentials.
	if raw.InstanceAuths == nil {
		out.AuthPending = true
		return out, "instanceAuths: " + errNull.Error(), nil
	}
	// Director puts the runtime's own instance auth in the place of the bundle's, whatever its state: what is null for
	// now must not be taken for a bundle that is open. One that is PENDING or FAILED has no credentials, and one that is UNUSED
	// need not have had any. One that SUCCEEDED has them.
	unissued := false
	for _, own := range raw.InstanceAuths {
		if deref(own.RuntimeID) == runtimeID {
			out.AuthPending = true
			unissued = unissued || own.Status.Condition != query.BundleInstanceAuthStatusConditionSucceeded
		}
	}
	if out.AuthPending && !unissued {
		return out, "defaultInstanceAuth: null, although the runtime has credentials of its own", nil
	}
	return out, "", nil
}

func convertAuth(raw *query.AuthFields) (*Auth, error) {
	if raw == nil {
		return nil, nil
	}
	headers, err := decode[map[string][]string](raw.AdditionalHeaders)
	if err != nil {
		return nil, errors.New("defaultInstanceAuth.additionalHeaders: want an object of lists of strings")
	}
	params, err := decode[map[string][]string](raw.AdditionalQueryParams)
	if err != nil {
		return nil, errors.New("defaultInstanceAuth.additionalQueryParams: want an object of lists of strings")
	}
	out := &Auth{Credential: convertCredential(raw.Credential), Headers: headers, Query: params}
	if raw.RequestAuth != nil && raw.RequestAuth.Csrf != nil {
		out.CSRF = &CSRF{TokenEndpointURL: raw.RequestAuth.Csrf.TokenEndpointURL}
	}
	return out, nil
}

func convertCredential(raw *wire.Credential) Credential {
	if raw == nil {
		return nil
	}
	switch raw.Typename {
	case "BasicCredentialData":
		return Basic{Username: raw.Username, Password: raw.Password}
	case "OAuthCredentialData":
		return OAuth{ClientID: raw.ClientID, ClientSecret: raw.ClientSecret, URL: raw.URL}
	case "CertificateOAuthCredentialData":
		return CertificateOAuth{ClientID: raw.ClientID, Certificate: raw.Certificate, URL: raw.URL}
	}
	return Unknown{Typename: raw.Typename}
}

func convertAPI(raw rawAPI) API {
	return API{
		ID: raw.Id, Name: raw.Name, Description: deref(raw.Description), TargetURL: raw.TargetURL,
		Group: deref(raw.Group), Version: convertVersion(raw.Version),
	}
}

func convertEvent(raw rawEvent) Event {
	return Event{
		ID: raw.Id, Name: raw.Name, Description: deref(raw.Description),
		Group: deref(raw.Group), Version: convertVersion(raw.Version),
	}
}

func convertVersion(raw *query.VersionFields) Version {
	if raw == nil {
		return Version{}
	}
	return Version{
		Value: raw.Value, Deprecated: deref(raw.Deprecated),
		DeprecatedSince: deref(raw.DeprecatedSince), ForRemoval: deref(raw.ForRemoval),
	}
}

var validate = validator.New(validator.WithRequiredStructEnabled())

// check says what in an application can never work, or "". It repeats no value: some are secrets.
func check(a Application) string {
	err := validate.Struct(a)
	if err == nil {
		return ""
	}
	var fields validator.ValidationErrors
	if !errors.As(err, &fields) {
		return err.Error()
	}
	var reasons []string
	for _, f := range fields {
		_, path, _ := strings.Cut(f.StructNamespace(), ".")
		rule := f.Tag()
		if f.Param() != "" {
			rule += "=" + f.Param()
		}
		reasons = append(reasons, fmt.Sprintf("%s: want %s", path, rule))
	}
	return summary(reasons)
}
