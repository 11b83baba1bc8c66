// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// String names the file system in the library's messages.
func (m *mount) String() string { return "dev" }

// Init is called once the kernel is there.
func (m *mount) Init(*fuse.Server) {}

// Open, Release, OpenDir and ReleaseDir are not called again once the first of them has said so: files are known by their numbers alone.

// Open refuses.
func (m *mount) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// OpenDir refuses.
func (m *mount) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// node is what the kernel means by a number, with its path.
func (m *mount) node(id uint64) (n *node, path string, named bool) {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	n = m.table.nodes[id]
	if n == nil {
		return nil, "", false
	}
	path, named = m.table.pathOf(n)
	return n, path, named
}

// request begins a request about a file.
func (m *mount) request(h *fuse.InHeader, op wire.Op) (*node, wire.Request, fuse.Status) {
	if n, _, _ := m.node(h.NodeId); n != nil {
		m.settle(n, false) // what is asked depends on what was written
	}
	n, path, named := m.node(h.NodeId)
	if n == nil || !named && n.attr.Mode&wire.TypeMask == wire.TypeFolder {
		return nil, wire.Request{}, fuse.ENOENT
	}
	r := wire.Request{Op: op, Path: path, Ident: m.identOf(n), UID: h.Uid, GID: h.Gid}
	if n.id == rootID {
		r.Ident = 0 // whatever the host has there
	}
	return n, r, fuse.OK
}

// identOf is what the host knows a file by.
func (m *mount) identOf(n *node) uint64 {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	return n.ident
}

// inFolder begins a request about a name in a folder.
func (m *mount) inFolder(h *fuse.InHeader, op wire.Op, name string) (*node, wire.Request, fuse.Status) {
	if len(name) > wire.MaxName {
		return nil, wire.Request{}, fuse.Status(wire.ENAMETOOLONG)
	}
	n, path, named := m.node(h.NodeId)
	if n == nil || !named {
		return nil, wire.Request{}, fuse.ENOENT
	}
	return n, wire.Request{Op: op, Path: path, Name: name, UID: h.Uid, GID: h.Gid}, fuse.OK
}

// setAttr fills in attributes for the kernel.
func setAttr(a *wire.Attr, out *fuse.Attr) {
	out.Ino, out.Size, out.Blocks, out.Mode, out.Nlink, out.Rdev, out.Blksize = a.Ino, a.Size, a.Blocks, a.Mode, a.Nlink, a.Rdev, 4096
	out.Uid, out.Gid = a.UID, a.GID
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
}

func split(nano int64) (sec uint64, nsec uint32) {
	s, n := nano/1e9, nano%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

// entry fills in a node for the kernel, which then knows it once more. The table is locked.
func (m *mount) entry(n *node, valid time.Duration, out *fuse.EntryOut) {
	n.lookups++
	out.NodeId, out.Generation = n.id, 0
	setAttr(&n.attr, &out.Attr)
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(min(valid, m.table.validFor(n.until)))
	if n.attr.Mode&wire.TypeMask == wire.TypeRegular && n.pendingWrites() {
		out.SetAttrTimeout(0) // its size is about to change
	}
}

func (n *node) pendingWrites() bool {
	if !n.pending.mu.TryLock() {
		return true
	}
	defer n.pending.mu.Unlock()
	return !n.pending.drained()
}

// Lookup finds a name in a folder.
func (m *mount) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if m.mine(h) {
		return m.replayLookup(h, name, out)
	}
	dir, r, status := m.inFolder(h, wire.OpLookup, name)
	if !status.Ok() {
		return status
	}
	if status, ok := m.lookupKnown(dir, name, out); ok {
		return status
	}
	if m.settleMade(h.NodeId) { // the host may not know the name yet
		if status, ok := m.lookupKnown(dir, name, out); ok {
			return status
		}
	}
	epoch := m.client.epoch.Load()
	k, errno := m.client.do(cancel, &r)
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	crossed := m.client.epoch.Load() != epoch
	if errno == wire.ENOENT {
		t.lose(dir, name)
		if k.res.Value == 1 && !crossed {
			out.SetEntryTimeout(longValid)
			return fuse.OK
		}
	}
	if errno != 0 {
		return fuse.Status(errno)
	}
	n := t.nodeFor(dir, name, &k.res.Attr)
	m.learned(n, &k.res.Attr)
	if crossed {
		n.until = 0
	}
	m.entry(n, t.validFor(n.until), out)
	return fuse.OK
}

