// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// longValid is how long is believed what the host watches, shortValid what it does not.
	longValid  = 24 * time.Hour
	shortValid = time.Second
	// maxListed bounds the entries of listings that are kept.
	maxListed = 400_000
	// rootID is the kernel's number of the mount's root.
	rootID = 1
)

// place is a name in a folder.
type place struct {
	dir  *node
	name string
}

// node is a file or folder that the kernel knows by its number. Its fields but pending are guarded by table.mu.
type node struct {
	id, ident uint64
	lookups   uint64
	// places are its names as far as they are known, the newest last; none: it has no name any more.
	places   []place
	attr     wire.Attr
	until    time.Duration // when attr is no longer to be believed
	version  uint64        // of attr: an answer that was asked for before another one came does not replace it
	children map[string]*node
	list     *listing
	// fetched are a small file's contents, read ahead of their use, until fetchedUntil.
	fetched      []byte
	fetchedUntil time.Duration
	fetching     bool
	removed      bool // its last name was removed in this machine
	// lost is the last name it had, which has been found to be another file's or none before an event told how that came; nil: there is none.
	lost *place
	// madeIn is until when files are made in this folder without waiting: the host has just allowed one.
	madeIn time.Duration
	madeBy uint32
	making int // files that the host has not made yet, or not removed
	// removing are the latter, by name.
	removing map[string]*node
	// changes counts what was done to this folder by waiting for the host: answers about what was not waited for may be older.
	changes uint64
	// mtime and ctime are times of the host's, of a folder, that were shown otherwise before they were known.
	mtime, ctime shown

	pending pending
}

// shown is a time on the host and what programs see in its place.
type shown struct{ host, here int64 }

// of is what programs see of a time on the host.
func (s shown) of(host int64) int64 {
	if s.host == host && s.here != 0 {
		return s.here
	}
	return host
}

// listing is a folder's contents. Entries keep their cookies, so that a program that reads the folder sees each of them once, whatever happens meanwhile.
type listing struct {
	until   time.Duration
	entries []listed
	byName  map[string]int
	next    uint64 // cookie
	misses  int    // reads that were not foreseen, in a row
	ahead   int    // how many files are read ahead
}

// listed is an entry; gone: it was removed.
type listed struct {
	name   string
	attr   wire.Attr
	cookie uint64
	gone   bool
	sub    *listing // of a folder that has no node yet
	self   wire.Attr
}

// firstCookie comes after those of "." and "..".
const firstCookie = 3

// table is what the guest knows of the share.
type table struct {
	mu     sync.Mutex
	nodes  map[uint64]*node // by number
	idents map[uint64]*node
	moving int               // folders that are being renamed: nothing is made or removed ahead of the host meanwhile, as paths change
	lost   map[place][]*node // files by the names that they lost
	root   *node
	next   uint64
	inos   map[uint64]uint64 // by identity, of files that were made here before the host knew of them
	made   uint64            // files that were made here before the host knew of them
	listed int
	start  time.Time
	// making is the sum of all folders', and later counts all that was ever made or removed without waiting.
	making int
	later  uint64
	// ahead is how far the host's clock is ahead of now, at least; it was learned at learned.
	ahead, learned time.Duration
}

func newTable(root wire.Attr) *table {
	t := &table{nodes: map[uint64]*node{}, idents: map[uint64]*node{}, lost: map[place][]*node{}, next: rootID + 1, start: time.Now()}
	t.root = &node{id: rootID, ident: root.Ident, lookups: 1, attr: root}
	t.nodes[rootID] = t.root
	t.idents[root.Ident] = t.root
	return t
}

// now is the time that validity is measured in. It stands still while the machine is suspended.
func (t *table) now() time.Duration { return time.Since(t.start) }

// valid is until when attributes that came just now are believed.
func (t *table) valid(a *wire.Attr) time.Duration {
	if a.Flags&wire.Watched != 0 {
		return t.now() + longValid
	}
	return t.now() + shortValid
}

// pathOf is a node's path; ok is false when it has none any more.
func (t *table) pathOf(n *node) (path string, ok bool) {
	if n == t.root {
		return "", true
	}
	var parts [64]string
	names := parts[:0]
	for n != t.root {
		if len(n.places) == 0 || len(names) > wire.MaxPath/2 {
			return "", false
		}
		p := n.places[len(n.places)-1]
		names = append(names, p.name)
		n = p.dir
	}
	if len(names) == 1 {
		return names[0], true
	}
	slices.Reverse(names)
	return strings.Join(names, "/"), true
}

