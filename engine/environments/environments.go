// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

// Package environments remembers the copies of projects that run side by side on this host, and gives each the ports and subnets that the
// others do not have.
//
// A base is a project as its Compose files name it; an environment is one copy of it, with a project name of its own. The environment [Main] is
// the base itself: it is not recorded and gets nothing. What an environment was given once it keeps until it is forgotten, so that its addresses
// survive restarts. The record is one versioned file; it is changed under a lock and written as a whole.
package environments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/gofrs/flock"

	"github.com/seed71221737/dev/compose"
	"github.com/seed71221737/dev/engine/native/atomicfile"
)

// Main is the name of the environment that is the project as its files describe it.
const Main = "main"

// FileName is the name of the record in the user's folder.
const FileName = "environments.json"

const (
	schema      = 1
	lockTimeout = time.Minute
)

// Record is one environment.
type Record struct {
	Base    string    `json:"base"`    // the project's name as its files give it
	Name    string    `json:"name"`    // of the environment
	Project string    `json:"project"` // the environment's project name
	Dir     string    `json:"dir"`     // where it was used last
	Created time.Time `json:"created"`
	// Ports are host ports by compose.PortNeed.Key, Counts how many in a row where it is more than one.
	Ports  map[string]uint16 `json:"ports,omitempty"`
	Counts map[string]int    `json:"counts,omitempty"`
	// Range is what its ports are taken from, FIRST-LAST; empty is what the host's user has set.
	Range string `json:"range,omitempty"`
	// Subnets are by compose.SubnetNeed.Key.
	Subnets map[string]netip.Prefix `json:"subnets,omitempty"`
	// Notes are what was done about things that the files pin, as the user was told.
	Notes []string `json:"notes,omitempty"`
}

// Environment is what the record gives to the project.
func (r Record) Environment() compose.Environment {
	return compose.Environment{Name: r.Name, Ports: r.Ports, Subnets: r.Subnets}
}

// State is all that is remembered.
type State struct {
	Schema       int      `json:"schema"`
	Environments []Record `json:"environments,omitempty"`
	// Use names the environment that commands use in a folder and below it.
	Use map[string]string `json:"use,omitempty"`
}

// Find returns the environment of a base; nil if it is not recorded.
func (s *State) Find(base, name string) *Record {
	for i := range s.Environments {
		if r := &s.Environments[i]; r.Base == base && r.Name == name {
			return r
		}
	}
	return nil
}

// Add records an environment, unless it is recorded. Its project name must not be another environment's.
func (s *State) Add(base, name, dir string, now time.Time) (*Record, error) {
	if r := s.Find(base, name); r != nil {
		return r, nil
	}
	project := ProjectName(base, name)
	for _, r := range s.Environments {
		if r.Project == project {
			return nil, fmt.Errorf("environment %q of %q would be project %q, which is environment %q of %q", name, base, project, r.Name, r.Base)
		}
	}
	s.Environments = append(s.Environments, Record{Base: base, Name: name, Project: project, Dir: dir, Created: now.UTC().Truncate(time.Second)})
	return &s.Environments[len(s.Environments)-1], nil
}

// Forget removes an environment from the record, and where it is used.
func (s *State) Forget(base, name string) {
	s.Environments = slices.DeleteFunc(s.Environments, func(r Record) bool { return r.Base == base && r.Name == name })
	for dir, used := range s.Use {
		if used == name {
			delete(s.Use, dir)
		}
	}
}

// InUse is the environment that was chosen for a folder or the nearest one above it; empty if none was.
func (s *State) InUse(dir string) string {
	for {
		if name := s.Use[dir]; name != "" {
			return name
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// ProjectName is the project name of an environment. One that begins with the base's name, as worktrees often do, is not made longer.
func ProjectName(base, name string) string {
	if name == Main {
		return base
	}
	if strings.HasPrefix(name, base+"-") {
		return name
	}
	return base + "-" + name
}

// CheckName refuses names that an environment cannot have.
func CheckName(name string) error {
	if name == "" || name != Normalize(name) {
		return fmt.Errorf("invalid environment name %q: it may have lower-case letters, digits, - and _, and starts with a letter or digit", name)
	}
	return nil
}

// Normalize makes an environment's name of any text, such as a worktree's name: empty if nothing in it can be part of one.
func Normalize(text string) string {
	return loader.NormalizeProjectName(strings.NewReplacer(".", "-", "/", "-", " ", "-").Replace(text))
}

// Store is the record on disk. It is safe for concurrent use, also by several processes.
type Store struct {
	// Path is the file's; a lock of the same name with .lock stands beside it.
	Path string
}

// Read returns what is remembered; nothing yet is the zero State.
func (s Store) Read() (State, error) {
	state := State{Schema: schema}
	data, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("read environments: %w", err)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return state, fmt.Errorf("read environments %q: %w", s.Path, err)
	}
	if state.Schema != schema {
		return state, fmt.Errorf("read environments %q: schema %d is not supported (this dev reads %d)", s.Path, state.Schema, schema)
	}
	return state, nil
}

// Update changes what is remembered: change is given what is there under the lock; what it makes of it is written if it returns nil and changed anything.
func (s Store) Update(ctx context.Context, change func(*State) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
		return fmt.Errorf("remember environments: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	lock := flock.New(s.Path + ".lock")
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return fmt.Errorf("lock environments %q: %w", s.Path, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	state, err := s.Read()
	if err != nil {
		return err
	}
	before, err := encode(state)
	if err != nil {
		return err
	}
	if err := change(&state); err != nil {
		return err
	}
	after, err := encode(state)
	if err != nil || string(after) == string(before) {
		return err
	}
	if err := atomicfile.Write(s.Path, after, 0o644); err != nil {
		return fmt.Errorf("remember environments: %w", err)
	}
	return nil
}

func encode(s State) ([]byte, error) {
	data, err := json.MarshalIndent(s, "", "  ")
	return append(data, '\n'), err
}
