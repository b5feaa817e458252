package compass

import (
	"slices"
	"strconv"
	"sync"
)

// faultSet holds the faults that stand.
type faultSet struct {
	mu     sync.Mutex
	nextID int
	faults []*standingFault
}

type standingFault struct {
	Fault
	// cleared ends what waits for the fault to be cleared.
	cleared chan struct{}
}

func (s *faultSet) add(f Fault) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.ID == "" {
		s.nextID++
		f.ID = "fault-" + strconv.Itoa(s.nextID)
	} else {
		s.remove(f.ID)
	}
	s.faults = append(s.faults, &standingFault{Fault: f, cleared: make(chan struct{})})
	return f.ID
}

// clear removes the named faults, or all.
func (s *faultSet) clear(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(ids) == 0 {
		for _, f := range s.faults {
			ids = append(ids, f.ID)
		}
	}
	for _, id := range ids {
		s.remove(id)
	}
}

func (s *faultSet) remove(id string) {
	s.faults = slices.DeleteFunc(s.faults, func(f *standingFault) bool {
		if f.ID == id {
			close(f.cleared)
		}
		return f.ID == id
	})
}

func (s *faultSet) list() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.faults))
	for _, f := range s.faults {
		out = append(out, f.Fault)
	}
	return out
}

// take returns the faults for one request and counts it. A fault whose count
// is over is forgotten, but not cleared: what hangs goes on hanging.
func (s *faultSet) take(operations []string) activeFaults {
	s.mu.Lock()
	defer s.mu.Unlock()
	var active activeFaults
	s.faults = slices.DeleteFunc(s.faults, func(f *standingFault) bool {
		if f.Operation != "" && !slices.Contains(operations, f.Operation) {
			return false
		}
		if f.Skip > 0 {
			f.Skip--
			return false
		}
		taken := *f
		active = append(active, &taken)
		if f.Count == 0 {
			return false
		}
		f.Count--
		return f.Count == 0
	})
	return active
}

// activeFaults are those of one request.
type activeFaults []*standingFault

func (a activeFaults) find(kind FaultKind) (*standingFault, bool) {
	for _, f := range a {
		if f.Kind == kind {
			return f, true
		}
	}
	return nil, false
}

func (a activeFaults) has(kind FaultKind) bool {
	_, ok := a.find(kind)
	return ok
}

// onField finds a fault of that kind for a field.
func (a activeFaults) onField(kind FaultKind, field string) (*standingFault, bool) {
	for _, f := range a {
		if f.Kind == kind && f.Field == field {
			return f, true
		}
	}
	return nil, false
}
