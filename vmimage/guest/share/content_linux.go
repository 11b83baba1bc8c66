// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// Read reads from a file.
func (m *mount) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, r, status := m.request(&in.InHeader, wire.OpRead)
	if !status.Ok() {
		return nil, status
	}
	m.settle(n, false)
	if data, ok := m.takeFetched(n, in.Offset, len(buf)); ok {
		return fuse.ReadResultData(data), fuse.OK
	}
	r.Offset, r.Size = in.Offset, uint64(len(buf))
	if in.Offset == 0 {
		m.fetchSiblings(n)
	}
	k, errno := m.client.wait(cancel, &r, &call{done: make(chan struct{}), into: buf})
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	return fuse.ReadResultData(buf[:k.n]), fuse.OK
}

// Write takes bytes to be written. That they have been is heard when the file is closed or synchronized.
func (m *mount) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, _, _ := m.node(in.NodeId)
	if n == nil {
		return 0, fuse.ENOENT
	}
	r := wire.Request{Offset: in.Offset, UID: in.Uid, GID: in.Gid, Data: data}
	if in.Flags&unix.O_APPEND != 0 {
		r.Flags |= wire.FlagAppend
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		r.Flags |= wire.FlagKillSUID
	}
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		r.Flags &^= wire.FlagAppend // the kernel writes memory back that a program has mapped
	}
	m.dropFetched(n)
	errno := m.write(n, &r)
	if errno == 0 && in.Flags&(unix.O_SYNC|unix.O_DSYNC) != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		errno = m.settle(n, true)
	}
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	return uint32(len(data)), fuse.OK
}

// Flush is called for each close of most files, and waits for what was written, unless the file is being made while nobody waits.
func (m *mount) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	n, _, _ := m.node(in.NodeId)
	if n == nil {
		return fuse.OK
	}
	p := &n.pending
	p.mu.Lock()
	if p.ahead {
		defer p.mu.Unlock()
		return fuse.Status(p.takeError())
	}
	p.mu.Unlock()
	return fuse.Status(m.settle(n, true))
}

// Fsync has the host write a file to its disk.
func (m *mount) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, r, status := m.request(&in.InHeader, wire.OpFsync)
	if !status.Ok() {
		return status
	}
	if errno := m.settle(n, true); errno != 0 {
		return fuse.Status(errno)
	}
	if in.FsyncFlags&1 != 0 {
		r.Flags = wire.FlagDataOnly
	}
	_, errno := m.client.do(cancel, &r)
	return fuse.Status(errno)
}

// FsyncDir has the host write a folder to its disk.
func (m *mount) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	m.settleMade(in.NodeId)
	_, r, status := m.request(&in.InHeader, wire.OpFsync)
	if !status.Ok() {
		return status
	}
	_, errno := m.client.do(cancel, &r)
	return fuse.Status(errno)
}

// Fallocate makes or frees room in a file.
func (m *mount) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, r, status := m.request(&in.InHeader, wire.OpFallocate)
	if !status.Ok() {
		return status
	}
	r.Offset, r.Size, r.Flags = in.Offset, in.Length, in.Mode
	m.dropFetched(n)
	return m.change(cancel, n, &r)
}

// Lseek finds data and holes.
func (m *mount) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n, r, status := m.request(&in.InHeader, wire.OpSeek)
	if !status.Ok() {
		return status
	}
	m.settle(n, false)
	r.Offset, r.Flags = in.Offset, in.Whence
	k, errno := m.client.do(cancel, &r)
	out.Offset = k.res.Value
	return fuse.Status(errno)
}

// CopyFileRange copies between files on the host.
func (m *mount) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	_, r, status := m.request(&in.InHeader, wire.OpCopy)
	if !status.Ok() {
		return 0, status
	}
	if to, _, _ := m.node(in.NodeIdOut); to != nil {
		m.settle(to, false)
	}
	to, path, _ := m.node(in.NodeIdOut)
	if to == nil {
		return 0, fuse.ENOENT
	}
	m.dropFetched(to)
	r.Offset, r.Path2, r.Ident2, r.Offset2, r.Size = in.OffIn, path, m.identOf(to), in.OffOut, in.Len
	k, errno := m.client.do(cancel, &r)
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	m.table.learn(to, &k.res.Attr)
	return uint32(k.res.Value), fuse.OK
}