// learned takes attributes of a file, and has the kernel forget its contents where they are of another time. The table is locked.
func (m *mount) learned(n *node, a *wire.Attr) {
	if m.table.learn(n, a) && n.lookups > 0 && a.Mode&wire.TypeMask == wire.TypeRegular {
		m.notes.add(note{node: n.id, data: true})
	}
}

// lookupKnown answers from what is known.
func (m *mount) lookupKnown(dir *node, name string, out *fuse.EntryOut) (fuse.Status, bool) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := dir.children[name]; c != nil && t.now() < c.until {
		m.entry(c, t.validFor(c.until), out)
		return fuse.OK, true
	}
	if !t.fresh(dir) {
		return 0, false
	}
	i, ok := dir.list.find(name)
	if !ok {
		if dir.attr.Flags&wire.Watched == 0 {
			return fuse.ENOENT, true
		}
		out.SetEntryTimeout(t.validFor(dir.list.until))
		return fuse.OK, true
	}
	m.entry(m.listedNode(dir, i), t.validFor(dir.list.until), out)
	return fuse.OK, true
}

// listedNode is the node of a listing's entry. The table is locked.
func (m *mount) listedNode(dir *node, i int) *node {
	t := m.table
	e := &dir.list.entries[i]
	if c := dir.children[e.name]; c != nil && c.ident == e.attr.Ident {
		if t.now() >= c.until {
			m.learned(c, &e.attr)
		}
		return c
	}
	n := t.nodeFor(dir, e.name, &e.attr)
	if n.lookups == 0 || t.now() >= n.until {
		m.learned(n, &e.attr)
		n.until = min(n.until, dir.list.until)
	}
	if e.sub != nil && n.list == nil {
		n.list, e.sub = e.sub, nil
		if e.self.Ident == n.ident {
			n.attr = e.self
		}
	}
	return n
}

// Forget says that the kernel does not know a file any more. What was written to it, from memory it was mapped into, is carried out first: until then the file must
// be known to whoever renames, reads or removes it. The kernel waits for nobody here, and neither may who takes its requests.
func (m *mount) Forget(id, lookups uint64) {
	if n, _, _ := m.node(id); n != nil && n.pendingWrites() {
		if n.pending.forgetLater(lookups) {
			return
		}
		go func() {
			m.settle(n, false)
			m.forget(id, lookups)
		}()
		return
	}
	m.forget(id, lookups)
}

func (m *mount) forget(id, lookups uint64) {
	t := m.table
	t.mu.Lock()
	n, path, gone := t.forget(id, lookups)
	var removed, folder bool
	if gone {
		removed, folder = n.removed, n.attr.Mode&wire.TypeMask == wire.TypeFolder
	}
	t.mu.Unlock()
	switch {
	case removed && !folder:
		m.client.tell(&wire.Request{Op: wire.OpForget, Ident: n.ident})
	case gone && folder && path != "":
		m.client.tell(&wire.Request{Op: wire.OpForget, Path: path, Flags: wire.FlagSubtree})
	}
}

// GetAttr gives a file's attributes.
func (m *mount) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if m.mine(&in.InHeader) {
		return m.replayAttr(&in.InHeader, false, out)
	}
	if in.NodeId == rootID && m.starting.Load() {
		setAttr(&m.table.root.attr, &out.Attr)
		return fuse.OK
	}
	if m.attrGuessed(in.NodeId, out) {
		return fuse.OK
	}
	m.settleMade(in.NodeId)
	n, r, status := m.request(&in.InHeader, wire.OpGetattr)
	if n == nil {
		if n, _, _ = m.node(in.NodeId); n == nil {
			return status
		}
	}
	t := m.table
	t.mu.Lock()
	if t.now() < n.until && !n.removed || n.removed && n.attr.Mode&wire.TypeMask != wire.TypeRegular {
		m.attrOut(n, out)
		t.mu.Unlock()
		return fuse.OK
	}
	if !status.Ok() { // a folder that lost its name on the host
		t.mu.Unlock()
		return status
	}
	version, epoch := n.version, m.client.epoch.Load()
	t.mu.Unlock()
	k, errno := m.client.do(cancel, &r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if errno != 0 {
		return fuse.Status(errno)
	}
	if n.version == version {
		m.learned(n, &k.res.Attr)
		if m.client.epoch.Load() != epoch {
			n.until = 0
		}
	}
	m.attrOut(n, out)
	return fuse.OK
}

