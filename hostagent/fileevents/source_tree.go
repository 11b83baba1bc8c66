// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build darwin || windows

package fileevents

import (
	"sync"

	"github.com/seed71221737/dev/vmimage/guest/proto"
)

// treeSet narrows a system that watches trees as a whole to the folders that the guest has been told of.
type treeSet struct {
	mu   *sync.Mutex
	dirs *dirs
}

// filter keeps events in folders of the set, and has the set follow them.
func (s treeSet) filter(events []raw) []raw {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := events[:0]
	for _, e := range events {
		if e.lost {
			kept = append(kept, e)
			continue
		}
		from, to := s.has(e.Path), e.Kind == proto.FileMoved && s.has(e.To)
		if e.Dir && e.Kind == proto.FileMoved && from && to {
			s.dirs.move(e.Path, e.To)
		} else if e.Dir && (e.Kind == proto.FileDeleted || e.Kind == proto.FileMoved) {
			s.dirs.drop(e.Path)
		}
		switch {
		case e.Kind != proto.FileMoved && !from, !from && !to:
			continue
		case e.Kind == proto.FileMoved && !from:
			e.Kind, e.Path, e.To = proto.FileCreated, e.To, ""
		case e.Kind == proto.FileMoved && !to:
			e.Kind, e.To = proto.FileDeleted, ""
		}
		kept = append(kept, e)
	}
	return kept
}

// has reports whether the folder of a path is in the set.
func (s treeSet) has(path string) bool {
	folder, _ := split(path)
	return s.dirs.has(folder)
}
