package graphql

// Kind says what an Error means for the caller: whether to come again, and who has to do something before that.
type Kind string

// All kinds. docs/reference/compass-client.md has the same list with what each is made from.
const (
	// Unreachable: no connection to the endpoint (name, route, refused, reset, proxy). The request was not answered.
	Unreachable Kind = "Unreachable"
	// Timeout: the connection stood, but no whole answer came in time. Compass may have done what was asked.
	Timeout Kind = "Timeout"
	// Canceled: the caller gave up.
	Canceled Kind = "Canceled"
	// ServerUntrusted: the server's certificate does not verify (authority, name, dates).
	ServerUntrusted Kind = "ServerUntrusted"
	// CertificateExpired: the server refused the client certificate as expired, or as not valid yet. It cannot be
	// renewed any more; only a new one-time token helps (or a clock set right).
	CertificateExpired Kind = "CertificateExpired"
	// CertificateRefused: the server wants a client certificate and got none, or one that it does not accept.
	CertificateRefused Kind = "CertificateRefused"
	// TLS: the handshake failed in another way (protocol, cipher, no TLS at all).
	TLS Kind = "TLS"
	// Ambiguous: an answer that Compass gives for a bad, used or expired token and for a revoked certificate, and just
	// the same while its Director or database is down. Must not be taken as revoked at once.
	Ambiguous Kind = "Ambiguous"
	// Refused: Compass does not accept who asks (HTTP 401 and 403, tenant not found or missing, unauthorized).
	Refused Kind = "Refused"
	// ScopeMissing: Compass knows who asks, and does not let it do this.
	ScopeMissing Kind = "ScopeMissing"
	// Throttled: too many requests (HTTP 429). RetryAfter says when to come again, if the server said so.
	Throttled Kind = "Throttled"
	// Server: something is wrong on the other side (HTTP 5xx, internal errors, conflicts with other writers).
	Server Kind = "Server"
	// Rejected: Compass understood and says no to this very request (not found, invalid data, not allowed, bad CSR).
	Rejected Kind = "Rejected"
	// Invalid: the endpoint does not understand us (HTTP 422, other 4xx, a redirect, no https URL): a wrong URL, or
	// versions that do not fit together.
	Invalid Kind = "Invalid"
	// Malformed: the answer is not what was asked for (no JSON, broken off, fields missing, pages that do not end).
	Malformed Kind = "Malformed"
	// TooLarge: the answer is larger than Options.MaxResponseBytes.
	TooLarge Kind = "TooLarge"
)

// Kinds gives all kinds, in the order in which they are declared.
func Kinds() []Kind {
	return []Kind{
		Unreachable, Timeout, Canceled, ServerUntrusted, CertificateExpired, CertificateRefused, TLS, Ambiguous, Refused,
		ScopeMissing, Throttled, Server, Rejected, Invalid, Malformed, TooLarge,
	}
}

// Transient says that the same request may succeed later although nobody does anything about it. Of a request with a
// one-time token this is not true: the token is gone with the first try that reached Compass.
func (k Kind) Transient() bool {
	switch k {
	case Unreachable, Timeout, Ambiguous, Throttled, Server, Malformed:
		return true
	}
	return false
}