const (
	// smallFile is the size in bytes up to which files are read ahead of their use.
	smallFile = 64 << 10
	// firstAhead and maxAheadFiles bound how many at once.
	firstAhead    = 8
	maxAheadFiles = 64
	// fetchedBytes bounds what is fetched at once.
	fetchedBytes = 1 << 20
	// fetchedFor is how long it is kept: it is about to be used.
	fetchedFor = longValid
)

// takeFetched gives contents that were read ahead, once: the kernel keeps them from then on.
func (m *mount) takeFetched(n *node, offset uint64, size int) ([]byte, bool) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.fetched == nil {
		return nil, false
	}
	data := n.fetched
	if t.now() > n.fetchedUntil || t.now() > n.until {
		n.fetched = nil
		return nil, false
	}
	m.aheadOf(n)
	if offset >= uint64(len(data)) {
		return nil, true
	}
	data = data[offset:]
	if len(data) <= size {
		n.fetched = nil
	}
	return data[:min(size, len(data))], true
}

func (m *mount) dropFetched(n *node) {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	n.fetched = nil
	n.version++
}

// aheadOf fetches more when what was fetched is half used. The table is locked.
func (m *mount) aheadOf(n *node) {
	dir, i, ok := m.placeOf(n)
	if !ok || dir.list.ahead == 0 {
		return
	}
	half := i + dir.list.ahead/2
	if half < len(dir.list.entries) {
		if c := dir.children[dir.list.entries[half].name]; c == nil || c.fetched == nil && !c.fetching {
			dir.list.ahead = min(2*dir.list.ahead, maxAheadFiles)
			m.fetchAfter(dir, i)
		}
	}
}

// placeOf finds a file in its folder's listing. The table is locked.
func (m *mount) placeOf(n *node) (dir *node, i int, ok bool) {
	if len(n.places) == 0 {
		return nil, 0, false
	}
	p := n.places[len(n.places)-1]
	if !m.table.fresh(p.dir) {
		return nil, 0, false
	}
	i, ok = p.dir.list.find(p.name)
	return p.dir, i, ok
}

// fetchSiblings is called for each read of a file's beginning that was not foreseen: the second one in a folder has the next files fetched.
func (m *mount) fetchSiblings(n *node) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	dir, i, ok := m.placeOf(n)
	if !ok || n.attr.Size > smallFile {
		return
	}
	if dir.list.misses++; dir.list.misses < 2 {
		return
	}
	dir.list.ahead = max(firstAhead, dir.list.ahead)
	m.fetchAfter(dir, i)
}

// fetchAfter fetches files after an entry of a listing. The table is locked.
func (m *mount) fetchAfter(dir *node, i int) {
	t := m.table
	path, ok := t.pathOf(dir)
	if !ok {
		return
	}
	var calls []*call
	var requests []wire.Request
	bytes := 0
	for at := i + 1; at < len(dir.list.entries) && at <= i+dir.list.ahead && bytes < fetchedBytes; at++ {
		e := &dir.list.entries[at]
		if e.gone || e.attr.Mode&wire.TypeMask != wire.TypeRegular || e.attr.Size == 0 || e.attr.Size > smallFile {
			continue
		}
		c := m.listedNode(dir, at)
		if c.fetched != nil || c.fetching || c.lookups == 0 && len(t.nodes) > maxListed {
			continue
		}
		c.fetching = true
		bytes += int(c.attr.Size)
		version := c.version
		calls = append(calls, &call{into: make([]byte, c.attr.Size+1), then: func(k *call) { m.fetchedFile(c, k, version) }})
		requests = append(requests, wire.Request{Op: wire.OpRead, Path: join(path, e.name), Ident: c.ident, Size: c.attr.Size + 1})
	}
	if len(calls) > 0 {
		go m.client.start(calls, requests)
	}
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// fetchedFile keeps contents that came, unless the file has changed meanwhile.
func (m *mount) fetchedFile(c *node, k *call, version uint64) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	c.fetching = false
	if k.res.Errno != 0 || c.version != version || uint64(k.n) != c.attr.Size {
		return
	}
	c.fetched, c.fetchedUntil = k.into[:k.n], t.now()+fetchedFor
}