// attrGuessed answers for what was changed here, and soon is on the host: the kernel wants to know who may use it. It asks for each file that it has just made,
// once, and for the folder that the file is in. What a program asks about a file is answered with the host's own times.
func (m *mount) attrGuessed(id uint64, out *fuse.AttrOut) bool {
	n, _, _ := m.node(id)
	if n == nil {
		return false
	}
	n.pending.mu.Lock()
	first := n.pending.create != nil && !n.pending.asked && m.o.KeepsOwners
	n.pending.asked = true
	n.pending.mu.Unlock()
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	switch {
	case first:
		setAttr(&n.attr, &out.Attr)
		out.SetTimeout(0)
	case n.making > 0 && n.attr.Flags&wire.Watched != 0 && !n.removed:
		setAttr(&n.attr, &out.Attr)
		out.SetTimeout(guessedFor)
	default:
		return false
	}
	return true
}

func (m *mount) attrOut(n *node, out *fuse.AttrOut) {
	setAttr(&n.attr, &out.Attr)
	out.SetTimeout(m.table.validFor(n.until))
}

// SetAttr changes attributes.
func (m *mount) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if m.mine(&in.InHeader) {
		return m.replayAttr(&in.InHeader, true, out)
	}
	if m.foldAttr(in, out) {
		return fuse.OK
	}
	n, r, status := m.request(&in.InHeader, wire.OpSetattr)
	if !status.Ok() {
		return status
	}
	r.Valid = setValid(in.Valid)
	r.Mode, r.OwnerUID, r.OwnerGID, r.Size = in.Mode, in.Uid, in.Gid, in.Size
	r.Atime, r.Mtime = attrTimes(in)
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return fuse.Status(errno)
	}
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	m.table.learn(n, &k.res.Attr)
	m.attrOut(n, out)
	return fuse.OK
}

func attrTimes(in *fuse.SetAttrIn) (atime, mtime int64) {
	return int64(in.Atime)*1e9 + int64(in.Atimensec), int64(in.Mtime)*1e9 + int64(in.Mtimensec)
}

// setValid translates what is to be set.
func setValid(valid uint32) (out uint32) {
	for _, b := range [...]struct{ have, want uint32 }{
		{fuse.FATTR_MODE, wire.SetMode}, {fuse.FATTR_UID, wire.SetUID}, {fuse.FATTR_GID, wire.SetGID}, {fuse.FATTR_SIZE, wire.SetSize}, {fuse.FATTR_ATIME, wire.SetAtime},
		{fuse.FATTR_MTIME, wire.SetMtime}, {fuse.FATTR_ATIME_NOW, wire.SetAtimeNow}, {fuse.FATTR_MTIME_NOW, wire.SetMtimeNow}, {fuse.FATTR_KILL_SUIDGID, wire.KillSUID},
	} {
		if valid&b.have != 0 {
			out |= b.want
		}
	}
	return out
}

