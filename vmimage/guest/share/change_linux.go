// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// made takes what came of making a name in a folder.
func (m *mount) made(dir *node, name string, k *call, out *fuse.EntryOut) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodeFor(dir, name, &k.res.Attr)
	t.learn(n, &k.res.Attr)
	if n.attr.Mode&wire.TypeMask == wire.TypeFolder && n.list == nil && k.op == wire.OpMkdir && n.attr.Flags&wire.Watched != 0 {
		n.list = (*listing)(nil).replace(nil, n.until) // it is empty
	}
	m.folderChanged(dir, &k.res.Parent)
	dir.list.add(name, &k.res.Attr)
	if k.op == wire.OpMkdir {
		n.madeIn, n.madeBy = t.now()+laterFor, n.attr.UID
	}
	m.entry(n, t.validFor(n.until), out)
}

// folderChanged takes a folder's attributes after a change of this machine's. The table is locked.
func (m *mount) folderChanged(dir *node, a *wire.Attr) {
	dir.changes++
	if a.Ident == 0 || a.Ctime < dir.ctime.host {
		dir.until = 0
		return
	}
	m.table.learnClock(a.Ctime)
	m.table.learn(dir, a)
}

// changedHere counts a change of a folder that the host is yet to make, and gives the folder its time. The table is locked.
func (m *mount) changedHere(dir *node) {
	now := max(m.table.hostNow(), dir.attr.Ctime+1, dir.attr.Mtime+1)
	dir.attr.Mtime, dir.attr.Ctime = now, now
	dir.version++
	dir.making++
	m.table.making++
	m.table.later++
}

// changedThere takes a folder's attributes once the host has made such a change; it had seen so many others when that was sent. Programs go on seeing the times that
// they may have seen, until there is another change. The table is locked.
func (m *mount) changedThere(dir *node, a *wire.Attr, changes uint64) {
	dir.making--
	m.table.making--
	if a.Ident == 0 || dir.changes != changes {
		dir.until = 0
		return
	}
	m.table.learnClock(a.Ctime)
	dir.mtime, dir.ctime = shown{a.Mtime, dir.attr.Mtime}, shown{a.Ctime, dir.attr.Ctime}
	m.table.learn(dir, a)
}

// Create makes a file and opens it.
func (m *mount) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir, r, status := m.inFolder(&in.InHeader, wire.OpCreate, name)
	if !status.Ok() {
		return status
	}
	r.Mode = in.Mode
	if in.Flags&unix.O_EXCL != 0 {
		r.Flags |= wire.FlagExclusive
	}
	if in.Flags&unix.O_TRUNC != 0 {
		r.Flags |= wire.FlagTruncate
	}
	if n := m.createLater(dir, name, in.Flags, &r, &out.EntryOut); n != nil {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		if n.pending.unheard {
			out.OpenFlags |= fuse.FOPEN_NOFLUSH
		}
		return fuse.OK
	}
	m.settleName(dir, name)
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return m.refused(dir, errno)
	}
	m.made(dir, name, k, &out.EntryOut)
	m.allow(dir, r.UID)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// laterFor is how long after the host has allowed a file to be made in a folder further ones are made without waiting.
const laterFor = 10 * time.Second

// allow notes that the host lets a user make files in a folder.
func (m *mount) allow(dir *node, uid uint32) {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	dir.madeIn, dir.madeBy = m.table.now()+laterFor, uid
}

