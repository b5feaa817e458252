package compass

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// change makes a new inventory out of the present one and stores it. When f
// fails nothing has changed.
func (s *Server) change(f func(draft *inventory) error) error {
	s.changing.Lock()
	draft := s.inventory.Load().draft()
	if err := f(draft); err != nil {
		s.changing.Unlock()
		return err
	}
	s.inventory.Store(draft)
	s.changing.Unlock()
	return s.saveInventory()
}

func (s *Server) saveInventory() error {
	if s.state == "" {
		return nil
	}
	return s.inventorySaver.save(func() error {
		raw, err := json.Marshal(s.inventory.Load().file())
		if err != nil {
			return err
		}
		return s.state.write(inventoryFileName, raw)
	})
}

func (s *Server) saveIdentities() error {
	if s.state == "" {
		return nil
	}
	return s.identitiesSaver.save(func() error {
		raw, err := json.Marshal(s.identities.file())
		if err != nil {
			return err
		}
		return s.state.write(identitiesFileName, raw)
	})
}

// putRuntime adds or replaces; what Director itself knows of it stays.
func (s *Server) putRuntime(draft *inventory, tenant string, r Runtime) error {
	for _, other := range draft.putTenant(tenant).runtimes {
		if other.Name == r.Name && other.ID != r.ID {
			return errNotUniqueName("runtime")
		}
	}
	next := newRuntimeState(tenant, r, s.now())
	if old := draft.runtimes[r.ID]; old != nil {
		next.Created, next.Connected, next.StatusAt = old.Created, old.Connected, old.StatusAt
		if old.Tenant != tenant {
			draft.deleteRuntime(r.ID)
		}
	}
	draft.putRuntime(next)
	return nil
}

// putApplication adds or replaces; what Director itself knows of it stays.
func (s *Server) putApplication(draft *inventory, tenant string, a Application) error {
	next := s.newApplicationState(draft, tenant, a)
	for _, other := range draft.putTenant(tenant).applications {
		if other.ID != a.ID && other.named == next.named {
			return errNotUniqueName("application")
		}
	}
	for _, b := range a.Bundles {
		if owner := draft.bundleOwner[b.ID]; owner != nil && owner.ID != a.ID {
			return fmt.Errorf("bundle id %s is used by application %q already", b.ID, owner.Name)
		}
	}
	draft.putApplication(next)
	return nil
}

func (s *Server) newApplicationState(draft *inventory, tenant string, a Application) *applicationState {
	now := s.now()
	next := &applicationState{Application: a.sorted(), Tenant: tenant, Created: now, StatusAt: now}
	next.nameIt()
	if old := draft.applications[a.ID]; old != nil {
		next.Created, next.Connected, next.StatusAt, next.Updated = old.Created, old.Connected, old.StatusAt, now
		if old.Tenant != tenant {
			draft.deleteApplication(a.ID)
		}
	}
	return next
}

// sorted brings the lists of a in Director's order. It writes to the slices
// of a: the caller owns them.
func (a Application) sorted() Application {
	slices.SortFunc(a.Bundles, func(x, y Bundle) int { return cmp.Compare(x.ID, y.ID) })
	for _, b := range a.Bundles {
		slices.SortFunc(b.APIs, func(x, y API) int { return cmp.Compare(x.ID, y.ID) })
		slices.SortFunc(b.Events, func(x, y Event) int { return cmp.Compare(x.ID, y.ID) })
		slices.SortFunc(b.Documents, func(x, y Document) int { return cmp.Compare(x.ID, y.ID) })
	}
	return a
}

// inventoryOf is the inventory of a seed that is valid.
func (s *Server) inventoryOf(seed Seed) *inventory {
	i := newInventory()
	now := s.now()
	for _, t := range seed.Tenants {
		i.putTenant(t.ID)
		for _, r := range t.Runtimes {
			i.putRuntime(newRuntimeState(t.ID, r, now))
		}
		// One by one would copy the tenant's list each time.
		list := i.putTenant(t.ID)
		for _, a := range t.Applications {
			state := s.newApplicationState(i, t.ID, a)
			list.applications = append(list.applications, state)
			i.applications[state.ID] = state
			for _, b := range state.Bundles {
				i.bundleOwner[b.ID] = state
			}
		}
		slices.SortFunc(list.applications, func(x, y *applicationState) int { return cmp.Compare(x.ID, y.ID) })
	}
	return i
}

func (s *Server) deleteApplication(id string) error {
	err := s.change(func(draft *inventory) error { draft.deleteApplication(id); return nil })
	if err != nil {
		return err
	}
	s.identities.deleteOwner(id)
	return s.saveIdentities()
}

func (s *Server) deleteRuntime(id string) error {
	err := s.change(func(draft *inventory) error { draft.deleteRuntime(id); return nil })
	if err != nil {
		return err
	}
	s.identities.deleteOwner(id)
	return s.saveIdentities()
}

func (s *Server) deleteSystemAuth(id string) error {
	if !s.identities.deleteAuth(id) {
		return errNotFound("systemAuth")
	}
	return s.saveIdentities()
}

// now is the time of this Compass: the clock's, plus the skew.
func (s *Server) now() time.Time { return s.clock.Now().Add(time.Duration(s.skew.Load())) }

func (s *Server) tokenValidity() time.Duration { return time.Duration(s.tokenLife.Load()) }

func (s *Server) certificateValidity() time.Duration { return time.Duration(s.certificateLife.Load()) }
