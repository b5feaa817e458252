// Package issuer is an external issuer of cert-manager: it has CertificateRequests for a CompassIssuer or a
// CompassClusterIssuer signed by Compass's Connector, the first by a second one-time token, the later ones over mTLS by the
// certificate that is being replaced. It owns the checks before anything is spent, what becomes of each error (see
// Outcomes), and what is kept of an answer that Compass gives once.
//
// It runs within the agent, behind the same setting (APP_CERT_MANAGER), and not as a program of its own: the agent has the
// Connector's address, authorities and transports, the right to read the Secrets, and the lease by which one process at a
// time spends tokens. A second program would need all of that again.
//
// It knows nothing of when certificates are renewed and of the Secrets that they end up in (cert-manager does), and nothing
// of pairing (package agent/connection does).
package issuer
