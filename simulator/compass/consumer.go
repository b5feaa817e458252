package compass

import (
	"crypto/x509"
	"net/http"
	"slices"
)

// Scopes of the kinds of callers. A Runtime's and the order of it are as the
// real Director tells them in its errors.
var (
	runtimeScopes = []string{
		"runtime:read", "runtime:write", "application:read", "runtime.auths:read",
		"bundle.instance_auths:read", "runtime.webhooks:read", "webhook:write",
	}
	applicationScopes = []string{
		"application:read", "application:write", "application.auths:read",
		"bundle.instance_auths:read", "application.webhooks:read",
	}
	administratorScopes = []string{
		"runtime:read", "runtime:write", "application:read", "application:write", "runtime.auths:read",
		"application.auths:read", "bundle.instance_auths:read", "runtime.webhooks:read",
		"application.webhooks:read", "application.application_template:read", "formation:write", "webhook:write",
	}
)

// requiredScopes of fields whose absence is an error at the field.
var requiredScopes = map[fieldName]string{
	{"Query", "runtime"}:                              "runtime:read",
	{"Query", "runtimes"}:                             "runtime:read",
	{"Query", "application"}:                          "application:read",
	{"Query", "applications"}:                         "application:read",
	{"Query", "applicationsForRuntime"}:               "application:read",
	{"Query", "bundleInstanceAuth"}:                   "application:read",
	{"Mutation", "registerApplication"}:               "application:write",
	{"Mutation", "unregisterApplication"}:             "application:write",
	{"Mutation", "registerRuntime"}:                   "runtime:write",
	{"Mutation", "unregisterRuntime"}:                 "runtime:write",
	{"Mutation", "setRuntimeLabel"}:                   "runtime:write",
	{"Mutation", "deleteRuntimeLabel"}:                "runtime:write",
	{"Mutation", "requestOneTimeTokenForRuntime"}:     "runtime:write",
	{"Mutation", "requestOneTimeTokenForApplication"}: "application:write",
	{"Mutation", "deleteSystemAuthForRuntime"}:        "runtime:write",
	{"Mutation", "requestBundleInstanceAuthCreation"}: "runtime:write",
	{"Mutation", "requestBundleInstanceAuthDeletion"}: "runtime:write",
	{"Mutation", "assignFormation"}:                   "formation:write",
	{"Mutation", "unassignFormation"}:                 "formation:write",
	{"Application", "applicationTemplate"}:            "application.application_template:read",
}

// sanitizedFields are null, without an error, for a caller without the scope.
var sanitizedFields = map[fieldName]string{
	{"Application", "webhooks"}:       "application.webhooks:read",
	{"AppSystemAuth", "auth"}:         "application.auths:read",
	{"RuntimeSystemAuth", "auth"}:     "runtime.auths:read",
	{"Bundle", "instanceAuth"}:        "bundle.instance_auths:read",
	{"Bundle", "instanceAuths"}:       "bundle.instance_auths:read",
	{"Bundle", "defaultInstanceAuth"}: "bundle.instance_auths:read",
}

type fieldName struct{ object, field string }

type consumerKind int

const (
	nobody consumerKind = iota
	administrator
	runtimeConsumer
	applicationConsumer
)

// consumer is who calls. The zero value is nobody: that is also what every
// failure of the resolution looks like from inside.
type consumer struct {
	kind consumerKind
	// id of the Runtime or Application.
	id     string
	authID string
	// tenant is empty for an administrator who named none.
	tenant string
	scopes []string
	// certificateHash is set when a client certificate told who calls.
	certificateHash string
}

func (c consumer) has(scope string) bool { return slices.Contains(c.scopes, scope) }

func consumerOf(a systemAuth, certificateHash string) consumer {
	c := consumer{id: a.OwnerID, authID: a.ID, tenant: a.Tenant, certificateHash: certificateHash}
	switch a.Kind {
	case ownerRuntime:
		c.kind, c.scopes = runtimeConsumer, runtimeScopes
	case ownerApplication:
		c.kind, c.scopes = applicationConsumer, applicationScopes
	}
	return c
}

// consumerByToken burns the token that the request carries.
func (s *Server) consumerByToken(r *http.Request) consumer {
	token := r.Header.Get("Connector-Token")
	if token == "" {
		token = r.URL.Query().Get("token")
	}
	if token == "" {
		return consumer{}
	}
	auth, ok := s.identities.consume(token, s.now())
	if err := s.saveIdentities(); err != nil {
		s.log.Error("one-time token is used but that is not stored", "error", err)
	}
	if !ok || !s.ownerExists(auth) {
		return consumer{}
	}
	return consumerOf(auth, "")
}

// consumerByCertificate takes the certificate that TLS has verified already.
func (s *Server) consumerByCertificate(cert *x509.Certificate) consumer {
	if !hasConnectorSubject(cert) {
		return consumer{}
	}
	hash := certificateHash(cert.Raw)
	auth, ok := s.identities.byCertificate(cert.Subject.CommonName, hash)
	if !ok || !s.ownerExists(auth) {
		return consumer{}
	}
	return consumerOf(auth, hash)
}

func (s *Server) ownerExists(a systemAuth) bool {
	inv := s.inventory.Load()
	if a.Kind == ownerRuntime {
		return inv.runtimes[a.OwnerID] != nil
	}
	return inv.applications[a.OwnerID] != nil
}

// applyTenant narrows c to the tenant that the request names. It returns an
// error for a tenant that exists and is not the caller's; a tenant that does
// not exist leaves nobody.
func (s *Server) applyTenant(c consumer, header string) (consumer, error) {
	switch {
	case header == "" || c.kind == nobody:
		return c, nil
	case !s.inventory.Load().tenantExists(header):
		if c.kind == administrator {
			return consumer{}, errTenantNotFound(header)
		}
		return consumer{}, nil
	case c.kind == administrator:
		c.tenant = header
		return c, nil
	case header != c.tenant:
		return consumer{}, errTenantNotFound(header)
	}
	return c, nil
}