// createLater makes a file here at once, and on the host together with what is written to it: whoever closes it hears whether that went well. It is done where
// nothing but a full disk is in the way: the folder's contents are known, the name is free, and the host has just allowed the same. Where there is much room, not
// even who closes it waits.
func (m *mount) createLater(dir *node, name string, open uint32, r *wire.Request, out *fuse.EntryOut) *node {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.moving > 0 || t.now() > dir.madeIn || dir.madeBy != r.UID || !t.fresh(dir) || dir.children[name] != nil || dir.removing[name] != nil || dir.attr.Flags&wire.Watched == 0 {
		return nil
	}
	if _, ok := dir.list.find(name); ok {
		return nil
	}
	now := t.hostNow()
	gid := r.GID
	if dir.attr.Mode&unix.S_ISGID != 0 {
		gid = dir.attr.GID
	}
	flags := dir.attr.Flags & (wire.Watched | wire.Roomy)
	t.made++
	a := wire.Attr{Ident: madeHere | t.made, Ino: firstMade + t.made, Atime: now, Mtime: now, Ctime: now, Mode: wire.TypeRegular | r.Mode&0o7777, Nlink: 1, UID: r.UID, GID: gid, Flags: flags}
	n := t.nodeFor(dir, name, &a)
	delete(t.idents, a.Ident)
	t.learn(n, &a)
	dir.list.add(name, &a)
	p := &n.pending
	p.cond, p.used, p.create, p.in, p.dirty = sync.NewCond(&p.mu), true, r, place{dir, name}, true
	m.changedHere(dir)
	r.Flags |= wire.FlagAhead
	// Who demands that the name be free is told on close if it is not.
	if flags&wire.Roomy != 0 && r.Flags&wire.FlagExclusive == 0 && m.mayGoAhead() {
		p.ahead = true
		p.unheard = open&unix.O_ACCMODE == unix.O_WRONLY // the others may map the file into memory, which the kernel writes back when they close it
		m.unsettle(n)
	}
	m.holdDirty(n)
	m.entry(n, longValid, out) // whoever asks for its attributes asks again: its times are the host's, which nobody knows yet
	return n
}

// guessedFor is how long the kernel believes a folder's attributes of which the times are not the host's. It asks for them for each file that is made in it.
const guessedFor = 20 * time.Millisecond

const (
	// madeHere marks identities that the host does not know.
	madeHere = 1 << 63
	// firstMade is where numbers of files begin that are made here before the host has given them one. They keep them, so that programs see one number; few hosts
	// have numbers as large.
	firstMade = 1 << 48
)

// refused notes that a folder is not as it was believed to be.
func (m *mount) refused(dir *node, errno uint16) fuse.Status {
	if errno == wire.EEXIST || errno == wire.ENOENT {
		m.table.mu.Lock()
		dir.list, dir.until = nil, 0
		m.table.mu.Unlock()
	}
	return fuse.Status(errno)
}

// Tmpfile makes a file without a name.
func (m *mount) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	_, r, status := m.request(&in.InHeader, wire.OpTmpfile)
	if !status.Ok() {
		return status
	}
	r.Ident, r.Mode = 0, in.Mode
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return fuse.Status(errno)
	}
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &node{id: t.next, ident: k.res.Attr.Ident, removed: true}
	t.next++
	t.nodes[n.id], t.idents[n.ident] = n, n
	t.learn(n, &k.res.Attr)
	m.entry(n, 0, &out.EntryOut)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// make makes a name in a folder.
func (m *mount) make(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut, op wire.Op, fill func(*wire.Request)) fuse.Status {
	if m.mine(h) {
		return m.replayMake(h, name, out)
	}
	dir, r, status := m.inFolder(h, op, name)
	if !status.Ok() {
		return status
	}
	fill(&r)
	m.settleName(dir, name)
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return m.refused(dir, errno)
	}
	m.made(dir, name, k, out)
	return fuse.OK
}

// Mknod makes a file, a pipe, a socket or a device.
func (m *mount) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.make(cancel, &in.InHeader, name, out, wire.OpMknod, func(r *wire.Request) { r.Mode, r.Size = in.Mode, uint64(in.Rdev) })
}

// Mkdir makes a folder.
func (m *mount) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.make(cancel, &in.InHeader, name, out, wire.OpMkdir, func(r *wire.Request) { r.Mode = in.Mode })
}

// Symlink makes a symbolic link.
func (m *mount) Symlink(cancel <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return m.make(cancel, h, name, out, wire.OpSymlink, func(r *wire.Request) { r.Data = []byte(to) })
}

// Link gives a file a further name.
func (m *mount) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if n, _, _ := m.node(in.Oldnodeid); n != nil {
		m.settle(n, false)
	}
	n, path, _ := m.node(in.Oldnodeid)
	if n == nil {
		return fuse.ENOENT
	}
	ident := m.identOf(n)
	return m.make(cancel, &in.InHeader, name, out, wire.OpLink, func(r *wire.Request) { r.Path2, r.Ident = path, ident })
}

// Unlink removes a name.
func (m *mount) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return m.remove(cancel, h, name, wire.OpUnlink)
}

// Rmdir removes an empty folder.
func (m *mount) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return m.remove(cancel, h, name, wire.OpRmdir)
}

