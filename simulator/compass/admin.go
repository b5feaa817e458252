package compass

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

// Admin is the administrator's side of Compass, and of the laws of nature: it
// changes the inventory, makes things fail and reads what was asked. All of it
// is there as JSON over HTTP too; docs/reference/simulator-compass.md has the
// paths. All methods are safe for concurrent use.
type Admin struct{ s *Server }

// Token is a one-time token and where to use it.
type Token struct {
	Token        string    `json:"token"`
	ConnectorURL string    `json:"connectorURL"`
	ExpiresAt    time.Time `json:"expiresAt"`
}

// ErrNotFound is wrapped by the error for an id that is not there.
var ErrNotFound = errors.New("not found")

// RuntimeToken makes a one-time token for a Runtime, and a new system auth
// with it.
func (a *Admin) RuntimeToken(runtimeID string) (Token, error) {
	r := a.s.inventory.Load().runtimes[runtimeID]
	if r == nil {
		return Token{}, fmt.Errorf("runtime %s: %w", runtimeID, ErrNotFound)
	}
	return a.token(ownerRuntime, runtimeID, r.Tenant)
}

// ApplicationToken makes a one-time token for an Application, and a new system
// auth with it, whose id will be the common name of the certificate.
func (a *Admin) ApplicationToken(applicationID string) (Token, error) {
	app := a.s.inventory.Load().applications[applicationID]
	if app == nil {
		return Token{}, fmt.Errorf("application %s: %w", applicationID, ErrNotFound)
	}
	return a.token(ownerApplication, applicationID, app.Tenant)
}

func (a *Admin) token(kind ownerKind, id, tenant string) (Token, error) {
	t, err := a.s.issue(kind, id, tenant, nil)
	return Token{Token: t.Token, ConnectorURL: t.ConnectorURL, ExpiresAt: t.ExpiresAt}, err
}

// PutRuntime adds or replaces a Runtime and returns its id. Labels that were
// set over GraphQL are replaced too.
func (a *Admin) PutRuntime(tenantID string, r Runtime) (string, error) {
	r = deepCopy(r).withID(tenantID)
	var p problems
	p.uuid("tenant", tenantID)
	r.check(&p, "runtime", p.uuid)
	if err := p.err(); err != nil {
		return "", err
	}
	return r.ID, a.s.change(func(draft *inventory) error { return a.s.putRuntime(draft, tenantID, r) })
}

// DeleteRuntime removes a Runtime and its system auths.
func (a *Admin) DeleteRuntime(id string) error {
	if a.s.inventory.Load().runtimes[id] == nil {
		return fmt.Errorf("runtime %s: %w", id, ErrNotFound)
	}
	return a.s.deleteRuntime(id)
}

