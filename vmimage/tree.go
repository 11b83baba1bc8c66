// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package vmimage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// node is one file of an image being built.
type node struct {
	mode     fs.FileMode // type and permission bits
	uid, gid int
	link     string // a symbolic link's target
	off, n   int64  // where in the spool a regular file's contents lie
}

// tree is a file system in the making: names in memory, contents in a spool file, so that a build needs little memory. Paths are relative,
// slash-separated and clean. Not safe for concurrent use.
type tree struct {
	spool *os.File
	end   int64
	nodes map[string]*node
}

// newTree makes an empty tree with its spool in dir; close it after use.
func newTree(dir string) (*tree, error) {
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, fmt.Errorf("make spool file: %w", err)
	}
	return &tree{spool: f, nodes: map[string]*node{}}, nil
}

// close removes the spool.
func (t *tree) close() error {
	return errors.Join(t.spool.Close(), os.Remove(t.spool.Name()))
}

// merged are the folders that Debian has moved below usr; packages may still name the old place.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// place maps a path to where it lies once the old places are links.
func place(p string) string {
	first, _, _ := strings.Cut(p, "/")
	if slices.Contains(merged, first) {
		return "usr/" + p
	}
	return p
}

// put adds a node and the folders above it. A later node replaces an earlier one; a folder never replaces a link to one.
func (t *tree) put(p string, n *node) error {
	p = place(p)
	if err := t.parents(p); err != nil {
		return err
	}
	if old := t.nodes[p]; old != nil && old.mode.IsDir() {
		if n.mode.IsDir() {
			return nil // the first package's mode stands
		}
		return fmt.Errorf("%q is a folder in one package and a file in another", p)
	} else if old != nil && n.mode.IsDir() {
		return fmt.Errorf("%q is a file in one package and a folder in another", p)
	}
	t.nodes[p] = n
	return nil
}

func (t *tree) parents(p string) error {
	dir := path.Dir(p)
	if dir == "." {
		return nil
	}
	if old := t.nodes[dir]; old != nil {
		if !old.mode.IsDir() {
			return fmt.Errorf("%q lies below %q, which is not a folder", p, dir)
		}
		return nil
	}
	if err := t.parents(dir); err != nil {
		return err
	}
	t.nodes[dir] = &node{mode: fs.ModeDir | 0o755}
	return nil
}

// write adds a regular file; the reader must give exactly size bytes.
func (t *tree) write(p string, mode fs.FileMode, uid, gid int, r io.Reader, size int64) error {
	n, err := io.Copy(io.NewOffsetWriter(t.spool, t.end), io.LimitReader(r, size+1))
	if err != nil {
		return fmt.Errorf("write %q: %w", p, err)
	}
	if n != size {
		return fmt.Errorf("write %q: got %d bytes, expected %d", p, n, size)
	}
	off := t.end
	t.end += n
	return t.put(p, &node{mode: mode, uid: uid, gid: gid, off: off, n: n})
}

// text adds a small file of root's.
func (t *tree) text(p string, mode fs.FileMode, content string) error {
	return t.write(p, mode, 0, 0, strings.NewReader(content), int64(len(content)))
}

// read returns a small regular file's contents.
func (t *tree) read(p string) ([]byte, error) {
	n := t.nodes[p]
	if n == nil || !n.mode.IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	}
	data := make([]byte, n.n)
	_, err := t.spool.ReadAt(data, n.off)
	return data, err
}

// open reads a regular node.
func (t *tree) open(n *node) io.Reader { return io.NewSectionReader(t.spool, n.off, n.n) }

// paths lists all paths so that a folder comes before what is in it.
func (t *tree) paths() []string { return slices.Sorted(maps.Keys(t.nodes)) }

// glob lists the paths that have a prefix and a suffix, sorted.
func (t *tree) glob(prefix, suffix string) []string {
	var found []string
	for p := range t.nodes {
		if strings.HasPrefix(p, prefix) && strings.HasSuffix(p, suffix) {
			found = append(found, p)
		}
	}
	slices.Sort(found)
	return found
}
