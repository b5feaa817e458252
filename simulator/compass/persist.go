package compass

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Files in Options.StateDir.
const (
	inventoryFileName  = "inventory.json"
	identitiesFileName = "identities.json"
	clientCAFileName   = "client-ca.pem"
	serverCAFileName   = "server-ca.pem"
)

// stateDir keeps files that only the owner can read; the zero value keeps
// nothing.
type stateDir string

// read returns nil, nil for a file that is not there.
func (d stateDir) read(name string) ([]byte, error) {
	if d == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(filepath.Join(string(d), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// write replaces a file as a whole, so that a crash leaves the old or the new.
func (d stateDir) write(name string, content []byte) error {
	if d == "" {
		return nil
	}
	tmp, err := os.CreateTemp(string(d), name+".*")
	if err != nil {
		return fmt.Errorf("keep state: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = tmp.Write(content)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("keep state: %w", err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(string(d), name)); err != nil {
		return fmt.Errorf("keep state: %w", err)
	}
	return nil
}

// authority loads a CA; it returns nil, nil if there is none yet.
func (d stateDir) authority(name string) (*authority, error) {
	raw, err := d.read(name)
	if raw == nil || err != nil {
		return nil, err
	}
	ca, err := parseAuthority(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(string(d), name), err)
	}
	return ca, nil
}

func (d stateDir) writeAuthority(name string, ca *authority) error {
	if d == "" {
		return nil
	}
	raw, err := ca.marshal()
	if err != nil {
		return err
	}
	return d.write(name, raw)
}

// readJSON says whether there was a file.
func (d stateDir) readJSON(name string, into any) (bool, error) {
	raw, err := d.read(name)
	if raw == nil || err != nil {
		return false, err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("%s: %w", filepath.Join(string(d), name), err)
	}
	return true, nil
}

// inventoryFile is how an inventory is stored.
type inventoryFile struct {
	Tenants       []string            `json:"tenants"`
	Runtimes      []*runtimeState     `json:"runtimes"`
	Applications  []*applicationState `json:"applications"`
	InstanceAuths []*instanceAuth     `json:"instanceAuths"`
}

func (i *inventory) file() inventoryFile {
	var f inventoryFile
	for id, t := range i.tenants {
		f.Tenants = append(f.Tenants, id)
		f.Runtimes = append(f.Runtimes, t.runtimes...)
		f.Applications = append(f.Applications, t.applications...)
	}
	for _, a := range i.instanceAuths {
		f.InstanceAuths = append(f.InstanceAuths, a)
	}
	return f
}

func (f inventoryFile) inventory() *inventory {
	i := newInventory()
	for _, id := range f.Tenants {
		i.putTenant(id)
	}
	for _, r := range f.Runtimes {
		i.putRuntime(r)
	}
	for _, a := range f.Applications {
		i.putApplication(a)
	}
	for _, a := range f.InstanceAuths {
		i.instanceAuths[a.ID] = a
	}
	return i
}

// saver writes one file, in the calls' order, and once for calls that waited
// for each other. When save returns, everything that was changed before it
// was called is stored.
type saver struct {
	mu        sync.Mutex
	requested uint64
	saved     uint64
	writing   sync.Mutex
}

func (s *saver) save(write func() error) error {
	s.mu.Lock()
	s.requested++
	mine := s.requested
	s.mu.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	done, upTo := s.saved >= mine, s.requested
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := write(); err != nil {
		return err
	}
	s.mu.Lock()
	s.saved = upTo
	s.mu.Unlock()
	return nil
}
