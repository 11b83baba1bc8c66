// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

//go:build osroot

package share

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// What the tree of other systems needs, for its tests on this one.

const stableIdentity = true

func nameAllowed(string) bool { return true }

func slashed(path string) string { return path }

func systemAttr(_ string, info fs.FileInfo, a *wire.Attr) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		a.Ident = 1
		return
	}
	a.Ino, a.Blocks, a.Nlink, a.Rdev = st.Ino, uint64(st.Blocks), uint32(st.Nlink), uint32(st.Rdev)
	a.Atime, a.Ctime = syscall.TimespecToNsec(st.Atim), syscall.TimespecToNsec(st.Ctim)
	a.Ident = identity(st.Dev, st.Ino, 0)
}

func systemErrno(err error) uint16 {
	var e unix.Errno
	if errors.As(err, &e) && e != 0 {
		return uint16(e)
	}
	return wire.EIO
}

func systemStatfs(root *os.Root) (s wire.Statfs, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root.Name(), &st); err != nil {
		return s, err
	}
	return wire.Statfs{Bsize: uint64(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Available: st.Bavail, Files: st.Files, FilesFree: st.Ffree, NameLen: wire.MaxName}, nil
}
