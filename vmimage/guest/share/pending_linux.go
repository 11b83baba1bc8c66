// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// writeChunk is how many bytes of small writes that follow each other are sent as one.
	writeChunk = 128 << 10
	// maxUnanswered bounds the bytes of one file that are under way.
	maxUnanswered = 4 << 20
	// maxHeld bounds those of the whole share: who writes more waits until his own are carried out.
	maxHeld = 16 << 20
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
	// sent counts requests without an answer, and bytes theirs; begun and ended count all there were.
	sent, bytes  int
	begun, ended uint64
	// errno is of a write that failed and nobody has heard of.
	errno uint16
	used  bool
	dirty bool // it is in the mount's list
	// create is the file's making, which was not sent yet: it takes the first contents with it. creating: it was sent and has no answer.
	create   *wire.Request
	in       place
	creating bool
	// ahead: it is being made while nobody waits, nor does who closes it. unheard: it was opened so that not every close is told of.
	ahead, unheard bool
	passed         bool // it was left out once when writes were sent: nothing was written to it yet
	asked          bool // the kernel has asked who may use it
	// remove is the removal of the file's last name, which was not sent yet. removing: there is one that the host has not answered. forgets are lookups that the
	// kernel has taken back meanwhile.
	remove   *wire.Request
	removing bool
	forgets  uint64
}

// drained says that the host has carried everything out. mu is held.
func (p *pending) drained() bool {
	return p.sent == 0 && len(p.buf) == 0 && p.create == nil && p.remove == nil
}

// begin counts a request that is sent. mu is held.
func (p *pending) begin() {
	p.sent++
	p.begun++
}

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
	appends := r.Flags&wire.FlagAppend != 0 // to a file of the name that somebody else may have made meanwhile
	if c := p.create; c != nil && (appends || c.Valid != 0 || r.Flags&wire.FlagKillSUID != 0 && c.Mode&(unix.S_ISUID|unix.S_ISGID) != 0) {
		m.sendWrite(n, p) // what was set holds for what was written before
	}
	if p.remove != nil {
		m.sendWrite(n, p)
	}
	for {
		// Looked at after each wait: the kernel writes mapped memory back beside other writes, and whoever waited, too, may have been first.
		if len(p.buf) > 0 && !p.continues(r) {
			m.sendWrite(n, p)
		}
		if p.bytes <= maxUnanswered && !p.creating && !p.removing { // until then the host does not know it by its identity
			break
		}
		p.cond.Wait()
	}
	if len(p.buf) == 0 {
		p.offset, p.flags, p.uid, p.gid = r.Offset, r.Flags, r.UID, r.GID
	}
	if p.unheard {
		m.unsettle(n)
	}
	p.buf = append(p.buf, r.Data...)
	m.held.Add(int64(len(r.Data)))
	if len(p.buf) >= writeChunk {
		m.sendWrite(n, p)
	} else if !p.dirty {
		p.dirty = true
		m.holdDirty(n)
	}
	switch {
	case p.unheard && (!m.roomy(n) || !m.client.listening()):
		return m.drain(n, p, true) // close is not told whether it fits
	case m.held.Load() > maxHeld:
		m.drain(n, p, false)
	}
	return p.errno // of what was answered meanwhile; it stays for close
}

// roomy says that it need not be waited for whether a file's contents fit.
func (m *mount) roomy(n *node) bool {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	return n.attr.Flags&wire.Roomy != 0
}

// sendWrite sends what is held back, without waiting. p.mu is held.
func (m *mount) sendWrite(n *node, p *pending) {
	if p.create != nil {
		m.sendCreate(n, p)
		return
	}
	if p.remove != nil {
		var b batch
		b.add(m.takeRemove(n, p))
		b.send(m.client)
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
		p.begin()
		p.bytes += len(part)
		size := len(part)
		m.client.start([]*call{{then: func(k *call) { m.written(n, k, size) }}}, []wire.Request{r})
	}
}

