// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"container/list"
	"sync"
	"time"
)

// Bounds of open files.
const (
	maxFiles = 512
	// maxPinned bounds files without a name that the guest may still use.
	maxPinned = 2048
	// idleFile is how long a file stays open after its last use.
	idleFile = 15 * time.Second
)

// file is an open regular file.
type file struct {
	ident    uint64
	fd       descriptor
	writable bool
	pinned   bool // it has no name: it stays until it is dropped
	used     time.Time
	refs     int // under files.mu; the cache's own is one
	at       *list.Element
}

// files keeps files open that are in use, by their identity: the newest use is in front.
type files struct {
	mu     sync.Mutex
	byID   map[uint64]*file
	order  *list.List
	pinned int
	timer  *time.Timer
	closed bool
}

func newFiles() *files { return &files{byID: map[uint64]*file{}, order: list.New()} }

// get returns an open file, which the caller releases; nil when there is none that can be written to, where that is wanted.
func (c *files) get(ident uint64, write bool) *file {
	if ident == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.byID[ident]
	if f == nil || write && !f.writable {
		return nil
	}
	f.refs++
	f.used = time.Now()
	c.order.MoveToFront(f.at)
	return f
}

// add takes an open file over and returns it, or the one that was there before it, for the caller to release.
func (c *files) add(ident uint64, fd descriptor, writable bool) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byID[ident]; old != nil {
		if old.writable || !writable {
			fd.close()
			old.refs++
			return old
		}
		pinned := old.pinned
		c.removeLocked(old)
		return c.insertLocked(ident, fd, writable, pinned)
	}
	return c.insertLocked(ident, fd, writable, false)
}

func (c *files) insertLocked(ident uint64, fd descriptor, writable, pinned bool) *file {
	f := &file{ident: ident, fd: fd, writable: writable, used: time.Now(), refs: 2}
	f.at = c.order.PushFront(f)
	c.byID[ident] = f
	if pinned {
		c.pinLocked(f)
	}
	for e := c.order.Back(); c.order.Len() > maxFiles && e != nil && e.Value.(*file) != f; {
		before := e.Prev()
		if old, ok := e.Value.(*file); ok && !old.pinned {
			c.removeLocked(old)
		}
		e = before
	}
	if c.timer == nil && !c.closed {
		c.timer = time.AfterFunc(idleFile, c.sweep)
	}
	return f
}

// sweep closes what was not used for a while.
func (c *files) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = nil
	for e := c.order.Back(); e != nil; {
		before := e.Prev()
		if f, ok := e.Value.(*file); ok && !f.pinned && time.Since(f.used) >= idleFile {
			c.removeLocked(f)
		}
		e = before
	}
	if c.order.Len() > c.pinned && !c.closed {
		c.timer = time.AfterFunc(idleFile, c.sweep)
	}
}

// pin keeps a file that lost its name until it is dropped.
func (c *files) pin(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[f.ident] == f {
		c.pinLocked(f)
	}
}

func (c *files) pinLocked(f *file) {
	if f.pinned {
		return
	}
	f.pinned = true
	c.pinned++
	for e := c.order.Back(); c.pinned > maxPinned && e != nil; {
		before := e.Prev()
		if old, ok := e.Value.(*file); ok && old.pinned && old != f {
			c.removeLocked(old)
		}
		e = before
	}
}

// unpin says that a file has a name again.
func (c *files) unpin(ident uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.byID[ident]; f != nil && f.pinned {
		f.pinned = false
		c.pinned--
	}
}

// drop closes a file once nobody uses it.
func (c *files) drop(ident uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.byID[ident]; f != nil {
		c.removeLocked(f)
	}
}

func (c *files) removeLocked(f *file) {
	if c.byID[f.ident] != f {
		return
	}
	delete(c.byID, f.ident)
	c.order.Remove(f.at)
	if f.pinned {
		c.pinned--
	}
	c.unrefLocked(f)
}

func (c *files) release(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unrefLocked(f)
}

func (c *files) unrefLocked(f *file) {
	if f.refs--; f.refs == 0 {
		f.fd.close() // what a delayed write could say, fsync has said to who asked
	}
}

func (c *files) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, f := range c.byID {
		c.removeLocked(f)
	}
}