// ReadDir lists a folder.
func (m *mount) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return m.list(cancel, in, out, false)
}

// ReadDirPlus lists a folder with attributes.
func (m *mount) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return m.list(cancel, in, out, true)
}

func (m *mount) list(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	m.settleMade(in.NodeId)
	dir, r, status := m.request(&in.InHeader, wire.OpReaddir)
	if !status.Ok() {
		return status
	}
	t := m.table
	t.mu.Lock()
	known := in.Offset > 0 && dir.list != nil || t.fresh(dir)
	t.mu.Unlock()
	if !known {
		if errno := m.fetchListing(cancel, dir, &r); errno != 0 {
			return fuse.Status(errno)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if dir.list == nil {
		return fuse.EIO // it was invalidated between two steps: the program may try again
	}
	m.emit(dir, in.Offset, out, plus)
	return fuse.OK
}

// fetchListing asks for a folder's contents and those of the folders below it.
func (m *mount) fetchListing(cancel <-chan struct{}, dir *node, r *wire.Request) uint16 {
	t := m.table
	r.Ident, r.Flags = 0, wire.FlagSubtree
	epoch := m.client.epoch.Load()
	t.mu.Lock()
	making, later := t.making > 0, t.later
	t.mu.Unlock()
	var all []wire.Listing
	var bad error
	k := &call{done: make(chan struct{}), each: func(res *wire.Response) {
		part, err := wire.ParseListings(res.Data)
		if err != nil {
			bad = err
			return
		}
		all = append(all, part...)
	}}
	if _, errno := m.client.wait(cancel, r, k); errno != 0 {
		return errno
	}
	if bad != nil {
		m.log.Warn("the host's listing is malformed", "path", r.Path, "error", bad)
		return wire.EIO
	}
	all = whole(all)
	t.mu.Lock()
	defer t.mu.Unlock()
	crossed := m.client.epoch.Load() != epoch || t.later != later
	if crossed || making { // what was asked for must do; the host may not have made yet what is in others
		all = all[:min(1, len(all))]
	}
	t.store(dir, all)
	if crossed && dir.list != nil {
		dir.list.until = 0 // once
	}
	return 0
}

// whole joins the parts of listings that came in several.
func whole(all []wire.Listing) []wire.Listing {
	out := all[:0]
	var open *wire.Listing
	for _, l := range all {
		if open != nil && open.Path == l.Path {
			open.Entries, open.Part = append(open.Entries, l.Entries...), l.Part
		} else {
			out = append(out, l)
		}
		if open = nil; out[len(out)-1].Part {
			open = &out[len(out)-1]
		}
	}
	return out
}

// emit gives the kernel entries after a cookie, as many as fit. The table is locked.
func (m *mount) emit(dir *node, after uint64, out *fuse.DirEntryList, plus bool) {
	t := m.table
	for cookie, name := range [...]string{"", ".", ".."} {
		if uint64(cookie) <= after || name == "" {
			continue
		}
		e := fuse.DirEntry{Mode: wire.TypeFolder, Name: name, Ino: dir.attr.Ino, Off: uint64(cookie)}
		if plus && out.AddDirLookupEntry(e) == nil || !plus && !out.AddDirEntry(e) {
			return
		}
	}
	valid := t.validFor(dir.list.until)
	for i := dir.list.from(max(after, firstCookie-1)); i < len(dir.list.entries); i++ {
		l := &dir.list.entries[i]
		if l.gone {
			continue
		}
		e := fuse.DirEntry{Mode: l.attr.Mode, Name: l.name, Ino: t.inode(&l.attr), Off: l.cookie}
		if !plus {
			if !out.AddDirEntry(e) {
				return
			}
			continue
		}
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return
		}
		m.entry(m.listedNode(dir, i), valid, entry)
	}
}
