// Package settings turns spec.targetSettings of an Application into what calls of one API need. It checks everything anew
// that the definition of the resource checks, since objects may be older than it. It knows nothing of calls.
package settings

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/callers"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/limits"
)

// KeyCA is the key of a Secret that holds certificates to trust.
const KeyCA = "ca.crt"

// Settings of one API. The zero value changes nothing. They are immutable.
type Settings struct {
	// Trust has no SkipVerify: that is the Application's.
	Trust    credentials.Trust
	Timeouts Timeouts
	Limits   limits.Spec
	OAuth    credentials.OAuth
	CSRF     credentials.CSRF
	// Request and Response change header fields; nil for no change.
	Request, Response *HeaderPolicy
	// Callers are who may call; nil for everybody.
	Callers *callers.Allowed
}

// Timeouts of calls; zero is for the process's.
type Timeouts struct{ Connect, Header, Idle, Total, Token time.Duration }

// Problem is a setting that cannot be used.
type Problem struct {
	// Field is its path in the Application.
	Field string
	// Message says what is wrong and what would be right.
	Message string
}

// Path is the path of the settings of a target in the Application.
func Path(target string) string { return fmt.Sprintf("spec.targetSettings[%q]", target) }

// Source gives the content of a Secret by the field that names it; false if it is not there, which it has reported.
type Source func(name, field string) (map[string][]byte, bool)

// Parse merges the settings of an API of a kind of credentials with those for all APIs, either of which may be nil. Block by
// block, the API's own stand in place of those for all.
func Parse(own, all *v1alpha1.TargetSettings, kind string, secrets Source) (*Settings, []Problem) {
	p := parser{settings: &Settings{}}
	if own == nil && all == nil {
		return p.settings, nil
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.TLS != nil }); from != nil {
		p.tls(from.TLS, path+".tls", secrets)
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.Timeouts != nil }); from != nil {
		t := from.Timeouts
		p.settings.Timeouts = Timeouts{
			Connect: p.duration(t.Connect, path+".timeouts.connect"), Header: p.duration(t.Header, path+".timeouts.header"),
			Idle: p.duration(t.Idle, path+".timeouts.idle"), Total: p.duration(t.Total, path+".timeouts.total"), Token: p.duration(t.Token, path+".timeouts.token"),
		}
	}
	p.limits(own, all)
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.OAuth != nil }); from != nil {
		p.oauth(from.OAuth, path+".oauth", kind, from == own)
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.CSRF != nil }); from != nil {
		p.csrf(from.CSRF, path+".csrf")
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.Headers != nil }); from != nil {
		p.settings.Request = p.headers(from.Headers.Request, path+".headers.request")
		p.settings.Response = p.headers(from.Headers.Response, path+".headers.response")
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.AllowedCallers != nil }); from != nil {
		allowed, err := callers.NewAllowed(from.AllowedCallers.Namespaces, from.AllowedCallers.ServiceAccounts)
		if err != nil {
			p.problem(path+".allowedCallers", err.Error())
		}
		p.settings.Callers = allowed
	}
	return p.settings, p.problems
}

// pick is the item whose block counts, with its path.
func pick(own, all *v1alpha1.TargetSettings, has func(*v1alpha1.TargetSettings) bool) (*v1alpha1.TargetSettings, string) {
	for _, from := range []*v1alpha1.TargetSettings{own, all} {
		if from != nil && has(from) {
			return from, Path(from.Target)
		}
	}
	return nil, ""
}

type parser struct {
	settings *Settings
	problems []Problem
}

func (p *parser) problem(field, message string) {
	p.problems = append(p.problems, Problem{field, message})
}

const longest = 24 * time.Hour

func (p *parser) duration(text v1alpha1.Duration, field string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < time.Millisecond || d > longest {
		p.problem(field, fmt.Sprintf("%q is not a time from 1ms to 24h, such as 10s", text))
		return 0
	}
	return d
}

func (p *parser) tls(t *v1alpha1.TLSSettings, path string, secrets Source) {
	switch t.MinVersion {
	case "":
	case "1.2":
		p.settings.Trust.MinVersion = tls.VersionTLS12
	case "1.3":
		p.settings.Trust.MinVersion = tls.VersionTLS13
	default:
		p.problem(path+".minVersion", fmt.Sprintf("%q is not a version: use 1.2 or 1.3", t.MinVersion))
	}
	switch {
	case t.CABundle != "" && t.CASecretName != "":
		p.problem(path, "caBundle and caSecretName: give one of them")
	case t.CABundle != "":
		p.bundle(t.CABundle, path+".caBundle", "")
	case t.CASecretName != "":
		field := path + ".caSecretName"
		data, ok := secrets(t.CASecretName, field)
		if !ok {
			return
		}
		text, ok := data[KeyCA]
		if !ok {
			p.problem(field, fmt.Sprintf("Secret %s: key %s is missing", t.CASecretName, KeyCA))
			return
		}
		p.bundle(string(text), field, fmt.Sprintf("Secret %s: key %s ", t.CASecretName, KeyCA))
	}
}

// bundleLimit is the largest bundle, in bytes; a Secret holds no more than a MiB.
const bundleLimit = 1 << 20

// bundle checks each block: one that is left out in silence would be missed only when a call fails.
func (p *parser) bundle(text, field, where string) {
	const right = "give certificates in PEM form (-----BEGIN CERTIFICATE-----)"
	if len(text) > bundleLimit {
		p.problem(field, fmt.Sprintf("%sis larger than %d bytes", where, bundleLimit))
		return
	}
	rest, found := []byte(text), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			p.problem(field, fmt.Sprintf("%sholds a block %q: %s", where, printable(block.Type), right))
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			p.problem(field, fmt.Sprintf("%sholds as block %d what is no certificate: %s", where, found+1, right))
			return
		}
		found++
	}
	if found != strings.Count(text, "-----BEGIN ") {
		p.problem(field, fmt.Sprintf("%sholds blocks that cannot be read: %s", where, right))
		return
	}
	if found == 0 {
		p.problem(field, fmt.Sprintf("%sholds no certificate: %s", where, right))
		return
	}
	p.settings.Trust.CA = credentials.NewAuthorities(text)
}

