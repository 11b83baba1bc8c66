// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package share

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed71221737/dev/vmimage/guest/share/wire"
)

// stableIdentity: a file keeps its identity when it is renamed.
const stableIdentity = true

// nameAllowed: this system takes all names that are UTF-8, and says so itself.
func nameAllowed(string) bool { return true }

func slashed(path string) string { return path }

// systemAttr adds what this system says of a file. Its users and groups mean nothing to the machine, where all is root's until somebody changes that.
func systemAttr(_ string, info fs.FileInfo, a *wire.Attr) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		a.Ident = 1
		return
	}
	a.Ino, a.Blocks, a.Nlink, a.Rdev = st.Ino, uint64(st.Blocks), uint32(st.Nlink), uint32(st.Rdev)
	a.Atime, a.Ctime = syscall.TimespecToNsec(st.Atimespec), syscall.TimespecToNsec(st.Ctimespec)
	a.Ident = identity(uint64(st.Dev), st.Ino, uint64(syscall.TimespecToNsec(st.Birthtimespec)))
}

// systemErrno translates this system's numbers to Linux's.
func systemErrno(err error) uint16 {
	for _, e := range []struct {
		here  unix.Errno
		there uint16
	}{
		{unix.ENOTEMPTY, wire.ENOTEMPTY}, {unix.ENOTDIR, wire.ENOTDIR}, {unix.EISDIR, wire.EISDIR}, {unix.EINVAL, wire.EINVAL}, {unix.ENOSPC, wire.ENOSPC},
		{unix.EDQUOT, wire.EDQUOT}, {unix.EXDEV, wire.EXDEV}, {unix.EROFS, wire.EROFS}, {unix.ELOOP, wire.ELOOP}, {unix.ENAMETOOLONG, wire.ENAMETOOLONG},
		{unix.EFBIG, wire.EFBIG}, {unix.EMLINK, wire.EMLINK}, {unix.EILSEQ, wire.EINVAL}, {unix.EPERM, wire.EPERM}, {unix.ESTALE, wire.ESTALE}, {unix.ETXTBSY, wire.ETXTBSY},
	} {
		if errors.Is(err, e.here) {
			return e.there
		}
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
