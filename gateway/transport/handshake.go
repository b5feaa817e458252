package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

// Outcome of a TLS handshake, in one word for metrics.
type Outcome string

// Outcomes.
const (
	OutcomeAccepted  Outcome = "accepted"  // this end has accepted the peer
	OutcomeUntrusted Outcome = "untrusted" // the peer's certificate is not believed
	OutcomeRefused   Outcome = "refused"   // the peer sent an alert, for example because of our certificate
	OutcomeNoTLS     Outcome = "no_tls"    // the peer does not speak TLS
)

// Transport is an http.Transport that says how its TLS handshakes come out, and leaves its pool when its connection is dead.
type Transport struct {
	*http.Transport
	shaken   func(Outcome) // may be nil
	notAfter atomic.Pointer[time.Time]

	guard  *Guard                         // may be nil
	judged atomic.Pointer[netip.AddrPort] // where it connected last without the settings' allowing just that

	shared  atomic.Bool  // a peer has chosen HTTP/2: calls go through one connection
	answers atomic.Int64 // that have begun
	retired atomic.Bool
	retire  func() // takes it out of its pool; calls in flight go on
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	before := t.answers.Load()
	response, err := t.Transport.RoundTrip(r)
	if err == nil {
		t.answers.Add(1)
		return response, nil
	}
	if t.shaken != nil {
		if outcome := failure(err); outcome != "" {
			t.shaken(outcome)
		}
	}
	// A call that was given up takes its connection with it in HTTP/1, not in HTTP/2: if the peer is gone without a word, as
	// after a lost entry in a NAT's table, each later call would wait in vain too. Pings are no answer: servers of gRPC end
	// connections that send them while a stream is silent.
	if r.Context().Err() != nil && t.shared.Load() && t.answers.Load() == before && !t.retired.Swap(true) {
		t.retire()
	}
	return response, err
}

// failure is how a handshake failed; empty if it did not, or if nobody can tell. A peer looks at our certificate after we
// have accepted its own, so that what it refuses then has had two outcomes.
func failure(err error) Outcome {
	var untrusted *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &untrusted):
		return OutcomeUntrusted
	case RefusedTLS(err):
		return OutcomeRefused
	case errors.As(err, &record):
		return OutcomeNoTLS
	}
	return ""
}

// RefusedTLS says whether an error is an alert of the peer's.
func RefusedTLS(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" // what crypto/tls calls it
}

// verified implements tls.Config.VerifyConnection, which comes last, also when nothing else is verified.
func (t *Transport) verified(state tls.ConnectionState) error {
	if to := t.judged.Load(); to != nil && t.guard.api.shownBy(state.PeerCertificates) {
		return &ForbiddenError{Address: *to, Kind: kindAPIServer}
	}
	if len(state.PeerCertificates) > 0 {
		t.notAfter.Store(&state.PeerCertificates[0].NotAfter)
	}
	if state.NegotiatedProtocol == "h2" {
		t.shared.Store(true)
	}
	if t.shaken != nil {
		t.shaken(OutcomeAccepted)
	}
	return nil
}
