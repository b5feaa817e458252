package certs

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// clockSkew is by how much the Connector's clock may be ahead of this one: it dates certificates from now, to the second.
const clockSkew = 5 * time.Minute

// Check names what about an issued certificate was found wrong.
type Check string

// Checks that Verify makes, in this order.
const (
	// CheckComplete: there is a certificate, and an authority for it.
	CheckComplete Check = "Incomplete"
	// CheckKey: the certificate is for the key of the request.
	CheckKey Check = "WrongKey"
	// CheckSubject: the certificate has the subject of the request.
	CheckSubject Check = "WrongSubject"
	// CheckValidity: the certificate is valid now, and long enough to be renewed.
	CheckValidity Check = "WrongValidity"
	// CheckChain: a chain of signatures, good for TLS clients, leads to one of the authorities.
	CheckChain Check = "BrokenChain"
)

// IssuanceError says that what was issued is not what was asked for. It is final for this answer of the Connector: nothing
// may be replaced by it.
type IssuanceError struct {
	Check Check
	Err   error
}

// Error implements error.
func (e *IssuanceError) Error() string {
	return fmt.Sprintf("issued certificate refused (%s): %v", e.Check, e.Err)
}

// Unwrap gives the cause.
func (e *IssuanceError) Unwrap() error { return e.Err }

// Issuance is what was asked for and what came back.
type Issuance struct {
	// Key of the request.
	Key crypto.Signer
	// Subject of the request.
	Subject Subject
	// Certificate that was issued, what came as its chain in any order, and the authorities.
	Certificate *x509.Certificate
	Chain, CA   []*x509.Certificate
	// Now is the time of verification.
	Now time.Time
	// MinValidity is the least time that must be left: less could not be renewed before it ends.
	MinValidity time.Duration
}

// Verify gives the credential if everything about it is as asked, and else an *IssuanceError. The chain comes out ordered,
// leaf first.
func Verify(i Issuance) (Credential, error) {
	for _, check := range []struct {
		name Check
		run  func(Issuance) error
	}{
		{CheckComplete, checkComplete},
		{CheckKey, func(i Issuance) error { return checkKey(i.Key, i.Certificate) }},
		{CheckSubject, func(i Issuance) error { return i.Subject.Check(i.Certificate) }},
		{CheckValidity, checkValidity},
		{CheckChain, checkChain},
	} {
		if err := check.run(i); err != nil {
			return Credential{}, &IssuanceError{Check: check.name, Err: err}
		}
	}
	var above []*x509.Certificate
	above = append(append(above, i.Chain...), i.CA...)
	return Credential{Key: i.Key, Chain: order(i.Certificate, above), CA: unique(i.CA)}, nil
}

func checkComplete(i Issuance) error {
	if i.Certificate == nil {
		return errors.New("there is no certificate")
	}
	if len(i.CA) == 0 {
		return errors.New("there is no certificate of an authority")
	}
	return nil
}

func checkValidity(i Issuance) error {
	c := i.Certificate
	switch {
	case c.NotBefore.After(i.Now.Add(clockSkew)):
		return fmt.Errorf("it is valid from %s only; now it is %s: compare the clocks", stamp(c.NotBefore), stamp(i.Now))
	case !i.Now.Before(c.NotAfter):
		return fmt.Errorf("it ended at %s; now it is %s: compare the clocks", stamp(c.NotAfter), stamp(i.Now))
	case c.NotAfter.Sub(i.Now) < i.MinValidity:
		return fmt.Errorf("it ends at %s, in %s; it must last %s to be renewed in time", stamp(c.NotAfter), c.NotAfter.Sub(i.Now).Round(time.Second), i.MinValidity)
	}
	return nil
}

func checkChain(i Issuance) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range i.CA {
		roots.AddCert(c)
	}
	for _, c := range i.Chain {
		between.AddCert(c)
	}
	at := i.Now
	if at.Before(i.Certificate.NotBefore) {
		at = i.Certificate.NotBefore // within clockSkew, checked before
	}
	_, err := i.Certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
