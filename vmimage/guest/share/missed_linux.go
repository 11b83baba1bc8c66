// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// A host agent that was started again knows neither what the guest was told nor what has changed since. Programs that watch files were told of nothing: what they
// could have seen is compared with what there is now.

// remembered is what was known of a folder.
type remembered struct {
	path string
	// whole: all its names were known.
	whole bool
	names map[string]wire.Attr
}

// missed are folders to compare, until the follower does it.
type missed struct {
	mu      sync.Mutex
	folders []remembered
	since   time.Time
	heard   time.Time // when the host told of changes, or that there were none, last
	wake    chan struct{}
}

// hear notes that all that had happened until now has been told.
func (s *missed) hear() {
	s.mu.Lock()
	s.heard = time.Now()
	s.mu.Unlock()
}

// put adds folders. What is remembered from before a second loss stays: it is older.
func (s *missed) put(folders []remembered, since time.Time) {
	if len(folders) == 0 {
		return
	}
	s.mu.Lock()
	if len(s.folders) == 0 {
		s.folders, s.since = folders, since
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// lastHeard is when that was last noted.
func (s *missed) lastHeard() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

func (s *missed) take() ([]remembered, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	folders := s.folders
	s.folders = nil
	return folders, s.since
}

// remember keeps what is known of folders that programs watch, or that have files which they watch: those deep in the share first.
func (m *mount) remember() []remembered {
	player := m.player.Load()
	if player == nil {
		return nil
	}
	watched, all := player.Watches()
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	folders := map[*node]bool{}
	for id, n := range t.nodes {
		if !all && !watched[id] {
			continue
		}
		if n.attr.Mode&wire.TypeMask == wire.TypeFolder {
			folders[n] = true
		}
		for _, p := range n.places { // what befalls the file itself is told of its name
			folders[p.dir] = true
		}
	}
	list := make([]remembered, 0, len(folders))
	for n := range folders {
		if path, ok := t.pathOf(n); ok {
			list = append(list, n.remembered(path))
		}
	}
	slices.SortFunc(list, func(a, b remembered) int {
		return cmp.Or(cmp.Compare(strings.Count(b.path, "/"), strings.Count(a.path, "/")), cmp.Compare(len(b.path), len(a.path)), cmp.Compare(a.path, b.path))
	})
	return list
}

// remembered is what is known of a folder. The table is locked.
func (n *node) remembered(path string) remembered {
	r := remembered{path: path, whole: n.list != nil, names: map[string]wire.Attr{}}
	if n.list != nil {
		for i := range n.list.entries {
			if e := &n.list.entries[i]; !e.gone {
				r.names[e.name] = e.attr
			}
		}
	}
	for name, c := range n.children {
		r.names[name] = c.attr
	}
	return r
}

// compare asks for what folders have now and tells what must have happened. since is when the host was heard last: a name that may or may not have been there
// counts as new if its file has changed since.
func (m *mount) compare(cancel <-chan struct{}, folders []remembered, since time.Time) []wire.Event {
	m.settleAhead() // what this machine made is no news
	var events []wire.Event
	for _, f := range folders {
		now, errno := m.names(cancel, f.path)
		if errno != 0 && errno != wire.ENOENT && errno != wire.ENOTDIR {
			continue
		}
		events = append(events, f.changes(now, since)...)
	}
	return events
}

// names lists a folder of the host's, which is watched again from then on.
func (m *mount) names(cancel <-chan struct{}, path string) (map[string]wire.Attr, uint16) {
	var all []wire.Listing
	var bad error
	k := &call{done: make(chan struct{}), each: func(res *wire.Response) {
		part, err := wire.ParseListings(res.Data)
		all, bad = append(all, part...), cmp.Or(bad, err)
	}}
	if _, errno := m.client.wait(cancel, &wire.Request{Op: wire.OpReaddir, Path: path}, k); errno != 0 {
		return nil, errno
	}
	if bad != nil {
		return nil, wire.EIO
	}
	names := map[string]wire.Attr{}
	for _, l := range all {
		for _, e := range l.Entries {
			names[e.Name] = e.Attr
		}
	}
	return names, 0
}

// clockSlack is how far the clocks of host and guest may be apart.
const clockSlack = 2 * time.Second

// changes tells what must have happened for a folder to have these names.
func (r remembered) changes(now map[string]wire.Attr, since time.Time) []wire.Event {
	var events []wire.Event
	add := func(name string, a wire.Attr, kinds ...wire.EventKind) {
		for _, kind := range kinds {
			events = append(events, wire.Event{Kind: kind, Path: join(r.path, name), Dir: a.Mode&wire.TypeMask == wire.TypeFolder})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.names)) {
		old := r.names[name]
		a, there := now[name]
		switch {
		case !there:
			add(name, old, wire.Deleted)
		case a.Ident != old.Ident:
			add(name, old, wire.Deleted)
			add(name, a, creation(a)...)
		default:
			add(name, a, change(old, a)...)
		}
	}
	earliest := since.Add(-clockSlack).UnixNano()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, had := r.names[name]; !had && (r.whole || now[name].Ctime >= earliest) {
			add(name, now[name], creation(now[name])...)
		}
	}
	return events
}

// creation is what is told of a file that was made.
func creation(a wire.Attr) []wire.EventKind {
	if a.Mode&wire.TypeMask == wire.TypeRegular && a.Size > 0 {
		return []wire.EventKind{wire.Created, wire.Modified, wire.Closed}
	}
	return []wire.EventKind{wire.Created}
}

// change is what is told of a file that was one thing and is another.
func change(old, now wire.Attr) []wire.EventKind {
	kind := now.Mode & wire.TypeMask
	switch {
	case kind == wire.TypeRegular && (old.Size != now.Size || old.Mtime != now.Mtime):
		return []wire.EventKind{wire.Modified, wire.Closed}
	case old.Mode != now.Mode || old.UID != now.UID || old.GID != now.GID || kind != wire.TypeFolder && old.Ctime != now.Ctime:
		return []wire.EventKind{wire.Attributes}
	}
	return nil
}