// PutApplication adds or replaces an Application and returns its id.
func (a *Admin) PutApplication(tenantID string, app Application) (string, error) {
	ids, err := a.PutApplications(tenantID, app)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// PutApplications adds or replaces many at once, all or none.
func (a *Admin) PutApplications(tenantID string, apps ...Application) ([]string, error) {
	apps = deepCopy(apps)
	ids := make([]string, len(apps))
	var p problems
	p.uuid("tenant", tenantID)
	for i := range apps {
		apps[i] = apps[i].withIDs(tenantID)
		apps[i].check(&p, fmt.Sprintf("applications[%d]", i), p.uuid)
		ids[i] = apps[i].ID
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return ids, a.s.change(func(draft *inventory) error {
		for _, app := range apps {
			if err := a.s.putApplication(draft, tenantID, app); err != nil {
				return fmt.Errorf("application %q: %w", app.Name, err)
			}
		}
		return nil
	})
}

// DeleteApplication removes an Application and its system auths.
func (a *Admin) DeleteApplication(id string) error {
	if a.s.inventory.Load().applications[id] == nil {
		return fmt.Errorf("application %s: %w", id, ErrNotFound)
	}
	return a.s.deleteApplication(id)
}

// Inventory is what Director holds now, in the form of a seed. Labels are
// those that were set, without those that Director adds when asked.
func (a *Admin) Inventory() Seed {
	var out Seed
	inv := a.s.inventory.Load()
	for _, t := range inv.tenants {
		tenant := Tenant{ID: t.ID}
		for _, r := range t.runtimes {
			tenant.Runtimes = append(tenant.Runtimes, r.Runtime)
		}
		for _, app := range t.applications {
			tenant.Applications = append(tenant.Applications, app.Application)
		}
		out.Tenants = append(out.Tenants, tenant)
	}
	slices.SortFunc(out.Tenants, func(x, y Tenant) int { return strings.Compare(x.ID, y.ID) })
	return deepCopy(out)
}

// RuntimeStatus is what Director knows of a Runtime beside what it was given.
type RuntimeStatus struct {
	// Condition is INITIAL until the first call with a certificate, then
	// CONNECTED.
	Condition string `json:"condition"`
	// Labels as Director shows them, those that the agent set included.
	Labels map[string]any `json:"labels"`
	// SystemAuths, oldest first.
	SystemAuths []SystemAuth `json:"systemAuths"`
}

// SystemAuth is an identity of a Runtime or an Application; its id is the
// common name of the certificates.
type SystemAuth struct {
	ID           string              `json:"id"`
	Certificates []IssuedCertificate `json:"certificates"`
}

// RuntimeStatus reads a Runtime.
func (a *Admin) RuntimeStatus(id string) (RuntimeStatus, error) {
	r := a.s.inventory.Load().runtimes[id]
	if r == nil {
		return RuntimeStatus{}, fmt.Errorf("runtime %s: %w", id, ErrNotFound)
	}
	return RuntimeStatus{
		Condition: string(runtimeNode(r).Status.Condition), Labels: deepCopy(r.allLabels()), SystemAuths: a.SystemAuths(id),
	}, nil
}

// SystemAuths of a Runtime or Application, oldest first.
func (a *Admin) SystemAuths(ownerID string) []SystemAuth {
	return mapped(a.s.identities.ofOwner(ownerID), func(auth systemAuth) SystemAuth {
		return SystemAuth{ID: auth.ID, Certificates: auth.Certificates}
	})
}

// DeleteSystemAuth takes an identity away: its certificates and tokens are
// nobody's from now on.
func (a *Admin) DeleteSystemAuth(id string) error {
	if _, ok := a.s.identities.auth(id); !ok {
		return fmt.Errorf("system auth %s: %w", id, ErrNotFound)
	}
	return a.s.deleteSystemAuth(id)
}

// Revoke revokes all certificates that a system auth has now. It can still get
// new ones, as in the real Compass, with a token.
func (a *Admin) Revoke(authID string) error {
	auth, ok := a.s.identities.auth(authID)
	if !ok {
		return fmt.Errorf("system auth %s: %w", authID, ErrNotFound)
	}
	for _, c := range auth.Certificates {
		a.s.identities.revoke(c.Hash)
	}
	return a.s.saveIdentities()
}

// SetInstanceAuth gives a Runtime its own credentials for a bundle, in a
// condition: PENDING, SUCCEEDED, FAILED or UNUSED. It changes the request that
// the Runtime has made, or makes one. It returns the id of the instance auth.
func (a *Admin) SetInstanceAuth(bundleID, runtimeID, condition string, auth *Auth) (string, error) {
	var p problems
	if !directorapi.BundleInstanceAuthStatusCondition(condition).IsValid() {
		p.add("condition", "%q is none of %v", condition, directorapi.AllBundleInstanceAuthStatusCondition)
	}
	if auth != nil {
		auth = new(deepCopy(*auth))
		auth.check(&p, "auth")
	}
	if err := p.err(); err != nil {
		return "", err
	}
	next := instanceAuth{ID: uuid.NewString(), BundleID: bundleID, RuntimeID: runtimeID}
	return next.ID, a.s.change(func(draft *inventory) error {
		if draft.bundleOwner[bundleID] == nil {
			return fmt.Errorf("bundle %s: %w", bundleID, ErrNotFound)
		}
		if draft.runtimes[runtimeID] == nil {
			return fmt.Errorf("runtime %s: %w", runtimeID, ErrNotFound)
		}
		for _, old := range draft.ofBundle(bundleID) {
			if old.RuntimeID == runtimeID {
				next = *old
				break
			}
		}
		next.Condition, next.Auth, next.At = condition, auth, a.s.now()
		draft.instanceAuths[next.ID] = &next
		return nil
	})
}

// SetFault makes something fail from the next request on and returns the id of
// the fault. A fault with the id of another one replaces it.
func (a *Admin) SetFault(f Fault) (string, error) {
	if err := f.validate(); err != nil {
		return "", err
	}
	return a.s.faults.add(f), nil
}

// ClearFaults ends the named faults, or all if none is named.
func (a *Admin) ClearFaults(ids ...string) { a.s.faults.clear(ids...) }

// Faults lists those that stand, with the counts that are left.
func (a *Admin) Faults() []Fault { return a.s.faults.list() }

// Counters of requests since the start or ResetCounters.
func (a *Admin) Counters() Counters { return a.s.traffic.counters() }

// ResetCounters begins at zero, and forgets the requests.
func (a *Admin) ResetCounters() { a.s.traffic.reset() }

// Requests are the last 1000 requests, oldest first.
func (a *Admin) Requests() []Request { return a.s.traffic.list() }

// WaitForRequests waits until at least n requests of the operation ("": of any)
// were received since the start or ResetCounters.
func (a *Admin) WaitForRequests(ctx context.Context, operation string, n int) error {
	return a.s.traffic.wait(ctx, operation, func(c Counter) bool { return c.Received >= n })
}

// WaitForAnswers waits until at least n requests of the operation ("": of any)
// were answered, or cut, since the start or ResetCounters.
func (a *Admin) WaitForAnswers(ctx context.Context, operation string, n int) error {
	return a.s.traffic.wait(ctx, operation, func(c Counter) bool { return c.Answered >= n })
}

// SetClockSkew lets the clock of Compass run ahead by d, or behind.
func (a *Admin) SetClockSkew(d time.Duration) { a.s.skew.Store(int64(d)) }

// SetCertificateValidity is for certificates that are issued from now on.
func (a *Admin) SetCertificateValidity(d time.Duration) { a.s.certificateLife.Store(int64(d)) }

// SetTokenValidity is for tokens that are made from now on.
func (a *Admin) SetTokenValidity(d time.Duration) { a.s.tokenLife.Store(int64(d)) }

// ClientCA is the CA that signs client certificates now, in PEM.
func (a *Admin) ClientCA() ([]byte, error) {
	ca, err := a.s.clientCA.get()
	if err != nil {
		return nil, err
	}
	return ca.certPEM(), nil
}

// RotateClientCA lets the Connector sign with a new CA. With keepOld
// certificates of the old CAs stay valid; else they are refused in the next
// handshake. Idle connections are dropped.
func (a *Admin) RotateClientCA(keepOld bool) error {
	old, err := a.s.clientCA.get()
	if err != nil {
		return err
	}
	next, err := newClientCA(a.s.now())
	if err != nil {
		return err
	}
	if keepOld {
		next.trusted = append(next.trusted, old.trusted...)
	}
	a.s.clientCA.set(next)
	a.s.dropIdleConnections()
	return a.s.state.writeAuthority(clientCAFileName, next)
}

// RotateServerCA gives the servers a certificate of a new CA, which ServerCA
// returns from now on. Idle connections are dropped.
func (a *Admin) RotateServerCA() error {
	next, err := newServerCA()
	if err != nil {
		return err
	}
	if err := a.s.setServerCA(next); err != nil {
		return err
	}
	a.s.dropIdleConnections()
	return a.s.state.writeAuthority(serverCAFileName, next)
}
