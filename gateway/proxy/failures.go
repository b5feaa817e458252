package proxy

import (
	"crypto/tls"
	"errors"
	"net/http"

	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/transport"
)

// HeaderReason says by one word why an answer is an error of the gateway's, or was changed by the gateway.
// The words are part of the interface: they do not change, new ones may come.
const HeaderReason = "Gateway-Error-Reason"

// Reasons of errors, besides those of Applications (package routes) and of what obtains credentials (package credentials).
const (
	FailurePathInvalid      = "PathInvalid"
	FailurePathLeavesTarget = "PathLeavesTarget"
	FailureNotFound         = "NotFound"
	FailureNotReady         = "NotReady"
	FailureRequestBody      = "RequestBodyIncomplete"
	FailureAddress          = "AddressForbidden"
	FailureUnreachable      = "TargetUnreachable"
	FailureUntrusted        = "TargetUntrusted"
	FailureTimeout          = "TargetTimeout"
	FailureTLS              = "TargetRefusedTLS"
	FailureTarget           = "TargetFailed"
	FailureCallerUnknown    = "CallerUnknown"
	FailureCallerNotAllowed = "CallerNotAllowed"
	FailureClientGone       = "CallerGone" // in logs only: nobody is there to read it
)

// lookupFailure classifies why no route was found.
func lookupFailure(err error) (status int, source Source, reason string) {
	var missing *routes.NotFoundError
	var ambiguous *routes.AmbiguousError
	switch {
	case errors.As(err, &missing):
		return http.StatusNotFound, SourceCaller, FailureNotFound
	case errors.As(err, &ambiguous):
		return http.StatusBadRequest, SourceGateway, string(routes.ReasonAmbiguous)
	}
	return http.StatusInternalServerError, SourceGateway, FailureNotReady
}

// callFailure classifies why a credential could not be had.
func callFailure(err *credentials.CallError) string {
	if transport.Forbidden(err) != nil {
		return FailureAddress
	}
	return err.Reason
}

// targetFailure classifies why a target could not be called.
func targetFailure(err error) string {
	var untrusted *tls.CertificateVerificationError
	switch {
	case transport.Forbidden(err) != nil:
		return FailureAddress
	case errors.Is(err, errTimeout):
		return FailureTimeout
	case errors.As(err, &untrusted):
		return FailureUntrusted
	case transport.RefusedTLS(err):
		return FailureTLS
	}
	return FailureUnreachable
}

// callCause is why a call failed, as it may be logged.
func callCause(err error) error {
	var credential *credentialsError
	switch {
	case errors.As(err, &credential):
		return credential
	case errors.Is(err, errTimeout):
		return errTimeout
	}
	return transport.Cause(err)
}
