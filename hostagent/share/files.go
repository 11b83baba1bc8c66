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
	ident uint64
	fd    descriptor
	// writable: it can be written to. What the cache keeps cannot, unless it is pinned on a system that could not open it again: a program that is open for
	// writing cannot be run on the host.
	writable bool
	// writer: it is open while requests write to it, and not in the cache.
	writer bool
	pinned bool // it has no name: it stays until it is dropped
	used   time.Time
	refs   int // under files.mu; the cache's own is one
	at     *list.Element
}

// files keeps files open that are in use, by their identity: the newest use is in front.
type files struct {
	mu    sync.Mutex
	byID  map[uint64]*file
	order *list.List
	// writers are files that requests write to. The last one closes them, unless another is expected at once.
	writers  map[uint64]*file
	expected map[uint64]int
	pinned   int
	timer    *time.Timer
	closed   bool
}

func newFiles() *files {
	return &files{byID: map[uint64]*file{}, order: list.New(), writers: map[uint64]*file{}, expected: map[uint64]int{}}
}

// get returns an open file, which the caller releases; nil when there is none that can be written to, where that is wanted.
func (c *files) get(ident uint64, write bool) *file {
	if ident == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.byID[ident]; f != nil && (f.writable || !write) {
		f.refs++
		f.used = time.Now()
		c.order.MoveToFront(f.at)
		return f
	}
	f := c.writers[ident]
	if f != nil {
		f.refs++
	}
	return f
}

// cached returns what the cache itself has of a file, for the caller to release.
func (c *files) cached(ident uint64) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.byID[ident]
	if f != nil {
		f.refs++
	}
	return f
}

// add takes over a file that is open for reading, and returns it, or the one that was there before it, for the caller to release.
func (c *files) add(ident uint64, fd descriptor) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byID[ident]; old != nil {
		fd.close()
		old.refs++
		return old
	}
	return c.insertLocked(&file{ident: ident, fd: fd, refs: 1})
}

// addWriter takes over a file that is open for writing, until the caller and who else writes to it have released it.
func (c *files) addWriter(ident uint64, fd descriptor) *file {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.writers[ident]; old != nil {
		fd.close()
		old.refs++
		return old
	}
	f := &file{ident: ident, fd: fd, writable: true, writer: true, refs: 1}
	c.writers[ident] = f
	return f
}

// expect says that a write to a file follows: it stays open for writing until that has arrived.
func (c *files) expect(ident uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected[ident]++
}

// arrived says that an expected write has been carried out.
func (c *files) arrived(ident uint64) {
	c.mu.Lock()
	if c.expected[ident]--; c.expected[ident] == 0 {
		delete(c.expected, ident)
	}
	f := c.writers[ident]
	idle := f != nil && c.idleLocked(f)
	c.mu.Unlock()
	if idle {
		c.written(f)
	}
}

// idleLocked takes a file away that nobody writes to any more.
func (c *files) idleLocked(f *file) bool {
	if f.refs > 0 || c.expected[f.ident] > 0 || c.writers[f.ident] != f {
		return false
	}
	delete(c.writers, f.ident)
	return true
}

// written closes a file that was written to. Where the system allows that, it stays open for reading: it may lose its name on the host.
func (c *files) written(f *file) {
	if c.mu.Lock(); c.byID[f.ident] == nil && !c.closed {
		c.mu.Unlock()
		if fd, ok := f.fd.forReading(); ok {
			c.release(c.add(f.ident, fd))
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	f.fd.close() // what a delayed write could say, fsync has said to who asked
}

// insertLocked puts a file into the cache, which is one more who uses it.
func (c *files) insertLocked(f *file) *file {
	f.refs++
	f.used = time.Now()
	f.at = c.order.PushFront(f)
	c.byID[f.ident] = f
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
	if f.writer && c.writers[f.ident] == f { // it cannot be opened again
		delete(c.writers, f.ident)
		if old := c.byID[f.ident]; old != nil {
			c.removeLocked(old)
		}
		f.writer = false
		c.insertLocked(f)
	}
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

// drop closes a file once nobody uses it, and says whether it had no name.
func (c *files) drop(ident uint64) (nameless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.byID[ident]; f != nil {
		nameless = f.pinned
		c.removeLocked(f)
	}
	return nameless
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

// release ends a use of a file. Who writes to one releases it before he answers: the guest's program may then be run on the host.
func (c *files) release(f *file) {
	c.mu.Lock()
	if !f.writer {
		c.unrefLocked(f)
		c.mu.Unlock()
		return
	}
	f.refs--
	idle := c.idleLocked(f)
	c.mu.Unlock()
	if idle {
		c.written(f)
	}
}

func (c *files) unrefLocked(f *file) {
	if f.refs--; f.refs == 0 {
		f.fd.close()
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
	for ident, f := range c.writers {
		delete(c.writers, ident)
		f.fd.close() // a write was expected that never came
	}
}
