// Copyright the dev authors. SPDX-License-Identifier: Apache-2.0

package fileevents

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func stampOf(info fs.FileInfo) Stamp {
	s := Stamp{Mode: info.Mode(), Size: info.Size(), Modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Inode, s.UID, s.GID, s.Changed = st.Ino, st.Uid, st.Gid, time.Unix(st.Ctimespec.Unix())
	}
	return s
}

// born is when a file was made; zero where that is not known.
func born(_ string, info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Birthtimespec.Unix())
	}
	return time.Time{}
}

// remote reports whether others may change a folder without this system noticing: it is on another computer.
func remote(root *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(root.Fd()), &st) == nil && st.Flags&unix.MNT_LOCAL == 0
}
