// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// look goes through folders until a batch is full, and returns what has changed since, and which folders are left.
func (w *Watcher) look(folders []string, since time.Time) (events []wire.Event, rest []string) {
	if len(folders) == 0 {
		return nil, nil
	}
	root, err := os.OpenRoot(w.root) // a folder of the set may be a link out of the share by now
	if err != nil {
		w.o.Logger.Debug("look at share", "error", err)
		return nil, nil
	}
	defer func() { _ = root.Close() }() // read only
	for i, folder := range folders {
		if len(events) >= batchSize {
			return events, folders[i:]
		}
		events = append(events, w.lookAt(root, folder, since)...)
	}
	return events, nil
}

// lookAt tells what has changed in one folder. One that is gone is told of by the folder above it.
func (w *Watcher) lookAt(root *os.Root, folder string, since time.Time) []wire.Event {
	name := w.abs(folder)
	info, err := root.Lstat(cmp.Or(folder, "."))
	if err != nil || !info.IsDir() {
		return nil
	}
	var events []wire.Event
	changed := !info.ModTime().Before(since)
	if changed {
		events = append(events, wire.Event{Kind: wire.Rescan, Path: folder, Dir: true})
	}
	entries, err := readDir(root, cmp.Or(folder, "."))
	if err != nil {
		w.o.Logger.Debug("look at folder", "path", folder, "error", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // gone meanwhile
		}
		at, stamp := join(folder, entry.Name()), stampOf(info)
		if !w.ledger.asLeft(at, stamp) {
			events = append(events, seen(at, stamp, born(filepath.Join(name, entry.Name()), info), changed, since)...)
		}
	}
	return events
}

func readDir(root *os.Root, name string) ([]fs.DirEntry, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, err
}

// seen tells what must have happened to a file for it to be in a state. renamed: names in its folder have changed.
func seen(path string, s Stamp, born time.Time, renamed bool, since time.Time) []wire.Event {
	event := func(kind wire.EventKind) wire.Event {
		return wire.Event{Kind: kind, Path: path, Dir: s.Mode.IsDir()}
	}
	after := func(t time.Time) bool { return !t.Before(since) }
	modified := after(s.Modified)
	switch {
	case !modified && !after(s.Changed):
		return nil
	case renamed && after(born):
		created := []wire.Event{event(wire.Created)}
		if s.Mode.IsRegular() && s.Size > 0 {
			created = append(created, event(wire.Modified), event(wire.Closed))
		}
		return created
	case renamed && !modified: // its name or its attributes: a file that was moved here is of either kind
		return []wire.Event{event(wire.Created)}
	case !modified:
		return []wire.Event{event(wire.Attributes)}
	case s.Mode&fs.ModeType == 0:
		return []wire.Event{event(wire.Modified), event(wire.Closed)}
	}
	return nil // a folder in which something changed, which is told of what is in it
}
