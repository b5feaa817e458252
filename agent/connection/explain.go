package connection

import (
	"errors"
	"fmt"
	"time"

	"github.com/application-connector/application-connector/graphql"
)

// cause is an error as the status tells it, with the server's own words last.
func cause(err error) string {
	text := err.Error()
	var failed *graphql.Error
	if errors.As(err, &failed) && failed.Detail() != "" {
		text += ": " + failed.Detail()
	}
	return text
}

// traced is cause with the request id first, by which Compass's operators find the request.
func traced(err error) string {
	var failed *graphql.Error
	if errors.As(err, &failed) && failed.RequestID != "" {
		return fmt.Sprintf("x-request-id: %s failed: %s", failed.RequestID, cause(err))
	}
	return cause(err)
}

// hint says what a person can do about an error; it is empty where nothing but waiting helps.
func hint(err error, byToken bool, names Names) string {
	switch kind := graphql.KindOf(err); {
	case kind == graphql.Unreachable && byToken:
		return fmt.Sprintf("; check %s in Secret %s, and that the cluster may reach it", keyConnectorURL, names.Configuration)
	case kind == graphql.Unreachable:
		return "; check that the cluster may reach it"
	case kind == graphql.ServerUntrusted:
		return "; the certificate of Compass's server is not trusted: APP_COMPASS_CA_FILE names further authorities"
	case kind == graphql.CertificateExpired:
		return fmt.Sprintf("; the client certificate has ended, and only a new one-time token in Secret %s helps", names.Configuration)
	case kind == graphql.CertificateRefused:
		return fmt.Sprintf("; if this lasts, write a new one-time token into Secret %s", names.Configuration)
	case needsToken(err) && byToken:
		return fmt.Sprintf("; the one-time token is wrong, used or expired, or Compass is partly down: write a new token into key %s of Secret %s, it is tried at once", keyToken, names.Configuration)
	case kind == graphql.Ambiguous:
		return "; Compass answers like this to a revoked certificate, and while parts of it are down"
	}
	return ""
}

func retryAfter(err error) time.Duration {
	var failed *graphql.Error
	if errors.As(err, &failed) {
		return failed.RetryAfter
	}
	return 0
}
