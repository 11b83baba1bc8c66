// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// writeChunk is how many bytes of small writes that follow each other are sent as one.
	writeChunk = 128 << 10
	// maxUnanswered bounds the bytes of one file that are under way.
	maxUnanswered = 4 << 20
	// holdWrite is how long a small write may wait for the next.
	holdWrite = 20 * time.Millisecond
)

// pending are the writes of a file that the host has not carried out yet. The zero value has none.
type pending struct {
	mu   sync.Mutex
	cond *sync.Cond
	// buf are bytes from offset on that were not sent yet, with flags of an OpWrite.
	buf    []byte
	offset uint64
	flags  uint32
	uid    uint32
	gid    uint32
	// sent counts requests without an answer, and bytes theirs.
	sent, bytes int
	// errno is of a write that failed and nobody has heard of.
	errno uint16
	used  bool
	dirty bool // it is in the mount's list
	// create is the file's making, which was not sent yet: it takes the first contents with it. creating: it was sent and has no answer.
	create   *wire.Request
	in       place
	creating bool
}

// drained says that the host has carried everything out. mu is held.
func (p *pending) drained() bool { return p.sent == 0 && len(p.buf) == 0 && p.create == nil }

// takeError gives the error of earlier writes, once. mu is held.
func (p *pending) takeError() uint16 {
	e := p.errno
	p.errno = 0
	return e
}

// continues says that a write may be sent as one with the bytes held back. mu is held.
func (p *pending) continues(r *wire.Request) bool {
	return p.offset+uint64(len(p.buf)) == r.Offset && p.flags == r.Flags && p.uid == r.UID && len(p.buf)+len(r.Data) <= writeChunk
}

// write takes bytes to be written and returns an error of earlier ones.
func (m *mount) write(n *node, r *wire.Request) uint16 {
	p := &n.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cond == nil {
		p.cond = sync.NewCond(&p.mu)
	}
	p.used = true
	if e := p.takeError(); e != 0 {
		return e
	}
	if p.create != nil && p.create.Valid != 0 {
		m.sendWrite(n, p) // what was set holds for what was written before
	}
	for {
		// Looked at after each wait: the kernel writes mapped memory back beside other writes, and whoever waited, too, may have been first.
		if len(p.buf) > 0 && !p.continues(r) {
			m.sendWrite(n, p)
		}
		if p.bytes <= maxUnanswered && !p.creating {
			break
		}
		p.cond.Wait()
	}
	if len(p.buf) == 0 {
		p.offset, p.flags, p.uid, p.gid = r.Offset, r.Flags, r.UID, r.GID
	}
	p.buf = append(p.buf, r.Data...)
	if len(p.buf) >= writeChunk {
		m.sendWrite(n, p)
	} else if !p.dirty {
		p.dirty = true
		m.holdDirty(n)
	}
	return p.errno // of what was answered meanwhile; it stays for close
}

// sendWrite sends what is held back, without waiting. p.mu is held.
func (m *mount) sendWrite(n *node, p *pending) {
	if p.create != nil {
		m.sendCreate(n, p)
		return
	}
	for p.creating {
		p.cond.Wait() // the host has not said yet by what it knows the file
	}
	data := p.buf
	p.buf = nil
	if len(data) == 0 {
		return
	}
	m.table.mu.Lock()
	path, _ := m.table.pathOf(n)
	m.table.mu.Unlock()
	for len(data) > 0 {
		part := data[:min(len(data), wire.MaxData)]
		data = data[len(part):]
		r := wire.Request{Op: wire.OpWrite, Path: path, Ident: n.ident, Offset: p.offset, Flags: p.flags, UID: p.uid, GID: p.gid, Data: part}
		p.offset += uint64(len(part))
		p.sent++
		p.bytes += len(part)
		size := len(part)
		m.client.start([]*call{{then: func(k *call) { m.written(n, k, size) }}}, []wire.Request{r})
	}
}

