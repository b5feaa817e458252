package compass

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// inventory is what Director knows, at one moment. It is never changed: a
// change makes a new one that shares what stayed. So a request sees one
// inventory from beginning to end, without a lock.
type inventory struct {
	// tenants by external id.
	tenants       map[string]*tenantState
	runtimes      map[string]*runtimeState
	applications  map[string]*applicationState
	bundleOwner   map[string]*applicationState
	instanceAuths map[string]*instanceAuth
}

// tenantState lists ids in order, as Director's lists are.
type tenantState struct {
	ID           string
	runtimes     []*runtimeState
	applications []*applicationState
}

type runtimeState struct {
	Runtime
	Tenant    string    `json:"tenant"`
	Created   time.Time `json:"created"`
	Connected bool      `json:"connected,omitempty"`
	StatusAt  time.Time `json:"statusAt"`
}

type applicationState struct {
	Application
	Tenant    string    `json:"tenant"`
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated,omitzero"`
	Connected bool      `json:"connected,omitempty"`
	StatusAt  time.Time `json:"statusAt"`
	// named is the key, kept because names are asked for in each request for
	// each Application.
	named applicationKey
}

// instanceAuth is the credentials of one Runtime for one bundle.
type instanceAuth struct {
	ID          string    `json:"id"`
	BundleID    string    `json:"bundleID"`
	RuntimeID   string    `json:"runtimeID"`
	Context     string    `json:"context,omitempty"`
	InputParams string    `json:"inputParams,omitempty"`
	Condition   string    `json:"condition"`
	Auth        *Auth     `json:"auth,omitempty"`
	At          time.Time `json:"at"`
}

func newInventory() *inventory {
	return &inventory{
		tenants: map[string]*tenantState{}, runtimes: map[string]*runtimeState{},
		applications: map[string]*applicationState{}, bundleOwner: map[string]*applicationState{},
		instanceAuths: map[string]*instanceAuth{},
	}
}

// draft is an inventory that may be changed until it is published.
func (i *inventory) draft() *inventory {
	return &inventory{
		tenants: maps.Clone(i.tenants), runtimes: maps.Clone(i.runtimes),
		applications: maps.Clone(i.applications), bundleOwner: maps.Clone(i.bundleOwner),
		instanceAuths: maps.Clone(i.instanceAuths),
	}
}

func (r *runtimeState) order() string     { return r.ID }
func (a *applicationState) order() string { return a.ID }

type ordered interface{ order() string }

func inserted[T ordered](list []T, item T) []T {
	i, found := slices.BinarySearchFunc(list, item, func(a, b T) int { return cmp.Compare(a.order(), b.order()) })
	if found {
		list = slices.Clone(list)
		list[i] = item
		return list
	}
	return slices.Insert(slices.Clone(list), i, item)
}

func removed[T ordered](list []T, id string) []T {
	return slices.DeleteFunc(slices.Clone(list), func(item T) bool { return item.order() == id })
}

func (i *inventory) putTenant(id string) *tenantState {
	next := &tenantState{ID: id}
	if t, ok := i.tenants[id]; ok {
		*next = *t
	}
	i.tenants[id] = next
	return next
}

func (i *inventory) putRuntime(r *runtimeState) {
	t := i.putTenant(r.Tenant)
	t.runtimes = inserted(t.runtimes, r)
	i.runtimes[r.ID] = r
}

func (i *inventory) putApplication(a *applicationState) {
	a.nameIt()
	if old, ok := i.applications[a.ID]; ok {
		for _, b := range old.Bundles {
			delete(i.bundleOwner, b.ID)
		}
	}
	t := i.putTenant(a.Tenant)
	t.applications = inserted(t.applications, a)
	i.applications[a.ID] = a
	for _, b := range a.Bundles {
		i.bundleOwner[b.ID] = a
	}
}

func (i *inventory) deleteRuntime(id string) {
	r, ok := i.runtimes[id]
	if !ok {
		return
	}
	t := i.putTenant(r.Tenant)
	t.runtimes = removed(t.runtimes, id)
	delete(i.runtimes, id)
	maps.DeleteFunc(i.instanceAuths, func(_ string, a *instanceAuth) bool { return a.RuntimeID == id })
}

