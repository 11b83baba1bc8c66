// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"context"
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// note is something to tell the kernel: that a name is not what it believes, or that a file's attributes or contents are not.
type note struct {
	node uint64
	name string
	data bool // of a file: its contents, too
}

// notes are told by a goroutine of their own: the kernel may make it wait for requests that are under way.
type notes struct {
	mu   sync.Mutex
	list []note
	wake chan struct{}
}

func (n *notes) add(list ...note) {
	if len(list) == 0 {
		return
	}
	n.mu.Lock()
	n.list = append(n.list, list...)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// notify tells the kernel what it has to hear until ctx ends.
func (m *mount) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.notes.wake:
		}
		m.notes.mu.Lock()
		list := m.notes.list
		m.notes.list = nil
		m.notes.mu.Unlock()
		for _, n := range list {
			m.tellKernel(n)
		}
	}
}

// tellKernel tells one thing; what the kernel does not know it need not hear.
func (m *mount) tellKernel(n note) {
	switch {
	case n.name != "":
		_ = m.server.EntryNotify(n.node, n.name)
	case n.data:
		_ = m.server.InodeNotify(n.node, 0, 0)
	default:
		_ = m.server.InodeNotify(n.node, -1, 0)
	}
}

// pushed takes the host's own word. It runs on the goroutine that receives answers: those that were asked for before cannot overtake it.
func (m *mount) pushed(kind uint64, data []byte) {
	if kind != wire.PushInvalidate {
		return
	}
	paths, err := wire.ParsePaths(data)
	if err != nil {
		m.log.Warn("the host said something malformed", "error", err)
		return
	}
	if len(paths) == 0 {
		m.forgetAll()
		return
	}
	for _, p := range paths {
		m.invalidate(p)
	}
}

// invalidate forgets what is known of a path: whether it is there, what it is, and what it contains.
func (m *mount) invalidate(path string) {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if path == "" {
		t.root.list, t.root.until = nil, 0
		m.notes.add(note{node: rootID, data: true})
		return
	}
	dirPath, name := pathParts(path)
	dir, e := t.descend(t.root, dirPath)
	if dir == nil {
		if e != nil {
			e.sub = nil
		}
		return
	}
	dir.list, dir.until = nil, 0
	list := []note{{node: dir.id, data: true}}
	if c := dir.children[name]; c != nil {
		c.until, c.fetched, c.list = 0, nil, nil
		c.version++
		list = append(list, note{node: c.id, data: true})
		// Whether it is still the same file the host knows; a folder that is must not be taken from who stands in it.
		go m.revise(dir, name, c)
	} else {
		list = append(list, note{node: dir.id, name: name})
	}
	m.notes.add(list...)
}

// revise asks whether a name still is the file that the kernel knows by it, and tells the kernel where it is not.
func (m *mount) revise(dir *node, name string, c *node) {
	m.settle(c, false) // the host may not have made it yet
	m.table.mu.Lock()
	path, ok := m.table.pathOf(dir)
	m.table.mu.Unlock()
	if !ok {
		return
	}
	k, errno := m.client.do(nil, &wire.Request{Op: wire.OpLookup, Path: path, Name: name})
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if dir.children[name] != c || errno == 0 && k.res.Attr.Ident == c.ident {
		if errno == 0 && dir.children[name] == c {
			t.learn(c, &k.res.Attr)
		}
		return
	}
	if errno == 0 || errno == wire.ENOENT {
		t.lose(dir, name)
		m.notes.add(note{node: dir.id, name: name})
	}
}

// forgetAll asks the host anew for everything, in the background.
func (m *mount) forgetAll() {
	t := m.table
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []note
	for _, n := range t.nodes {
		n.until, n.fetched, n.list = 0, nil, nil
		n.version++
		list = append(list, note{node: n.id, data: true})
		for name, c := range n.children {
			if c.attr.Mode&wire.TypeMask != wire.TypeFolder {
				list = append(list, note{node: n.id, name: name})
			} else {
				go m.revise(n, name, c)
			}
		}
	}
	m.notes.add(list...)
}

// resumed is called when there is a connection again.
func (m *mount) resumed(known bool) {
	if known {
		return
	}
	since := m.missed.lastHeard()
	go func() {
		folders := m.remember()
		m.forgetAll()
		m.missed.put(folders, since)
	}()
}

// validFor is how long the kernel may believe what is believed here until a time.
func (t *table) validFor(until time.Duration) time.Duration { return max(0, until-t.now()) }
