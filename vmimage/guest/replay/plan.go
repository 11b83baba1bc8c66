// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package replay

import (
	"strings"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Node is a file as the guest knows it.
type Node struct {
	// ID is FUSE's number; 0: the kernel does not know the file, only its name has been told.
	ID uint64
	// Ident is the host's identity of the file.
	Ident uint64
	Mode  uint32 // with Linux's type bits
	// Lost are files that the name was of, and was found not to be of any more before an event said so.
	Lost []Node
}

func (n Node) dir() bool { return n.Mode&wire.TypeMask == wire.TypeFolder }

// Picture is what the guest knows of a share, by paths below it. It is used by one goroutine at a time.
type Picture interface {
	// Node is what the guest has been told of a path; false: nothing but which files lost the name.
	Node(path string) (Node, bool)
	// Names are the names that it has been told of in a folder.
	Names(folder string) []string
	// Host asks the host what is at a path; false: nothing.
	Host(path string) (Node, bool)
	// Changed makes attributes and content of a file invalid, in the kernel, too.
	Changed(path string)
	// Gone makes invalid what is known of a name, and that it is not there.
	Gone(path string)
}

// step is one thing to do for an event.
type step struct {
	do    action
	event wire.Event
	node  Node // what the guest has at the path
	// host is where the host has the file now, "" if nowhere.
	host string
	// replaced: a move takes the place of another file that the guest knows.
	replaced bool
	// not is the identity of a file that the guest has at the path already, though the event is about the one before it; 0: none.
	not uint64
}

// remove makes a step a deletion of what was at its path. What the guest has there may be what came after it, which shows where one is a folder and the other is not.
func (s step) remove(p Picture) step {
	s.do, s.not = remove, 0
	s.node, _ = p.Node(s.event.Path)
	if s.node.Mode == 0 || s.node.dir() == s.event.Dir {
		return s
	}
	if host, there := p.Host(s.event.Path); there && host.Ident == s.node.Ident { // not all hosts tell what was deleted
		s.not, s.node = s.node.Ident, Node{}
	}
	return s
}

type action int

const (
	invalidate action = iota // Gone of all names, or Changed
	create
	modify
	touch // open for writing and close
	rewrite
	setAttributes
	remove
	rename
	compare // a folder's names with the host's
)

// planner decides what is to be done for the events of a batch. It decides for each event when its turn has come: the ones before it change the picture.
type planner struct {
	picture Picture
	watched func(Node) bool
	events  []wire.Event
	// names are the indexes of events that change where files are.
	names []int
}

func newPlanner(p Picture, watched func(Node) bool, events []wire.Event) *planner {
	pl := &planner{picture: p, watched: watched, events: events}
	for i, e := range events {
		if e.Kind == wire.Moved || e.Kind == wire.Deleted {
			pl.names = append(pl.names, i)
		}
	}
	return pl
}

// plan says what to do for event i, and how many further events that covers.
func (p *planner) plan(i int) (s step, covered int) {
	e := p.events[i]
	node, _ := p.picture.Node(e.Path)
	s = step{event: e, node: node}
	if e.Kind == wire.Rescan {
		s.do = compare
		return s, 0
	}
	parent, known := p.picture.Node(folderOf(e.Path))
	if e.Path == "" {
		parent, known = node, true
	}
	heard := known && parent.ID != 0 && (p.watched(parent) || p.watched(node))
	if e.Kind == wire.Moved {
		return p.planMove(i, s, parent, heard), 0
	}
	if !heard {
		return s, 0
	}
	switch e.Kind {
	case wire.Created:
		s.do, s.host = create, p.now(i)
	case wire.Deleted:
		s = s.remove(p.picture)
	case wire.Attributes:
		s.do = setAttributes
	case wire.Closed:
		s.do = touch
	case wire.Modified:
		if s.do = modify; i+1 < len(p.events) && p.events[i+1].Kind == wire.Closed && p.events[i+1].Path == e.Path {
			s.do = rewrite
			return s, 1
		}
	}
	return s, 0
}

// planMove makes a creation or a deletion of a move of which the kernel knows one folder only.
func (p *planner) planMove(i int, s step, parent Node, heard bool) step {
	e := s.event
	if s.node.Ident != 0 && p.now(i) != e.Path {
		if host, there := p.picture.Host(e.Path); there && host.Ident == s.node.Ident { // the guest has found what came to the place after the move
			s.not, s.node = s.node.Ident, Node{}
		}
	}
	target, _ := p.picture.Node(e.To)
	folder, _ := p.picture.Node(folderOf(e.To))
	arrives := folder.ID != 0 && (p.watched(folder) || p.watched(target))
	s.host = e.To
	switch {
	case parent.ID != 0 && folder.ID != 0:
		if !heard && !arrives && (s.node.ID == 0 || !s.node.dir()) {
			return s
		}
		s.do = rename
		if s.node.Ident == 0 && target.ID != 0 { // the guest may have found it at its new place before
			host, _ := p.picture.Host(e.To)
			s.node.Ident = host.Ident
		}
		s.replaced = target.ID != 0 && target.ID != s.node.ID && (s.node.Ident == 0 || target.Ident != s.node.Ident)
	case heard:
		s.do, s.event = remove, wire.Event{Kind: wire.Deleted, Path: e.Path, Dir: e.Dir}
	case arrives:
		s.do, s.event = create, wire.Event{Kind: wire.Created, Path: e.To, Dir: e.Dir}
		s.node = target
	}
	return s
}

// now is where the host has the file now that was at a path when event i happened; "" if it has been deleted since. What happens after this batch is not known yet.
func (p *planner) now(i int) string {
	path := p.events[i].Path
	if p.events[i].Kind == wire.Moved {
		path = p.events[i].To
	}
	for _, j := range p.names {
		e := p.events[j]
		if j <= i || !within(e.Path, path) {
			continue
		}
		if e.Kind == wire.Deleted {
			return ""
		}
		path = e.To + path[len(e.Path):]
	}
	return path
}

// within reports whether a path is a folder's, or below it.
func within(folder, path string) bool {
	rest, ok := strings.CutPrefix(path, folder)
	return ok && (rest == "" || rest[0] == '/' || folder == "")
}

// folderOf is the path of the folder that a path is in.
func folderOf(path string) string {
	folder, _ := split(path)
	return folder
}

// split parts a path into its folder and its last name.
func split(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}
