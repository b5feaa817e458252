package compass

import (
	"encoding/json"
	"fmt"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

// optional is null in GraphQL for what a seed leaves out.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// applicationNode shows a as it is stored or, if r is given, as r sees it.
func applicationNode(a *applicationState, r *runtimeState) *directorapi.Application {
	out := &directorapi.Application{
		ID: a.ID, Name: a.Name, SystemNumber: optional(a.SystemNumber), LocalTenantID: optional(a.LocalTenantID),
		BaseURL: optional(a.BaseURL), HealthCheckURL: optional(a.HealthCheckURL),
		ProviderName: optional(a.ProviderName), Description: optional(a.Description),
		Status:    &directorapi.ApplicationStatus{Condition: a.condition(), Timestamp: a.StatusAt},
		CreatedAt: &a.Created,
	}
	if !a.Updated.IsZero() {
		out.UpdatedAt = &a.Updated
	}
	if r != nil {
		out.ForRuntime = r.ID
		if r.normalizes() {
			out.Name = a.named.shown()
		}
	}
	return out
}

func (a *applicationState) condition() directorapi.ApplicationStatusCondition {
	switch {
	case a.Condition != "":
		return directorapi.ApplicationStatusCondition(a.Condition)
	case a.Connected:
		return directorapi.ApplicationStatusConditionConnected
	}
	return directorapi.ApplicationStatusConditionInitial
}

func runtimeNode(r *runtimeState) *directorapi.Runtime {
	condition := directorapi.RuntimeStatusConditionInitial
	if r.Connected {
		condition = directorapi.RuntimeStatusConditionConnected
	}
	return &directorapi.Runtime{
		ID: r.ID, Name: r.Name, Description: optional(r.Description),
		Metadata: &directorapi.RuntimeMetadata{CreationTimestamp: r.Created},
		Status:   &directorapi.RuntimeStatus{Condition: condition, Timestamp: r.StatusAt},
	}
}

func bundleNode(a *applicationState, b Bundle, forRuntime string) *directorapi.Bundle {
	out := &directorapi.Bundle{
		ID: b.ID, Name: b.Name, Description: optional(b.Description), CreatedAt: &a.Created, ForRuntime: forRuntime,
	}
	if b.InstanceAuthRequestInputSchema != "" {
		out.InstanceAuthRequestInputSchema = optional(formatJSONB(b.InstanceAuthRequestInputSchema))
	}
	return out
}

func apiNode(a API) *directorapi.APIDefinition {
	out := &directorapi.APIDefinition{
		ID: a.ID, Name: a.Name, Description: optional(a.Description), TargetURL: a.TargetURL,
		Group: optional(a.Group), Version: versionNode(a.Version),
	}
	if a.Spec != nil {
		out.Spec = &directorapi.APISpec{ID: a.Spec.ID, Data: optional(a.Spec.Data),
			Format: directorapi.SpecFormat(a.Spec.Format), Type: directorapi.APISpecType(a.Spec.Type)}
	}
	return out
}

func eventNode(e Event) *directorapi.EventDefinition {
	out := &directorapi.EventDefinition{
		ID: e.ID, Name: e.Name, Description: optional(e.Description), Group: optional(e.Group), Version: versionNode(e.Version),
	}
	if e.Spec != nil {
		out.Spec = &directorapi.EventSpec{ID: e.Spec.ID, Data: optional(e.Spec.Data),
			Format: directorapi.SpecFormat(e.Spec.Format), Type: directorapi.EventSpecType(e.Spec.Type)}
	}
	return out
}

func documentNode(d Document) *directorapi.Document {
	return &directorapi.Document{ID: d.ID, Title: d.Title, DisplayName: d.DisplayName, Description: d.Description,
		Format: directorapi.DocumentFormatMarkdown, Kind: optional(d.Kind), Data: optional(d.Data)}
}

func versionNode(v *Version) *directorapi.Version {
	if v == nil {
		return nil
	}
	return &directorapi.Version{Value: v.Value, Deprecated: v.Deprecated, DeprecatedSince: optional(v.DeprecatedSince), ForRemoval: v.ForRemoval}
}

// authNode shows credentials. certCommonName is never null, and the serialized
// twins of headers and query parameters are null inside csrf only.
func authNode(a *Auth) *directorapi.Auth {
	if a == nil {
		return nil
	}
	noName := ""
	out := &directorapi.Auth{
		Credential: credentialNode(a.Credential), AccessStrategy: optional(a.AccessStrategy), CertCommonName: &noName,
		AdditionalHeaders: a.Headers, AdditionalHeadersSerialized: serialized(a.Headers),
		AdditionalQueryParams: a.Query, AdditionalQueryParamsSerialized: serialized(a.Query),
	}
	if a.CSRF != nil {
		out.RequestAuth = &directorapi.CredentialRequestAuth{Csrf: &directorapi.CSRFTokenCredentialRequestAuth{
			TokenEndpointURL: a.CSRF.TokenEndpointURL, Credential: credentialNode(a.CSRF.Credential),
			AdditionalHeaders: a.CSRF.Headers, AdditionalQueryParams: a.CSRF.Query,
		}}
	}
	return out
}

func credentialNode(c Credential) directorapi.CredentialData {
	switch {
	case c.Basic != nil:
		return directorapi.BasicCredentialData{Username: c.Basic.Username, Password: c.Basic.Password}
	case c.OAuth != nil:
		return directorapi.OAuthCredentialData{ClientID: c.OAuth.ClientID, ClientSecret: c.OAuth.ClientSecret, URL: c.OAuth.URL}
	case c.CertificateOAuth != nil:
		return directorapi.CertificateOAuthCredentialData{ClientID: c.CertificateOAuth.ClientID, Certificate: c.CertificateOAuth.Certificate, URL: c.CertificateOAuth.URL}
	}
	return nil
}

func serialized(m map[string][]string) *string {
	if m == nil {
		return nil
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("compass: encode string lists: %v", err)) // always encodes
	}
	s := string(raw)
	return &s
}

// Texts of the states of instance auths: reason and message.
var instanceAuthTexts = map[directorapi.BundleInstanceAuthStatusCondition][2]string{
	directorapi.BundleInstanceAuthStatusConditionPending:   {"CredentialsNotProvided", "Credentials were not yet provided."},
	directorapi.BundleInstanceAuthStatusConditionSucceeded: {"CredentialsProvided", "Credentials were provided."},
	directorapi.BundleInstanceAuthStatusConditionFailed:    {"CredentialsProvisioningFailed", "Credentials provisioning failed."},
	directorapi.BundleInstanceAuthStatusConditionUnused:    {"PendingDeletion", "Credentials for given bundle instance are ready for being deleted by Application or Integration System."},
}

func instanceAuthNode(a *instanceAuth) *directorapi.BundleInstanceAuth {
	condition := directorapi.BundleInstanceAuthStatusCondition(a.Condition)
	texts := instanceAuthTexts[condition]
	return &directorapi.BundleInstanceAuth{
		ID: a.ID, Context: optional(a.Context), InputParams: optional(a.InputParams), Auth: authNode(a.Auth),
		RuntimeID: optional(a.RuntimeID),
		Status:    &directorapi.BundleInstanceAuthStatus{Condition: condition, Timestamp: a.At, Reason: texts[0], Message: texts[1]},
	}
}