func (i *inventory) deleteApplication(id string) {
	a, ok := i.applications[id]
	if !ok {
		return
	}
	t := i.putTenant(a.Tenant)
	t.applications = removed(t.applications, id)
	delete(i.applications, id)
	for _, b := range a.Bundles {
		delete(i.bundleOwner, b.ID)
		maps.DeleteFunc(i.instanceAuths, func(_ string, auth *instanceAuth) bool { return auth.BundleID == b.ID })
	}
}

// tenantExists knows tenants and the subaccounts that Runtimes are labelled with.
func (i *inventory) tenantExists(id string) bool {
	if _, ok := i.tenants[id]; ok {
		return true
	}
	for _, r := range i.runtimes {
		if r.Labels[labelSubaccount] == id {
			return true
		}
	}
	return false
}

func shareFormation(a, b []string) bool {
	return slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}

// visibleTo lists the Applications that share a formation with r.
func (i *inventory) visibleTo(r *runtimeState) []*applicationState {
	t := i.tenants[r.Tenant]
	if t == nil || len(r.Formations) == 0 {
		return nil
	}
	var out []*applicationState
	for _, a := range t.applications {
		if !a.Hidden && shareFormation(a.Formations, r.Formations) {
			out = append(out, a)
		}
	}
	return out
}

func (a *applicationState) bundle(id string) (Bundle, bool) {
	for _, b := range a.Bundles {
		if b.ID == id {
			return b, true
		}
	}
	return Bundle{}, false
}

// ofBundle lists the instance auths of a bundle, oldest first.
func (i *inventory) ofBundle(bundleID string) []*instanceAuth {
	var out []*instanceAuth
	for _, a := range i.instanceAuths {
		if a.BundleID == bundleID {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *instanceAuth) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// normalizes says whether Director gives r normalized names: it does, unless
// the label isNormalized is something other than "true".
func (r *runtimeState) normalizes() bool {
	value, set := r.Labels[labelIsNormalized]
	return !set || value == "true"
}

// allLabels are the labels of r as Director shows them.
func (r *runtimeState) allLabels() map[string]any {
	labels := maps.Clone(r.Labels)
	if labels == nil {
		labels = map[string]any{}
	}
	if len(r.Formations) > 0 {
		labels[labelScenarios] = r.Formations
	}
	return labels
}

// allLabels are the labels of a as Director shows them.
func (a *applicationState) allLabels() map[string]any {
	labels := maps.Clone(a.Labels)
	if labels == nil {
		labels = map[string]any{}
	}
	labels[labelName] = a.named.normalized
	labels[labelManaged] = "false"
	if len(a.Formations) > 0 {
		labels[labelScenarios] = a.Formations
	}
	return labels
}

func (a *applicationState) nameIt() {
	if a.named.normalized == "" {
		a.named = a.key()
	}
}

// newRuntimeState adds the labels that every Runtime of an integration system has.
func newRuntimeState(tenant string, r Runtime, now time.Time) *runtimeState {
	r.Labels = maps.Clone(r.Labels)
	if r.Labels == nil {
		r.Labels = map[string]any{}
	}
	if _, ok := r.Labels[labelRuntimeType]; !ok {
		r.Labels[labelRuntimeType] = "kyma"
	}
	if _, ok := r.Labels[labelIsNormalized]; !ok {
		r.Labels[labelIsNormalized] = "true"
	}
	return &runtimeState{Runtime: r, Tenant: tenant, Created: now, StatusAt: now}
}

// deepCopy goes through JSON: the types here have no cycles and no fields
// that JSON cannot hold.
func deepCopy[T any](in T) T {
	raw, err := json.Marshal(in)
	if err != nil {
		panic(fmt.Sprintf("compass: copy %T: %v", in, err))
	}
	var out T
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(fmt.Sprintf("compass: copy %T: %v", in, err))
	}
	return out
}
