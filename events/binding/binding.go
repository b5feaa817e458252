// Package binding decides whether a verified client may speak for an Application. It does not know how the client was
// verified or what it wants to send.
package binding

import (
	"slices"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/identity"
)

// Reason says why a client may not speak for an Application. It is stable: metrics and the audit log carry it.
type Reason string

// Reasons. None of them is told to the client: an unknown Application and a wrong certificate look alike from outside.
const (
	UnknownApplication Reason = "unknown_application"
	BeingDeleted       Reason = "being_deleted"
	NoClientIDs        Reason = "no_client_ids"
	WrongCertificate   Reason = "wrong_certificate"
)

// Error is the refusal.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return string(e.Reason) }

// Authorize returns nil if the client may speak for the Application, else an *Error. A nil Application is an unknown one.
//
// An Application that comes from Compass names its clients by spec.compassMetadata.authentication.clientIds; if it names
// none, nobody may speak for it. Any other Application is its client's common name. Names are compared exactly.
func Authorize(app *v1alpha1.Application, client identity.Identity) error {
	switch {
	case app == nil:
		return &Error{UnknownApplication}
	case !app.DeletionTimestamp.IsZero():
		return &Error{BeingDeleted}
	case app.Spec.CompassMetadata == nil:
		if client.CommonName == "" || client.CommonName != app.Name {
			return &Error{WrongCertificate}
		}
		return nil
	}
	ids := app.Spec.CompassMetadata.Authentication.ClientIDs
	switch {
	case len(ids) == 0:
		return &Error{NoClientIDs}
	case client.CommonName == "" || !slices.Contains(ids, client.CommonName):
		return &Error{WrongCertificate}
	}
	return nil
}
