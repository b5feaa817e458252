package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"
)

// DefaultRenewalThreshold is the fraction of a certificate's lifetime that is left when it is renewed.
const DefaultRenewalThreshold = 0.3

// renewalSpread is the part of the threshold over which renewals are spread: with the default threshold of 0.3 they happen
// while between 0.30 and 0.25 of the lifetime is left.
const renewalSpread = 1.0 / 6

// RenewalPolicy says when a certificate is renewed.
type RenewalPolicy struct {
	// Threshold is the fraction of the lifetime, between 0 and 1, that is left when renewal is due.
	Threshold float64
	// Floor is the least time left when renewal is due, whatever Threshold says: several attempts must still fit in.
	Floor time.Duration
	// Identity spreads the renewals of many clusters: the same identity always gets the same part of the spread.
	Identity string
}

// Validate reports a threshold that would renew never or always.
func (p RenewalPolicy) Validate() error {
	if !(p.Threshold > 0 && p.Threshold < 1) {
		return fmt.Errorf("renewal threshold %v: want a fraction of the lifetime greater than 0 and less than 1, such as %v", p.Threshold, DefaultRenewalThreshold)
	}
	return nil
}

// RenewAt is when a certificate is to be renewed, on a whole second. The lifetime is that of the certificate as issued, or ends
// with what signed it: a certificate is refused when its authority has ended. An authority that had ended before the certificate
// was issued is not what it is trusted by.
func (p RenewalPolicy) RenewAt(cert *x509.Certificate, above ...*x509.Certificate) time.Time {
	end := cert.NotAfter
	for _, c := range above {
		if c.NotAfter.Before(end) && c.NotAfter.After(cert.NotBefore) {
			end = c.NotAfter
		}
	}
	lifetime := end.Sub(cert.NotBefore)
	left := time.Duration(float64(lifetime) * p.Threshold * (1 - renewalSpread*fraction(p.Identity)))
	return end.Add(-max(left, p.Floor)).Truncate(time.Second)
}

// fraction maps an identity to [0,1), evenly.
func fraction(identity string) float64 {
	sum := sha256.Sum256([]byte("renewal\x00" + identity))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}
