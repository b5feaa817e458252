// Package binding decides whether a verified client may speak for an Application. It does not know how the client was
// verified or what it wants to send.
package binding

import (
	"slices"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/names"
)

// Reason says why a client may not speak for an Application. It is stable: metrics and the audit log carry it.
type Reason string

// Reasons. None of them is told to the client: an unknown Application and a wrong certificate look alike from outside.
const (
	UnknownApplication Reason = "unknown_application"
	BeingDeleted       Reason = "being_deleted"
	NoClientIDs        Reason = "no_client_ids"
	WrongCertificate   Reason = "wrong_certificate"
	WrongOrganization  Reason = "wrong_organization"
)

// Error is the refusal.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return string(e.Reason) }

// Policy says what must hold beside the common name. The zero Policy asks for nothing more.
type Policy struct {
	// MatchOrganization asks that the certificate's only organisation is the Application's spec.tenant and its only unit
	// spec.group, each where the Application has one.
	MatchOrganization bool
}

// Authorize returns nil if the client may speak for the Application, else an *Error. A nil Application is an unknown one.
//
// An Application that comes from Compass names its clients by spec.compassMetadata.authentication.clientIds; if it names
// none, nobody may speak for it. Any other Application is its client's common name. Names are compared exactly.
func (p Policy) Authorize(app *v1alpha1.Application, client identity.Identity) error {
	switch {
	case app == nil:
		return &Error{UnknownApplication}
	case !app.DeletionTimestamp.IsZero():
		return &Error{BeingDeleted}
	}
	allowed := []string{app.Name}
	if app.Spec.CompassMetadata != nil {
		if allowed = app.Spec.CompassMetadata.Authentication.ClientIDs; len(allowed) == 0 {
			return &Error{NoClientIDs}
		}
	}
	switch {
	case client.CommonName == "" || !slices.Contains(allowed, client.CommonName):
		return &Error{WrongCertificate}
	case p.MatchOrganization && !(only(client.Subject, names.OIDOrganization, app.Spec.Tenant) && only(client.Subject, names.OIDOrganizationalUnit, app.Spec.Group)):
		return &Error{WrongOrganization}
	}
	return nil
}

// only says whether a name holds one attribute of a type, and that with the value. Nothing is asked for an empty value.
func only(name names.Name, oid, value string) bool {
	return value == "" || slices.Equal(name.Values(oid), []string{value})
}