func (m *mount) remove(cancel <-chan struct{}, h *fuse.InHeader, name string, op wire.Op) fuse.Status {
	if m.mine(h) {
		return m.replayRemove(h, name)
	}
	dir, r, status := m.inFolder(h, op, name)
	if !status.Ok() {
		return status
	}
	m.table.mu.Lock()
	c := dir.children[name]
	m.table.mu.Unlock()
	switch {
	case c != nil && op == wire.OpUnlink && m.removeLater(dir, name, c, &r):
		return fuse.OK
	case c != nil && op == wire.OpUnlink:
		m.settle(c, false)
	case c != nil:
		m.settleMade(c.id) // a folder with a file that the host has not made yet is not empty
	}
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return m.refused(dir, errno)
	}
	if op == wire.OpUnlink {
		m.allow(dir, r.UID)
	}
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	m.unname(dir, name)
	dir.list.remove(name)
	m.folderChanged(dir, &k.res.Parent)
	return fuse.OK
}

// unname takes a name away from a file, and notes when that was its last. The table is locked.
func (m *mount) unname(dir *node, name string) {
	n := m.table.detach(dir, name)
	if n == nil {
		return
	}
	n.until = 0
	n.version++
	if n.attr.Nlink > 0 {
		n.attr.Nlink--
	}
	if n.attr.Mode&wire.TypeMask == wire.TypeFolder {
		n.attr.Nlink = 0
	}
	n.removed = n.attr.Nlink == 0
	m.table.spread(n)
}

// Rename moves a name, or exchanges two.
func (m *mount) Rename(cancel <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	if m.mine(&in.InHeader) {
		return m.replayRename(in, name, newName)
	}
	from, r, status := m.inFolder(&in.InHeader, wire.OpRename, name)
	if !status.Ok() {
		return status
	}
	to, path, named := m.node(in.Newdir)
	if to == nil || !named {
		return fuse.ENOENT
	}
	if len(newName) > wire.MaxName {
		return fuse.Status(wire.ENAMETOOLONG)
	}
	r.Path2, r.Name2 = path, newName
	switch in.Flags {
	case 0:
	case unix.RENAME_NOREPLACE:
		r.Flags = wire.FlagNoReplace
	case unix.RENAME_EXCHANGE:
		r.Flags = wire.FlagExchange
	default:
		return fuse.EINVAL
	}
	m.settleName(from, name)
	m.settleName(to, newName)
	defer m.settleForRename(from, name, to, newName)()
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return m.refused(from, errno)
	}
	m.renamed(from, name, to, newName, k)
	return fuse.OK
}

// settleForRename waits for writes whose files' paths are about to change. Until what it returns is called, no further ones come about.
func (m *mount) settleForRename(from *node, name string, to *node, newName string) (done func()) {
	m.table.mu.Lock()
	all := []*node{from.children[name], to.children[newName]}
	folder := false
	for _, n := range all {
		folder = folder || n != nil && n.attr.Mode&wire.TypeMask == wire.TypeFolder
	}
	if folder {
		m.table.moving++
	}
	m.table.mu.Unlock()
	if folder {
		m.settleAll()
		return func() {
			m.table.mu.Lock()
			m.table.moving--
			m.table.mu.Unlock()
		}
	}
	for _, n := range all {
		if n != nil {
			m.settle(n, false)
		}
	}
	return func() {}
}

func (m *mount) renamed(from *node, name string, to *node, newName string, k *call) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	moved := t.detach(from, name)
	var other *node
	if k.flags&wire.FlagExchange != 0 {
		other = t.detach(to, newName)
	} else {
		m.unname(to, newName)
	}
	from.list.remove(name)
	to.list.remove(newName)
	if moved == nil || k.flags&wire.FlagExchange != 0 && other == nil {
		from.list, to.list = nil, nil // something has a name that is not known by it
	}
	m.put(to, newName, moved)
	m.put(from, name, other)
	m.folderChanged(from, &k.res.Parent)
	m.folderChanged(to, &k.res.Attr)
}

// put gives a known file a name. The table is locked.
func (m *mount) put(dir *node, name string, n *node) {
	if n == nil {
		return
	}
	if dir.children == nil {
		dir.children = map[string]*node{}
	}
	dir.children[name] = n
	n.places = append(n.places, place{dir, name})
	n.until = 0 // its time of change is another
	n.version++
	dir.list.add(name, &n.attr)
}
