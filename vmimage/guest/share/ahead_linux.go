// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// maxAhead bounds the files of the whole share that the host has not made or removed yet while no program waits for it.
	maxAhead = 256
	// batchBytes is about how many bytes are sent together.
	batchBytes = 256 << 10
	// settleWait bounds the wait for everything, where something else goes on afterwards: the connection may be broken.
	settleWait = 5 * time.Second
)

// batch is what is sent together.
type batch struct {
	calls    []*call
	requests []wire.Request
	size     int
}

func (b *batch) add(k *call, r wire.Request) {
	b.calls, b.requests, b.size = append(b.calls, k), append(b.requests, r), b.size+len(r.Data)
}

// send sends what there is of it.
func (b *batch) send(c *client) {
	if len(b.calls) > 0 {
		c.start(b.calls, b.requests)
	}
	*b = batch{}
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
	var b batch
	for _, n := range all {
		if m.sendHeld(n, &b); b.size >= batchBytes {
			b.send(m.client)
		}
	}
	b.send(m.client)
}

// sendHeld sends what is held back of a file, its making with others'.
func (m *mount) sendHeld(n *node, b *batch) {
	p := &n.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = false
	switch {
	case p.create != nil && len(p.buf) == 0 && !p.passed: // it was made just now, and is about to be written
		p.passed, p.dirty = true, true
		m.holdDirty(n)
	case p.create != nil:
		b.add(m.takeCreate(n, p))
	case p.remove != nil:
		b.add(m.takeRemove(n, p))
	case !p.creating || len(p.buf) > 0:
		m.sendWrite(n, p)
	}
}

// removeLater removes a file's only name here at once, and on the host soon. It is done where nothing is in the way: the host has just allowed a change of the
// same folder, which is not one whose files only their owners remove.
func (m *mount) removeLater(dir *node, name string, n *node, r *wire.Request) bool {
	p := &n.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used && (!p.drained() || p.errno != 0) || !m.mayGoAhead() {
		return false
	}
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	const sure = wire.Watched | wire.Roomy
	switch {
	case t.moving > 0 || t.now() > dir.madeIn || dir.madeBy != r.UID || !t.fresh(dir) || dir.attr.Flags&n.attr.Flags&sure != sure || dir.attr.Mode&unix.S_ISVTX != 0:
		return false
	case dir.children[name] != n || len(n.places) != 1 || n.attr.Nlink != 1 || n.attr.Mode&wire.TypeMask != wire.TypeRegular:
		return false
	}
	r.Ident, r.Flags = n.ident, wire.FlagAhead
	if p.cond == nil {
		p.cond = sync.NewCond(&p.mu)
	}
	p.used, p.ahead, p.remove, p.removing, p.in = true, true, r, true, place{dir, name}
	if dir.removing == nil {
		dir.removing = map[string]*node{}
	}
	dir.removing[name] = n
	m.unname(dir, name)
	dir.list.remove(name)
	m.changedHere(dir)
	m.unsettle(n)
	if !p.dirty {
		p.dirty = true
		m.holdDirty(n)
	}
	return true
}

// takeRemove is the request to remove a file, which is to be sent. p.mu is held.
func (m *mount) takeRemove(n *node, p *pending) (*call, wire.Request) {
	r := p.remove
	p.remove = nil
	p.begin()
	m.table.mu.Lock()
	r.Path, _ = m.table.pathOf(p.in.dir)
	changes := p.in.dir.changes
	m.table.mu.Unlock()
	return &call{then: func(k *call) { m.removed(n, k, changes) }}, *r
}

// removed takes the answer to a removal.
func (m *mount) removed(n *node, k *call, changes uint64) {
	p := &n.pending
	dir := p.in.dir
	m.table.mu.Lock()
	m.changedThere(dir, &k.res.Parent, changes)
	delete(dir.removing, p.in.name)
	failed := k.res.Errno != 0 && k.res.Errno != wire.ENOENT
	if k.res.Errno != 0 { // also where there was no such file: what has the name by now is to be seen
		dir.list, dir.until = nil, 0
		m.notes.add(note{node: dir.id, name: p.in.name})
	}
	if failed {
		dir.madeIn = 0
	}
	m.table.mu.Unlock()
	if failed {
		m.log.Warn("a file could not be removed, of which no program has heard", "folder", m.pathOf(dir), "name", p.in.name, "errno", k.res.Errno)
	}
	p.mu.Lock()
	p.removing = false
	m.answered(n, p, 0)
	forgets := p.forgets
	p.forgets = 0
	p.mu.Unlock()
	if forgets > 0 {
		m.Forget(n.id, forgets)
	}
}

// forgetLater keeps it for later that the kernel does not know a file any more, which the host is yet to remove.
func (p *pending) forgetLater(lookups uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.removing {
		p.forgets += lookups
	}
	return p.removing
}

// settleName waits until the host has removed what had a name.
func (m *mount) settleName(dir *node, name string) {
	m.table.mu.Lock()
	n := dir.removing[name]
	m.table.mu.Unlock()
	if n != nil {
		m.settle(n, false)
	}
}

// unsettle notes that a file's close may not wait for what is written.
func (m *mount) unsettle(n *node) {
	m.dirtyMu.Lock()
	defer m.dirtyMu.Unlock()
	if m.unsettled == nil {
		m.unsettled = map[*node]struct{}{}
	}
	m.unsettled[n] = struct{}{}
}

// settled notes that the host has everything of a file.
func (m *mount) settled(n *node) {
	m.dirtyMu.Lock()
	defer m.dirtyMu.Unlock()
	delete(m.unsettled, n)
}

// mayGoAhead says that a further file may be made while nobody waits: the host is there to make it.
func (m *mount) mayGoAhead() bool {
	if !m.client.listening() {
		return false
	}
	m.dirtyMu.Lock()
	defer m.dirtyMu.Unlock()
	return len(m.unsettled) < maxAhead
}

// settleAhead waits until the host has what was written until now to files whose close did not wait; not for long when it does not answer.
func (m *mount) settleAhead() {
	m.dirtyMu.Lock()
	all := slices.Collect(maps.Keys(m.unsettled))
	m.dirtyMu.Unlock()
	if len(all) == 0 || m.client.disconnected() || m.stalled.Load() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer m.stalled.Store(false)
		defer close(done)
		m.sendDirty()
		for _, n := range all {
			m.catchUp(n)
		}
	}()
	timer := time.NewTimer(settleWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		m.stalled.Store(true)
		select {
		case <-done: // just now
			m.stalled.Store(false)
		default:
		}
	}
}

// catchUp waits until the host has carried out what was written to a file until now, whoever goes on writing.
func (m *mount) catchUp(n *node) {
	p := &n.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	m.sendWrite(n, p)
	for due := p.begun; p.ended < due; {
		p.cond.Wait()
	}
}

const (
	// relearn is how long it is believed what the host's clock was seen to be ahead.
	relearn = 10 * time.Second
	// clockStep is how much later than the times of files a host's clock may be: they come from one that steps.
	clockStep = 10 * time.Millisecond
)

// learnClock takes the time of a change that the host has just made.
func (t *table) learnClock(changed int64) {
	now := t.now()
	if ahead := time.Duration(changed) - now; ahead > t.ahead || now-t.learned > relearn {
		t.ahead, t.learned = ahead, now
	}
}

// hostNow is a time that the host's clock has reached, but not by much: a change that the host is yet to make has a later one.
func (t *table) hostNow() int64 { return int64(t.now() + t.ahead - clockStep) }
