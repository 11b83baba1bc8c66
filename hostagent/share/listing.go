// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"errors"
	"io"
	"os"
	"slices"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

const (
	// listingFrame is about how many bytes one response to OpReaddir has.
	listingFrame = 256 << 10
	// subtreeEntries bounds the entries of sub-folders that are given unasked.
	subtreeEntries = 512
	// pageNames is how many names of a folder are read, sorted and sent at a time.
	pageNames = 4096
)

// pages reads the names in an open folder: all that a page has are sorted, as shells sort them, so that what is read next can be guessed. A limit of 0 is none.
func pages(folder *os.File, limit int, each func(name string)) error {
	size := pageNames
	if limit > 0 {
		size = limit + 1
	}
	for {
		names, err := folder.Readdirnames(size)
		if limit > 0 && len(names) > limit {
			return errTooLarge
		}
		slices.Sort(names)
		for _, name := range names {
			each(name)
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readdir sends a folder's contents, and some of its sub-folders' where these are welcome.
func (t *tree) readdir(r *wire.Request, send func(*wire.Response)) {
	l := &lister{tree: t, id: r.ID, send: send}
	folders, err := l.folder(r.Path, "", 0)
	if err != nil {
		send(&wire.Response{ID: r.ID, Errno: errno(err)})
		return
	}
	for left := subtreeEntries; r.Flags&wire.FlagSubtree != 0 && len(folders) > 0 && left > 0; folders = folders[1:] {
		before := l.sent
		more, err := l.folder(join(r.Path, folders[0]), folders[0], left)
		if err == nil && len(folders) < 2*subtreeEntries {
			folders = append(folders, more...)
		}
		left -= l.sent - before + 1
	}
	send(&wire.Response{ID: r.ID, Data: l.data})
}

// lister collects listings and sends them when they are large.
type lister struct {
	tree *tree
	id   uint64
	send func(*wire.Response)
	data []byte
	sent int // entries so far
}

// errTooLarge says that a folder has more entries than are wanted.
var errTooLarge = errors.New("the folder is too large")

// folder lists one folder and returns the paths of its sub-folders. A limit of 0 is none.
func (l *lister) folder(path, name string, limit int) ([]string, error) {
	watched := l.tree.watch(path)
	var folders []string
	part := wire.Listing{Path: name}
	err := l.tree.entries(path, watched, limit, func(self wire.Attr) {
		part.Folder = self
		if watched {
			part.Folder.Flags |= wire.Watched
		}
	}, func(e wire.Entry) {
		l.sent++
		if e.Attr.Mode&wire.TypeMask == wire.TypeFolder && len(folders) < subtreeEntries {
			folders = append(folders, join(name, e.Name))
		}
		part.Entries = append(part.Entries, e)
		if len(part.Entries)*(wire.AttrSize+24)+len(l.data) > listingFrame {
			part.Part = true
			l.flush(&part)
			part.Part, part.Entries = false, part.Entries[:0]
		}
	})
	if err != nil {
		return nil, err
	}
	l.data = part.Append(l.data)
	return folders, nil
}

// flush sends what there is.
func (l *lister) flush(part *wire.Listing) {
	l.send(&wire.Response{ID: l.id, More: true, Data: part.Append(l.data)})
	l.data = nil
}

// identity is a number for a file that no other one has, unless it has the same number, device and time of birth.
func identity(dev, ino, born uint64) uint64 {
	h := ino*0x9e3779b97f4a7c15 ^ dev*0xc2b2ae3d27d4eb4f ^ born*0x165667b19e3779f9
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	if h == 0 {
		h = 1
	}
	return h
}
