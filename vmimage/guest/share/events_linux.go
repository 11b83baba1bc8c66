// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/replay"
	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// follower asks for the host's file events and has them replayed, for as long as the share is mounted.
type follower struct {
	m    *mount
	last uint64 // number of the last batch
	// asked is the request for the next one, and rest what is yet to be told of what was missed.
	asked *call
	rest  []wire.Event
}

// missedBatch bounds what is replayed at once of what was missed.
const missedBatch = 1024

// askAgain is the pause after an answer that was none.
const askAgain = time.Second

// errNoEvents says that the host tells no file events.
var errNoEvents = errors.New("the host tells no file events")

func (f *follower) next(ctx context.Context) ([]wire.Event, error) {
	for {
		if len(f.rest) > 0 {
			n := min(len(f.rest), missedBatch)
			events := f.rest[:n:n]
			f.rest = f.rest[n:]
			return events, nil
		}
		if f.asked == nil {
			f.asked = &call{done: make(chan struct{})}
			f.m.client.start([]*call{f.asked}, []wire.Request{{Op: wire.OpEvents, Offset: f.last}})
		}
		select {
		case <-ctx.Done(): // the client ends what is under way
			return nil, ctx.Err()
		case <-f.m.missed.wake:
			folders, since := f.m.missed.take()
			f.rest = f.m.compare(ctx.Done(), folders, since)
			continue
		case <-f.asked.done:
		}
		k := f.asked
		f.asked = nil
		switch k.res.Errno {
		case 0:
			events, err := wire.ParseEvents(k.res.Data)
			if err != nil {
				return nil, err
			}
			f.last = k.res.Value
			f.m.missed.hear()
			if len(events) > 0 {
				return events, nil
			}
			continue
		case wire.ENOSYS:
			return nil, errNoEvents
		}
		timer := time.NewTimer(askAgain) // a connection ended, or the host cannot watch now
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// replayEvents has the host's file events replayed until ctx is done. A share where that cannot be works without.
func (m *mount) replayEvents(ctx context.Context, work *sync.WaitGroup) {
	// A clone of the mount has nothing mounted on it, and stays writable when the share is made read-only.
	root, err := unix.OpenTree(unix.AT_FDCWD, m.o.Target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		root, err = unix.Open(m.o.Target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		m.log.Warn("replay the host's file events", "share", m.o.Name, "error", err)
		return
	}
	seen := &picture{mount: m, stale: map[uint64]bool{}}
	player, err := replay.New(root, seen, m.log)
	if err != nil {
		m.log.Warn("replay the host's file events", "share", m.o.Name, "error", errors.Join(err, unix.Close(root)))
		return
	}
	m.player.Store(player)
	work.Go(func() {
		m.missed.hear()
		f := &follower{m: m}
		next := func(ctx context.Context) ([]wire.Event, error) {
			events, err := f.next(ctx)
			clear(seen.stale)
			return events, err
		}
		if err := player.Run(ctx, next); ctx.Err() == nil && !errors.Is(err, errNoEvents) {
			m.log.Warn("replay the host's file events", "share", m.o.Name, "error", err)
		}
		_ = unix.Close(root) // only looked at
	})
}

// picture is what the player sees of a mount. It is the player's alone.
type picture struct {
	*mount
	// stale are folders that the kernel was told to ask for again since the last batch came. All of the batch had happened on the host before.
	stale map[uint64]bool
}

// Node is what has been told of a path.
func (p *picture) Node(path string) (replay.Node, bool) {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	n, e := t.descend(t.root, path)
	var lost []replay.Node
	for _, n := range t.lostAt(path) {
		lost = append(lost, replay.Node{ID: n.id, Ident: n.ident, Mode: n.attr.Mode})
	}
	switch {
	case n != nil:
		return replay.Node{ID: n.id, Ident: n.ident, Mode: n.attr.Mode, Lost: lost}, true
	case e != nil:
		return replay.Node{Ident: e.attr.Ident, Mode: e.attr.Mode, Lost: lost}, true
	}
	return replay.Node{Lost: lost}, false
}

// Names are those that have been told of in a folder.
func (p *picture) Names(folder string) []string {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	n, _ := t.descend(t.root, folder)
	if n == nil {
		return nil
	}
	var names []string
	for name := range n.children {
		names = append(names, name)
	}
	if n.list != nil {
		for i := range n.list.entries {
			if e := &n.list.entries[i]; !e.gone && n.children[e.name] == nil {
				names = append(names, e.name)
			}
		}
	}
	return names
}

// Host asks the host.
func (p *picture) Host(path string) (replay.Node, bool) {
	a, errno := p.ask(path)
	return replay.Node{Ident: a.Ident, Mode: a.Mode}, errno == 0
}

func (m *mount) ask(path string) (wire.Attr, uint16) {
	dir, name := pathParts(path)
	r := wire.Request{Op: wire.OpLookup, Path: dir, Name: name}
	if path == "" {
		r = wire.Request{Op: wire.OpGetattr}
	}
	k, errno := m.client.do(nil, &r)
	return k.res.Attr, errno
}

// Changed forgets attributes and contents of a file.
func (p *picture) Changed(path string) {
	t := p.table
	t.mu.Lock()
	dirPath, _ := pathParts(path)
	if dir, _ := t.descend(t.root, dirPath); dir != nil && path != "" {
		dir.list = nil // it has attributes of the file
	}
	n, e := t.descend(t.root, path)
	if n == nil {
		if e != nil {
			e.sub = nil
		}
		t.mu.Unlock()
		return
	}
	n.until, n.fetched, n.list = 0, nil, nil
	n.version++
	id := n.id
	t.mu.Unlock()
	_ = p.server.InodeNotify(id, 0, 0) // what the kernel does not know it need not hear
}

// Gone forgets what is known of a name.
func (p *picture) Gone(path string) {
	if path == "" {
		p.Changed(path)
		return
	}
	t := p.table
	t.mu.Lock()
	dirPath, name := pathParts(path)
	dir, e := t.descend(t.root, dirPath)
	if dir == nil {
		if e != nil {
			e.sub = nil
		}
		t.mu.Unlock()
		return
	}
	dir.list, dir.until = nil, 0
	c := dir.children[name]
	if c != nil {
		c.until, c.fetched, c.list = 0, nil, nil
		c.version++
	}
	t.mu.Unlock()
	if !p.stale[dir.id] {
		p.stale[dir.id] = true
		_ = p.server.InodeNotify(dir.id, -1, 0)
	}
	if c != nil && c.attr.Mode&wire.TypeMask == wire.TypeFolder {
		if a, errno := p.ask(path); errno == 0 && a.Ident == c.ident {
			return // a folder that is there must not be taken from who stands in it
		}
	}
	t.mu.Lock()
	if c != nil && dir.children[name] == c {
		t.lose(dir, name)
	}
	t.mu.Unlock()
	_ = p.server.EntryNotify(dir.id, name)
	if c != nil {
		_ = p.server.InodeNotify(c.id, 0, 0)
	}
}

// mine says that the player makes a request, which is then answered without the host doing anything.
func (m *mount) mine(h *fuse.InHeader) bool {
	p := m.player.Load()
	return p != nil && p.Mine(h.Pid)
}

// replayLookup answers with what the guest has been told, unless the player knows better.
func (m *mount) replayLookup(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	a := m.player.Load().Answer(h.NodeId, name)
	if a.Absent {
		return fuse.ENOENT
	}
	t := m.table
	t.mu.Lock()
	dir := t.nodes[h.NodeId]
	if dir == nil {
		t.mu.Unlock()
		return fuse.ENOENT
	}
	c := dir.children[name]
	if i, ok := dir.list.find(name); c == nil && ok && (a.Not == 0 || dir.list.entries[i].attr.Ident != a.Not) {
		c = m.listedNode(dir, i)
	}
	if c != nil && (a.Not == 0 || c.ident != a.Not) {
		m.entry(c, t.validFor(c.until), out)
		t.mu.Unlock()
		return fuse.OK
	}
	t.mu.Unlock()
	if !a.Expected {
		return fuse.ENOENT
	}
	return m.replayMake(h, name, out)
}

// replayMake gives a name the file that the host has for it now, or a made-up one.
func (m *mount) replayMake(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	a := m.player.Load().Answer(h.NodeId, name)
	if !a.Expected {
		return fuse.EIO // the player makes nothing else
	}
	attr, errno := wire.Attr{}, uint16(wire.ENOENT)
	if a.Host != "" {
		attr, errno = m.ask(a.Host)
	}
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	dir := t.nodes[h.NodeId]
	if dir == nil {
		return fuse.ENOENT
	}
	madeUp := errno != 0
	if madeUp {
		now := time.Now().UnixNano()
		attr = wire.Attr{Ident: 1<<63 | t.next, Ino: 1<<63 | t.next, Mode: a.Mode, Nlink: 1, Atime: now, Mtime: now, Ctime: now}
	}
	n := t.nodeFor(dir, name, &attr)
	m.learned(n, &attr)
	if madeUp {
		n.until = 0
	}
	dir.list.add(name, &attr)
	dir.until = 0
	dir.version++
	m.entry(n, t.validFor(n.until), out)
	return fuse.OK
}

// replayRemove forgets a name that is gone on the host.
func (m *mount) replayRemove(h *fuse.InHeader, name string) fuse.Status {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	dir := t.nodes[h.NodeId]
	if dir == nil {
		return fuse.ENOENT
	}
	m.unname(dir, name)
	dir.list.remove(name)
	dir.until = 0
	dir.version++
	return fuse.OK
}

// replayRename moves a name as the host did.
func (m *mount) replayRename(in *fuse.RenameIn, name, newName string) fuse.Status {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	from, to := t.nodes[in.NodeId], t.nodes[in.Newdir]
	if from == nil || to == nil {
		return fuse.ENOENT
	}
	moved := t.detach(from, name)
	if to.children[newName] != moved {
		m.unname(to, newName)
	}
	from.list.remove(name)
	to.list.remove(newName)
	m.put(to, newName, moved)
	for _, dir := range []*node{from, to} {
		dir.until = 0
		dir.version++
	}
	return fuse.OK
}

// replayAttr gives a file's attributes; with ask, as the host has them now.
func (m *mount) replayAttr(h *fuse.InHeader, ask bool, out *fuse.AttrOut) fuse.Status {
	n, path, named := m.node(h.NodeId)
	if n == nil {
		return fuse.ENOENT
	}
	var attr wire.Attr
	errno := uint16(wire.ENOENT)
	if ask && named {
		m.settle(n, false)
		attr, errno = m.ask(path)
	}
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if errno == 0 && attr.Ident == n.ident {
		m.learned(n, &attr)
	}
	if a := m.player.Load().Answer(h.NodeId, ""); !named && a.Expected { // who watches it is told now
		t.found(n)
		if a.Absent {
			n.attr.Nlink = 0
		}
	}
	m.attrOut(n, out)
	return fuse.OK
}
