// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed71221737/dev/vmimage"
)

// Store is the folder of this user's machines. It is safe for concurrent use, also by several processes. All fields but Env and Containers must be set.
type Store struct {
	// Dir is where the machines' folders are: ~/.dev/machines.
	Dir     string
	Images  *vmimage.Store
	Drivers map[string]Driver
	// Agent is the command that serves a machine, whose name is appended. It has Dir in it, so that a process with these arguments is one
	// machine's agent and no other's. Env is added to its environment.
	Agent  []string
	Env    []string
	Logger *slog.Logger
	// Containers looks after containers in upgrades; nil: nobody does.
	Containers Containers
}

// Machine is one machine of a store, as its folder was when it was read.
type Machine struct {
	Name string
	Dir  Dir
	// Spec is empty where Problems say why it cannot be read.
	Spec     Spec
	Problems []error
	store    *Store
	// logBegin and consoleBegin are how large the logs were when this process started the agent.
	logBegin, consoleBegin int64
}

func (s *Store) dir(name string) Dir { return Dir(filepath.Join(s.Dir, name)) }

// Get returns a machine; a *NotFoundError when there is none. A machine that cannot be used is returned with its Problems.
func (s *Store) Get(name string) (*Machine, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	info, err := os.Stat(string(s.dir(name)))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, &NotFoundError{Name: name}
	}
	if err != nil {
		return nil, fmt.Errorf("find machine %q: %w", name, err)
	}
	m := &Machine{Name: name, Dir: s.dir(name), store: s}
	m.read()
	return m, nil
}

// read loads what is in the folder.
func (m *Machine) read() {
	m.Problems = nil
	spec, err := readSpec(m.Dir)
	m.Spec = spec
	if err != nil {
		m.Problems = append(m.Problems, &BrokenError{Name: m.Name, Err: err})
		return
	}
	if m.store.Drivers[spec.Driver] == nil {
		m.Problems = append(m.Problems, &BrokenError{Name: m.Name, Err: m.store.unknownDriver(spec.Driver)})
	}
	for _, file := range []string{m.Dir.DataDisk(), m.Dir.SSHKey(), m.Dir.HostKey(), m.Dir.ID()} {
		if _, err := os.Stat(file); err != nil {
			m.Problems = append(m.Problems, &BrokenError{Name: m.Name, Err: fmt.Errorf("its file %q cannot be used: %w", filepath.Base(file), plain(err))})
		}
	}
}

// plain is a file error without the path, which the message has already.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (s *Store) unknownDriver(name string) error {
	var names []string
	for n := range s.Drivers {
		names = append(names, n)
	}
	slices.Sort(names)
	return fmt.Errorf("driver %q is not one of %s", name, strings.Join(names, ", "))
}

// List returns all machines, by name, broken ones included. There are none where there is no folder.
func (s *Store) List() ([]*Machine, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var list []*Machine
	for _, e := range entries {
		m, err := s.Get(e.Name())
		if err != nil {
			continue // not a machine's folder, or removed meanwhile
		}
		list = append(list, m)
	}
	return list, nil
}
