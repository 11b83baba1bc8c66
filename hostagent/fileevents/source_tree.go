// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build darwin || windows

package fileevents

import (
	"sync"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// mostFolders: these systems watch a tree at once, however many folders are in it.
func mostFolders() int { return 0 }

// treeSet narrows a system that watches trees as a whole to the folders that the guest has been told of.
type treeSet struct {
	mu   *sync.Mutex
	dirs *dirs
}

// filter keeps events in folders of the set, and has the set follow them.
func (s treeSet) filter(events []raw) []raw {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make([]raw, 0, len(events))
	for _, e := range events {
		if e.lost {
			kept = append(kept, e)
			continue
		}
		from, to := s.has(e.Path), e.Kind == wire.Moved && s.has(e.To)
		if e.Dir && e.Kind == wire.Moved && from && to {
			s.dirs.move(e.Path, e.To)
		} else if e.Dir && (e.Kind == wire.Deleted || e.Kind == wire.Moved) {
			s.dirs.drop(e.Path)
		}
		switch {
		case e.Kind != wire.Moved && !from, !from && !to:
			continue
		case e.Kind == wire.Moved && !from:
			e.Kind, e.Path, e.To = wire.Created, e.To, ""
		case e.Kind == wire.Moved && !to:
			e.Kind, e.To = wire.Deleted, ""
		}
		kept = append(kept, e)
		if e.Kind == wire.Modified && !e.Dir { // the system does not tell when it is closed
			e.Kind = wire.Closed
			kept = append(kept, e)
		}
	}
	return kept
}

// has reports whether the folder of a path is in the set.
func (s treeSet) has(path string) bool {
	folder, _ := split(path)
	return s.dirs.has(folder)
}
