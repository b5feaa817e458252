// Package wire holds the JSON of Director's union of credentials, which generated code can decode only for the kinds
// that it was generated for: one new kind would make a whole inventory unreadable.
package wire

import "github.com/application-connector/application-connector/secret"

// Credential is any member of the union CredentialData. Typename says which one; fields of others are empty.
type Credential struct {
	Typename     string       `json:"__typename"`
	Username     string       `json:"username"`
	Password     secret.Value `json:"password"`
	ClientID     string       `json:"clientId"`
	ClientSecret secret.Value `json:"clientSecret"`
	Certificate  secret.Value `json:"certificate"`
	URL          string       `json:"url"`
}