// sendCreate sends the making of a file with what was written to it so far. p.mu is held.
func (m *mount) sendCreate(n *node, p *pending) {
	r := p.create
	r.Data, r.Offset = p.buf, p.offset
	p.create, p.buf, p.creating = nil, nil, true
	p.sent++
	m.table.mu.Lock()
	r.Path, _ = m.table.pathOf(p.in.dir)
	m.table.mu.Unlock()
	guessed := len(r.Data) == 0 || r.Valid != 0 // the kernel believes times that the host does not know
	m.client.start([]*call{{guessed: guessed, then: func(k *call) { m.created(n, k) }}}, []wire.Request{*r})
}

// created takes the answer to the making of a file.
func (m *mount) created(n *node, k *call) {
	p := &n.pending
	m.table.mu.Lock()
	p.in.dir.making--
	if k.res.Errno == 0 {
		m.table.identify(n, k.res.Attr.Ident)
		if k.guessed {
			m.notes.add(note{node: n.id})
		}
		m.table.learn(n, &k.res.Attr)
		m.folderChanged(p.in.dir, &k.res.Parent)
		p.in.dir.list.add(p.in.name, &k.res.Attr)
	} else {
		m.notMade(n, p.in)
	}
	m.table.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent--
	p.creating = false
	if k.res.Errno != 0 && p.errno == 0 {
		p.errno = k.res.Errno
	}
	p.cond.Broadcast()
}

// notMade takes a file away that the kernel has been told of and the host could not make. The table is locked.
func (m *mount) notMade(n *node, in place) {
	if in.dir.children[in.name] == n {
		m.table.detach(in.dir, in.name)
	}
	in.dir.list, in.dir.until, n.removed = nil, 0, true
	m.notes.add(note{node: in.dir.id, name: in.name})
}

// written takes the answer to a write.
func (m *mount) written(n *node, k *call, size int) {
	p := &n.pending
	if k.res.Errno == 0 {
		m.table.mu.Lock()
		m.table.learn(n, &k.res.Attr)
		m.table.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent--
	p.bytes -= size
	if k.res.Errno != 0 && p.errno == 0 {
		p.errno = k.res.Errno
	}
	p.cond.Broadcast()
}

// settle waits until the host has carried out all writes of a file. The error of one stays for who closes the file, unless it is taken here.
func (m *mount) settle(n *node, take bool) uint16 {
	p := &n.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.used {
		return 0
	}
	m.sendWrite(n, p)
	for !p.drained() {
		p.cond.Wait()
		m.sendWrite(n, p)
	}
	if take {
		return p.takeError()
	}
	return 0
}

// holdDirty notes a file with bytes held back, and has them sent soon.
func (m *mount) holdDirty(n *node) {
	m.dirtyMu.Lock()
	defer m.dirtyMu.Unlock()
	m.dirty = append(m.dirty, n)
	if len(m.dirty) == 1 {
		time.AfterFunc(holdWrite, m.sendDirty)
	}
}

// sendDirty sends what is held back of all files.
func (m *mount) sendDirty() {
	m.dirtyMu.Lock()
	all := m.dirty
	m.dirty = nil
	m.dirtyMu.Unlock()
	for _, n := range all {
		n.pending.mu.Lock()
		n.pending.dirty = false
		if !n.pending.creating || len(n.pending.buf) > 0 {
			m.sendWrite(n, &n.pending)
		}
		n.pending.mu.Unlock()
	}
}

// settleMade waits until the host has made what was made in a folder; false: there was nothing to wait for.
func (m *mount) settleMade(id uint64) bool {
	m.table.mu.Lock()
	dir := m.table.nodes[id]
	if dir == nil || dir.making == 0 {
		m.table.mu.Unlock()
		return false
	}
	var all []*node
	for _, n := range dir.children {
		if n.ident&madeHere != 0 && n.attr.Mode&wire.TypeMask == wire.TypeRegular {
			all = append(all, n)
		}
	}
	m.table.mu.Unlock()
	for _, n := range all {
		m.settle(n, false)
	}
	return true
}

// settleAll waits for all writes of the share: what follows may move the files they are for.
func (m *mount) settleAll() {
	m.table.mu.Lock()
	var all []*node
	for _, n := range m.table.nodes {
		if n.attr.Mode&wire.TypeMask == wire.TypeRegular {
			all = append(all, n)
		}
	}
	m.table.mu.Unlock()
	for _, n := range all {
		m.settle(n, false)
	}
}