// foldAttr adds a change of attributes to the making of a file that was not sent yet.
func (m *mount) foldAttr(in *fuse.SetAttrIn, out *fuse.AttrOut) bool {
	n, _, _ := m.node(in.NodeId)
	if n == nil || in.Valid&fuse.FATTR_SIZE != 0 {
		return false
	}
	p := &n.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.create
	if r == nil || in.Valid&fuse.FATTR_KILL_SUIDGID != 0 && r.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return false
	}
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	valid := setValid(in.Valid) &^ wire.KillSUID
	if valid&wire.SetMode != 0 {
		r.Mode = in.Mode & 0o7777
		n.attr.Mode = wire.TypeRegular | r.Mode
	}
	if valid&wire.SetUID != 0 {
		r.OwnerUID, n.attr.UID = in.Uid, in.Uid
	}
	if valid&wire.SetGID != 0 {
		r.OwnerGID, n.attr.GID = in.Gid, in.Gid
	}
	atime, mtime := attrTimes(in)
	if valid&(wire.SetAtime|wire.SetAtimeNow) != 0 {
		r.Valid, r.Atime = r.Valid&^(wire.SetAtime|wire.SetAtimeNow), atime
	}
	if valid&(wire.SetMtime|wire.SetMtimeNow) != 0 {
		r.Valid, r.Mtime = r.Valid&^(wire.SetMtime|wire.SetMtimeNow), mtime
	}
	if valid&wire.SetMtime != 0 && valid&wire.SetMtimeNow == 0 {
		n.attr.Mtime = mtime
	}
	r.Valid |= valid &^ wire.SetMode
	setAttr(&n.attr, &out.Attr)
	out.Size = uint64(len(p.buf)) + p.offset
	out.SetTimeout(0) // the rest is the host's
	return true
}

// Readlink reads a symbolic link.
func (m *mount) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	_, r, status := m.request(h, wire.OpReadlink)
	if !status.Ok() {
		return nil, status
	}
	k, errno := m.client.do(cancel, &r)
	return k.res.Data, fuse.Status(errno)
}

// StatFs tells the size of the host's file system.
func (m *mount) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	_, r, status := m.request(h, wire.OpStatfs)
	if !status.Ok() {
		return status
	}
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return fuse.Status(errno)
	}
	s, err := wire.ParseStatfs(k.res.Data)
	if err != nil {
		return fuse.EIO
	}
	out.Bsize, out.Frsize = uint32(s.Bsize), uint32(s.Bsize)
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree, out.NameLen = s.Blocks, s.Free, s.Available, s.Files, s.FilesFree, uint32(s.NameLen)
	return fuse.OK
}

// noXattr says which extended attributes a share has not: those need no question.
func noXattr(name string) bool { return !strings.HasPrefix(name, "user.") }

// GetXAttr reads an extended attribute.
func (m *mount) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if noXattr(name) {
		return 0, fuse.ENODATA
	}
	_, r, status := m.request(h, wire.OpGetxattr)
	if !status.Ok() {
		return 0, status
	}
	r.Name = name
	return m.xattrOut(cancel, &r, dest)
}

// ListXAttr lists them.
func (m *mount) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	_, r, status := m.request(h, wire.OpListxattr)
	if !status.Ok() {
		return 0, status
	}
	return m.xattrOut(cancel, &r, dest)
}

func (m *mount) xattrOut(cancel <-chan struct{}, r *wire.Request, dest []byte) (uint32, fuse.Status) {
	k, errno := m.client.do(cancel, r)
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	if len(k.res.Data) > len(dest) {
		return uint32(len(k.res.Data)), fuse.ERANGE
	}
	return uint32(copy(dest, k.res.Data)), fuse.OK
}

// SetXAttr sets one.
func (m *mount) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if noXattr(name) {
		return fuse.Status(wire.EOPNOTSUPP)
	}
	n, r, status := m.request(&in.InHeader, wire.OpSetxattr)
	if !status.Ok() {
		return status
	}
	r.Name, r.Data, r.Flags = name, data, in.Flags
	return m.change(cancel, n, &r)
}

// RemoveXAttr removes one.
func (m *mount) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if noXattr(name) {
		return fuse.ENODATA
	}
	n, r, status := m.request(h, wire.OpRemovexattr)
	if !status.Ok() {
		return status
	}
	r.Name = name
	return m.change(cancel, n, &r)
}

// change carries out what changes a file, and takes its new attributes.
func (m *mount) change(cancel <-chan struct{}, n *node, r *wire.Request) fuse.Status {
	m.settle(n, false)
	k, errno := m.client.do(cancel, r)
	if errno != 0 {
		return fuse.Status(errno)
	}
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	m.table.learn(n, &k.res.Attr)
	return fuse.OK
}
