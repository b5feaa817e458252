package compass

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"k8s.io/utils/clock"
)

// Defaults of Options.
const (
	DefaultHost                = "localhost"
	DefaultAddress             = "127.0.0.1:0"
	DefaultCertificateValidity = 90 * 24 * time.Hour
	DefaultTokenValidity       = 60 * time.Minute
)

// Options of Start. The zero value starts an empty Compass on free ports of
// the loopback interface.
type Options struct {
	// TokenAddress and MTLSAddress are host:port; port 0 takes a free one.
	TokenAddress string
	MTLSAddress  string
	// AdminAddress is host:port on loopback; anything else is refused,
	// because the administrator's listener asks for no credentials.
	AdminAddress string
	// Host is the name in all URLs that Compass hands out, and in the server
	// certificate (beside localhost and the loopback addresses).
	Host string
	// Seed is the first inventory. With a StateDir that holds an inventory
	// already, the stored one wins and Seed is not looked at.
	Seed Seed
	// StateDir keeps the CAs, system auths, tokens and the inventory across
	// restarts; empty keeps nothing. Files are readable by the owner only.
	StateDir string
	// Clock tells the time for tokens, certificates and TLS. Default: the
	// real one.
	Clock clock.PassiveClock
	// CertificateValidity of issued client certificates; default 90 days.
	CertificateValidity time.Duration
	// TokenValidity of one-time tokens; default 60 minutes.
	TokenValidity time.Duration
	// Log receives what an operator of Compass would see; default: nothing.
	// It never receives tokens or credentials.
	Log *slog.Logger
	// OnSecret is told each one-time token that is made, with what it is; default: nobody. Tests look whether one was leaked.
	OnSecret func(name, text string)
}

func (o Options) complete() Options {
	setDefault(&o.TokenAddress, DefaultAddress)
	setDefault(&o.MTLSAddress, DefaultAddress)
	setDefault(&o.AdminAddress, DefaultAddress)
	setDefault(&o.Host, DefaultHost)
	setDefault(&o.CertificateValidity, DefaultCertificateValidity)
	setDefault(&o.TokenValidity, DefaultTokenValidity)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnSecret == nil {
		o.OnSecret = func(string, string) {}
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	for _, a := range []struct{ field, address string }{
		{"TokenAddress", o.TokenAddress}, {"MTLSAddress", o.MTLSAddress}, {"AdminAddress", o.AdminAddress},
	} {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: want host:port: %w", a.field, a.address, err))
		}
	}
	if host, _, err := net.SplitHostPort(o.AdminAddress); err == nil && !isLoopback(host) {
		errs = append(errs, fmt.Errorf("AdminAddress %q: want a loopback host such as 127.0.0.1: the administrator's listener asks for no credentials", o.AdminAddress))
	}
	if o.CertificateValidity < 0 {
		errs = append(errs, fmt.Errorf("CertificateValidity %s: want more than 0", o.CertificateValidity))
	}
	if o.TokenValidity < 0 {
		errs = append(errs, fmt.Errorf("TokenValidity %s: want more than 0", o.TokenValidity))
	}
	return errors.Join(errs...)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