// sendCreate sends the making of a file with what was written to it so far. p.mu is held.
func (m *mount) sendCreate(n *node, p *pending) {
	k, r := m.takeCreate(n, p)
	m.client.start([]*call{k}, []wire.Request{r})
}

// takeCreate is the request to make a file with what was written to it so far, which is to be sent. p.mu is held.
func (m *mount) takeCreate(n *node, p *pending) (*call, wire.Request) {
	r := p.create
	r.Data, r.Offset = p.buf, p.offset
	p.create, p.buf, p.creating = nil, nil, true
	p.begin()
	m.table.mu.Lock()
	r.Path, _ = m.table.pathOf(p.in.dir)
	changes := p.in.dir.changes
	m.table.mu.Unlock()
	guessed := len(r.Data) == 0 || r.Valid != 0 // the kernel believes times that the host does not know
	size := len(r.Data)
	return &call{guessed: guessed, then: func(k *call) { m.created(n, k, size, changes) }}, *r
}

// created takes the answer to the making of a file.
func (m *mount) created(n *node, k *call, size int, changes uint64) {
	p := &n.pending
	m.held.Add(int64(-size))
	m.table.mu.Lock()
	m.changedThere(p.in.dir, &k.res.Parent, changes)
	if k.res.Errno == 0 {
		m.table.identify(n, k.res.Attr.Ident)
		if k.guessed {
			m.notes.add(note{node: n.id})
		}
		m.table.learn(n, &k.res.Attr)
		p.in.dir.list.add(p.in.name, &k.res.Attr)
	} else {
		m.notMade(n, p.in)
	}
	m.table.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.creating = false
	if k.res.Errno != 0 && p.ahead {
		m.log.Warn("a file could not be made, of which no program has heard", "folder", m.pathOf(p.in.dir), "name", p.in.name, "errno", k.res.Errno)
	}
	m.answered(n, p, k.res.Errno)
}

// answered notes that something that was sent has its answer. p.mu is held.
func (m *mount) answered(n *node, p *pending, errno uint16) {
	p.sent--
	p.ended++
	if errno != 0 && p.errno == 0 {
		p.errno = errno
	}
	if p.drained() && (p.ahead || p.unheard) {
		p.ahead = false
		m.settled(n)
	}
	p.cond.Broadcast()
}

// pathOf is a folder's path, for messages.
func (m *mount) pathOf(n *node) string {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	path, _ := m.table.pathOf(n)
	return path
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
	m.held.Add(int64(-size))
	if k.res.Errno == 0 {
		m.table.mu.Lock()
		m.table.learn(n, &k.res.Attr)
		m.table.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= size
	if k.res.Errno != 0 && p.unheard { // who closed it was not told, nor is anybody who comes
		m.log.Warn("a file could not be written, of which no program may have heard", "folder", m.pathOf(p.in.dir), "name", p.in.name, "errno", k.res.Errno)
		m.table.mu.Lock()
		p.in.dir.madeIn = 0
		m.table.mu.Unlock()
	}
	m.answered(n, p, k.res.Errno)
}

// settle waits until the host has carried out all writes of a file. The error of one stays for who closes the file, unless it is taken here.
func (m *mount) settle(n *node, take bool) uint16 {
	p := &n.pending
	p.mu.Lock()
	if !p.used || p.drained() {
		defer p.mu.Unlock()
		if take {
			return p.takeError()
		}
		return 0
	}
	p.mu.Unlock()
	m.sendDirty() // what was written before, to whatever file, comes before: programs compare times
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.drain(n, p, take)
}

// drain does so with p.mu held.
func (m *mount) drain(n *node, p *pending, take bool) uint16 {
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

// settleMade waits until the host has made what was made in a folder, and removed what was removed; false: there was nothing to wait for.
func (m *mount) settleMade(id uint64) bool {
	m.table.mu.Lock()
	dir := m.table.nodes[id]
	if dir == nil || dir.making == 0 {
		m.table.mu.Unlock()
		return false
	}
	var all []*node
	for _, n := range dir.removing {
		all = append(all, n)
	}
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
