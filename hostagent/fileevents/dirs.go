// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import "strings"

// dirs is the set of folders that are watched, as a tree, so that moving or dropping one with all below it costs what is below it. It is not safe for
// concurrent use.
type dirs struct {
	root    *dir
	handles map[int32]*dir
	count   int
}

type dir struct {
	name    string
	parent  *dir
	kids    map[string]*dir
	watched bool
	handle  int32
}

func newDirs() *dirs { return &dirs{root: &dir{}, handles: map[int32]*dir{}} }

// find returns a folder's node, nil if there is none.
func (t *dirs) find(path string) *dir {
	d := t.root
	for name := range names(path) {
		if d = d.kids[name]; d == nil {
			return nil
		}
	}
	return d
}

// names yields the parts of a path.
func names(path string) func(func(string) bool) {
	return func(yield func(string) bool) {
		if path == "" {
			return
		}
		for name := range strings.SplitSeq(path, "/") {
			if !yield(name) {
				return
			}
		}
	}
}

// has reports whether a folder is watched.
func (t *dirs) has(path string) bool {
	d := t.find(path)
	return d != nil && d.watched
}

// add puts a folder into the set. A handle that another path had is this one's from now on.
func (t *dirs) add(path string, handle int32) {
	d := t.make(path)
	if !d.watched {
		t.count++
	}
	d.watched = true
	if handle == 0 {
		return
	}
	if old := t.handles[handle]; old != nil && old != d {
		t.unwatch(old)
	}
	if d.handle != 0 && d.handle != handle {
		delete(t.handles, d.handle)
	}
	d.handle = handle
	t.handles[handle] = d
}

// make finds a folder's node, or makes it.
func (t *dirs) make(path string) *dir {
	d := t.root
	for name := range names(path) {
		if d.kids[name] == nil {
			d.put(name, &dir{})
		}
		d = d.kids[name]
	}
	return d
}

// unwatch takes one folder out, not those below it, and returns its handle.
func (t *dirs) unwatch(d *dir) int32 {
	handle := d.handle
	if d.watched {
		t.count--
	}
	if handle != 0 {
		delete(t.handles, handle)
	}
	d.watched, d.handle = false, 0
	t.prune(d)
	return handle
}

// prune removes nodes that serve nothing, from one upwards.
func (t *dirs) prune(d *dir) {
	for ; d.parent != nil && !d.watched && len(d.kids) == 0; d = d.parent {
		if d.parent.kids[d.name] == d {
			delete(d.parent.kids, d.name)
		}
	}
}

// ended notes that the system watches a handle no more.
func (t *dirs) ended(handle int32) {
	if d := t.handles[handle]; d != nil {
		t.unwatch(d)
	}
}

// drop takes a folder and all below it out of the set and returns their handles.
func (t *dirs) drop(path string) []int32 {
	d := t.find(path)
	if d == nil {
		return nil
	}
	var handles []int32
	for _, sub := range d.all(nil) {
		if sub.watched {
			if h := t.unwatch(sub); h != 0 {
				handles = append(handles, h)
			}
		}
	}
	return handles
}

// all lists a node and all below it.
func (d *dir) all(list []*dir) []*dir {
	list = append(list, d)
	for _, kid := range d.kids {
		list = kid.all(list)
	}
	return list
}

// move gives a folder and all below it another place. What had that place is out of the set; the handles of it are returned.
func (t *dirs) move(from, to string) []int32 {
	d := t.find(from)
	if d == nil || d == t.root || from == to || strings.HasPrefix(to, from+"/") {
		return nil
	}
	var handles []int32
	if there := t.find(to); there != nil && there.watched && !d.watched {
		d.giveTo(there) // it was added under its new name before we heard of the move
	} else {
		handles = t.drop(to)
		parentPath, base := split(to)
		parent := t.make(parentPath)
		delete(d.parent.kids, d.name)
		old := d.parent
		parent.put(base, d)
		d = old
	}
	t.prune(d)
	return handles
}

// giveTo moves what is below a folder to another, which keeps what it has.
func (d *dir) giveTo(other *dir) {
	for name, kid := range d.kids {
		if other.kids[name] == nil {
			delete(d.kids, name)
			other.put(name, kid)
		}
	}
}

func (d *dir) put(name string, kid *dir) {
	if d.kids == nil {
		d.kids = map[string]*dir{}
	}
	kid.name, kid.parent = name, d
	d.kids[name] = kid
}

// path is where a handle's folder is.
func (t *dirs) path(handle int32) (string, bool) {
	d := t.handles[handle]
	if d == nil {
		return "", false
	}
	return d.path(), true
}

// handle returns a folder's handle, 0 if it has none.
func (t *dirs) handle(path string) int32 {
	if d := t.find(path); d != nil {
		return d.handle
	}
	return 0
}

func (d *dir) path() string {
	if d.parent == nil {
		return ""
	}
	n := -1
	for a := d; a.parent != nil; a = a.parent {
		n += len(a.name) + 1
	}
	b := make([]byte, n)
	for a := d; a.parent != nil; a = a.parent {
		n -= len(a.name)
		copy(b[n:], a.name)
		if n > 0 {
			n--
			b[n] = '/'
		}
	}
	return string(b)
}

// list returns the paths of all folders, each before those below it.
func (t *dirs) list() []string {
	paths := make([]string, 0, t.count)
	for _, d := range t.root.all(nil) {
		if d.watched {
			paths = append(paths, d.path())
		}
	}
	return paths
}

// split parts a path into its folder and its last name.
func split(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// join puts a name behind a folder's path.
func join(folder, name string) string {
	switch {
	case folder == "":
		return name
	case name == "":
		return folder
	}
	return folder + "/" + name
}