// printable bounds what is repeated of a Secret.
func printable(blockType string) string { return blockType[:min(len(blockType), 40)] }

func (p *parser) limits(own, all *v1alpha1.TargetSettings) {
	into := &p.settings.Limits
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.MaxConcurrent != 0 }); from != nil {
		if from.MaxConcurrent < 0 {
			p.problem(path+".maxConcurrent", fmt.Sprintf("%d is not a number from 1 on", from.MaxConcurrent))
		}
		into.Concurrent = int(from.MaxConcurrent)
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.RateLimit != nil }); from != nil {
		r := from.RateLimit
		path += ".rateLimit"
		into.Rate = limits.Rate{Requests: int(r.Requests), Per: p.duration(r.Per, path+".per"), Burst: int(r.Burst)}
		if r.Per == "" {
			into.Rate.Per = time.Second
		}
		if r.Burst == 0 {
			into.Rate.Burst = int(r.Requests)
		}
		if r.Requests < 1 {
			p.problem(path+".requests", fmt.Sprintf("%d is not a number from 1 on", r.Requests))
		}
		if r.Burst < 0 {
			p.problem(path+".burst", fmt.Sprintf("%d is not a number from 1 on", r.Burst))
		}
	}
	if from, path := pick(own, all, func(t *v1alpha1.TargetSettings) bool { return t.CircuitBreaker != nil }); from != nil {
		b := from.CircuitBreaker
		path += ".circuitBreaker"
		into.Breaker = limits.Breaker{Failures: int(b.Failures), Pause: p.duration(b.Pause, path+".pause")}
		if b.Failures < 1 {
			p.problem(path+".failures", fmt.Sprintf("%d is not a number from 1 on", b.Failures))
		}
		if b.Pause == "" {
			p.problem(path+".pause", "is missing: use a time such as 30s")
		}
	}
}

// reserved fields of a token request's form, with what sets them.
var reserved = map[string]string{
	"grant_type": "the gateway", "client_id": "the Secret", "client_secret": "the Secret", "scope": "scopes", "audience": "audience",
}

// oauth reads what is said of tokens. What does not fit an API is a fault if it was said of that API, and left out if it
// was said of all.
func (p *parser) oauth(o *v1alpha1.OAuthSettings, path, kind string, own bool) {
	oauth, withCert := kind == v1alpha1.CredentialsTypeOAuth, kind == v1alpha1.CredentialsTypeOAuthWithCert
	if !oauth && !withCert {
		if own {
			p.problem(path, fmt.Sprintf("the API's credentials are of type %q: leave it out, or use credentials of type OAuth or OAuthWithCert", kind))
		}
		return
	}
	into := &p.settings.OAuth
	switch {
	case o.ClientAuthentication == "":
	case o.ClientAuthentication != v1alpha1.ClientAuthenticationBody && o.ClientAuthentication != v1alpha1.ClientAuthenticationHeader:
		p.problem(path+".clientAuthentication", fmt.Sprintf("%q is not known: use Body or Header", o.ClientAuthentication))
	case oauth:
		into.OnlyBody, into.OnlyHeader = o.ClientAuthentication == v1alpha1.ClientAuthenticationBody, o.ClientAuthentication == v1alpha1.ClientAuthenticationHeader
	case own:
		p.problem(path+".clientAuthentication", "is for credentials of type OAuth: a client of type OAuthWithCert proves itself by its certificate")
	}
	switch {
	case o.CertificateBound && withCert:
		into.CertificateBound = true
	case o.CertificateBound && own:
		p.problem(path+".certificateBound", "is for credentials of type OAuthWithCert: credentials of type OAuth have no certificate")
	}
	form := map[string]string{}
	for i, scope := range o.Scopes {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			p.problem(fmt.Sprintf("%s.scopes[%d]", path, i), fmt.Sprintf("%q is not one scope (RFC 6749, section 3.3)", scope))
		}
	}
	if len(o.Scopes) > 0 {
		form["scope"] = strings.Join(o.Scopes, " ")
	}
	if o.Audience != "" {
		form["audience"] = o.Audience
	}
	for _, name := range slices.Sorted(maps.Keys(o.Parameters)) {
		switch setter := reserved[name]; {
		case name == "":
			p.problem(path+".parameters", "a name is empty")
		case setter != "":
			p.problem(fmt.Sprintf("%s.parameters[%q]", path, name), "is set by "+setter)
		default:
			form[name] = string(o.Parameters[name])
		}
	}
	if len(form) > 0 {
		into.Form = form
	}
}

func (p *parser) csrf(c *v1alpha1.CSRFSettings, path string) {
	switch c.Method {
	case "", http.MethodGet, http.MethodHead:
	default:
		p.problem(path+".method", fmt.Sprintf("%q is not known: use GET or HEAD", c.Method))
	}
	p.settings.CSRF = credentials.CSRF{
		Method: c.Method, Lifetime: p.duration(c.Lifetime, path+".lifetime"),
		RequestHeader: p.name(string(c.RequestHeader), path+".requestHeader"), ResponseHeader: p.name(string(c.ResponseHeader), path+".responseHeader"),
	}
}

// validName says whether a header field may be called so.
func validName(name string) bool { return httpguts.ValidHeaderFieldName(name) }