// nodeFor is the node of a file with these attributes at a place; it is made if need be. The caller adds to its lookups.
func (t *table) nodeFor(dir *node, name string, a *wire.Attr) *node {
	n := t.idents[a.Ident]
	if n == nil {
		n = &node{id: t.next, ident: a.Ident}
		t.next++
		t.nodes[n.id], t.idents[a.Ident] = n, n
	}
	t.found(n)
	if dir.children[name] != n {
		t.lose(dir, name)
		if dir.children == nil {
			dir.children = map[string]*node{}
		}
		dir.children[name] = n
		if n.attr.Mode&wire.TypeMask == wire.TypeFolder { // it has been moved
			for len(n.places) > 0 {
				t.detach(n.places[0].dir, n.places[0].name)
			}
			dir.children[name] = n
		}
		n.places = append(n.places, place{dir, name})
	}
	n.removed = false
	return n
}

// identify gives a node that was made here the identity that it has on the host.
func (t *table) identify(n *node, ident uint64) {
	if t.inos == nil || len(t.inos) > maxListed {
		t.inos = map[uint64]uint64{}
	}
	t.inos[ident] = n.attr.Ino
	n.ident = ident
	if t.nodes[n.id] == n {
		t.idents[ident] = n
	}
}

// inode is the number that programs know a file by.
func (t *table) inode(a *wire.Attr) uint64 {
	if ino, ok := t.inos[a.Ident]; ok {
		return ino
	}
	return a.Ino
}

// learn takes new attributes of a node. changed says that its contents are not what was known of them.
func (t *table) learn(n *node, a *wire.Attr) (changed bool) {
	old := n.attr
	n.attr, n.until = *a, t.valid(a)
	n.attr.Ino, n.attr.Mtime, n.attr.Ctime = t.inode(a), n.mtime.of(a.Mtime), n.ctime.of(a.Ctime)
	n.version++
	changed = old.Ident != 0 && (old.Mtime != a.Mtime || old.Size != a.Size)
	if changed {
		n.fetched = nil
	}
	if n.attr.Nlink > 1 || len(n.places) > 1 {
		t.spread(n)
	}
	return changed
}

// spread gives what is known of a file with several names to the listings that have the others: they would say otherwise that it has fewer, or more.
func (t *table) spread(n *node) {
	for _, p := range n.places {
		if i, ok := p.dir.list.find(p.name); ok && p.dir.list.entries[i].attr.Ident == n.ident {
			p.dir.list.entries[i].attr = n.attr
		}
	}
}

// detach takes a name away from what has it.
func (t *table) detach(dir *node, name string) *node {
	n := dir.children[name]
	if n == nil {
		return nil
	}
	delete(dir.children, name)
	n.places = slices.DeleteFunc(n.places, func(p place) bool { return p.dir == dir && p.name == name })
	return n
}

// lose takes a name away that has been found to be another file's, or none. Who watches the file is yet to be told of it.
func (t *table) lose(dir *node, name string) {
	n := t.detach(dir, name)
	if n == nil || len(n.places) > 0 || n.lookups == 0 || n.removed {
		return
	}
	n.lost = &place{dir, name}
	t.lost[*n.lost] = append(t.lost[*n.lost], n)
}

// found ends that a file has lost its name, because it has one, or because who watches it has been told.
func (t *table) found(n *node) {
	if n.lost == nil {
		return
	}
	p := *n.lost
	n.lost = nil
	if t.lost[p] = slices.DeleteFunc(t.lost[p], func(o *node) bool { return o == n }); len(t.lost[p]) == 0 {
		delete(t.lost, p)
	}
}

// lostAt are the files that lost a name.
func (t *table) lostAt(path string) []*node {
	if len(t.lost) == 0 {
		return nil
	}
	folder, name := pathParts(path)
	dir, _ := t.descend(t.root, folder)
	return t.lost[place{dir, name}]
}

