// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package snapshots

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
)

// ChangeKind says how a file differs.
type ChangeKind string

// The kinds of changes.
const (
	Added    ChangeKind = "A"
	Deleted  ChangeKind = "D"
	Modified ChangeKind = "M"
)

// FileChange is a file that differs between two archives of a volume.
type FileChange struct {
	Kind ChangeKind `json:"kind"`
	// Path is in the volume, from /.
	Path string `json:"path"`
	// Before and After are sizes in bytes, of files that are there.
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// file is what is compared of a file in an archive.
type file struct {
	size int64
	sum  [sha256.Size]byte // of its content and all that makes it what it is, but for its time
}

// Diff compares two archives of a volume. Times do not count.
func Diff(before, after io.Reader) ([]FileChange, error) {
	old, err := files(before)
	if err != nil {
		return nil, err
	}
	now, err := files(after)
	if err != nil {
		return nil, err
	}
	changes := []FileChange{}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		switch f, ok := now[name]; {
		case !ok:
			changes = append(changes, FileChange{Kind: Deleted, Path: name, Before: old[name].size})
		case f.sum != old[name].sum:
			changes = append(changes, FileChange{Kind: Modified, Path: name, Before: old[name].size, After: f.size})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, ok := old[name]; !ok {
			changes = append(changes, FileChange{Kind: Added, Path: name, After: now[name].size})
		}
	}
	slices.SortFunc(changes, func(a, b FileChange) int { return cmp.Compare(a.Path, b.Path) })
	return changes, nil
}

// files lists an archive by the paths in the volume.
func files(archive io.Reader) (map[string]file, error) {
	found := map[string]file{}
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, archive) // what follows the archive is part of what is checked
			return found, err
		}
		if err != nil {
			return nil, fmt.Errorf("read a volume's archive: %w", err)
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "%c %o %d %d %q %d %d\n", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor)
		if _, err := io.Copy(sum, r); err != nil {
			return nil, fmt.Errorf("read a volume's archive: %w", err)
		}
		found[inVolume(h.Name)] = file{size: h.Size, sum: [sha256.Size]byte(sum.Sum(nil))}
	}
}

// inVolume takes the folder that stands for the volume off a name.
func inVolume(name string) string {
	clean := path.Clean("/" + name)
	for i, r := range clean[1:] {
		if r == '/' {
			return clean[1+i:]
		}
	}
	return "/"
}
