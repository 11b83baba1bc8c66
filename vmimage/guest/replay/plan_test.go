// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package replay

import (
	"testing"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// known is a picture of fixed files.
type known map[string]Node

func (k known) Node(path string) (Node, bool) {
	n, ok := k[path]
	return n, ok
}
func (k known) Names(string) []string    { return nil }
func (k known) Host(string) (Node, bool) { return Node{}, false }
func (k known) Changed(string)           {}
func (k known) Gone(string)              {}
func folder(id uint64) Node              { return Node{ID: id, Ident: id, Mode: wire.TypeFolder | 0o755} }
func file(id uint64) Node                { return Node{ID: id, Ident: id, Mode: wire.TypeRegular | 0o644} }
func watching(ids ...uint64) map[uint64]bool {
	m := map[uint64]bool{}
	for _, id := range ids {
		m[id] = true
	}
	return m
}

// What is done for an event depends on what the guest knows and on who watches.
func TestPlan(t *testing.T) {
	picture := known{
		"": folder(1), "d": folder(2), "d/f": file(3), "e": folder(4), "e/g": file(5), "f": file(6), "listed": {Ident: 7, Mode: wire.TypeFolder},
	}
	ev := func(kind wire.EventKind, path, to string) wire.Event {
		return wire.Event{Kind: kind, Path: path, To: to}
	}
	for _, c := range []struct {
		name     string
		watched  map[uint64]bool
		event    wire.Event
		want     action
		kind     wire.EventKind // of what is done, if another
		replaced bool
	}{
		{"nobody watches", nil, ev(wire.Created, "d/new", ""), invalidate, 0, false},
		{"somebody watches elsewhere", watching(4), ev(wire.Deleted, "d/f", ""), invalidate, 0, false},
		{"the folder is watched", watching(2), ev(wire.Created, "d/new", ""), create, 0, false},
		{"a file is deleted", watching(2), ev(wire.Deleted, "d/f", ""), remove, 0, false},
		{"the file is watched", watching(3), ev(wire.Modified, "d/f", ""), modify, 0, false},
		{"of a file that the guest does not know", watching(2), ev(wire.Modified, "d/unknown", ""), modify, 0, false},
		{"of a folder that the kernel does not know", watching(2), ev(wire.Created, "listed/new", ""), invalidate, 0, false},
		{"of a folder that the guest does not know", watching(2), ev(wire.Created, "x/new", ""), invalidate, 0, false},
		{"the share itself", watching(1), ev(wire.Attributes, "", ""), setAttributes, 0, false},
		{"moved where nobody watches", nil, ev(wire.Moved, "d/f", "e/f"), invalidate, 0, false},
		{"moved from a watched folder", watching(2), ev(wire.Moved, "d/f", "e/f"), rename, 0, false},
		{"moved to a watched folder", watching(4), ev(wire.Moved, "d/f", "e/f"), rename, 0, false},
		{"moved over another file", watching(4), ev(wire.Moved, "d/f", "e/g"), rename, 0, true},
		{"a watched file is replaced", watching(5), ev(wire.Moved, "d/f", "e/g"), rename, 0, true},
		{"a folder moves, though nobody watches it", nil, ev(wire.Moved, "e", "d/e"), rename, 0, false},
		{"moved to a folder that the kernel does not know", watching(2), ev(wire.Moved, "d/f", "x/f"), remove, wire.Deleted, false},
		{"moved from a folder that the kernel does not know", watching(4), ev(wire.Moved, "x/f", "e/f"), create, wire.Created, false},
		{"names may be missing", nil, ev(wire.Rescan, "d", ""), compare, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			pl := newPlanner(picture, func(n Node) bool { return n.ID != 0 && c.watched[n.ID] }, []wire.Event{c.event})
			s, _ := pl.plan(0)
			if s.do != c.want || s.replaced != c.replaced || c.kind != 0 && s.event.Kind != c.kind {
				t.Errorf("planned %d for %v, replaced %v; want %d, %v", s.do, s.event, s.replaced, c.want, c.replaced)
			}
		})
	}
}

// A modification and the closing after it are one opening.
func TestPlanJoins(t *testing.T) {
	picture := known{"": folder(1), "f": file(2), "g": file(3)}
	events := []wire.Event{
		{Kind: wire.Modified, Path: "f"}, {Kind: wire.Closed, Path: "f"}, {Kind: wire.Modified, Path: "f"}, {Kind: wire.Closed, Path: "g"},
	}
	pl := newPlanner(picture, func(Node) bool { return true }, events)
	var got []action
	for i := 0; i < len(events); i++ {
		s, covered := pl.plan(i)
		got = append(got, s.do)
		i += covered
	}
	if len(got) != 3 || got[0] != rewrite || got[1] != modify || got[2] != touch {
		t.Errorf("planned %v", got)
	}
}

// What a batch says later tells where the host has a file now.
func TestPlanFollowsFiles(t *testing.T) {
	events := []wire.Event{
		{Kind: wire.Created, Path: "d/tmp"}, {Kind: wire.Moved, Path: "d/tmp", To: "d/f"}, {Kind: wire.Moved, Path: "d", To: "e", Dir: true},
		{Kind: wire.Created, Path: "e/gone"}, {Kind: wire.Deleted, Path: "e/gone"}, {Kind: wire.Created, Path: "e/stays"},
	}
	pl := newPlanner(known{}, func(Node) bool { return true }, events)
	for i, want := range map[int]string{0: "e/f", 3: "", 5: "e/stays"} {
		if got := pl.now(i); got != want {
			t.Errorf("after event %d the host has the file at %q, want %q", i, got, want)
		}
	}
}

// A deletion is not of the folder that came after the file, where the host has the folder now.
func TestPlanDeletedBefore(t *testing.T) {
	picture := hosted{known{"": folder(1), "f": folder(2), "d": folder(3)}, "f"}
	pl := newPlanner(picture, func(Node) bool { return true }, []wire.Event{{Kind: wire.Deleted, Path: "f"}, {Kind: wire.Deleted, Path: "d"}})
	if s, _ := pl.plan(0); s.do != remove || s.not != 2 || s.node.dir() {
		t.Errorf("planned %+v", s)
	}
	if s, _ := pl.plan(1); s.do != remove || s.not != 0 || !s.node.dir() { // a host that does not say that it was a folder
		t.Errorf("planned %+v", s)
	}
}

// hosted is a picture of whose files the host has one.
type hosted struct {
	known
	path string
}

func (h hosted) Host(path string) (Node, bool) {
	n, ok := h.known[path]
	return n, ok && path == h.path
}
