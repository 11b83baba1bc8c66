// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// comparison finds out whether two trees hold the same: names, kinds, owners, permissions, times, extended attributes, links and contents.
type comparison struct {
	files, bytes int64
	inodes       map[uint64]uint64 // of files with several names, by the original's
	said         func(files, bytes int64)
}

// saidEvery is after how many bytes progress is told of.
const saidEvery = 1 << 30

// compareTrees returns how many files and bytes are the same in both trees, or the first difference.
func compareTrees(ctx context.Context, original, other string, said func(files, bytes int64)) (files, bytes int64, err error) {
	c := &comparison{inodes: map[uint64]uint64{}, said: said}
	err = c.compare(ctx, original, other)
	return c.files, c.bytes, err
}

func (c *comparison) compare(ctx context.Context, a, b string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var sa, sb unix.Stat_t
	if err := errors.Join(unix.Lstat(a, &sa), unix.Lstat(b, &sb)); err != nil {
		return fmt.Errorf("compare %q: %w", a, err)
	}
	if what := difference(sa, sb); what != "" {
		return fmt.Errorf("compare %q: its %s differs", a, what)
	}
	if err := c.sameLinks(a, sa, sb); err != nil {
		return err
	}
	if err := sameAttributes(a, b); err != nil {
		return err
	}
	c.files++
	switch sa.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.folder(ctx, a, b)
	case unix.S_IFLNK:
		ta, err1 := os.Readlink(a)
		tb, err2 := os.Readlink(b)
		if err := errors.Join(err1, err2); err != nil || ta != tb {
			return fmt.Errorf("compare %q: its target differs (%w)", a, err)
		}
	case unix.S_IFREG:
		return c.contents(ctx, a, b)
	}
	return nil
}

// difference names what differs between two files, as far as their inodes tell.
func difference(a, b unix.Stat_t) string {
	isDir := a.Mode&unix.S_IFMT == unix.S_IFDIR // whose size is the file system's affair
	switch {
	case a.Mode != b.Mode:
		return "kind or permissions"
	case a.Uid != b.Uid || a.Gid != b.Gid:
		return "owner"
	case a.Nlink != b.Nlink:
		return "number of names"
	case a.Mtim != b.Mtim:
		return "time"
	case a.Rdev != b.Rdev:
		return "device"
	case a.Size != b.Size && !isDir:
		return "size"
	}
	return ""
}

// sameLinks sees to it that names of one file are names of one file in the other tree.
func (c *comparison) sameLinks(name string, a, b unix.Stat_t) error {
	if a.Nlink < 2 || a.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if there, ok := c.inodes[a.Ino]; ok && there != b.Ino {
		return fmt.Errorf("compare %q: its names differ", name)
	}
	c.inodes[a.Ino] = b.Ino
	return nil
}

func sameAttributes(a, b string) error {
	x, err1 := attributes(a)
	y, err2 := attributes(b)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("compare %q: %w", a, err)
	}
	if x != y {
		return fmt.Errorf("compare %q: its extended attributes differ", a)
	}
	return nil
}

// attributes are a file's extended attributes as one text.
func attributes(name string) (string, error) {
	n, err := unix.Llistxattr(name, nil)
	if err != nil || n == 0 {
		return "", noAttributes(err)
	}
	list := make([]byte, n)
	if n, err = unix.Llistxattr(name, list); err != nil {
		return "", err
	}
	names := strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var all strings.Builder
	for _, key := range names {
		size, err := unix.Lgetxattr(name, key, nil)
		if err != nil {
			return "", err
		}
		value := make([]byte, size)
		if size, err = unix.Lgetxattr(name, key, value); err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%q=%q\n", key, value[:size])
	}
	return all.String(), nil
}

// noAttributes: a file system without them is no error.
func noAttributes(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (c *comparison) folder(ctx context.Context, a, b string) error {
	list, err1 := os.ReadDir(a)
	other, err2 := os.ReadDir(b)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("compare %q: %w", a, err)
	}
	if len(list) != len(other) {
		return fmt.Errorf("compare %q: it has %d entries and %d", a, len(list), len(other))
	}
	for i, e := range list {
		if e.Name() != other[i].Name() {
			return fmt.Errorf("compare %q: %q is missing", a, e.Name())
		}
		if err := c.compare(ctx, filepath.Join(a, e.Name()), filepath.Join(b, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) contents(ctx context.Context, a, b string) error {
	x, err := os.Open(a)
	if err != nil {
		return fmt.Errorf("compare %q: %w", a, err)
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return fmt.Errorf("compare %q: %w", a, err)
	}
	defer y.Close()
	bufX, bufY := make([]byte, 256<<10), make([]byte, 256<<10)
	for ctx.Err() == nil {
		n, err1 := io.ReadFull(x, bufX)
		m, err2 := io.ReadFull(y, bufY)
		if n != m || !bytes.Equal(bufX[:n], bufY[:m]) {
			return fmt.Errorf("compare %q: its contents differ", a)
		}
		before := c.bytes / saidEvery
		if c.bytes += int64(n); c.bytes/saidEvery != before && c.said != nil {
			c.said(c.files, c.bytes)
		}
		if isEnd(err1) && isEnd(err2) {
			return nil
		}
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("compare %q: %w", a, err)
		}
	}
	return ctx.Err()
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// copyFolderTimes gives the folders of a tree the times of those in another one.
func copyFolderTimes(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil || !d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return fmt.Errorf("look at %q: %w", name, err)
		}
		same := to + strings.TrimPrefix(name, from)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, same, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give %q its time: %w", same, err)
		}
		return nil
	})
}