// forget lowers a node's lookups, and says whether the kernel does not know it any more, in which case it is gone from the table.
func (t *table) forget(id, lookups uint64) (n *node, path string, gone bool) {
	n = t.nodes[id]
	if n == nil || n == t.root {
		return nil, "", false
	}
	if n.lookups -= min(lookups, n.lookups); n.lookups > 0 {
		return n, "", false
	}
	path, _ = t.pathOf(n)
	for _, p := range n.places {
		if i, ok := p.dir.list.find(p.name); ok && p.dir.list.entries[i].attr.Ident == n.ident {
			e := &p.dir.list.entries[i]
			e.attr, e.sub = n.attr, n.list // what is known lives on in the folder's listing
			if n.list != nil {
				e.self = n.attr
			}
			if n.until < p.dir.list.until && n.attr.Flags&wire.Watched == 0 {
				p.dir.list.until = n.until
			}
		}
		delete(p.dir.children, p.name)
	}
	for _, c := range n.children {
		c.places = slices.DeleteFunc(c.places, func(p place) bool { return p.dir == n })
	}
	t.found(n)
	delete(t.nodes, id)
	if t.idents[n.ident] == n {
		delete(t.idents, n.ident)
	}
	return n, path, true
}

// find is an entry's index.
func (l *listing) find(name string) (int, bool) {
	if l == nil {
		return 0, false
	}
	if l.byName == nil {
		l.byName = make(map[string]int, len(l.entries))
		for i := range l.entries {
			if !l.entries[i].gone {
				l.byName[l.entries[i].name] = i
			}
		}
	}
	i, ok := l.byName[name]
	return i, ok
}

// add puts a name into a listing, or replaces what is known of it.
func (l *listing) add(name string, a *wire.Attr) {
	if l == nil {
		return
	}
	if i, ok := l.find(name); ok {
		l.entries[i].attr, l.entries[i].sub = *a, nil
		return
	}
	l.byName[name] = len(l.entries)
	l.entries = append(l.entries, listed{name: name, attr: *a, cookie: l.next})
	l.next++
}

// remove takes a name out of a listing.
func (l *listing) remove(name string) {
	if i, ok := l.find(name); ok {
		l.entries[i].gone, l.entries[i].sub = true, nil
		delete(l.byName, name)
	}
}

// from is the index of the first entry after a cookie.
func (l *listing) from(cookie uint64) int {
	i, _ := slices.BinarySearchFunc(l.entries, cookie+1, func(e listed, c uint64) int { return cmp.Compare(e.cookie, c) })
	return i
}

// replace makes a listing of what came, keeping the cookies of an older one.
func (l *listing) replace(entries []wire.Entry, until time.Duration) *listing {
	n := &listing{until: until, next: firstCookie, entries: make([]listed, 0, len(entries))}
	if l != nil {
		n.next = l.next
	}
	sorted := true
	for i := range entries {
		e := listed{name: entries[i].Name, attr: entries[i].Attr}
		if at, ok := l.find(e.name); ok {
			e.cookie, sorted = l.entries[at].cookie, false
			if l.entries[at].attr.Ident == e.attr.Ident {
				e.sub, e.self = l.entries[at].sub, l.entries[at].self
			}
		} else {
			e.cookie = n.next
			n.next++
		}
		n.entries = append(n.entries, e)
	}
	if !sorted {
		slices.SortFunc(n.entries, func(a, b listed) int { return cmp.Compare(a.cookie, b.cookie) })
	}
	return n
}

// fresh says that a listing may be believed.
func (t *table) fresh(n *node) bool { return n.list != nil && t.now() < n.list.until }

// store keeps listings of a folder and of folders below it.
func (t *table) store(dir *node, all []wire.Listing) {
	var size int
	for i := range all {
		size += len(all[i].Entries)
	}
	if t.listed += size; t.listed > maxListed {
		t.dropListings()
		t.listed = size
	}
	for i := range all {
		t.storeOne(dir, &all[i])
	}
}

func (t *table) storeOne(dir *node, l *wire.Listing) {
	until := t.valid(&l.Folder)
	n, e := t.descend(dir, l.Path)
	switch {
	case n != nil:
		n.list = n.list.replace(l.Entries, until)
		t.learn(n, &l.Folder)
	case e != nil:
		e.sub, e.self = e.sub.replace(l.Entries, until), l.Folder
	}
}

// descend finds a path below a folder: a node, or an entry of a listing that has none.
func (t *table) descend(dir *node, path string) (*node, *listed) {
	if path == "" {
		return dir, nil
	}
	var e *listed
	list := dir.list
	for name := range strings.SplitSeq(path, "/") {
		if dir != nil {
			if c := dir.children[name]; c != nil {
				dir, e, list = c, nil, c.list
				continue
			}
		}
		i, ok := list.find(name)
		if !ok {
			return nil, nil
		}
		e, dir = &list.entries[i], nil
		list = e.sub
	}
	return dir, e
}

// dropListings forgets all of them: there are too many.
func (t *table) dropListings() {
	for _, n := range t.nodes {
		n.list = nil
	}
}
