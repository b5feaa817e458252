package issuer

import (
	"errors"
	"fmt"
	"time"

	"github.com/cert-manager/issuer-lib/controllers/signer"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
)

// Outcome is what becomes of a request after an error.
type Outcome string

// Outcomes of a request that was not signed.
const (
	// Permanent: the request has failed. cert-manager makes another one, or a person changes something.
	Permanent Outcome = "permanent"
	// Pending: the request waits for as long as it takes.
	Pending Outcome = "pending"
	// Retry: the request is tried again, less and less often, until MaxRetryDuration is over.
	Retry Outcome = "retry"
)

// Outcomes says what becomes of a request after each kind of error of the Connector. Whether the token is spent is told
// apart by spends.
var Outcomes = map[graphql.Kind]Outcome{
	graphql.Unreachable:        Retry,
	graphql.Timeout:            Retry,
	graphql.Canceled:           Retry,
	graphql.ServerUntrusted:    Retry,
	graphql.CertificateExpired: Retry,
	graphql.CertificateRefused: Retry,
	graphql.TLS:                Retry,
	graphql.Ambiguous:          Retry,
	graphql.Refused:            Retry,
	graphql.ScopeMissing:       Permanent,
	graphql.Throttled:          Pending,
	graphql.Server:             Retry,
	graphql.Rejected:           Permanent,
	graphql.Invalid:            Retry,
	graphql.Malformed:          Retry,
	graphql.TooLarge:           Retry,
}

// outcome types an error for issuer-lib; floor is the least time to wait.
func outcome(err error, floor time.Duration) error {
	var failed *graphql.Error
	if !errors.As(err, &failed) {
		var refused *certs.IssuanceError
		if errors.As(err, &refused) {
			return signer.PermanentError{Err: err}
		}
		return err
	}
	if words := failed.Detail(); words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	switch {
	case Outcomes[failed.Kind] == Permanent:
		return signer.PermanentError{Err: err}
	case Outcomes[failed.Kind] == Pending || failed.RetryAfter > 0:
		return signer.PendingError{Err: err, RequeueAfter: max(min(failed.RetryAfter, time.Hour), floor, time.Second)}
	}
	return err
}

// spends: whatever comes after this error, a token that it was got by is worth nothing any more. What did not reach Compass
// left the token good, and what may be an outage perhaps too.
func spends(err error) bool {
	kind := graphql.KindOf(err)
	return !kind.Transient() && kind != graphql.ServerUntrusted && kind != graphql.TLS && kind != graphql.Canceled
}
